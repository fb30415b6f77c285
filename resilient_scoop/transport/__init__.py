"""Connections between processes of a run: ZeroMQ sockets, keys and tickets, files of another host."""
