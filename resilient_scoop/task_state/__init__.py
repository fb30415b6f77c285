"""State of the whole process that each task has as its own: random streams, settings, locks."""
