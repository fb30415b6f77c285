"""The parts of the broker's machine: facts, processes and hosts, leases and scheduling, checkpoints."""
