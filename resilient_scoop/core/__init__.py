"""The machines that decide: pure, without I/O, clock or random numbers."""
