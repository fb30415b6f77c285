"""The agent of a host: starts the processes of that host and learns of their deaths."""
