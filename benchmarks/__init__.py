"""Benchmarks: what the runtime costs, beside its peers, in one run; see README.md."""
