"""The state of a checkpoint as bytes, and its migration to changed classes."""
