"""One replayed parent: its greenlet, its history read from the journal, its comparison.

At the first difference, or at the end of its history, it switches to the main greenlet and is never
continued, so that no handler or `finally` block of user code runs.
"""

from __future__ import annotations

import io
import linecache
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from resilient_scoop import ids
from resilient_scoop.adapters.greenlets import getcurrent, greenlet
from resilient_scoop.core.events import Table
from resilient_scoop.core.parent.history import HistoryRecord
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.parent.replayed import End, RecordedCalls, Replayed
from resilient_scoop.core.worker.worker import Worker
from resilient_scoop.errors import InvariantError
from resilient_scoop.journal.view import JournalView
from resilient_scoop.payload import payload
from resilient_scoop.payload.files import LargeStore
from resilient_scoop.processes.connection import Connection, Context
from resilient_scoop.processes.disk_space import Room
from resilient_scoop.processes.here import Process
from resilient_scoop.processes.replay.request import Difference, Played, SourceLine
from resilient_scoop.processes.starting import ChildSettings
from resilient_scoop.runs.recorded_streams import read_failed
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.facts.batch import Piece

_PACKAGE = str(Path(__file__).resolve().parents[2]) + os.sep
_PAGE_BYTES = 1 << 20
_TEXT_MAX = 200
_ATTEMPT = wire.Attempt(0, 0)
_standing: list[Any] = []
"""Stopped greenlets; without a reference a greenlet would be ended, and run its `finally` blocks."""


class ReadOnlyStore(LargeStore):
    """The files of the run, read-only; new files go to a temporary folder."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        super().__init__(directory)
        self._scratch = LargeStore(scratch)

    def put(self, buffers: Any, sync: bool) -> bytes:  # noqa: ARG002, FBT001 - the port's signature
        """Drop the parts: they are compared by their digests and never read."""
        return self._scratch.put(buffers, sync=False)

    def remove(self, ref: bytes) -> None:
        """Remove the files of this process."""
        self._scratch.remove(ref)


class ReplayConnection(Connection):
    """The session of this process: a worker's machine without a broker."""

    def __init__(self, settings: ChildSettings, store: LargeStore, role: str) -> None:  # no super
        self.settings = settings
        self.role = role
        self.machine = Worker(role=role, node="", name="replay", pid=0, run=settings.run[:8])
        self.machine.seed = settings.seed
        self._lock = threading.Lock()
        self.store = store
        self.room = Room(self)
        self.context = Context(ids.ROOT, None)
        self.waiter = None
        self.flushed_at = self.pumped_at = 0.0
        self.saves = False
        self.mirror = None

    def keep_files(self, path: str, call: int, refs: dict[int, bytes]) -> None:  # noqa: ARG002 - the protocol's
        """Remove the files of a call's arguments: they are not read."""
        for ref in refs.values():
            self.store.remove(ref)

    def ask_early(self, parent: Parent) -> bool:  # noqa: ARG002 - the base's signature
        """Return False: pages are read when the parent waits for them."""
        return False

    def become_child(self) -> None:
        """Leave the replay: this process is a forked child of the script."""
        self._lock = threading.Lock()
        for stream in (self.output, self.input):
            if stream is not None:
                stream.become_child()

    def pump(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002 - the base's signature
        """Drop messages for the broker."""
        self.machine.out.clear()
        for parent in self.machine.parents.values():
            parent.frames()


class Compared(io.RawIOBase):
    """The script's standard output, compared with what was recorded."""

    name, mode = "<stdout>", "wb"

    def __init__(self, recorded: bytes, halt: Callable[[End], NoReturn], show_fd: int) -> None:
        super().__init__()
        self._recorded = recorded
        self._halt = halt
        self._show_fd = show_fd
        self.ended = False  # the journal has all of the output
        self.seen = 0
        self._is_childs = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that child processes of the script write to."""
        return 1

    def write(self, data: object) -> int:
        """Compare the output; output after the recorded part cannot be compared."""
        text = bytes(memoryview(data))  # type: ignore[arg-type]  # any buffer, checked by `memoryview`
        if self._is_childs:
            return len(text)
        before = self._recorded[self.seen : self.seen + len(text)]
        if not text.startswith(before) or (self.ended and len(before) < len(text)):
            at = next((i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), 0)
            begin = before.rfind(b"\n", 0, at) + 1
            was = _line(before[begin:]) if before[begin:] else "the end of the output"
            self._halt(End("output", was, _line(text[begin:])))
        if self._show_fd >= 0:
            os.write(self._show_fd, text)
        self.seen += len(text)
        return len(text)

    def become_child(self) -> None:
        """Do nothing: output of a forked child is not recorded."""
        self._is_childs = True

    def open_line(self, since: int) -> str:  # noqa: ARG002 - the protocol's
        """Return an empty text: there is no prompt here."""
        return ""

    def position(self) -> int:
        """Return how many bytes the script has written."""
        return self.seen

    def skip_to(self, position: int) -> None:
        """Count all output before a position as written."""
        self.seen = max(self.seen, position)

    def left(self) -> str:
        """Return the first recorded line that was not written, if any."""
        return _line(self._recorded[self.seen :]) if self.seen < len(self._recorded) else ""


def _line(text: bytes) -> str:
    line = text.split(b"\n", 1)[0][:_TEXT_MAX].decode(errors="replace")
    return repr(line)


class ParentReplay:
    """One parent on its greenlet, fed with its history."""

    def __init__(
        self, session: ReplayConnection, view: JournalView, asked: RecordedCalls, reuse: list[str]
    ) -> None:
        self.session = session
        self.view = view
        self.asked = asked
        self.main = getcurrent()
        self.parent = Replayed(_ATTEMPT, asked, reuse, self.halt, self._name_of)
        self.parent.judge.policy.kept |= Process.policy.kept  # earlier decisions of the user
        failed = read_failed(view) if asked.path == ids.ROOT else None
        self.parent.history.again = frozenset(() if failed is None else failed.again)
        self.prefix = ids.log_prefix(session.settings.run, asked.path)
        self.end: End | None = None
        self.place: SourceLine | None = None
        self.output_bytes = 0
        self.name = "the script"
        self.raised: SourceLine | None = None  # where the error that ended the parent was raised
        session.waiter = self
        session.machine.parents[asked.path] = self.parent
        session.context = Context(asked.path, None)

    def _name_of(self, fn: bytes) -> str:
        define = self.session.machine.callables.known.get(fn)
        return self.asked.name(fn) if define is None else define.options.name or define.name

    def play(self, body: Callable[[ParentReplay], None]) -> Played:
        """Run the parent until it ends, differs, or reaches the end of its history."""
        green = greenlet(body)
        _standing.append(green)
        green.switch(self)
        end = self.end
        difference = None
        if end is not None and end.differs:
            difference = self._difference(end)
        return Played(
            self.asked.path, self.name, self.parent.calls.next, self.parent.calls.recovered,
            self.parent.observed_count, self.output_bytes, end is None,
            "" if end is None or end.differs else end.found, difference,
        )  # fmt: skip

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Read the history until `ready()` holds; a time limit counts as reached at once (RP3)."""
        self.parent.forget_given_up()
        while not ready():
            if self._feed():
                continue
            if until is not None:
                return ready()
            self.parent.stand_still()
        return True

    def _feed(self) -> bool:
        """Give the parent its next page; return False at the end of the history."""
        parent = self.parent
        if parent.page_wanted() is None:
            return False
        after = ids.record_key(self.prefix, parent.history.after)
        records: list[HistoryRecord] = []
        upto = parent.history.after
        page = self.view.read(Table.LOG, self.prefix, after, _PAGE_BYTES)
        for key, raw in page:
            seq = ids.seq_of(key)
            if seq > self.asked.upto:
                break
            upto = seq
            record = wire.decode_logged(raw)
            if isinstance(record, HistoryRecord):
                records.append(record)
        last = not page or upto >= self.asked.upto
        asked = self.asked
        head = wire.History(
            asked.path, _ATTEMPT, upto, last, asked.next_call, 0, asked.checkpoints,
            list(asked.dropped), asked.trimmed_by, parent.history.pages_asked,
        )  # fmt: skip
        parent.page(head, records)
        return True

    def halt(self, end: End) -> NoReturn:
        """Stop the parent for good."""
        self.end = end
        self.place = _user_place(sys._getframe(1))  # noqa: SLF001 - the user's line is wanted
        self.main.switch()
        raise InvariantError("a replay that stands still was switched to")

    def _difference(self, end: End) -> Difference:
        path = self.asked.path
        if end.call >= 0:
            path = ids.batch_path(path, end.call)
            path = path if end.item < 0 else f"{path}[{end.item}]"
        expected, found = end.expected, end.found
        if end.piece is not None and end.arg is not None:
            expected, found = self._arguments(end.piece, end.item, end.arg)
        return Difference(end.what, path, expected, found, self.place or self.raised)

    def _arguments(self, piece: Piece, index: int, arg: bytes) -> tuple[str, str]:
        key = ids.record_key(self.prefix, piece.record)
        raw = self.view.get(Table.ARGS, key)
        frame = None if raw is None else wire.decode_up(raw)
        before = "another argument (the journal keeps those of undone and failed items)"
        if isinstance(frame, wire.Args):
            before = self._preview(frame.args[piece.offset + index - piece.start])
        now = self._preview(arg)
        if before == now:
            return f"{before} (with other contents)", now
        return before, now

    def _preview(self, arg: bytes) -> str:
        try:
            text = repr(payload.loads(arg, self.session.store, "argument"))
        except Exception as error:  # user code: unpickling and repr run it
            return f"an argument that cannot be shown ({type(error).__name__})"
        return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…"


def _user_place(frame: Any) -> SourceLine | None:
    """Return the innermost line that is not ours."""
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return None
    return _place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def _place(file: str, line: int, function: str) -> SourceLine:
    return SourceLine(file, line, function, linecache.getline(file, line).strip())


def asked_of(
    view: JournalView, run: bytes, path: str, defines: dict[bytes, wire.Define]
) -> RecordedCalls:
    """Return the recorded calls of a parent."""
    asked, prefix, after = RecordedCalls(path, defines), ids.log_prefix(run, path), None
    while page := view.read(Table.LOG, prefix, after, _PAGE_BYTES):
        for key, raw in page:
            after = key
            asked.upto = ids.seq_of(key)
            record = wire.decode_logged(raw)
            asked.take(asked.upto, record)
    return asked


def raised_at(error: BaseException) -> SourceLine | None:
    """Return the line of user code that raised an error."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_PACKAGE)
    ]
    return _place(frames[-1].filename, frames[-1].lineno or 0, frames[-1].name) if frames else None
