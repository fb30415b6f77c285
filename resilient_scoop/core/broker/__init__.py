"""The parts of the broker: what is durable, who is there, who gets what."""
