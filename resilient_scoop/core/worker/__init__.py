"""The machine of a worker."""
