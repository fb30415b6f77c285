"""Figures of all rounds, their medians, and the table that compares them with the goals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.goals import ROWS, Goal, Row
from benchmarks.measures import Measured

_TITLE_WIDTH: Final = 38
_WIDTH: Final = 10


@dataclass(slots=True)
class Results:
    """What was measured: for each peer and key (`case.figure`) one value per round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    # messages of our runs; nothing was killed, so there should be none
    notes: list[str] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)  # case -> share of the machine
    facts: dict[str, str] = field(default_factory=dict)
    quick: bool = False  # a part of the full work: figures that depend on the amount are not judged

    def add(self, peer: str, case: str, measured: Measured) -> None:
        """Add one measurement."""
        for name, value in measured.items():
            self.values.setdefault(peer, {}).setdefault(f"{case}.{name}", []).append(value)

    def median(self, peer: str, key: str) -> float:
        """Return a median; KeyError if it was not measured."""
        return statistics.median(self.values[peer][key])

    def save(self, path: Path) -> None:
        """Write everything, medians and verdicts included, as one JSON object."""
        medians = {
            peer: {key: statistics.median(found) for key, found in measured.items()}
            for peer, measured in self.values.items()
        }
        whole = {
            "facts": self.facts,
            "medians": medians,
            "values": self.values,
            "verdicts": {
                f"{row.key}: {goal.text}": self.is_met(row, goal) for row, goal in goals()
            },
            "others_share_of_cores": self.others,
            "failures": self.failures,
            "notes": self.notes,
        }
        path.write_text(json.dumps(whole, indent=1) + "\n")

    def is_met(self, row: Row, goal: Goal) -> bool | None:
        """Return whether our median meets a goal; None if a figure for that was not measured."""
        if self.quick and row.sized:
            return None
        try:
            mine, limit = self.median("ours", row.key), goal.limit(self.median)
        except KeyError:
            return None
        return mine >= limit if row.at_least else mine <= limit

    def lines(self, peers: list[str]) -> Iterator[str]:
        """Yield the table: ours with its range and verdict, then the peers and our ratio to PPE."""
        shown = [peer for peer in peers if peer != "ours"]
        head = "".join(f"{peer:>{_WIDTH}}" for peer in shown)
        yield f"{'':{_TITLE_WIDTH}}{'ours':>{_WIDTH}} {'(range)':<21}{'goal':<32}{head}"
        for row in ROWS:
            if any(row.key in measured for measured in self.values.values()):
                yield self._line(row, shown)
        for failure in self.failures:
            yield f"failed: {failure}"
        for note in self.notes:
            yield f"unexpected message: {note}"
        shares = [share for found in self.others.values() for share in found]
        if shares:
            yield (
                f"Others had {statistics.median(shares):.0%} of the cores (median of all "
                f"measurements; at most {max(shares):.0%}); /ppe is better where it is over 1."
            )

    def _line(self, row: Row, shown: list[str]) -> str:
        mine = self.values.get("ours", {}).get(row.key)
        found = f"({min(mine):,.{row.digits}f} - {max(mine):,.{row.digits}f})" if mine else ""
        cells = "".join(f"{self._cell(row, peer):>{_WIDTH}}" for peer in shown)
        ratio = self._ratio(row)
        return (
            f"{row.title:{_TITLE_WIDTH}}{self._cell(row, 'ours'):>{_WIDTH}} {found:<21}"
            f"{self._verdicts(row):<32}{cells}{ratio}"
        )

    def _cell(self, row: Row, peer: str) -> str:
        try:
            return f"{self.median(peer, row.key):,.{row.digits}f}"
        except KeyError:
            return "-"

    def _ratio(self, row: Row) -> str:
        try:
            mine, theirs = self.median("ours", row.key), self.median("ppe", row.key)
            return f"   {mine / theirs if row.at_least else theirs / mine:.2f}/ppe"
        except (KeyError, ZeroDivisionError):
            return ""

    def _verdicts(self, row: Row) -> str:
        sign = ">=" if row.at_least else "<="
        verdicts = []
        for goal in row.goals:
            met = self.is_met(row, goal)
            if met is not None:
                exact = (
                    ""
                    if goal.text[-1].isdigit() and " " not in goal.text
                    else self._exact(row, goal)
                )
                verdicts.append(f"{sign} {goal.text}{exact} {'met' if met else 'NOT'}")
        return "; ".join(verdicts)

    def _exact(self, row: Row, goal: Goal) -> str:
        return f" = {goal.limit(self.median):,.{row.digits}f}"


def goals() -> Iterator[tuple[Row, Goal]]:
    """Yield all goals."""
    for row in ROWS:
        for goal in row.goals:
            yield row, goal
