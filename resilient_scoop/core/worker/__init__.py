"""The machine of a worker: what it holds, what it runs next, and what it reports."""
