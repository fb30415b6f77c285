"""A parent's replay: its calls, observations and checkpoints."""
