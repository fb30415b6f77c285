"""Plain scripts for kills.

Their output is deterministic, and a ledger outside the runtime records what ran.
"""
