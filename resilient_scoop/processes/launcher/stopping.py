"""How a run is ended before its script ends: signals, a time limit, `rscoop checkpoint`.

Requests to the launcher, from the mildest to the strongest:

  continue    checkpoints, and nothing else            GO_ON_SIGNAL (`rscoop checkpoint --go-on`)
  hand over   checkpoints, then an orderly stop        SIGUSR1, SIGUSR2, the time limit,
                                                       `rscoop checkpoint`
  hurry       the same, with less time                 SIGTERM
  stop        an orderly stop at once                  SIGINT, SIGHUP, or the run cannot continue
  kill        everything ends now                      any of the last three, once more

A request that is milder than the current one changes nothing: batch systems send one signal several
times. The file `handover` in the run's folder tells other processes about its progress.
"""

from __future__ import annotations

import signal
import time
from enum import Enum, IntEnum, auto
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.core.endings import CTRL_C, STOPPED
from resilient_scoop.counts import counted
from resilient_scoop.processes.options import GRACE_S
from resilient_scoop.runs.display import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from resilient_scoop.processes.options import Limit
    from resilient_scoop.runs.folder import RunDir
    from resilient_scoop.runs.reports import Report

PRESSED_GRACE_S: Final = 30.0
FAREWELL_S: Final = 12.0
"""Time from the broker's order to stop until everything is killed."""
GO_ON_SIGNAL: Final = signal.SIGRTMIN + 1
"""A signal that no batch system sends."""
CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WARNINGS: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that batch systems send some time before the end of a job."""
HEARD: Final = (*CODES, *WARNINGS, GO_ON_SIGNAL)


class StopLevel(IntEnum):
    """The current request; see the module's docstring."""

    NONE = 0
    GO_ON = 1
    HAND_OVER = 2
    HURRY = 3
    STOP = 4
    KILL = 5


class StopRequest(Enum):
    """The requests that change the level."""

    GO_ON = auto()
    HAND_OVER = auto()  # a warning of the batch system, the time limit, `rscoop checkpoint`
    TERMINATE = auto()  # SIGTERM
    INTERRUPT = auto()  # SIGINT, SIGHUP
    FAILED = auto()  # the run cannot continue
    SAVED = auto()  # the wait for checkpoints is over


def _from(level: StopLevel, **more: StopLevel) -> dict[StopRequest, StopLevel]:
    """Return a row of the table: what is not named changes nothing."""
    return dict.fromkeys(StopRequest, level) | {StopRequest[name]: to for name, to in more.items()}


_NEXT: Final = {
    StopLevel.NONE: _from(
        StopLevel.NONE, GO_ON=StopLevel.GO_ON, HAND_OVER=StopLevel.HAND_OVER, TERMINATE=StopLevel.HURRY,
        INTERRUPT=StopLevel.STOP, FAILED=StopLevel.STOP,
    ),
    StopLevel.GO_ON: _from(
        StopLevel.GO_ON, HAND_OVER=StopLevel.HAND_OVER, TERMINATE=StopLevel.HURRY, INTERRUPT=StopLevel.STOP,
        FAILED=StopLevel.STOP, SAVED=StopLevel.NONE,
    ),
    StopLevel.HAND_OVER: _from(
        StopLevel.HAND_OVER, TERMINATE=StopLevel.HURRY, INTERRUPT=StopLevel.STOP, FAILED=StopLevel.STOP,
    ),
    StopLevel.HURRY: _from(
        StopLevel.HURRY, TERMINATE=StopLevel.KILL, INTERRUPT=StopLevel.KILL, FAILED=StopLevel.STOP,
    ),
    StopLevel.STOP: _from(StopLevel.STOP, TERMINATE=StopLevel.KILL, INTERRUPT=StopLevel.KILL),
    StopLevel.KILL: _from(StopLevel.KILL),
}  # fmt: skip


class HandoverReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the run's `handover` file."""

    ask: int = 0  # how many were requested, in the whole run
    over: bool = True
    hands_over: bool = False
    named: int = 0
    saved: int = 0
    left: int = 0
    whole: bool = False  # it is complete, and no process was left out


def read_report(run: RunDir) -> HandoverReport:
    """Return how far it is."""
    try:
        return msgspec.json.decode(_file(run).read_bytes(), type=HandoverReport)
    except (OSError, msgspec.MsgspecError):
        return HandoverReport()


def _file(run: RunDir) -> Path:
    return run.path / "handover"


class Stopping:
    """The requests to one launcher, and the deadlines of its waits.

    `tell` sends a line to the broker, `tell_user` a message to the user.
    """

    def __init__(
        self,
        run: RunDir,
        tell_user: Callable[[str], None],
        tell: Callable[[str], None],
        limit: Limit | None,
    ) -> None:
        self.run = run
        self.tell_user = tell_user
        self.tell = tell
        self.limit = limit
        self.limit_at = inf if limit is None else time.monotonic() + limit.after_s
        self.level = StopLevel.NONE
        self.code = STOPPED
        self.kill_at: float | None = None
        self.until = 0.0  # longest wait for the current request
        self.written = msgspec.structs.replace(read_report(run), over=True)
        self.whole = False  # every parent with an open block has saved
        self.named_reported = False
        self.word = "interrupted"  # the reason of a stop, for all processes

    @property
    def ends(self) -> bool:
        """Whether the run is to end before its script does."""
        return self.level >= StopLevel.HAND_OVER

    @property
    def stops(self) -> bool:
        """Whether it must stop normally, without waiting for checkpoints."""
        return self.level >= StopLevel.STOP

    def due_s(self, now: float) -> float:
        """Return the seconds until something must be done."""
        return max(0.0, min(self.limit_at, inf if self.kill_at is None else self.kill_at) - now)

    def is_late(self, now: float) -> bool:
        """Return whether everything must be killed."""
        return self.kill_at is not None and now >= self.kill_at

    def hear(self, numbers: Iterable[int]) -> None:
        """Handle signals."""
        for number in numbers:
            if number in WARNINGS:
                self._ask(StopRequest.HAND_OVER, signal.Signals(number).name, GRACE_S)
            elif number == GO_ON_SIGNAL:
                self._ask(StopRequest.GO_ON, "", GRACE_S)
            elif number in CODES:
                self._hear_stop(signal.Signals(number))

    def _hear_stop(self, number: signal.Signals) -> None:
        request = StopRequest.TERMINATE if number == signal.SIGTERM else StopRequest.INTERRUPT
        if _NEXT[self.level][request] is StopLevel.KILL:
            self.level, self.kill_at = StopLevel.KILL, time.monotonic()
            return
        self.code = CODES[number]
        if number == signal.SIGTERM:
            self._ask(request, "SIGTERM", PRESSED_GRACE_S)
        else:
            self.tell_user(
                "stopping: running calls have a few seconds to end; once more to stop at once"
            )
            self.word = CTRL_C if number == signal.SIGINT else self.word
            self.stop()

    def look_at_clock(self, now: float) -> None:
        """Hand over when the time limit is reached."""
        if now >= self.limit_at and self.limit is not None:
            self.limit_at = inf
            self._ask(StopRequest.HAND_OVER, "the time limit is near", self.limit.grace_s)

    def _ask(self, request: StopRequest, why: str, grace_s: float) -> None:
        level = _NEXT[self.level][request]
        if level is self.level:
            return
        self.level, self.until = level, time.monotonic() + grace_s
        if level >= StopLevel.HAND_OVER:
            self.kill_at = self.until + FAREWELL_S
            once_more = "once more" if level == StopLevel.HURRY else "Ctrl-C"
            self.tell_user(
                f"{why}: asking for checkpoints; stops when they are made, after {duration(grace_s)} "
                f"at most; {once_more} to stop at once"
            )
        ask, self.named_reported = self.written.ask + 1, False
        self._write(HandoverReport(ask=ask, over=False, hands_over=level >= StopLevel.HAND_OVER))
        self._tell_ask(grace_s)

    def _tell_ask(self, grace_s: float) -> None:
        what = "hand-over" if self.level >= StopLevel.HAND_OVER else "go-on"
        self.tell(f"checkpoint {self.written.ask} {what} {max(0.0, grace_s):.3f}")

    def stop(self) -> None:
        """Make the broker stop normally, without waiting for checkpoints."""
        self.level = _NEXT[self.level][StopRequest.FAILED]
        now = time.monotonic()
        self.kill_at = min(self.kill_at or inf, now + FAREWELL_S)
        self.tell(f"stop {self.word}")

    def again(self) -> None:
        """Tell a new broker the current request."""
        if self.stops:
            self.tell(f"stop {self.word}")
        elif self.level > StopLevel.NONE:
            self._tell_ask(self.until - time.monotonic())

    def hear_report(self, report: Report) -> None:
        """Handle the broker's progress with the last request."""
        if report.ask != self.written.ask or self.written.over:
            return
        latest = HandoverReport(
            ask=report.ask, over=report.asked_over, hands_over=self.written.hands_over,
            named=report.named, saved=report.saved, left=report.left, whole=report.whole,
        )  # fmt: skip
        if report.all_named and report.named and not self.named_reported:
            self.named_reported = True
            self.tell_user(f"{counted(report.named, 'parent')} asked for a checkpoint")
        if latest.over:
            self.whole = latest.hands_over and latest.named > 0 and latest.whole
            self._report_over(latest)
            self.level = _NEXT[self.level][StopRequest.SAVED]
        if latest != self.written:
            self._write(latest)

    def _report_over(self, report: HandoverReport) -> None:
        if report.left:
            self.tell_user(
                f"{report.left} of {counted(report.named, 'parent')} did not commit in time: a resume "
                "replays them from their last checkpoint"
            )
        elif not report.whole:
            self.tell_user(
                "not every process answered in time; a resume replays what was not saved"
            )
        elif not report.named:
            self.tell_user("no checkpoint block is open: nothing to wait for")
        elif not self.ends:
            self.tell_user(f"{counted(report.saved, 'parent')} saved; the run continues")

    def end(self) -> None:
        """End all waits for checkpoints: the run ends."""
        if not self.written.over:
            self._write(msgspec.structs.replace(self.written, over=True))

    def _write(self, report: HandoverReport) -> None:
        self.written = report
        draft = self.run.path / "handover.tmp"
        try:
            draft.write_bytes(msgspec.json.encode(report))
            draft.rename(_file(self.run))
        except OSError:
            return  # a full disk: processes that wait for it stop waiting by themselves
