"""The script's standard input: read by the launcher, one piece at a time, and journaled by the origin.

Data that was read from a pipe or a terminal cannot be read again. So the launcher reads, only on
request of the script, and keeps each piece until the origin says that it is in the journal: if the
origin dies in between, its successor requests the same piece again. Every later attempt first reads
the journaled pieces, with the same boundaries; then the standard input of the launcher follows.

They are connected by a pair of sockets that preserves message boundaries. A request names the
wanted piece (counted from 0 for each launcher) and the first piece that is not journaled yet;
requests may be repeated. A reply holds the errno of a failed read, or the piece; an empty piece is
the end of file, after which a terminal may have more.

Not journaled: what the script or its children read from descriptor 0 themselves.
"""

from __future__ import annotations

import _socket  # `socket` itself takes the start of the script 2 ms
import io
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop.processes import user_signals
from resilient_scoop.processes.here import Process
from resilient_scoop.processes.stdin_messages import (
    PIECE_BYTES,
    REPLY,
    REQUEST,
    InputPiece,
)
from resilient_scoop.runs import json_text
from resilient_scoop.wire.messages import Halted, Input, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilient_scoop.core.link import Link
    from resilient_scoop.processes.connection import Connection
    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.runs import stdin_rest

_ASK_AGAIN_S: Final = 5.0
_UNSAVED_MAX: Final = 256
"""Pieces that may wait for the journal: 16 MB."""


class Pieces:
    """The origin's end: first what was read before, then what the launcher reads."""

    def __init__(self, session: Connection, settings: ChildSettings) -> None:
        self._session = session
        self._settings = settings
        self._socket: _socket.socket | None = None
        if settings.stdin_fd >= 0:
            self._socket = _socket.socket(fileno=settings.stdin_fd)
            os.set_inheritable(settings.stdin_fd, False)  # noqa: FBT003 - the system call takes it so
        self._recorded: Iterator[Input] | None = None
        self._no = 0  # number of the next piece of the run
        self._piece = 0  # number of the next piece of this launcher
        self._unsaved: deque[tuple[Link, int]] = deque()  # where these pieces were read
        self._asked_at = 0  # length of the script's output at its last read
        self._known: stdin_rest.KnownInput | None = None  # what the journal holds
        self._is_over: bool | None = None  # whether no more is read; None: not known yet

    def next(self) -> InputPiece:
        """Wait for the next piece and return it; a new one is sent to the journal."""
        if self._recorded is None:
            from resilient_scoop.runs import stdin_rest

            self._known = stdin_rest.KnownInput(Path(self._settings.run_dir))
            self._recorded = self._replay()
        read = next(self._recorded, None)
        if read is not None:
            self._no += 1
            self._piece += read.source == self._settings.stdin_source
            assert self._known is not None, "the journal is being read"
            self._known.add(read)
            self._asked_at = self._session.output.position() if self._session.output else 0
            return InputPiece(read.data, read.error)
        if self._had_ended():
            return InputPiece(b"", 0)
        cut = self._cut_at()
        if cut is not None:
            self._report_cut(cut)
        self._report_other()
        piece = self._live()
        if cut is not None and not (piece.data or piece.error or os.isatty(0)):
            self._stop(cut)
        session = self._session
        with session.turn():
            root = session.machine.root
            assert root is not None, "the script runs"
            source = self._settings.stdin_source
            frame = encode(Input(root, self._no, source, piece.data, piece.error))
            session.send(frame)
            session.pump()
            self._unsaved.append((session.machine.link, session.machine.link.sent))
        self._no += 1
        self._piece += 1
        return piece

    def _had_ended(self) -> bool:
        """Return whether the script was killed after its input had ended: it reads ends of file only.

        An input of this resume is not read, because the script would not have read it then. A script
        that had ended by itself, and a fork, may continue with another input.
        """
        settings, known = self._settings, self._known
        if known is None or not known.is_whole or self._piece or not settings.resumed:
            return False
        if os.isatty(0):
            return False  # more may be typed after an end of file
        if self._is_over is None:
            from resilient_scoop.runs import stdin_rest

            self._is_over = stdin_rest.was_interrupted(Path(settings.run_dir))
            if self._is_over and not stdin_rest.is_at_end(0):
                Process.tell_user(
                    f"the script's standard input had ended after {known.size} bytes: the standard input "
                    "of this resume is not read"
                )
        return self._is_over

    def _report_other(self) -> None:
        """Report where a script continues to read in a new file, after the end of its former input."""
        settings, known = self._settings, self._known
        if known is None or not known.size or not known.is_whole or self._piece:
            return
        from resilient_scoop.runs import stdin_rest

        file = stdin_rest.file_of(0) if settings.resumed else None
        if file is not None and not stdin_rest.is_at_end(0):
            Process.tell_user(
                f"the script's standard input had ended after {known.size} bytes; now it continues "
                f"from {json_text.printable(file)}"
            )

    def _cut_at(self) -> int | None:
        """Return the position at which the input was cut short, if the script now asks for the rest."""
        settings, known = self._settings, self._known
        if known is None or known.is_whole or self._piece:
            return None
        return known.size if settings.resumed and not settings.options.end_of_input else None

    def _report_cut(self, size: int) -> None:
        if os.isatty(0):
            output = self._session.output
            asked = "" if output is None else output.open_line(self._asked_at)
            Process.tell_user(
                f"the script continues to read from this terminal{f' ({asked})' if asked else ''}"
            )
            return
        Process.tell_user(
            f"the script continues to read: its standard input was cut short after {size} bytes; "
            "the rest is read from this resume's standard input"
        )

    def _stop(self, size: int) -> None:
        """Stop the run without a change: an end of file would differ from the script's former input."""
        session = self._session
        parent = session.context.parent
        assert parent is not None, "the script is a parent"
        reason = (
            f"the script asks for more of its standard input, which was cut short after "
            f"{size} bytes, and this resume's standard input is empty. The run is unchanged: "
            f"give the rest with `rscoop resume {session.settings.run_id} < FILE`, or, if that was all, "
            f"use --end-of-input"
        )
        with session.turn():
            session.send(encode(Halted(parent.path, parent.attempt, reason)))
        assert session.waiter is not None, "the origin waits by receiving"
        session.waiter.wait(lambda: False, None)  # until the broker says stop

    def _replay(self) -> Iterator[Input]:
        from resilient_scoop.journal.view import JournalView
        from resilient_scoop.runs.recorded_streams import recorded_input

        with JournalView.open(Path(self._settings.run_dir) / "journal") as view:
            yield from recorded_input(view)

    def _live(self) -> InputPiece:
        """Ask the launcher; before that, send the script's output and calls."""
        session, asked_at = self._session, -_ASK_AGAIN_S
        with session.turn():
            session.pump()
        if self._saved() + _UNSAVED_MAX <= self._piece:
            assert session.waiter is not None, "the origin waits by receiving"
            session.waiter.wait(lambda: self._saved() + _UNSAVED_MAX > self._piece, None)
        while self._socket is not None and not session.is_cut:
            now = time.monotonic()
            asks = now - asked_at >= _ASK_AGAIN_S
            asked_at = now if asks else asked_at
            reply = self._reply(self._socket, asks=asks)
            if reply is None:
                continue
            if not reply:
                # The launcher has ended, and this process will end, too. Do not journal this as end
                # of file: a resume would read it.
                assert session.waiter is not None, "the origin waits by receiving"
                session.waiter.wait(lambda: False, None)
                continue
            number, error = REPLY.unpack_from(reply)
            if number == self._piece:
                return InputPiece(reply[REPLY.size :], error)
        return InputPiece(b"", 0)

    def _reply(self, launcher: _socket.socket, *, asks: bool) -> bytes | None:
        """Return the launcher's reply, empty if it has ended; None if there was no reply for a while."""
        try:
            if asks:
                launcher.send(REQUEST.pack(self._piece, self._saved()))
            launcher.settimeout(_ASK_AGAIN_S)
            reply = user_signals.breakable(lambda: launcher.recv(REPLY.size + PIECE_BYTES))
        except TimeoutError:
            return None
        except (BrokenPipeError, ConnectionResetError):
            return b""
        if reply is None:
            user_signals.deliver_due()
        return reply

    def _saved(self) -> int:
        """Return how many of the launcher's pieces are known to be in the journal."""
        link = self._session.machine.link
        first = next(iter(link.unacked), link.sent + 1)
        # After a restart of the broker, the first bundle holds everything that the last broker did
        # not acknowledge.
        while self._unsaved and first > (self._unsaved[0][1] if self._unsaved[0][0] is link else 1):
            self._unsaved.popleft()
        return self._piece - len(self._unsaved)


class ScriptInput(io.BufferedIOBase):
    """The script's `sys.stdin.buffer`.

    A read of text returns at most a line, so that nothing is read ahead: what the script has read
    is exactly what it was given, and a checkpoint knows the position.
    """

    name = "<stdin>"
    mode = "rb"

    def __init__(self, pieces: Callable[[], InputPiece]) -> None:
        super().__init__()
        self._pieces = pieces
        self._lock = threading.RLock()
        self._rest = b""
        self._at = 0  # how much of it was given to the script
        self._given = 0

    @property
    def raw(self) -> ScriptInput:
        """Return this: there is no other buffer."""
        return self

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return its descriptor, for callers that wait for it or need its terminal."""
        return 0

    def isatty(self) -> bool:
        """Return whether the launcher's standard input is a terminal."""
        return os.isatty(0)

    def position(self) -> int:
        """Return how many bytes the script has read."""
        return self._given

    def become_child(self) -> None:
        """Read from the descriptor itself from now on, as other child processes do."""
        self._pieces = lambda: InputPiece(os.read(0, PIECE_BYTES), 0)
        self._lock = threading.RLock()

    def skip_to(self, position: int) -> None:
        """Count all input before a position as read."""
        while self._given < position and self.read(min(PIECE_BYTES, position - self._given)):
            pass

    def peek(self, _size: int = 0, /) -> bytes:
        """Return what is available with at most one read, without consuming it."""
        with self._lock:
            self._fill()
            return self._rest[self._at :]

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, or all until the end of file."""
        found = bytearray()
        with self._lock:
            while (size is None or size < 0 or len(found) < size) and self._fill():
                found += self._take(-1 if size is None or size < 0 else size - len(found))
        return bytes(found)

    def read1(self, size: int = -1, /) -> bytes:
        """Return a line, or the available part of one, with at most one read."""
        with self._lock:
            self._fill()
            return self._take(size, self._rest.find(b"\n", self._at) + 1)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line, cut off at `size` bytes."""
        found = bytearray()
        left = -1 if size is None else size
        with self._lock:
            while left != 0 and not found.endswith(b"\n") and self._fill():
                part = self._take(left, self._rest.find(b"\n", self._at) + 1)
                found += part
                left -= len(part) if left > 0 else 0
        return bytes(found)

    def readinto(self, buffer: object, /) -> int:
        """Fill a buffer, or what is left until the end of file."""
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any buffer, checked by `memoryview`
        data = self.read(len(into))
        into[: len(data)] = data
        return len(data)

    def _fill(self) -> bool:
        """Make sure that data is available; return False at an end of file."""
        if self._at < len(self._rest):
            return True
        piece = self._pieces()
        if piece.error:
            raise OSError(piece.error, os.strerror(piece.error), self.name)
        self._rest, self._at = piece.data, 0
        return bool(piece.data)

    def _take(self, size: int, stop: int = 0) -> bytes:
        """Consume available data: `size` bytes, or all, but not beyond `stop` if that is set."""
        stop = stop or len(self._rest)
        if size >= 0:
            stop = min(stop, self._at + size)
        data = self._rest[self._at : stop]
        self._at = stop
        self._given += len(data)
        return data


def script_stdin(pieces: Callable[[], InputPiece]) -> tuple[ScriptInput, io.TextIOWrapper]:
    """Return the script's `sys.stdin`, and the buffer from which it reads."""
    source = ScriptInput(pieces)
    encoding, errors = ("utf-8", "strict")
    if sys.stdin is not None:
        encoding, errors = sys.stdin.encoding, sys.stdin.errors or "strict"
    text = io.TextIOWrapper(source, encoding=encoding, errors=errors)
    text.mode = "r"  # type: ignore[misc]  # as Python does
    return source, text
