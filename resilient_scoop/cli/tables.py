"""Tables of text that fit the terminal: long cells are cut, and columns left out if it is narrow."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

GAP: Final = "  "
_CELL_MIN: Final = 8
_INDENT: Final = 12
"""Column at which the values of `status` begin."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; the one with the highest `rank` is left out first, 0 never."""

    title: str
    rank: int = 0
    is_right: bool = False  # numbers
    is_cut: bool = False  # may be cut with an ellipsis


def width_here() -> int | None:
    """Return the width of the terminal; None if standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def folded(text: str, indent: int = _INDENT) -> list[str]:
    """Return lines that fit the terminal: longer ones continue in the next line, under their value."""
    width = width_here()
    lines = text.split("\n")
    if width is None:
        return lines
    return [part for line in lines for part in _fold(line, width, indent)]


def _fold(line: str, width: int, indent: int) -> list[str]:
    if len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True,
    )  # fmt: skip


def fit(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> tuple[list[int], list[list[str]]]:
    """Return which columns are shown, and all lines as padded cells, the titles first."""
    table = [[column.title for column in columns], *map(list, rows)]
    widths = [max(len(line[at]) for line in table) for at in range(len(columns))]
    visible = list(range(len(columns)))
    while width is not None and _least(columns, widths, visible) > width:
        last = max(visible, key=lambda at: columns[at].rank)
        if columns[last].rank == 0:
            break
        visible.remove(last)
    spare = sum(widths[at] for at in visible) + len(GAP) * (len(visible) - 1) - (width or 0)
    for at in sorted(visible, key=lambda at: -widths[at]):
        if width is not None and columns[at].is_cut and spare > 0:
            cut = min(spare, max(0, widths[at] - _CELL_MIN))
            widths[at] -= cut
            spare -= cut
    return visible, [[_cell(line[at], widths[at], columns[at]) for at in visible] for line in table]


def _least(columns: Sequence[Column], widths: Sequence[int], visible: Sequence[int]) -> int:
    cells = [min(widths[at], _CELL_MIN) if columns[at].is_cut else widths[at] for at in visible]
    return sum(cells) + len(GAP) * (len(visible) - 1)


def _cell(text: str, width: int, column: Column) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if column.is_right else text.ljust(width)
