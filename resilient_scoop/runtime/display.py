"""What the user sees of a run: the script's output, one live line of progress, and notes.

Standard output belongs to the script, byte for byte; everything of ours goes to standard error.
On a terminal the progress is one line that is drawn over itself, cleared before anything else is
written and never drawn behind a half-written line of the script. Elsewhere (a batch job's
file) it is one plain line a minute. No color is used, so there is none to turn off.

A reader that goes away (`rscoop run … | head`) ends the display, never the run.
"""

from __future__ import annotations

import errno
import io
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, TextIO, cast

from resilient_scoop.counts import counted

PLAIN_EVERY_S: Final = 60.0
DRAW_EVERY_S: Final = 0.1
RATE_WINDOW_S: Final = 10.0
_CLEAR: Final = b"\r\x1b[2K"
_WIDTH: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run at one moment, as its launcher knows it."""

    done: int = 0
    total: int | None = None  # None: the script may ask for more at any time
    running: int = 0
    workers: int = 0
    workers_max: int = 0
    crashes: int = 0
    resubmitted: int = 0
    reused: int = 0  # items that came from the journal
    rate_per_s: float = 0.0
    eta_s: float | None = None
    batch: str = ""  # path and function of the call under way
    batch_done: int = 0
    batch_total: int | None = None
    items: str = ""  # how far the running items are, by their own word


class Rate:
    """How fast a count has grown over the last `RATE_WINDOW_S`."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float:
        """Note the count at `now`; return its growth per second, 0 while it can't be told."""
        seen = self._seen
        if seen and count < seen[-1][1]:
            seen.clear()  # counted anew, after a restart of the broker
        seen.append((now, count))
        while seen[0] is not seen[-1] and seen[1][0] <= now - self._window_s:
            seen.popleft()
        took_s = now - seen[0][0]
        return (count - seen[0][1]) / took_s if took_s > 0 else 0.0


def eta_s(done: int, total: int | None, rate_per_s: float) -> float | None:
    """Return the seconds that the rest will take, or None where that can't be known."""
    if total is None or rate_per_s <= 0 or done >= total:
        return None
    return (total - done) / rate_per_s


class _Sink:
    """One stream, written to at once and whole, also where its descriptor does not block."""

    def __init__(self, stream: BinaryIO | TextIO) -> None:
        self._stream = stream
        self.gone = False
        try:
            self._fd: int | None = stream.fileno()
        except (io.UnsupportedOperation, ValueError):
            self._fd = None

    @property
    def fd(self) -> int | None:
        return self._fd

    def is_tty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def write(self, data: bytes) -> None:
        if self.gone:
            return
        try:
            if self._fd is None:
                self._write_stream(data)
            else:
                _write_fd(self._fd, data)
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO, errno.EBADF}:
                raise
            self.gone = True  # the terminal was closed, or `head` has seen enough

    def _write_stream(self, data: bytes) -> None:
        buffer = getattr(self._stream, "buffer", None)
        if buffer is not None:
            buffer.write(data)
        elif isinstance(self._stream, io.TextIOBase):
            self._stream.write(data.decode("utf-8", "replace"))
        else:
            cast("BinaryIO", self._stream).write(data)
        self._stream.flush()


def _write_fd(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiting = select.poll()  # not select(): descriptors may be beyond 1024
            waiting.register(fd, select.POLLOUT)
            waiting.poll()


class Display:
    """The screen of one run. All methods are for one thread.

    `tty` says whether the progress may be drawn as a live line; `quiet` leaves progress out.
    `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        stream_out: BinaryIO | TextIO,
        stream_err: BinaryIO | TextIO,
        run_id: str,
        tty: bool,  # noqa: FBT001
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = _Sink(stream_out)
        self._err = _Sink(stream_err)
        self._run_id = run_id
        self._tty = tty
        self._quiet = quiet
        self._clock = clock
        self._last: Progress | None = None
        self._drawn = False
        self._drawn_at = float("-inf")
        self._plain_at = clock()
        self._mid_line = False  # of the script's output, on the terminal that we draw on

    def output(self, data: bytes) -> None:
        """Write what the script wrote, as it is and at once."""
        if not data:
            return
        self._clear()
        self._out.write(data)
        if self._out.is_tty():
            self._mid_line = not data.endswith(b"\n")
        self._redraw()

    def note(self, text: str) -> None:
        """Say something in a line of its own."""
        self._clear()
        fresh = b"\n" if self._mid_line else b""
        self._mid_line = False
        self._err.write(fresh + f"rscoop: {text}\n".encode("utf-8", "replace"))
        self._redraw()

    def progress(self, snapshot: Progress) -> None:
        """Show how far the run is; may be called as often as one likes."""
        now = self._clock()
        changed, self._last = snapshot != self._last, snapshot
        if self._quiet:
            return
        if self._tty:
            if changed and now - self._drawn_at >= DRAW_EVERY_S:
                self._draw(now)
        elif now - self._plain_at >= PLAIN_EVERY_S:
            self._plain_at = now
            self.note(f"run {self._run_id}: {progress_line(snapshot)}")

    def close(self) -> None:
        """Take the live line away; the streams stay open."""
        self._clear()
        self._last = None

    def _clear(self) -> None:
        if self._drawn:
            self._err.write(_CLEAR)
            self._drawn = False

    def _redraw(self) -> None:
        if self._tty and not self._quiet and self._last is not None:
            self._draw(self._clock())

    def _draw(self, now: float) -> None:
        if self._mid_line or self._last is None:
            return
        line = f"run {self._run_id}  {progress_line(self._last)}"
        self._err.write(_CLEAR + line[: self._width() - 1].encode("utf-8", "replace"))
        self._drawn, self._drawn_at = True, now

    def _width(self) -> int:
        if self._err.fd is None:
            return _WIDTH
        try:
            return os.get_terminal_size(self._err.fd).columns or _WIDTH
        except OSError:
            return _WIDTH


def progress_line(at: Progress) -> str:
    """Return a snapshot in words; what is nothing to speak of is left out."""
    total = "~" if at.total is None else at.total
    parts = [f"{at.done}/{total} done"]
    if at.running:
        parts.append(f"{at.running} running")
    if at.batch:
        of = "" if at.batch_total is None else f" {at.batch_done}/{at.batch_total}"
        parts.append(f"{at.batch}{of}")
    if at.items:
        parts.append(at.items)
    parts.append(f"{at.workers}/{counted(at.workers_max, 'worker')}")
    if at.rate_per_s > 0:
        parts.append(f"{at.rate_per_s:.1f}/s")
    if at.eta_s is not None:
        parts.append(f"{duration(at.eta_s)} left")
    if at.reused:
        parts.append(f"{at.reused} from the journal")
    if at.crashes:
        parts.append(f"lost {at.crashes}, resubmitted {at.resubmitted}")
    return " | ".join(parts)


def steps(done: float, total: float | None) -> str:
    """Return how far an item is by its own word: 120/500, or 120 where it does not know the end."""
    return f"{done:.12g}" if total is None else f"{done:.12g}/{total:.12g}"


def duration(seconds: float) -> str:
    """Return a duration in the two largest units that it has: 1h05m, 2m03s, 7s."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"
