"""When a commit is due.

"auto" follows Young (1974) and Daly (2006): a checkpoint of cost C every sqrt(2 C M) seconds loses
least, where failures come every M seconds; and never more often than every 100 C, so that at most
1 % of the time goes into it.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from resilient_scoop.errors import UsageError

FAILURE_S: Final = 6 * 3600.0
"""Assumed mean time between failures, for a workstation in use."""
SHARE: Final = 0.01


class Pace:
    """Decides which commits of one block are written; times are monotonic."""

    def __init__(self) -> None:
        self.last_at: float | None = None  # when the last commit was written
        self.cost_s = 0.0

    def is_due(self, every_s: float | Literal["auto"] | None, now: float) -> bool:
        """Return whether a commit is to be written; the first one is, so that errors show early."""
        if isinstance(every_s, str):
            if every_s != "auto":
                raise UsageError(f'every_s={every_s!r} must be a number of seconds, "auto" or None')
            every_s = self.interval_s()
        elif every_s is not None and not every_s >= 0:
            raise UsageError(f"every_s={every_s!r} must be a number of seconds from 0")
        return every_s is None or self.last_at is None or now - self.last_at >= every_s

    def interval_s(self) -> float:
        """Return the interval of "auto"."""
        return max(self.cost_s / SHARE, math.sqrt(2 * self.cost_s * FAILURE_S))

    def wrote(self, began: float, now: float) -> None:
        """Record the cost of a checkpoint."""
        cost_s = now - began
        self.cost_s = cost_s if self.last_at is None else max(cost_s, (self.cost_s + cost_s) / 2)
        self.last_at = now
