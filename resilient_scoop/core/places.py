"""The machine of a run's places: how many agents are wanted where, and what became of them."""
