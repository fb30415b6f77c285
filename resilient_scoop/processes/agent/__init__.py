"""The agent of a host: starts the processes of that host and reports their deaths."""
