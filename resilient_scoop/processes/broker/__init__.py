"""The broker's process: its loop, the journal's disk."""
