"""The machine of a host's agent: its processes, reasons of deaths, restarts, and when to give up.

An agent has a slot for each process of its host. Its events say what happened to them and what they
are executing; its actions are: start, kill, tell the broker, tell the user, end. It makes no
assumption about the host: the origin is one of the roles of a slot.

The life of a slot (`_NEXT`), by what happens to it:

    state      DUE       STARTED  NOT_STARTED  KILLED  EXITED   DONE  UNFIT  RESUMED
    WAITING    STARTING  -        -            -       -        -     -      -
    STARTING   -         RUNNING  WAITING      -       -        -     -      -
    RUNNING    -         -        -            DYING   WAITING  OVER  HELD   -
    DYING      -         -        -            DYING   WAITING  OVER  HELD   -
    HELD       -         -        -            -       -        -     -      WAITING
    OVER       -         -        -            -       -        -     -      WAITING

DUE is the moment of a start, DONE the end of a process that had said that its work is done, UNFIT the end
of a worker that cannot import the script, where no further try is of any use: the broker, and each later
one, is told so, and stops the run when a call waits for a worker.
RESUMED is a new broker of a run that had told the processes of another host to end, but not their agent.

  G1  A slot has one process at most: its successor is started after its end is known.
  G2  The broker is told of the end of every process, in order, and what cannot be sent is kept until
      there is a broker. On another host it is told when what the process had finished has arrived there
      (`core.relay`), or the agent leaves. Only when the launcher is gone nothing is told: the broker ends
      by itself, and would take the deaths of that end for deaths of a run that continues.
  G3  A death is blamed on what was on the CPU ("crash", "oom", "timeout") only if it was not requested:
      not at a stop, and not if the process had done its work, had to start again, could not import the
      script or was refused a resource by the system.
  G4  After a stop nothing is started, whatever runs has a deadline, and the agent leaves when nothing runs.
      Its `Bye` is the last that it sends: the broker may end when all have said it.
  G5  A process whose work is done has no successor in the same life of the run.
  G6  What fails repeatedly is tried ever later, or a limited number of times, or for a limited time,
      but for a full disk; then the run is given up.
  G7  Only processes that the host lets run are vouched for.
  G8  The agent of another host outlives its launcher, once a broker has greeted it. It ends normally when
      it has received nothing from a broker for `orphan_timeout_s`; time in which it did not run itself is
      not counted, and it says so.

Times at a stop (G4): what runs has `stop_grace_s`, an interrupted script `LAST_S` more. After the script's
end a process has `EXIT_S` for its exit handlers, but a worker that still computes has the grace only.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from resilient_scoop.core.endings import (
    CANNOT_IMPORT,
    CTRL_C,
    ENDED,
    HOPELESS,
    LAUNCHER_GONE,
    NOW,
    ORPHANED,
    REFUSED,
    START_AGAIN,
    STOPPED,
)
from resilient_scoop.core.flight import Flight
from resilient_scoop.core.link import Link
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilient_scoop.core.relay import Relay

BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 30.0
FREED_MAX: Final = 4
"""How often a worker may be restarted because C code waits, possibly not for a lock of a task."""
HASTY_S: Final = 1.0
HASTY_MIN: Final = 3
STILLBORN_MAX: Final = 5
UNFIT_MAX: Final = 4
"""How often a single worker may fail to import the script before the run stops."""
REFUSED_AGAIN_S: Final = 1.0
REFUSED_S_MAX: Final = 10.0
LAST_S: Final = 3.0
"""Time of an interrupted script beyond the grace of tasks."""
EXIT_S: Final = 10.0
"""Time for the user's exit handlers, threads and finalizers in a process whose work is done."""
IMPORT_S: Final = 60.0
"""Time after which a long import of the script is reported."""
PAUSED_S: Final = 3.0
"""Time after which a stopped process (SIGSTOP) is reported."""
SILENT_S: Final = 2.0
"""Silence of the broker after which what was sent meanwhile is taken for lost."""
_SIGKILL: Final = -9  # as an exit code
_WANTS_NOTHING: Final = (ENDED, NOW, LAUNCHER_GONE, ORPHANED)
"""Stops at which it is not waited until the broker has what ended processes had finished."""


class AgentConfig(msgspec.Struct, frozen=True):
    """The settings of the machine; here and not in `config`, because an agent must start quickly."""

    stop_grace_s: float = 3.0
    """What running items have at a stop."""
    alive_s: float = 0.5
    """How often the broker is told which processes run: several times per second of a lease, since
    one message that is late must not make a process look dead."""
    always_replay: bool = False
    """Whether an origin may ask to be started again."""
    orphan_timeout_s: float | None = None
    """How long the agent of another host lives without any message of a broker (G8). None: an agent of
    the launcher's host, which ends with the launcher."""


class SlotState(Enum):
    """The states of a slot."""

    WAITING = auto()  # no process; the next is started at `Slot.start_at`
    STARTING = auto()  # the shell was asked to start one
    RUNNING = auto()
    DYING = auto()  # killed by the agent; its end is not known yet
    HELD = auto()  # no process: a start would be useless, and this was reported to the broker
    OVER = auto()  # no process: its work is done


class SlotEvent(Enum):
    """The events of a slot."""

    DUE = auto()
    STARTED = auto()
    NOT_STARTED = auto()
    KILLED = auto()
    EXITED = auto()
    DONE = auto()
    UNFIT = auto()
    RESUMED = auto()


_ENDS: Final = {
    SlotEvent.KILLED: SlotState.DYING,
    SlotEvent.EXITED: SlotState.WAITING,
    SlotEvent.DONE: SlotState.OVER,
    SlotEvent.UNFIT: SlotState.HELD,
}
_NEXT: Final[dict[SlotState, dict[SlotEvent, SlotState]]] = {
    SlotState.WAITING: {SlotEvent.DUE: SlotState.STARTING},
    SlotState.STARTING: {
        SlotEvent.STARTED: SlotState.RUNNING,
        SlotEvent.NOT_STARTED: SlotState.WAITING,
    },
    SlotState.RUNNING: _ENDS,
    SlotState.DYING: _ENDS,
    SlotState.HELD: {SlotEvent.RESUMED: SlotState.WAITING},
    SlotState.OVER: {SlotEvent.RESUMED: SlotState.WAITING},
}


class Slot(msgspec.Struct, eq=False):
    """A slot for a process: the present one, and when the next may be started."""

    role: str  # "origin", "worker"
    name: str
    state: SlotState = SlotState.WAITING
    incarnation: bytes = b""
    pid: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    refused_at: float | None = None  # since when the system has refused it
    hasty: int = 0  # how many times in sequence it died at once, without progress
    reached: int = 0  # the progress of the script (`Flight.reached`)
    stillborn: int = 0  # how many times in sequence it ended before it started its work
    unfit: int = 0  # how many times in sequence it could not import the script
    lacks: str = ""  # why it could not import the script
    killed_for: str = ""
    late: bool = False  # its late end was reported
    freed: int = 0  # how often it had to end to release a lock
    import_reported: bool = False  # a very long import was reported
    paused_s: float = 0.0  # how long it has been stopped (SIGSTOP), in time in which the agent ran

    @property
    def has_process(self) -> bool:
        """Whether it has a process."""
        return self.state in (SlotState.RUNNING, SlotState.DYING)

    def enter(self, happening: SlotEvent) -> None:
        """Go to the next state of the table."""
        after = _NEXT[self.state]
        assert happening in after, f"{self.name} is {self.state.name} at {happening.name}"
        self.state = after[happening]


class Started(msgspec.Struct, frozen=True):
    """A requested process has started."""

    name: str
    incarnation: bytes
    pid: int


class NotStarted(msgspec.Struct, frozen=True):
    """The system refuses to start a requested process."""

    name: str
    why: str
    full: bool = False  # the disk is full: waits without limit


class Exited(msgspec.Struct, frozen=True):
    """A process has ended."""

    name: str
    code: int  # negative: the signal that ended it
    flight: Flight
    oom: bool = False  # the kernel has killed for memory since the last death
    why: str = ""  # the message of the process itself, if the code is REFUSED or CANNOT_IMPORT
    at: float = 0.0  # seconds since 1970, for display


class Received(msgspec.Struct, frozen=True):
    """A message of the broker, and what the processes are executing at this moment."""

    frames: list[bytes]
    flights: dict[str, Flight]


class LauncherGone(msgspec.Struct, frozen=True):
    """The launcher has ended."""


class Ticked(msgspec.Struct, frozen=True):
    """Time has passed; `flights` are those of all running processes.

    `states` (as in /proc) are given from `looks_at` on.
    """

    flights: dict[str, Flight]
    states: dict[str, str] | None = None


Event = Started | NotStarted | Exited | Received | LauncherGone | Ticked


class CannotStart(msgspec.Struct, frozen=True):
    """The system refuses a process, for the first time in a sequence."""

    name: str
    why: str


class ProcessesRefused(msgspec.Struct, frozen=True):
    """The run stops because the system refuses every process of a role."""

    role: str
    why: str


class Stillborn(msgspec.Struct, frozen=True):
    """The run stops because a process repeatedly ends before it has begun."""

    name: str
    times: int
    code: int
    oom: bool


class Died(msgspec.Struct, frozen=True):
    """A process died and is replaced."""

    role: str
    name: str
    code: int
    oom: bool


class Freed(msgspec.Struct, frozen=True):
    """A worker has ended because its tasks waited for a lock."""

    name: str


class ImportFails(msgspec.Struct, frozen=True):
    """A worker cannot import the script, others can: it tries again."""

    why: str
    wait_s: float


class ImportIsLong(msgspec.Struct, frozen=True):
    """A worker has been importing the script for `IMPORT_S`."""

    name: str
    pid: int


class Paused(msgspec.Struct, frozen=True):
    """A process has been stopped (SIGSTOP) for `PAUSED_S`."""

    role: str
    name: str
    pid: int


class Continued(msgspec.Struct, frozen=True):
    """A process that was reported as stopped runs again."""

    name: str
    pid: int


class EndsLate(msgspec.Struct, frozen=True):
    """A process did not end within `EXIT_S` of the run's end."""

    name: str


class Slept(msgspec.Struct, frozen=True):
    """The agent itself did not run for longer than a lease: its host slept, or was stopped."""

    seconds: float


class NotKept(msgspec.Struct, frozen=True):
    """There is no space for copies of results, which are needed if a process dies."""


class DamagedCopies(msgspec.Struct, frozen=True):
    """Results of an ended process cannot be read from their file."""

    bundles: int


class Orphaned(msgspec.Struct, frozen=True):
    """The agent ends because it has received nothing from a broker for `orphan_timeout_s`."""

    seconds: float


Note = (
    CannotStart | ProcessesRefused | Stillborn | Died | Freed | ImportFails | ImportIsLong | Paused
    | Continued | EndsLate | Slept | Orphaned | NotKept | DamagedCopies
)  # fmt: skip


class Start(msgspec.Struct, frozen=True):
    """Start a process; the shell answers with `Started` or `NotStarted`."""

    name: str
    careful: bool = False  # a worker starts none of the script's calls while one of them waits
    may_be_freed: bool = True  # a careful worker may end again because C code waits for a lock
    refusal_reported: bool = False  # the user already knows that the system refuses it


class KillProcess(msgspec.Struct, frozen=True):
    """Kill a process now; its end is reported like any other (`Exited`)."""

    name: str


class EndLeftovers(msgspec.Struct, frozen=True):
    """End the processes that an ended process had started; without a name, those of all ended processes."""

    name: str = ""


class WriteNote(msgspec.Struct, frozen=True):
    """Send a note to the user."""

    note: Note


class Transmit(msgspec.Struct, frozen=True):
    """Send a message to the broker."""

    frames: list[bytes]


class Beat(msgspec.Struct, frozen=True):
    """Send a sign of life to the broker."""

    frames: list[bytes]


class Forward(msgspec.Struct, frozen=True):
    """Send a message to the broker in the name of a process that has ended."""

    peer: PeerId
    frames: list[bytes]


class SendLogs(msgspec.Struct, frozen=True):
    """Send the rest of this host's logs to the run's host: the broker may end after `Bye`."""


class EndAgent(msgspec.Struct, frozen=True):
    """End the agent: no process is left."""

    status: int


Action = (
    Start | KillProcess | EndLeftovers | WriteNote | Transmit | Beat | Forward | SendLogs | EndAgent
)


class Agent:
    """The machine for the processes of one host."""

    def __init__(  # noqa: PLR0913 - as its Hello
        self, config: AgentConfig, slots: list[Slot], *, node: str, name: str, pid: int, run: bytes,
        relay: Relay | None = None,
    ) -> None:  # fmt: skip
        """`relay`: messages of the processes, on a host other than the run's."""
        self.config = config
        self.slots = {slot.name: slot for slot in slots}
        self.node = node
        self.name = name
        self.pid = pid
        self.run = run
        self.link = Link(run, 0)
        self.pending: list[bytes] = []  # messages from before there was a broker
        self.greeted = False
        self.status = 0  # exit status, of an agent that gives up
        self.stopping: str | None = None
        self.stop_at = self.abandon_at = inf
        self.looks_at = -inf  # when the state of processes is to be looked at
        self.looked_at = self.ticked_at = -inf
        self.left = False
        self.lease_s = 10.0  # as the broker has reported
        self.heard_at = self.stepped_at = (
            inf  # time of the last message of a broker, and of the last event
        )
        self._actions: list[Action] = []
        self.relay = relay
        self.ends: dict[PeerId, wire.ProcessLost] = {}  # not reported yet
        # Reports of ended processes: (number of the message, processes); then those that the broker has.
        self._reported: deque[tuple[int, frozenset[PeerId]]] = deque()
        self._known: frozenset[PeerId] = frozenset()
        self._is_full_reported, self._torn_reported = False, 0

    def step(self, event: Event, now: float) -> list[Action]:
        """Handle an event; return actions, in order."""
        assert not self.left, "nothing happens to an agent that has left"
        if self.config.orphan_timeout_s is not None:
            self._mind_own_pause(now)
        match event:
            case Started():
                self._started(event, now)
            case NotStarted(name=name, why=why, full=full):
                slot = self.slots[name]
                slot.enter(SlotEvent.NOT_STARTED)
                self._refused(slot, why, now, full=full)
            case Exited():
                self._exited(event, now)
            case Received(frames=frames, flights=flights):
                self._received(frames, flights, now)
            case LauncherGone():
                if self.config.orphan_timeout_s is None or self.link.epoch == 0:
                    self.stop(LAUNCHER_GONE, now)
                    self.stop_at = now
            case Ticked(flights=flights, states=states):
                self.ticked_at = now
                self._look(flights, states, now)
                self._mind_silence(now)
                self._end_late(flights, now)
            case _:
                assert_never(event)
        self._start_due(now)
        if self.relay is not None:
            self._attend_relay(self.relay, now)
        self._leave(now)
        actions, self._actions = self._actions, []
        return actions

    def deadline(self) -> float:
        """Return when `Ticked` is due, whatever happens until then.

        Deadlines of items are not included: only the shell sees what is being executed.
        """
        due = [self.looks_at]
        if self.relay is not None:
            due.append(self.relay.deadline(self._known))
        if self.stopping is None:
            if self.config.orphan_timeout_s is not None and self.heard_at < inf:
                due.append(self.heard_at + self.config.orphan_timeout_s)
            due += [s.start_at for s in self.slots.values() if s.state is SlotState.WAITING]
        else:
            ends = (self.stop_at, self.abandon_at, self.stop_at + LAST_S)
            due += [at for at in ends if at > self.ticked_at]
        return min(due)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        for slot in self.slots.values():
            assert slot.state is not SlotState.STARTING or not slot.killed_for, f"G1 {slot.name}"
            assert slot.state is SlotState.DYING or not slot.killed_for, f"G1 {slot.name}"
            assert slot.state is not SlotState.HELD or slot.unfit, f"G6 {slot.name}"
            assert slot.stillborn <= STILLBORN_MAX or self.stopping is not None, f"G6 {slot.name}"
        assert (self.stopping is None) == (self.stop_at == inf), "G4"
        assert not self.left or not self._running(), "G4"
        assert not (self.greeted and self.pending), "G2"

    def _start_due(self, now: float) -> None:
        for slot in self.slots.values():
            if self.stopping is None and slot.state is SlotState.WAITING and slot.start_at <= now:
                slot.enter(SlotEvent.DUE)
                start = Start(
                    slot.name, slot.freed > 0, slot.freed < FREED_MAX, slot.refused_at is not None
                )
                self._actions.append(start)

    def _started(self, event: Started, now: float) -> None:
        slot = self.slots[event.name]
        slot.enter(SlotEvent.STARTED)
        slot.incarnation, slot.pid = event.incarnation, event.pid
        slot.started_at, slot.import_reported = now, False
        if self.relay is not None:
            self.relay.open(PeerId(event.incarnation))
        if self._is_late(slot, now):
            self._kill(slot)

    def _refused(self, slot: Slot, why: str, now: float, *, full: bool = False) -> None:
        """Handle a refused process: try again, as long as this is useful (G6)."""
        slot.start_at = now + REFUSED_AGAIN_S
        if slot.refused_at is None:
            slot.refused_at = now
            self._write_note(CannotStart(slot.name, why))
        if full or self._others(slot) or self.stopping is not None:
            return
        if now - slot.refused_at > REFUSED_S_MAX:
            self._write_note(ProcessesRefused(slot.role, why))
            self.status = STOPPED
            self.stop("no room", now)

    def _others(self, slot: Slot) -> bool:
        """Return whether another process of the role runs."""
        return any(
            each.role == slot.role and each.has_process
            for each in self.slots.values()
            if each is not slot
        )

    def _exited(self, event: Exited, now: float) -> None:
        """Handle the end of a process: tell the broker, plan the next start."""
        slot, code, flight = self.slots[event.name], event.code, event.flight
        gets_on, slot.reached = flight.reached > slot.reached, max(slot.reached, flight.reached)
        if not flight.has_ended:
            self._actions.append(EndLeftovers(slot.name))
        freed = slot.role == "worker" and code == START_AGAIN
        slot.freed += freed
        again = freed or (self.config.always_replay and code == START_AGAIN)
        unfit = slot.role == "worker" and code == CANNOT_IMPORT
        orderly = flight.has_ended or self.stopping is not None or again or unfit or code == REFUSED
        died = "oom" if code == _SIGKILL and event.oom else "crash"
        reason = slot.killed_for or ("asked" if orderly else died)
        self._end(slot, _lost(slot, event, reason), now)
        if reason in ("crash", "oom") and slot.role == "worker":
            self._write_note(Died(slot.role, slot.name, code, reason == "oom"))
        if freed:
            self._write_note(Freed(slot.name))
        is_hasty = now - slot.started_at < HASTY_S and not (again or unfit or gets_on)
        slot.hasty = slot.hasty + 1 if is_hasty else 0
        slot.stillborn = 0 if flight.is_ready or orderly else slot.stillborn + 1
        if slot.stillborn >= STILLBORN_MAX:
            self._write_note(Stillborn(slot.name, slot.stillborn, code, died == "oom"))
            self.status = HOPELESS
            self.stop("cannot start", now)
        elif slot.role == "origin" and reason in ("crash", "oom"):
            self._write_note(Died(slot.role, slot.name, code, reason == "oom"))
        slot.unfit = slot.unfit + 1 if unfit else 0
        self._plan(slot, event, now, unfit=unfit)

    def _plan(self, slot: Slot, event: Exited, now: float, *, unfit: bool) -> None:
        """Plan the next start of a slot (G5, G6)."""
        slot.killed_for = ""
        slot.start_at = now + _backoff_s(slot.hasty)
        if now - slot.started_at > REFUSED_S_MAX:
            slot.refused_at = None
        if event.flight.has_ended:
            slot.enter(SlotEvent.DONE)
            return
        held = unfit and self.stopping is None and self._is_unfit(slot)
        slot.enter(SlotEvent.UNFIT if held else SlotEvent.EXITED)
        if held:
            slot.lacks = event.why
            self._tell(wire.Unfit("", 0, b"", slot.lacks))
        elif event.code == REFUSED:
            self._refused(slot, event.why, now)
        elif unfit and self.stopping is None:
            wait_s = float(2 ** (slot.unfit - 1))
            slot.start_at = now + wait_s
            if slot.unfit > 1:
                self._write_note(ImportFails(event.why, wait_s))

    def _is_unfit(self, slot: Slot) -> bool:
        """Return whether a worker that could not import the script need not be tried again.

        If other workers run, the cause may be temporary.
        """
        return slot.unfit >= UNFIT_MAX or not self._others(slot)

    def stop(self, reason: str, now: float) -> None:
        """Start nothing more; give running processes the grace time (G4)."""
        if self.stopping is None:
            self.stopping = reason
            self.abandon_at = now + self.config.stop_grace_s
            self.stop_at = now + EXIT_S if reason == ENDED else self.abandon_at
            if reason == NOW:
                self.stop_at = now

    def renew(self) -> list[Action]:
        """Replace all workers: the code that they have loaded is not that of the run any more.

        No item is blamed; what they were executing runs again.
        """
        for slot in self.slots.values():
            if slot.role == "worker" and slot.state is SlotState.RUNNING:
                self._kill(slot, "asked")
        actions, self._actions = self._actions, []
        return actions

    def _kill(self, slot: Slot, reason: str = "") -> None:
        """End a process; without a reason, as part of a stop."""
        slot.enter(SlotEvent.KILLED)
        slot.killed_for = reason or slot.killed_for
        self._actions.append(KillProcess(slot.name))

    def _end_late(self, flights: Mapping[str, Flight], now: float) -> None:
        """Kill processes whose time is over: the `timeout=` of the call, or the grace time of a stop."""
        for slot in self.slots.values():
            if slot.state is not SlotState.RUNNING:
                continue
            flight = flights[slot.name]
            if self._is_late(slot, now):
                if self.stopping == ENDED and flight.has_ended and not slot.late:
                    slot.late = True
                    self._write_note(EndsLate(slot.name))
                self._kill(slot)
            elif self.stopping == ENDED and slot.role == "worker" and flight.on_cpu is not None:
                if now >= self.abandon_at:  # its result is not wanted
                    self._kill(slot)
            elif flight.on_cpu is not None and 0 < flight.on_cpu.deadline_ns < now * 1e9:
                self._kill(slot, "timeout")

    def _is_late(self, slot: Slot, now: float) -> bool:
        """Return whether a process's time at a stop is over."""
        interrupted = slot.role == "origin" and self.stopping == CTRL_C
        return self.stopping is not None and now >= self.stop_at + interrupted * LAST_S

    def _running(self) -> bool:
        """Return whether there is a process, or one is being started."""
        return any(s.has_process or s.state is SlotState.STARTING for s in self.slots.values())

    def _leave(self, now: float) -> None:
        if self.stopping is None or self._running():
            return
        if self.ends and self.stopping not in _WANTS_NOTHING and now < self.stop_at:
            return  # results of ended processes are still being sent
        for lost in self.ends.values():
            self._tell(lost)
        self.ends.clear()
        if self.stopping != ENDED:
            self._actions.append(EndLeftovers())
        self._actions.append(SendLogs())
        self._tell(wire.Bye())
        self._actions.append(EndAgent(self.status))
        self.left = True

    def _end(self, slot: Slot, lost: wire.ProcessLost, now: float) -> None:
        """Tell the broker of an end, at once or when the results of the process have arrived (G2)."""
        if self.relay is None:
            self._tell(lost)
            return
        peer = PeerId(slot.incarnation)
        self.ends[peer] = lost
        self.relay.ended(peer, slot.name, now)
        self._report_ended(self.relay)

    def _report_ended(self, relay: Relay) -> None:
        """Tell the broker which processes have ended, so that it assigns nothing to them."""
        if self.greeted:
            self._tell(wire.Alive([], list(relay.unreported)))
            self._note_reported(relay)

    def _note_reported(self, relay: Relay) -> None:
        ended = frozenset(relay.unreported)
        last = self._reported[-1][1] if self._reported else self._known
        if ended != last:
            self._reported.append((self.link.sent, ended))

    def _attend_relay(self, relay: Relay, now: float) -> None:
        while self._reported and self._reported[0][0] not in self.link.unacked:
            self._known = self._reported.popleft()[1]
        for peer in relay.take_done(now):
            self._tell(self.ends.pop(peer))
        self._actions += [Forward(peer, frames) for peer, frames in relay.due(now, self._known)]
        if relay.is_full and not self._is_full_reported:
            self._write_note(NotKept())
        self._is_full_reported = relay.is_full
        if relay.torn > self._torn_reported:
            self._write_note(DamagedCopies(relay.torn - self._torn_reported))
            self._torn_reported = relay.torn

    def _look(
        self, flights: Mapping[str, Flight], states: Mapping[str, str] | None, now: float
    ) -> None:
        """Check which processes the host lets run, and vouch for them (G7)."""
        if states is None:
            return
        passed_s = min(now - self.looked_at, 2 * self.config.alive_s)
        self.looked_at, self.looks_at = now, now + self.config.alive_s
        there = [slot for slot in self.slots.values() if slot.has_process]
        seen = [slot.incarnation for slot in there if self._runs(slot, states[slot.name], passed_s)]
        for slot in there:
            is_long = flights[slot.name].starts_s > IMPORT_S
            if slot.role == "worker" and is_long and not slot.import_reported:
                slot.import_reported = True
                self._write_note(ImportIsLong(slot.name, slot.pid))
        if self.greeted:
            self._tell(wire.Alive(seen, [] if self.relay is None else list(self.relay.unreported)))
            if self.relay is not None:
                self._note_reported(self.relay)
        self._actions.append(Beat(self.link.beat()))

    def _runs(self, slot: Slot, state: str, passed_s: float) -> bool:
        """Return whether the process is not stopped; report it if it was stopped for long."""
        before = slot.paused_s
        if state not in "Tt":
            slot.paused_s = 0.0
            if before >= PAUSED_S:
                self._write_note(Continued(slot.name, slot.pid))
            return state not in "ZX"
        slot.paused_s += passed_s
        if before < PAUSED_S <= slot.paused_s:
            self._write_note(Paused(slot.role, slot.name, slot.pid))
        return False

    def _mind_own_pause(self, now: float) -> None:
        """Count no time in which the agent itself did not run as silence of the broker (G8)."""
        if self.heard_at == inf:
            self.heard_at = now
        elif now - self.stepped_at > self.lease_s:
            self.heard_at += now - self.stepped_at
            self._write_note(Slept(now - self.stepped_at))
        self.stepped_at = now

    def _mind_silence(self, now: float) -> None:
        """End if there has been no broker for too long (G8)."""
        limit_s = self.config.orphan_timeout_s
        if limit_s is not None and self.stopping is None and now >= self.heard_at + limit_s:
            self._write_note(Orphaned(now - self.heard_at))
            self.stop(ORPHANED, now)

    def _write_note(self, note: Note) -> None:
        self._actions.append(WriteNote(note))

    def _tell(self, message: wire.Up) -> None:
        """Send a message, or keep it until there is a broker (G2)."""
        if self.stopping == LAUNCHER_GONE:
            return
        self.pending.append(wire.encode(message))
        if self.greeted:
            self._actions.append(Transmit(self.link.pack(self.pending)))
            self.pending = []

    def _received(self, frames: list[bytes], flights: Mapping[str, Flight], now: float) -> None:
        header = wire.unpack_header(frames[0])
        if header.epoch < self.link.epoch:
            return
        if self.relay is not None and now - self.heard_at > SILENT_S:
            self.relay.hurry()
        self.heard_at = now
        if header.epoch > self.link.epoch:
            self._meet(header.epoch)
            self._resume(now)
            return
        fresh, answers = self.link.take(header, now)
        self._actions += [Transmit(answer) for answer in answers]
        if not fresh:
            return
        self.link.acked = self.link.received
        if len(frames) == 1:  # a ping, which measures the time to the answer
            self._actions.append(Transmit(self.link.beat()))
        for frame in frames[1:]:
            self._handle(wire.decode_down(frame), flights, now)

    def _meet(self, epoch: int) -> None:
        """Greet a new broker with the running processes, and repeat unacknowledged messages."""
        owed = [frame for frames in self.link.pending() for frame in frames]
        self.link = Link(self.run, epoch)
        self.greeted = True
        running = [slot.incarnation for slot in self.slots.values() if slot.has_process]
        hello = wire.Hello("agent", self.node, self.name, self.pid, incarnations=running)
        held = [slot for slot in self.slots.values() if slot.state is SlotState.HELD]
        unfit = [wire.encode(wire.Unfit("", 0, b"", slot.lacks)) for slot in held]
        frames = [wire.encode(hello), *owed, *self.pending, *unfit]
        if self.relay is not None:
            self.relay.meet(epoch)
            self._reported.clear()
            self._known = frozenset()
            if self.relay.unreported:
                frames.append(wire.encode(wire.Alive([], list(self.relay.unreported))))
        self._actions.append(Transmit(self.link.pack(frames)))
        self.pending = []
        if self.relay is not None:
            self._note_reported(self.relay)

    def _resume(self, now: float) -> None:
        """On another host: start processes again that an earlier broker has told to end (G8)."""
        if self.config.orphan_timeout_s is None or self.stopping is not None:
            return
        for slot in self.slots.values():
            if slot.state in (SlotState.HELD, SlotState.OVER):
                slot.enter(SlotEvent.RESUMED)
                slot.start_at, slot.unfit = now, 0

    def _handle(self, message: wire.Down, flights: Mapping[str, Flight], now: float) -> None:
        match message:
            case wire.Stop(reason=reason):
                self.stop(reason, now)
            case wire.Kill(incarnation=incarnation, reason=reason, attempt=attempt):
                if self.relay is not None and attempt is None:
                    self.relay.give_up(PeerId(incarnation))
                for slot in self.slots.values():
                    if slot.has_process and slot.incarnation == incarnation:
                        flight = flights.get(slot.name, Flight())
                        if attempt is None or _executes(flight, attempt):
                            self._kill(slot, reason)
            case wire.Welcome(lease_s=lease_s):
                self.lease_s = lease_s
            case (
                wire.Define() | wire.Grant() | wire.History() | wire.Outcomes() | wire.Observed()
                | wire.Retract() | wire.Drop() | wire.Evict() | wire.CancelAnswer() | wire.Const()
                | wire.Checkpoint() | wire.Saved() | wire.CheckpointWanted() | wire.Forget()
                | wire.MayBegin() | wire.Noted() | wire.Abandoned()
            ):  # fmt: skip
                pass  # for workers and the origin
            case _:
                assert_never(message)


def _executes(flight: Flight, attempt: wire.Attempt) -> bool:
    """Return whether a process is executing an attempt."""
    on_cpu = flight.on_cpu
    return on_cpu is not None and (on_cpu.epoch, on_cpu.no) == (attempt.epoch, attempt.no)


def _backoff_s(hasty: int) -> float:
    """Return the wait before the next start of a process that died at once several times (G6)."""
    if hasty < HASTY_MIN:
        return 0.0
    return float(min(BACKOFF_S_MAX, BACKOFF_S * 2 ** (hasty - HASTY_MIN)))


def _lost(slot: Slot, event: Exited, reason: str) -> wire.ProcessLost:
    """Return the message to the broker about a death."""
    on_cpu = event.flight.on_cpu
    if on_cpu is None:
        return wire.ProcessLost(slot.incarnation, event.code, reason, at=event.at)
    return wire.ProcessLost(
        slot.incarnation, event.code, reason, wire.Attempt(on_cpu.epoch, on_cpu.no), on_cpu.item,
        on_cpu.parent, on_cpu.call, event.at, on_cpu.tries,
    )  # fmt: skip
