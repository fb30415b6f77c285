"""What an agent's program says on its output, from its start to its end.

Lines that begin with `rscoop-host: ` are the program's; all others are noise: banners of login shells,
warnings, a traceback. The last lines of noise are kept, since they explain a start that failed.

    state       event                                  next
    ----------  -------------------------------------  -----------
    STARTING    "starting"                             STARTING
    STARTING    "running"                              RUNNING
    STARTING    "refused"                              NEVER_CAME
    STARTING    "ended", the program ends              NEVER_CAME
    STARTING    nothing for the time of a start        UNKNOWN
    RUNNING     "ended", the program ends              GONE
    STARTING,   the connection is lost                 UNKNOWN
    RUNNING
    any         "over"                                 the same

"over" says that an agent and all its processes have ended. It is passed on for the broker, which misses the
agent only later (decision 0080).

What comes in another state is ignored: a program that says "running" twice has one agent, and one
that was given up stays so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from resilient_scoop.hosts.base import Seen, UnitState

PREFIX: Final = "rscoop-host: "
NOISE_LINES: Final = 20
LINE_CHARS: Final = 400
AGENT_CHARS_MAX: Final = 64
_ENDED: Final = (UnitState.GONE, UnitState.NEVER_CAME)
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


class GuardianLine(msgspec.Struct, frozen=True):
    """One line of the program."""

    state: Literal["starting", "running", "refused", "ended", "over"]
    host: str = ""
    pid: int = 0
    why: str = ""
    lasting: bool = (
        False  # of "refused": another try is of no use until the user has changed something
    )
    agent: str = ""  # of "over": which one, hexadecimal
    died: bool = False  # of "over": it did not end in order


class EndedAgent(msgspec.Struct, frozen=True):
    """An agent and all its processes have ended, as its guardian has noticed."""

    agent: str  # hexadecimal
    died: bool


HearOver = Callable[[EndedAgent], None]


def ignored(_over: EndedAgent) -> None:
    """Ignore the report."""


class Conversation:
    """The state of one agent; a thread feeds it, others look.

    A conversation belongs to one start; `is_lost` says that no more is heard and that the agent may live.
    """

    def __init__(
        self, name: str, *, start_s: float, now: float, hear_over: HearOver = ignored
    ) -> None:
        self._name = name
        self._hear_over = hear_over
        self._start_s = start_s
        self._began_at = now
        self._lock = threading.Lock()
        self._state = UnitState.STARTING
        self._why = ""
        self._is_lasting = False
        self._noise: deque[str] = deque(maxlen=NOISE_LINES)
        self.ended = threading.Event()
        self.pid = 0

    @property
    def is_over(self) -> bool:
        """Whether the agent's end is known."""
        return self._state in _ENDED

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost, or the start given up, before the end was known."""
        return self._state is UnitState.UNKNOWN

    def line(self, text: str) -> None:
        """Handle one line of output."""
        noise, prefix, rest = text.partition(PREFIX)
        report = _decoded(rest) if prefix else None
        with self._lock:
            if report is None:
                noise = text
            if noise.strip():
                self._noise.append(noise.rstrip()[:LINE_CHARS])
            if report is not None:
                self._take(report)
        if report is not None and report.state == "over" and _is_hex(report.agent):
            self._hear_over(EndedAgent(report.agent, report.died))

    def _take(self, report: GuardianLine) -> None:
        if self._state is UnitState.STARTING and report.state == "running":
            self._state, self.pid = UnitState.RUNNING, report.pid
        elif self._state is UnitState.STARTING and report.state in {"refused", "ended"}:
            self._is_lasting = report.lasting
            self._end(UnitState.NEVER_CAME, report.why or "it ended before it ran")
        elif self._state is UnitState.RUNNING and report.state == "ended":
            self._end(UnitState.GONE, report.why)

    def exited(self, status: int | None) -> None:
        """Handle the program's end: exit status, minus a signal's number, or None for some signal."""
        with self._lock:
            if self._state is UnitState.RUNNING:
                self._end(UnitState.GONE, "" if status == 0 else f"its program {_end_text(status)}")
            elif self._state is UnitState.STARTING:
                self._end(UnitState.NEVER_CAME, self._cause(status))

    def _cause(self, status: int | None) -> str:
        if status in {_NOT_FOUND, _NOT_EXECUTABLE}:
            return (
                f"{self._name}: the shell there could not start Python (exit status {status}); "
                "name one with python= in the hostfile or with --python"
            )
        return (
            f"{self._name}: the agent's program {_end_text(status)} before it said that it runs; the last "
            f"lines that it wrote say why, and `rscoop doctor --host {self._name}` looks for the cause"
        )

    def lost(self, why: str) -> None:
        """Handle the loss of the connection; the agent may live."""
        with self._lock:
            if self._state in {UnitState.STARTING, UnitState.RUNNING}:
                self._end(UnitState.UNKNOWN, why)

    def give_up(self, now: float) -> bool:
        """Stop waiting for a start that has taken too long; return whether it was given up.

        Its agent may still connect.
        """
        with self._lock:
            if self._state is not UnitState.STARTING or now < self._began_at + self._start_s:
                return False
            self._end(
                UnitState.UNKNOWN,
                f"{self._name}: the agent has not said that it runs {self._start_s:.0f} s after its start; "
                f"a slow file system or a shell that waits for input can cause this: see "
                f"`rscoop doctor --host {self._name}`",
            )
            return True

    def _end(self, state: UnitState, why: str) -> None:
        self._state, self._why = state, why
        self.ended.set()

    def seen(self) -> Seen:
        """Return the present state."""
        with self._lock:
            log = "" if self._state is UnitState.RUNNING else "\n".join(self._noise)
            return Seen(self._state, self._why, log, lasting=self._is_lasting)


def _decoded(text: str) -> GuardianLine | None:
    try:
        return msgspec.json.decode(text, type=GuardianLine)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _is_hex(text: str) -> bool:
    return 0 < len(text) <= AGENT_CHARS_MAX and set(text) <= set("0123456789abcdef")


def _end_text(status: int | None) -> str:
    if status is None:
        return "was killed by a signal"
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
