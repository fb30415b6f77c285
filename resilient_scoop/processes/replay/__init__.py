"""A parent that is replayed on its own, to find out where it differs."""
