"""The display of a run: the script's output, one live progress line, and notes.

Standard output belongs to the script, byte for byte; everything of ours goes to standard error. On
a terminal the progress is one line that is redrawn in place, cleared before anything else is
written and never drawn after an unfinished line of the script. Elsewhere (a file of a batch job) it
is one plain line per minute, and the first line names the run. No color is used.

If the reader ends (`rscoop run … | head`), the display ends, but not the run.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, TextIO, cast
from unicodedata import east_asian_width

from resilient_scoop.counts import counted

PLAIN_EVERY_S: Final = 60.0
DRAW_EVERY_S: Final = 0.1
RATE_WINDOW_S: Final = 10.0
ETA_AFTER_S: Final = 5.0
ETA_AFTER_SHARE: Final = 0.01
_CLEAR: Final = b"\r\x1b[2K"
_WIDTH: Final = 80
_FULL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run at one moment, as known to its launcher."""

    elapsed_s: float = 0.0
    done: int = 0
    running: int = 0
    workers: int = 0
    crashes: int = 0
    resubmitted: int = 0
    reused: int = 0  # items that came from the journal
    rate_per_s: float = 0.0
    label: str = ""  # progress of the script, from `futures.progress`
    share: float | None = None  # total, from the script
    eta_s: float | None = None  # estimated seconds to the end, from the script's progress
    batch: str = ""  # path and function of the current batch
    batch_done: int = 0
    batch_total: int | None = None  # None: more items may follow
    batch_eta_s: float | None = None  # estimated seconds to the end of the batch
    items: str = ""  # progress of the running items, from `futures.progress`
    full: str = ""  # processes that wait for disk space
    hosts_there: int = 0  # other hosts that take part
    hosts: int = 0  # all other hosts


class Rate:
    """How fast a count has grown over the last `RATE_WINDOW_S`."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float:
        """Record the count at `now`; return its growth per second, 0 if unknown."""
        seen = self._seen
        if seen and count < seen[-1][1]:
            seen.clear()  # counting starts again after a restart of the broker
        seen.append((now, count))
        while seen[0] is not seen[-1] and seen[1][0] <= now - self._window_s:
            seen.popleft()
        took_s = now - seen[0][0]
        return (count - seen[0][1]) / took_s if took_s > 0 else 0.0


class RemainingTime:
    """Estimates the remaining time from the completed share; a new `name` starts a new estimate."""

    def __init__(self) -> None:
        self._name = ""
        self._began = self._first = 0.0

    def eta_s(self, now: float, name: str, share: float | None) -> float | None:
        """Return the seconds to its end, or None if too little was observed."""
        if share is None or name != self._name or share < self._first:
            self._name, self._began, self._first = name, now, share or 0.0
            return None
        seen, took_s = share - self._first, now - self._began
        if took_s < ETA_AFTER_S or seen < ETA_AFTER_SHARE or share >= 1:
            return None
        return took_s * (1 - share) / seen


class _ScreenStream:
    """One stream, written at once and completely, also if its descriptor is non-blocking."""

    def __init__(self, stream: BinaryIO | TextIO, *, keeps: bool) -> None:
        self._stream = stream
        self._keeps = keeps  # if the disk is full, wait for space; else drop the text
        self.gone = False
        self.full: Callable[[], None] = lambda: None  # called when it starts to wait for space
        self.lost_bytes = 0  # bytes that were not read
        try:
            self._fd: int | None = stream.fileno()
        except (io.UnsupportedOperation, ValueError):
            self._fd = None

    @property
    def fd(self) -> int | None:
        return self._fd

    def is_tty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def is_pipe(self) -> bool:
        if self._fd is None or self.gone:
            return False
        mode = os.fstat(self._fd).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def write(self, data: bytes) -> None:
        if self.gone:
            self.lost_bytes += len(data)
            return
        try:
            if self._fd is None:
                self._write_stream(data)
            else:
                _write_fd(self._fd, data, keeps=self._keeps, full=self.full)
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO, errno.EBADF}:
                raise
            self.lost_bytes = len(data)
            self.gone = True  # the terminal was closed, or `head` has ended

    def _write_stream(self, data: bytes) -> None:
        buffer = getattr(self._stream, "buffer", None)
        if buffer is not None:
            buffer.write(data)
        elif isinstance(self._stream, io.TextIOBase):
            self._stream.write(data.decode("utf-8", "replace"))
        else:
            cast("BinaryIO", self._stream).write(data)
        self._stream.flush()


def _write_fd(fd: int, data: bytes, *, keeps: bool, full: Callable[[], None]) -> None:
    view, is_reported = memoryview(data), False
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiting = select.poll()  # not select(): descriptors may be above 1024
            waiting.register(fd, select.POLLOUT)
            waiting.poll()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not keeps:
                return
            if not is_reported:
                full()
            is_reported = True
            time.sleep(
                _FULL_S
            )  # a file on a full disk; signals are handled (`processes.launcher.signals`)


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
        tty: bool,  # noqa: FBT001 - its callers name it
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = _ScreenStream(stream_out, keeps=True)
        self._err = _ScreenStream(stream_err, keeps=False)
        self._out.full = self._report_full
        self._run_id = run_id
        self._tty = tty
        self._quiet = quiet
        self._clock = clock
        self._last: RunProgress | None = None
        self._drawn = False
        self._hidden_until = float("-inf")
        self._drawn_at = float("-inf")
        self._plain_at = clock()
        self._mid_line = False  # unfinished line of the script's output on the terminal
        self._error_mid_line = False  # unfinished line of its standard error, wherever that goes

    def output(self, data: bytes) -> None:
        """Write output of the script, unchanged and at once."""
        if not data:
            return
        self._clear()
        self._out.write(data)
        if self._out.is_tty():
            self._mid_line = not data.endswith(b"\n")
        if self._out.is_pipe():
            # The reader may write to our terminal, a moment later.
            self._hidden_until = self._clock() + DRAW_EVERY_S
        self._redraw()

    def _report_full(self) -> None:
        self.note(
            "no space left for the script's standard output: it waits until there is room; nothing is lost"
        )

    @property
    def lost_bytes(self) -> int:
        """How much of the script's output came after its reader had ended."""
        return self._out.lost_bytes

    def error(self, data: bytes) -> None:
        """Write standard error of the script, or of a process of the run."""
        if not data:
            return
        self._clear()
        self._err.write(data)
        self._error_mid_line = not data.endswith(b"\n")
        if self._err.is_tty():
            self._mid_line = self._error_mid_line
        self._redraw()

    def begin(self, text: str) -> None:
        """Name the run, if there is no live line."""
        if not self._tty and not self._quiet:
            self.note(text)

    def note(self, text: str) -> None:
        """Write a message in a line of its own."""
        self._clear()
        on_file = self._error_mid_line and not self._err.is_tty()
        fresh = b"\n" if self._mid_line or on_file else b""
        self._mid_line = self._error_mid_line = False
        self._err.write(fresh + f"rscoop: {text}\n".encode("utf-8", "replace"))
        self._redraw()

    def progress(self, snapshot: RunProgress) -> None:
        """Show the progress of the run; may be called at any rate."""
        now = self._clock()
        changed, self._last = snapshot != self._last, snapshot
        if self._quiet:
            return
        if self._tty:
            if (changed or not self._drawn) and now - self._drawn_at >= DRAW_EVERY_S:
                self._draw(now)
        elif now - self._plain_at >= PLAIN_EVERY_S:
            self._plain_at = now
            self.note(f"run {self._run_id}: {progress_line(snapshot)}")

    def close(self) -> None:
        """Remove the live line; the streams stay open."""
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
        if self._mid_line or self._last is None or now < self._hidden_until:
            return
        width = self._width() - 1
        line = progress_line(self._last, width, f"run {self._run_id}")
        while columns(line) > width:
            line = line[:-1]
        self._err.write(_CLEAR + line.encode("utf-8", "replace"))
        self._drawn, self._drawn_at = True, now

    def _width(self) -> int:
        if self._err.fd is None:
            return _WIDTH
        try:
            return os.get_terminal_size(self._err.fd).columns or _WIDTH
        except OSError:
            return _WIDTH


def progress_line(at: RunProgress, width: int | None = None, run: str = "") -> str:
    """Return a snapshot as text, without parts that are zero or do not fit."""
    parts = [(order, text) for order, text in enumerate(_parts(at, run)) if text]
    if width is not None:
        ranked = sorted(parts, key=lambda part: _RANKS[part[0]])
        while len(ranked) > 1 and columns(_BETWEEN.join(text for _, text in ranked)) > width:
            ranked.pop()
        parts = sorted(ranked)
    return _BETWEEN.join(text for _, text in parts)


def columns(text: str) -> int:
    """Return how many columns a text needs on a terminal: wide East Asian characters need two."""
    return sum(1 + (east_asian_width(letter) in "WF") for letter in text)


_BETWEEN: Final = " | "
_RANKS: Final = (0, -1, 1, 2, 4, 3, 8, 7, 6, 5, 10, 9)
"""Parts with low numbers stay if the line is narrow."""


def _parts(at: RunProgress, run: str) -> tuple[str, ...]:
    of = "" if at.batch_total is None else f"/{at.batch_total}"
    share = at.share
    if share is None and at.batch and at.batch_total:
        share = at.batch_done / at.batch_total
    left = at.eta_s if at.share is not None else at.batch_eta_s
    what = "" if at.share is not None else " of this call"
    return (
        duration(at.elapsed_s),
        at.full,
        "" if share is None else f"{100 * share:.0f} %",
        at.label,
        f"{at.batch} {at.batch_done}{of}" if at.batch else "",
        "" if left is None else f"{duration(left)} left{what}",
        at.items,
        _workers(at),
        f"{at.rate_per_s:.1f}/s" if at.rate_per_s > 0 else "",
        counted(at.crashes, "crash", "crashes") + f", {at.resubmitted} resubmitted"
        if at.crashes
        else "",
        f"{counted(at.done, 'result')}" + (f", {at.reused} from the journal" if at.reused else ""),
        run,
    )


def _workers(at: RunProgress) -> str:
    """Return who computes: `8 running on 8 workers, 3 of 4 hosts`."""
    hosts = f", {at.hosts_there} of {counted(at.hosts, 'host')}" if at.hosts else ""
    if not at.workers:
        return f"no worker yet{hosts}"
    return f"{at.running} running on {counted(at.workers, 'worker')}{hosts}"


def steps(done: float, total: float | None) -> str:
    """Return an item's progress as text: 120/500, or 120 if the total is unknown."""
    return f"{done:.12g}" if total is None else f"{done:.12g}/{total:.12g}"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: 1h05m, 2m03s, 7s."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"
