"""The durable state of a run, and the fold that changes it by records."""
