"""What `--audit` has found: written by the processes that run user code, read for display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "audit.jsonl"
CLOCK, UUID, CHANCE, WRITE, SOCKET, PROCESS, SHARED = (
    "clock", "uuid", "chance", "write", "socket", "process", "shared",
)  # fmt: skip
_SAID: Final = {
    CLOCK: "reads the clock outside of futures.once; a replay reads another time",
    UUID: "makes a UUID outside of futures.once; a replay makes another",
    CHANCE: "draws random numbers from the system outside of futures.once; futures.rng() repeats its own",
    WRITE: "changes files outside of tasks and futures.once; a replay does so again",
    SOCKET: "uses the network outside of tasks and futures.once; a replay does so again",
    SHARED: "later tasks on the same worker see that, so the answer may depend on the number of workers",
    PROCESS: "starts a process outside of tasks and futures.once; a replay does so again",
}


class Finding(msgspec.Struct, frozen=True):
    """One place of the user's source."""

    kind: str
    call: str  # what is called there
    file: str
    line: int
    function: str
    text: str  # of the line
    parent: str  # the future in which it was seen first

    @property
    def said(self) -> str:
        """What is wrong there, for display."""
        what = f"{self.call} {_SAID[self.kind]}"
        if self.kind == SHARED:
            what = f"changes {self.call}: {_SAID[self.kind]}"
        return f"audit: {self.file}:{self.line}, in {self.function}: {what}"


def read_findings(logs: Path) -> list[Finding]:
    """Return the places that were reported in a run, each once, by file and line."""
    return sorted(AuditTail(logs).new(), key=lambda each: (each.file, each.line, each.kind))


class AuditTail:
    """Reads findings as they come."""

    def __init__(self, logs: Path) -> None:
        self._file = logs / FILE
        self._offset = 0
        self._seen: set[tuple[str, int, str]] = set()

    @classmethod
    def anew(cls, logs: Path) -> AuditTail:
        """Begin a new audit: what an earlier one found was of the code as it was then."""
        (logs / FILE).unlink(missing_ok=True)
        return cls(logs)

    def new(self) -> list[Finding]:
        """Return what was found since the last time and is a place that was not told before."""
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
