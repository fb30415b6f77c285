"""ZeroMQ sockets."""
