"""Reads from outside what a run has left: acknowledged items, the ledger, leftovers.

It reads the journal as `rscoop status` does, whether the broker is alive or dead.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos import processes
from chaos.workloads.ledger import END, ONCE, START
from resilient_scoop import runs
from resilient_scoop.errors import JournalError

_TRIES = 4
_PAUSE_S = 0.05
_ENDS = ("done", "failed")
_OF_A_RUN = {
    "run.json", "journal", "logs", "lock", "shown", "figures.json", "payloads", "handover", "lives",
    "code", "input.json",
}  # fmt: skip
_OF_A_GRID = {
    "hosts.json", "units", "grid.json", "launch.json", "tickets", "keys", "hosts-live.json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One line of the ledger."""

    mark: str
    path: str
    pid: int
    at_s: float  # monotonic
    host: str = ""

    @property
    def is_start(self) -> bool:
        """Whether the line records the start of an item."""
        return self.mark in (START, ONCE)


@dataclass(slots=True)
class Ledger:
    """The ledger of a round: a file that the tasks append to."""

    file: Path

    def length(self) -> int:
        """Return how many lines there are."""
        return len(self.lines())

    def lines(self) -> list[LedgerLine]:
        """Return the lines."""
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return []
        words = [line.split() for line in text.splitlines()]
        return [
            LedgerLine(mark, path, int(pid), float(at), *host)
            for mark, path, pid, at, *host in words
        ]

    def span_s(self) -> float:
        """Return the time from the first start to the last end."""
        instants = [line.at_s for line in self.lines()]
        return max(instants) - min(instants)

    def repeated(self) -> int:
        """Return how many complete executions were wasted because their items ran to the end again."""
        ends = Counter(line.path for line in self.lines() if line.mark == END)
        return sum(ends.values()) - len(ends)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The items that had a durable outcome at one moment, and the length of the ledger, measured later."""

    acknowledged: frozenset[str]
    ledger_lines: int


@dataclass(slots=True)
class Journal:
    """A run's journal, seen from outside."""

    run: Path  # its folder
    unreadable: list[str] = field(default_factory=list)

    def outcomes(self) -> Counter[str] | None:
        """Return how many outcomes each item has, or None if the journal cannot be read."""
        error = ""
        for _ in range(_TRIES):
            try:
                events = runs.open_run(str(self.run)).events()
                return Counter(event.path for event in events if event.kind in _ENDS)
            except JournalError as caught:  # the broker may have just begun to write
                error = str(caught)
                time.sleep(_PAUSE_S)
        self.unreadable.append(error)
        return None

    def snapshot(self, ledger: Ledger) -> Snapshot | None:
        """Return which items are acknowledged; the ledger is measured after that, never before."""
        outcomes = self.outcomes()
        return None if outcomes is None else Snapshot(frozenset(outcomes), ledger.length())


def await_silence(token: str, patience_s: float) -> dict[int, str]:
    """Wait until no process of a round is left; return those that are left after the time limit."""
    until = time.monotonic() + patience_s
    while True:
        found = processes.with_token(token)
        if not found or time.monotonic() > until:
            return found
        time.sleep(_PAUSE_S)


def leftovers(run: Path, temporary: Path, *, drafts: bool) -> list[str]:
    """Return the files that a run has left after its end; `drafts`: its start was killed."""
    known = _OF_A_RUN | (_OF_A_GRID if (run / "grid.json").exists() else set())
    found = [f"in the run folder: {each.name}" for each in run.iterdir() if each.name not in known]
    found += [f"unfinished file: {each}" for each in run.rglob("*.tmp")]
    found += [f"in TMPDIR: {each.name}" for each in temporary.iterdir()]
    found += [f"in /tmp: {each.name}" for each in Path("/tmp").glob(f"*{run.name}*")]
    found += [f"in /dev/shm: {each.name}" for each in Path("/dev/shm").glob(f"*{run.name}*")]
    found += [
        f"beside the run: {each.name}"
        for each in run.parent.iterdir()
        if each != run and not (drafts and each.name.startswith(".new-"))
    ]
    found += [
        f"in the state folder: {e.name}" for e in run.parent.parent.iterdir() if e != run.parent
    ]
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return found + [f"open socket: {line.split()[-1]}" for line in sockets if run.name in line]
