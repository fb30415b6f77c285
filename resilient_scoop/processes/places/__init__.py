"""The places of a run: starts agents on other hosts, and says what became of them."""
