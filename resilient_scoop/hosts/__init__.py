"""Places: where agents of a run can be started, and whether they run."""
