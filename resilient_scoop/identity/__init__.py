"""Is it the same call, and the same code? Digests, fingerprints and what a callable refers to."""
