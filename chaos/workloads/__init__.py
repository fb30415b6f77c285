"""Plain scripts to be killed: deterministic output, and a ledger outside the system of what ran."""
