"""Output of tasks: lines in their worker's log, each with its time and origin.

    2026-11-29T17:11:02.123Z [w1 0.3[17] evaluate] text

A worker's `sys.stdout` and `sys.stderr` write such lines. Text that native code and child processes
write to the descriptors themselves has no mark; it counts as the worker's, at the time of the last
line. A parent in replay does not repeat its output.
"""

from __future__ import annotations

import io
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

import msgspec

from resilient_scoop.processes.patient_output import write_patiently

if TYPE_CHECKING:
    from pathlib import Path

    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.connection import Connection

_LINE: Final = rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\[(?:[\w.-]+:)?w\d+[^\n]*?\]) (.*)"
_LOG: Final = re.compile(r"(?:[\w.-]+:)?w\d.*\.log")
"""The name of a worker's log; before it, the name of another host than the run's."""
_HEAD_BYTES: Final = 1 << 20
"""A line that is longer is shown in parts."""


def install(session: Connection) -> None:
    """Make this worker's `sys.stdout` and `sys.stderr` mark their lines."""
    _streams[:] = [_Marked(session, 1), _Marked(session, 2)]
    out, err = (
        io.TextIOWrapper(
            cast("BinaryIO", each), encoding="utf-8", errors="backslashreplace",
            write_through=True,
        )
        for each in _streams
    )  # fmt: skip
    out.mode = err.mode = "w"  # type: ignore[misc]  # as Python does
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]  # typed as final by typeshed
    sys.stderr = sys.__stderr__ = err  # type: ignore[misc]  # typed as final by typeshed


def end_lines() -> None:
    """Write unfinished lines of tasks that have ended, because the next task may end the worker."""
    for each in _streams:
        each.end_line()


def finish() -> None:
    """Write all unfinished lines: the worker ends."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed:
            stream.close()


class _Marked(io.RawIOBase):
    """A descriptor to which whole lines are written, each after its mark."""

    mode = "wb"

    def __init__(self, session: Connection, fd: int) -> None:
        super().__init__()
        self.name = "<stdout>" if fd == 1 else "<stderr>"
        self._session = session
        self._fd = fd
        self._head = b""  # the unfinished line
        self._where = ""  # the mark of its writer

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that child processes of a task write to."""
        return self._fd

    def write(self, data: object) -> int:
        """Buffer bytes, and write the complete lines."""
        text = bytes(memoryview(data))  # type: ignore[arg-type]  # any buffer, checked by `memoryview`
        if _repeats(self._session):
            return len(text)
        where = _where(self._session)
        if self._head and where != self._where:
            self._put(self._head)
            self._head = b""
        self._where = where
        *lines, self._head = (self._head + text).split(b"\n")
        if len(self._head) > _HEAD_BYTES:
            lines.append(self._head)
            self._head = b""
        if lines:
            self._put(*lines)
        return len(text)

    def end_line(self) -> None:
        """Write the unfinished line."""
        if self._head:
            self._put(self._head)
            self._head = b""

    def close(self) -> None:
        """Write the unfinished line; the descriptor stays open."""
        self.end_line()
        super().close()

    def _put(self, *lines: bytes) -> None:
        now = time.time()  # noqa: TID251 - for display
        mark = f"{_stamp(now)} [{self._where}] ".encode("utf-8", "replace")
        data = b"".join([mark + line + b"\n" for line in lines])
        write_patiently(self._fd, data, self._session)


def _stamp(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _where(session: Connection) -> str:
    context, name = session.context, session.settings.name
    work = context.work
    if work is None or not (session.running is work or context.parked):
        return name
    define = work.callable
    title = define.options.name or define.name.rpartition(":")[2]
    return f"{name} {context.path} {title}"


def _repeats(session: Connection) -> bool:
    """Return whether the running parent only repeats an earlier attempt."""
    context = session.context
    work = context.work
    if work is None:
        return False
    if context.parent is None:
        return work.task.replay or context.again
    return is_repeating(context.parent)


def is_repeating(parent: Parent) -> bool:
    """Return whether an earlier attempt of a parent has made more calls, or got more answers."""
    return parent.history.retelling or parent.calls.next < parent.history.known_calls


_streams: list[_Marked] = []
"""Standard output and standard error of the tasks in this process."""


class TaskLine(NamedTuple):
    """One line of a worker's log."""

    at: str  # RFC 3339; empty if unknown
    where: str  # in brackets
    text: bytes

    @property
    def short(self) -> bytes:
        """The line without its time."""
        return self.where.encode() + b" " + self.text + b"\n"

    @property
    def whole(self) -> bytes:
        """The line with its time."""
        return f"{self.at} ".encode() + self.short if self.at else self.short


class TaskLogs(msgspec.Struct):
    """The workers' logs of a run; each reading continues at the end of the last one."""

    folder: Path
    _read_bytes: dict[str, int] = {}
    _last: dict[str, str] = {}  # the time of a log's last line

    @classmethod
    def start(cls, folder: Path) -> TaskLogs:
        """Begin at the present end of the logs."""
        logs = cls(folder)
        logs._read_bytes = {path.name: path.stat().st_size for path in logs._paths()}
        return logs

    def new(self, *, rest: bool = False) -> list[TaskLine]:
        """Return the new lines in the order of their times; `rest`: the last may be cut off."""
        found: list[TaskLine] = []
        for path in self._paths():
            with path.open("rb") as file:
                file.seek(self._read_bytes.get(path.name, 0))
                data = file.read()
            end = len(data) if rest else data.rfind(b"\n") + 1
            self._read_bytes[path.name] = self._read_bytes.get(path.name, 0) + end
            lines = data[:end].split(b"\n")
            found += [self._parse(path, line) for line in lines if line]
        return sorted(found, key=lambda line: line.at)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.log") if _LOG.fullmatch(path.name))

    def _parse(self, path: Path, line: bytes) -> TaskLine:
        marked = re.fullmatch(_LINE, line, re.DOTALL)
        if marked is None:
            return TaskLine(self._last.get(path.name, ""), f"[{path.stem}]", line)
        at = self._last[path.name] = marked[1].decode()
        return TaskLine(at, marked[2].decode("utf-8", "replace"), marked[3])
