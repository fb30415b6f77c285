"""The places of a run: starts agents on other hosts, and reports whether they run."""
