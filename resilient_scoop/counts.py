"""Numbers of things in words, for eyes: one helper for all that users read."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """Return a number with its noun: `1 item`, `3 items`; `more` is the noun behind other numbers."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
