"""Places: where agents of a run can be started, and what became of them."""
