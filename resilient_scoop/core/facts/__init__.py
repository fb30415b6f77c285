"""The durable state of a run, and how records change it."""
