"""What decides: pure machines, without I/O, clock or chance."""
