"""Numbers with units and nouns, for all messages to users."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """Return a number with its noun: `1 item`, `3 items`; `more` is the plural."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def sized(count: int) -> str:
    """Return a number of bytes for display."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - the step of these units
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"  # noqa: PLR2004 - three digits are enough
        amount /= 1000
    return f"{amount:.1f} TB"
