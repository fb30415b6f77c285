"""The launcher: starts the processes of a run, shows its output and ends it."""
