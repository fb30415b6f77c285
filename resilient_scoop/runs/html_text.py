"""A table for notebooks: plain HTML, everything escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def table(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values; rows without a value are left out."""
    cell = "<t{0} style='text-align:left'>{1}</t{0}>"
    lines = [
        f"<tr>{cell.format('h', html.escape(name))}{cell.format('d', html.escape(str(value)))}</tr>"
        for name, value in rows
        if value not in (None, "")
    ]
    return f"<table>{''.join(lines)}</table>"


def future(path: str, function: str, state: str, error: BaseException | None) -> str:
    """Return a table about a future."""
    what = None if error is None else f"{type(error).__name__}: {error}"
    return table([("future", path), ("function", function), ("state", state), ("error", what)])
