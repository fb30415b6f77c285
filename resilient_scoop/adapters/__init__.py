"""The outside world: one home for each library and system call."""
