"""Findings of `--audit`: written by the processes that run user code, read for display."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE: Final = "audit.jsonl"
"""Its name, after that of another host than the run's: `alice:audit.jsonl`."""
_NAME: Final = re.compile(rf"(?:[\w.-]+:)?{re.escape(FILE)}")
CLOCK, UUID, CHANCE, WRITE, SOCKET, PROCESS, SHARED = (
    "clock", "uuid", "chance", "write", "socket", "process", "shared",
)  # fmt: skip
_TEXTS: Final = {
    CLOCK: "reads the clock outside of futures.once; a replay reads another time",
    UUID: "makes a UUID outside of futures.once; a replay makes another",
    CHANCE: "draws random numbers from the system outside of futures.once; futures.rng() repeats its own",
    WRITE: "changes files outside of tasks and futures.once; a replay does so again",
    SOCKET: "uses the network outside of tasks and futures.once; a replay does so again",
    SHARED: "later tasks on the same worker see that, so the answer may depend on the number of workers",
    PROCESS: "starts a process outside of tasks and futures.once; a replay does so again",
}


class Finding(msgspec.Struct, frozen=True):
    """One finding, at one line of user code."""

    kind: str
    call: str  # the called function
    file: str
    line: int
    function: str
    text: str  # text of the line
    parent: str  # the future in which it was first seen

    @property
    def message(self) -> str:
        """The problem, for display."""
        what = f"{self.call} {_TEXTS[self.kind]}"
        if self.kind == SHARED:
            what = f"changes {self.call}: {_TEXTS[self.kind]}"
        return f"audit: {self.file}:{self.line}, in {self.function}: {what}"


def read_findings(logs: Path) -> list[Finding]:
    """Return the findings of a run, each once, by file and line."""
    return sorted(AuditTail(logs).new(), key=lambda each: (each.file, each.line, each.kind))


def name_of(host: str) -> str:
    """Return the name of the file of a host; empty: the run's own."""
    return f"{host}:{FILE}" if host else FILE


def _files(logs: Path) -> Iterator[Path]:
    yield from (path for path in sorted(logs.glob(f"*{FILE}")) if _NAME.fullmatch(path.name))


class AuditTail:
    """Reads findings as they are written."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read_bytes: dict[str, int] = {}
        self._seen: set[tuple[str, int, str]] = set()

    @classmethod
    def start(cls, logs: Path) -> AuditTail:
        """Start a new audit: findings of an earlier one belong to the earlier code."""
        for path in _files(logs):
            path.unlink(missing_ok=True)
        return cls(logs)

    def new(self) -> list[Finding]:
        """Return new findings since the last call, each line of code once."""
        return [finding for path in _files(self._logs) for finding in self._new_in(path)]

    def _new_in(self, path: Path) -> Iterator[Finding]:
        offset = self._read_bytes.get(path.name, 0)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes[path.name] = offset + len(whole)
        for line in whole.splitlines():
            finding = msgspec.json.decode(line, type=Finding)
            key = (finding.file, finding.line, finding.kind)
            if key not in self._seen:
                self._seen.add(key)
                yield finding
