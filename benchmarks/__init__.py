"""Benchmarks: the costs of this runtime and of its peers, measured in one session; see README.md."""
