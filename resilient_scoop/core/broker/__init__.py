"""The parts of the broker's machine: durable facts, peers, scheduling."""
