"""The script's standard output on its way to the broker, and its standard error.

On a replay, recorded output is not sent again, and a prefix that differs is reported.

A reader that has ended (`| head`) is noticed where Python would write to it: at a flush, and every
`BLOCK_BYTES`, the size of Python's buffer. This stream has shown its lines earlier than Python
would, so the first such block raises nothing: under Python the reader would still have been there.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop.errors import ReplayDivergedError
from resilient_scoop.processes import BLOCK_BYTES, stderr
from resilient_scoop.processes.here import Process
from resilient_scoop.processes.task_output import is_repeating
from resilient_scoop.runs.json_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.processes.connection import Connection
    from resilient_scoop.processes.starting import ChildSettings

_UNACKED_MAX = 256
"""Messages with output, of 64 KiB or more, that may wait for the disk."""
_FD: Final = 1
_WIDE, _LINE_MAX = 400, 60  # bytes compared, characters shown


class ScriptOutput(io.RawIOBase):
    """The script's standard output, on its way to the broker."""

    name, mode = "<stdout>", "wb"

    def __init__(
        self, session: Connection, recorded: bytes, *, tty: bool, unbuffered: bool = False
    ) -> None:
        super().__init__()
        self._block_bytes = 1 if unbuffered else BLOCK_BYTES
        self._kept = 0  # bytes that Python would still have in its buffer
        self._began = False  # whether it would have written some
        self._session = session
        self._tty = tty
        self._recorded = recorded  # what earlier attempts wrote, in bytes of the script
        self._seen = 0  # bytes the script has written
        self._flushed = 0  # how many of them Python would have written to a pipe or file
        self._marked = 0  # how many of them were reported with the last text for standard error
        self.refusal: ReplayDivergedError | None = None  # of a divergence under --strict
        self.text: io.TextIOWrapper | None = None  # the text stream that writes here
        self.before_direct: Callable[[], None] = _nothing  # other code may write to the descriptor
        self._past = -1  # descriptor for output that is not recorded
        session.output = self

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the launcher's output goes to a terminal."""
        return self._tty

    def fileno(self) -> int:
        """Return the descriptor that child processes of the script write to."""
        self.before_direct()
        return _FD

    def write(self, data: object) -> int:
        """Write bytes; bytes that an earlier attempt wrote are not sent again."""
        text = bytes(memoryview(data))  # type: ignore[arg-type]  # any buffer, checked by `memoryview`
        if self._past >= 0:
            return os.write(self._past, text)
        before = self._recorded[self._seen : self._seen + len(text)]
        if self.refusal is None and not text.startswith(before):
            self._diverge(before, text)
        if self.refusal is not None:
            return len(text)  # the divergence has been raised; nothing may be recorded now
        fresh = text[max(0, len(self._recorded) - self._seen) :]
        if self._seen - self._flushed + len(text) >= self._block_bytes:
            self._flushed = self._seen
        if fresh and self._kept + len(fresh) >= self._block_bytes:
            self.end_block()
        self._kept += len(fresh)
        machine = self._session.machine
        with self._session.turn():
            machine.written += fresh
            self._seen += len(text)
            large = len(machine.written) > 1 << 16
            if large:
                self._session.flush(time.monotonic())
        if large and len(machine.link.unacked) > _UNACKED_MAX:
            self._wait_for_disk()
        return len(text)

    def end_block(self) -> None:
        """Raise BrokenPipeError if Python would write now and the reader has ended."""
        if self._past < 0 and self._began and _has_no_reader(_FD):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._began = True
        self._kept = 0

    def flushed(self) -> None:
        """Handle a flush by the script."""
        self._flushed = self._seen
        if self._kept:
            self.end_block()

    def _wait_for_disk(self) -> None:
        """Slow a script that writes faster than the disk, which may be full, to limit memory."""
        session = self._session
        if threading.current_thread() is threading.main_thread() and session.waiter is not None:
            machine = session.machine  # a new broker, a new link
            session.waiter.wait(lambda: len(machine.link.unacked) <= _UNACKED_MAX // 2, None)

    def position(self) -> int:
        """Return how many bytes the script has written."""
        return self._seen

    def open_line(self, since: int) -> str:
        """Return the unfinished line written from a position on: it may be a prompt."""
        line = self._recorded[since : self._seen].rpartition(b"\n")[2]
        return one_line(line.decode(errors="replace")).strip()

    @property
    def repeats_output(self) -> bool:
        """Whether an earlier attempt has written more."""
        return self._seen < len(self._recorded)

    @property
    def is_recorded(self) -> bool:
        """Whether output goes to the journal; else it goes to a descriptor."""
        return self._past < 0

    @property
    def due(self) -> int:
        """How many bytes Python would have written by now."""
        return self._seen if self._tty or self._block_bytes == 1 else self._flushed

    def send(self, wait_s: float = -1) -> None:
        """Send what was written; `wait_s` limits the wait for a turn, which this thread may have."""
        session = self._session
        if session.machine.written and session.turn().acquire(timeout=wait_s):
            try:
                session.flush(time.monotonic())
            finally:
                session.turn().release()

    def mark(self) -> bytes:
        """Send what was written; return the mark for text for standard error."""
        self.send()
        if self._seen == self._marked:
            return b""
        self._marked = self._seen
        return stderr.mark(self._seen)

    def become_child(self) -> None:
        """Write to the descriptor itself from now on, as other child processes do."""
        self._go_past(_FD)

    def turn_aside(self, path: str) -> None:
        """Write to a file from now on: the script was interrupted."""
        self._go_past(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))

    def _go_past(self, fd: int) -> None:
        self._past = fd
        if isinstance(sys.__stderr__, Errors):
            sys.__stderr__.repeats, sys.__stderr__.before = never, bytes

    def skip_to(self, position: int) -> None:
        """Count all output before a position as written."""
        self._seen = max(self._seen, position)

    def _diverge(self, before: bytes, text: bytes) -> None:
        """Show all output from this line on, because the script writes something else than before.

        From here on it is recorded, so that the next replay expects it.
        """
        pairs = enumerate(zip(before, text, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), len(before))
        at = text.rfind(b"\n", 0, same) + 1
        before = self._recorded[self._seen + at :][:_WIDE]
        then, now = (f"{_line(each)!r}" for each in (before, text[at:]))
        if Process.policy.strict:
            self.refusal = ReplayDivergedError("the script's output", then, now)
            raise self.refusal
        Process.tell_user(
            f"replay: the script now writes {now} where it wrote {then} before; from here on "
            "all output is shown"
        )
        self._recorded = self._recorded[: self._seen + at]
        self._session.machine.output_at = len(self._recorded)

    def finish(self) -> bool:
        """Send unflushed output; if the reader has ended, report it and return False."""
        if self.text is None or self.text.closed:
            return True
        try:
            self.text.flush()
        except BrokenPipeError as error:
            name = f"<_io.TextIOWrapper name='<stdout>' mode='w' encoding={self.text.encoding!r}>"
            sys.stderr.write(f"Exception ignored in: {name}\nBrokenPipeError: {error}\n")
            return False
        return True

    def check_end(self) -> None:
        """Report, at the end of the script, if it has written less than before."""
        if self.refusal is not None:
            raise self.refusal  # the script has caught it
        left = self._recorded[self._seen :]
        if left and Process.policy.strict:
            raise ReplayDivergedError("the script's output", repr(_line(left)), "the end")
        if left:
            Process.tell_user(f"replay: the script now ends where it wrote {_line(left)!r} before")


class ScriptStdout(io.TextIOWrapper):
    """The script's `sys.stdout`; a line is sent at once, but does not count as a flush."""

    mode = "w"

    def flush(self) -> None:
        """Flush, on request of the script."""
        super().flush()
        raw = getattr(self.buffer, "raw", None)
        if isinstance(raw, ScriptOutput):
            raw.flushed()


_base = io.TextIOWrapper  # for its `repr`
ScriptStdout.__module__, ScriptStdout.__name__, ScriptStdout.__qualname__ = (
    _base.__module__,
    _base.__name__,
    _base.__name__,
)


def _nothing() -> None:
    pass


def _has_no_reader(fd: int) -> bool:
    """Return whether the reader of a pipe or socket has ended."""
    waiting = select.poll()
    waiting.register(fd, 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def _line(text: bytes) -> str:
    """Return, for display, the first line, or the beginning of a long one."""
    line = text[:_WIDE].split(b"\n", 1)[0].decode(errors="replace")
    return line if len(line) <= _LINE_MAX else f"{line[:_LINE_MAX]}…"


def recorded_by_now(settings: ChildSettings, total_bytes: int) -> tuple[bytes, int | None]:
    """Return the recorded output of the script, and where it was cut off.

    Output after an error that ended the script (for example, of its exit handlers) is not expected
    again, because the corrected script does not write it there.
    """
    from resilient_scoop.journal.view import JournalView
    from resilient_scoop.runs.recorded_streams import read_failed, recorded_output

    with JournalView.open(Path(settings.run_dir) / "journal") as view:
        recorded, failed = recorded_output(view), read_failed(view)
    if failed is None or failed.failed_at < 0 or failed.recorded_bytes != total_bytes:
        return recorded, None
    is_all = failed.output_bytes == len(recorded) > failed.failed_at
    return (recorded[: failed.failed_at], failed.failed_at) if is_all else (recorded, None)


def not_used_again(settings: ChildSettings) -> frozenset[int]:
    """Return the recorded answers after which the script failed (`core.parent.history`, P2a)."""
    from resilient_scoop.journal.view import JournalView
    from resilient_scoop.runs.recorded_streams import read_failed

    with JournalView.open(Path(settings.run_dir) / "journal") as view:
        failed = read_failed(view)
    return frozenset() if failed is None else frozenset(failed.again)


class Errors(io.TextIOWrapper):
    """Standard error, silent while the script repeats itself."""

    mode = "w"
    repeats: Callable[[], bool] = staticmethod(lambda: False)
    before: Callable[[], bytes] = staticmethod(lambda: b"")

    def write(self, text: str) -> int:
        """Write after the output so far, unless this is a replay."""
        if self.repeats():
            return len(text)
        try:
            if mark := self.before():
                self.buffer.write(mark)
            return super().write(text)
        except BrokenPipeError:
            return len(text)  # the launcher has ended, and this process will end soon


def never() -> bool:
    """Return False: nothing is a repetition any more."""
    return False


def repeating(session: Connection, output: ScriptOutput) -> Callable[[], bool]:
    """Return a function that says whether the script only repeats an earlier attempt."""

    def is_so() -> bool:
        parent = session.context.parent
        return parent is not None and (is_repeating(parent) or output.repeats_output)

    return is_so
