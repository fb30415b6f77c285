"""Measures from the ledger how long a run took to recover from a fault.

There are two times. Work: from the fault until the last item that it interrupted was started again.
Host: from the end of the fault until its host started an item again. A fault that interrupted
nothing, or a host that was no longer needed, has no such time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.checker import above_of
from chaos.evidence import LedgerLine
from chaos.loops import percentile


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery times of a fault."""

    kind: str
    work_s: float | None
    host_s: float | None


def interrupted(
    lines: Sequence[LedgerLine], at_s: float, pids: Iterable[int], host: str
) -> set[str]:
    """Return the paths of items that processes of a host were executing at a moment.

    Items that make calls do not count: a waiting one is replayed on another worker also without a
    fault.
    """
    victims = set(pids)
    parents = {above for line in lines for above in above_of(line.path)[1:]}
    running: dict[str, LedgerLine] = {}
    for line in lines:
        if line.at_s > at_s:
            break
        if line.is_start:
            running[line.path] = line
        else:
            running.pop(line.path, None)
    return {
        path
        for path, line in running.items()
        if line.host == host and path not in parents and (not victims or line.pid in victims)
    }


def work_s(lines: Sequence[LedgerLine], at_s: float, lost: set[str]) -> float | None:
    """Return the time until all lost items were started again; None if no item was lost."""
    again = {
        path: min(
            (e.at_s for e in lines if e.is_start and e.path == path and e.at_s > at_s), default=None
        )
        for path in lost
    }
    times = [each - at_s for each in again.values() if each is not None]
    return max(times, default=None)


def host_s(lines: Sequence[LedgerLine], at_s: float, host: str) -> float | None:
    """Return the time until a host started an item after a moment; None if it did not."""
    return min(
        (e.at_s - at_s for e in lines if e.is_start and e.host == host and e.at_s > at_s),
        default=None,
    )


def any_s(lines: Sequence[LedgerLine], at_s: float) -> float | None:
    """Return the time until any item was started after a moment; None if none was."""
    return min((e.at_s - at_s for e in lines if e.is_start and e.at_s > at_s), default=None)


def table(found: Iterable[Recovery]) -> str:
    """Return the figures by kind: how many, p50 and p99 of both times."""
    by_kind: dict[str, list[Recovery]] = {}
    for each in found:
        by_kind.setdefault(each.kind, []).append(each)
    lines = [f"{'fault':22s} {'count':>5s}   work again p50    p99   host again p50    p99"]
    for kind, group in sorted(by_kind.items()):
        works = sorted(each.work_s for each in group if each.work_s is not None)
        hosts = sorted(each.host_s for each in group if each.host_s is not None)
        lines.append(f"{kind:22s} {len(group):5d}   {_pair(works)}   {_pair(hosts)}")
    return "\n".join(lines)


def _pair(times: list[float]) -> str:
    if not times:
        return f"{'-':>14s} {'-':>6s}"
    return f"{percentile(times, 0.5):12.2f} s {percentile(times, 0.99):4.2f} s"
