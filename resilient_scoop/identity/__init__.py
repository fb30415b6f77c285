"""Identity of calls and code: digests, fingerprints, and what a callable refers to."""
