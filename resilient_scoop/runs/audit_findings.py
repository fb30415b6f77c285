"""Findings of `--audit`: written by the processes that run user code, read for display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "audit.jsonl"
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


class AuditTail:
    """Reads findings as they are written."""

    def __init__(self, logs: Path) -> None:
        self._file = logs / FILE
        self._offset = 0
        self._seen: set[tuple[str, int, str]] = set()

    @classmethod
    def start(cls, logs: Path) -> AuditTail:
        """Start a new audit: findings of an earlier one belong to the earlier code."""
        (logs / FILE).unlink(missing_ok=True)
        return cls(logs)

    def new(self) -> list[Finding]:
        """Return new findings since the last call, each place once."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            finding = msgspec.json.decode(line, type=Finding)
            key = (finding.file, finding.line, finding.kind)
            if key not in self._seen:
                self._seen.add(key)
                found.append(finding)
        return found
