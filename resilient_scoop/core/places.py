"""The machine of a run's places: which agents are wanted, when each starts, whether it has ended.

A place starts agents on hosts (`hosts.base`). A place of one host, like SSH, has one unit, a queue many.
Each host has a slot for one unit, and each unit its own tag. Its events are answers of places and what
the broker sees; its actions are: write a tag down, start, look, find, stop, tell the user, end.

The life of a unit (`_NEXT`), by what happens to its slot:

    state       DUE      WRITTEN   UNWRITTEN  WAITS    BEGINS    CAME     UNSURE   ENDED       RETURNED
    WANTED      WRITING  -         -          -        -         RUNNING  -        -           UNKNOWN
    WRITING     -        STARTING  WANTED     -        -         RUNNING  -        -           -
    STARTING    -        -         -          WAITING  STARTING  RUNNING  UNKNOWN  NEVER_CAME  -
    WAITING     -        -         -          WAITING  STARTING  RUNNING  UNKNOWN  NEVER_CAME  -
    RUNNING     -        -         -          -        -         RUNNING  UNKNOWN  GONE        -
    UNKNOWN     -        -         -          WAITING  STARTING  RUNNING  UNKNOWN  as it was   -
    GONE        WRITING  -         -          -        -         RUNNING  -        -           -
    NEVER_CAME  WRITING  -         -          -        -         RUNNING  -        -           -

CAME is the agent's link to the broker. UNSURE is its loss, a place that cannot tell, or a call of the place
that failed. ENDED leads to GONE if the agent had come, else to NEVER_CAME. RUNNING ends only at a stop, a
drain or a revocation: until then the link decides. RETURNED is a tag that a former process had written.

  PL1  A tag is written to disk before the place is asked to start a unit of it.
  PL2  A new tag is drawn for a host only after the unit of the former one is known to have ended: its place
       said so of the one start that it had, or searched the tag and found nothing. So a host has one unit.
       UNKNOWN is not an end: the tag is searched, and what is found is started again under the same tag.
       Where no unit is wanted, one other end counts: the agent left in order, its tag had no second unit,
       and nothing of the tag was seen or started since.
  PL3  While an agent has its link, it is running, whatever its place says.
  PL4  A unit is stopped only when the run stops, its host is drained or revoked, or its place had started
       two: a tag whose starts were not all answered is searched for a second one when its agent has come.
       An agent of a drained host that has its link leaves by itself.
  PL5  Until an agent of a place has connected, at most one of its units is being started; the same holds
       after each failure.
  PL6  After failures a place waits 1, 15, 30, 60 s, up to half of it more; after a refusal five minutes.
       A host whose agent was lost `LOSSES_MAX` times within `FLAP_S` is in quarantine, ever longer, up to
       `QUARANTINE_S_MAX`. None of them is given up.
  PL7  After a stop nothing is started, and the machine leaves at its deadline at the latest.
  PL8  A host has at most one call of its place in progress, and one stop beside a look or a search.

Failures are the place's: no item of the run is blamed. Chance (the end of a tag, jitter) comes with events.
Calls of a place have deadlines of their own (`hosts.base`), and each is answered.
"""

from __future__ import annotations

import heapq
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKOFF_S: Final = (0.0, 1.0, 15.0, 30.0, 60.0)
"""Wait before the next start, by the number of failures in a row."""
JITTER: Final = 0.5
"""A wait is longer by up to this part of it, so that hosts that failed together do not return together."""
REFUSED_S: Final = 300.0
"""Wait after a refusal for good: only the user can change something."""
BUSY_S_MAX: Final = 600.0
LEFT_AGAIN_S: Final = 60.0
"""Wait before a host is used again whose agent has left in order: somebody may need the host."""
FLAP_S: Final = 300.0
LOSSES_MAX: Final = 3
QUARANTINE_S: Final = 300.0
QUARANTINE_S_MAX: Final = 3600.0
STEADY_S: Final = 1800.0
"""An agent that had its link for this time ends the memory of former quarantines."""
LOOK_S: Final = 0.25
LOOK_S_MAX: Final = 5.0
LOOK_RUNNING_S: Final = 10.0
FIND_S: Final = 5.0
"""A search that found nothing counts only this long after the start, which may be made or seen late;
also the time in which a lost agent may return by itself before it is searched."""
FINDS_MAX: Final = 3
"""Searches for a second unit of an agent that has its link, if none of them finds any."""
REACH_S: Final = 60.0
"""Time for an agent, which runs as its place says, to reach the broker."""
BEGIN_S_MAX: Final = 600.0
"""Time for a start after which its tag is searched: its place may have forgotten it."""
STOP_AGAIN_S: Final = 1.0
STOP_LAST_S: Final = 2.0
"""Time beyond the grace of a stop in which places may say that their units have ended."""
REVOKED_GRACE_S: Final = 1.0
TOO_FEW_S: Final = 15.0
TOO_FEW_AGAIN_S: Final = 30.0
_DUE_MIN: Final = 64


class PlaceConfig(msgspec.Struct, frozen=True):
    """A place, and the names that its hosts have in the run."""

    name: str
    hosts: tuple[str, ...]


class PlacesConfig(msgspec.Struct, frozen=True):
    """The settings of the machine."""

    run_id: str
    places: tuple[PlaceConfig, ...]
    min_hosts: int = 0  # the run is given up if fewer have come after `min_hosts_s`,
    # or as soon as too many are refused for good
    min_hosts_s: float = 120.0
    stop_grace_s: float = 3.0


class PlaceState(Enum):
    """The states of the unit of a host; `hosts.base.UnitState` has the same names."""

    WANTED = "wanted"  # none yet; the first is started when it is the turn of its place
    WRITING = "writing"  # its tag is being written
    WAITING = "waiting"  # the place has accepted it and has not begun
    STARTING = "starting"
    RUNNING = "running"  # its agent has its link to the broker
    UNKNOWN = "unknown"  # it may be alive
    GONE = "gone"  # it had connected, and has ended; the next is started at its time
    NEVER_CAME = "never came"  # it ended before it connected


class UnitEvent(Enum):
    """The events of the unit of a host."""

    DUE = auto()
    WRITTEN = auto()
    UNWRITTEN = auto()
    WAITS = auto()
    BEGINS = auto()
    CAME = auto()
    UNSURE = auto()
    ENDED = auto()
    RETURNED = auto()


_NONE: Final = (PlaceState.WANTED, PlaceState.GONE, PlaceState.NEVER_CAME)
"""States without a unit and without a call."""
_BEFORE: Final = (PlaceState.STARTING, PlaceState.WAITING)
_UNDER_WAY: Final = {
    UnitEvent.WAITS: PlaceState.WAITING,
    UnitEvent.BEGINS: PlaceState.STARTING,
    UnitEvent.CAME: PlaceState.RUNNING,
    UnitEvent.UNSURE: PlaceState.UNKNOWN,
    UnitEvent.ENDED: PlaceState.NEVER_CAME,
}
_ENDED: Final = {UnitEvent.DUE: PlaceState.WRITING, UnitEvent.CAME: PlaceState.RUNNING}
_NEXT: Final[dict[PlaceState, dict[UnitEvent, PlaceState]]] = {
    PlaceState.WANTED: {**_ENDED, UnitEvent.RETURNED: PlaceState.UNKNOWN},
    PlaceState.WRITING: {
        UnitEvent.WRITTEN: PlaceState.STARTING,
        UnitEvent.UNWRITTEN: PlaceState.WANTED,
        UnitEvent.CAME: PlaceState.RUNNING,
    },
    PlaceState.STARTING: _UNDER_WAY,
    PlaceState.WAITING: _UNDER_WAY,
    PlaceState.RUNNING: {
        UnitEvent.CAME: PlaceState.RUNNING,
        UnitEvent.UNSURE: PlaceState.UNKNOWN,
        UnitEvent.ENDED: PlaceState.GONE,
    },
    PlaceState.UNKNOWN: _UNDER_WAY,
    PlaceState.GONE: _ENDED,
    PlaceState.NEVER_CAME: _ENDED,
}


class PlaceCall(Enum):
    """The requests to a place, or to the disk, for a host."""

    WRITE = auto()
    START = auto()
    LOOK = auto()
    FIND = auto()
    STOP = auto()


class HostSlot(msgspec.Struct, eq=False):
    """A host: its unit, and the time of the next start."""

    host: str
    place: PlaceRecord
    state: PlaceState = PlaceState.WANTED
    tag: str = ""
    former: Former | None = None  # while a tag is being written: the previous tag
    units: tuple[str, ...] = ()
    doubles: tuple[str, ...] = ()  # second units of the same tag, which must end
    is_doubled: bool = False  # it had second units
    is_written: bool = False
    starts: int = 0  # starts of this tag
    is_answered: bool = False  # the last one, by the units that it has started
    is_counted: bool = False  # a search since then has shown all units of this tag
    has_come: bool = False  # an agent since this tag was drawn
    is_returned: bool = False  # a former process had written it, and nothing else is known of it
    is_searched: bool = False  # only a search counts: the report of its place contradicted the link
    call: PlaceCall | None = None  # the request in progress
    is_being_stopped: bool = False  # a stop is in progress, perhaps beside a look or a search
    out: str = ""  # why no unit is wanted here: "drained", "revoked"
    is_refused: bool = False  # its last call, or its last agent, was refused for good
    has_left: bool = False  # the agent left normally
    is_over: bool = False  # it left, and no unit of its tag was seen or started since

    started_at: float = 0.0
    came_at: float = 0.0
    number: int = 0  # among all hosts
    due_at: float = inf  # time of the next request
    start_at: float = 0.0  # the next, as far as the host is concerned
    look_at: float = 0.0
    look_wait_s: float = LOOK_S
    find_at: float = 0.0
    sure_at: float = 0.0  # a search that finds nothing counts from then on
    finds: int = 0  # consecutive failures
    write_at: float = 0.0
    stop_at: float = 0.0
    # time since which its place reports it as running, without its link
    claims_at: float | None = None

    losses: tuple[float, ...] = ()  # times of losses within `FLAP_S`
    quarantine_until: float = 0.0
    quarantines: int = 0
    why: str = ""
    log: str = ""
    until_s: float | None = None
    reported: str = ""  # the failure that the user knows of
    unreached_reported: bool = False

    def enter(self, happening: UnitEvent) -> None:
        """Continue as the table says."""
        after = _NEXT[self.state]
        assert happening in after, f"{self.host} is {self.state.name} at {happening.name}"
        is_end = happening is UnitEvent.ENDED and self.has_come
        self.state = PlaceState.GONE if is_end else after[happening]

    def take_back(self) -> None:
        """Return from a tag that was not started to the previous tag, if there was one."""
        if self.former is not None and self.former.tag:
            self.tag, self.units, self.starts = msgspec.structs.astuple(self.former)
        self.former = None

    @property
    def is_known_whole(self) -> bool:
        """Whether all units that its tag can have are known (PL2)."""
        return self.starts == 1 and self.is_answered and not self.is_doubled

    @property
    def may_live(self) -> bool:
        """Whether a unit of it lives, or may live."""
        return self.state not in _NONE and self.state is not PlaceState.WRITING


class Former(msgspec.Struct, frozen=True):
    """A tag whose unit is believed to have ended."""

    tag: str
    units: tuple[str, ...]
    starts: int


class PlaceRecord(msgspec.Struct, eq=False):
    """A place: the number of its failures, and the time of the next request."""

    name: str
    slots: list[HostSlot] = []
    has_proved: bool = False  # one of its agents has connected since its last failure
    fails: int = 0  # consecutive failures
    start_at: float = 0.0


class WrittenTag(msgspec.Struct, frozen=True):
    """The tag that was last written for a host, unless it was dropped."""

    host: str
    tag: str


class Began(msgspec.Struct, frozen=True):
    """The shell has started: the first event, with the state left by earlier shells."""

    tags: tuple[WrittenTag, ...] = ()
    drained: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()


class TagWritten(msgspec.Struct, frozen=True):
    """A tag is durable."""

    host: str
    tag: str


class StartAccepted(msgspec.Struct, frozen=True):
    """A place has accepted a start; `units` are its names for what it starts, usually one."""

    host: str
    tag: str
    units: tuple[str, ...]


class Sight(msgspec.Struct, frozen=True):
    """The report of a place about a unit (`hosts.base.Seen`)."""

    unit: str
    state: PlaceState  # not WANTED, not WRITING
    why: str = ""
    log: str = ""
    until_s: float | None = None
    lasting: bool = False  # it ended because of something that only the user can change


class UnitsLooked(msgspec.Struct, frozen=True):
    """A place has reported the states of the units of a tag."""

    host: str
    tag: str
    seen: tuple[Sight, ...]
    jitter: float = 0.0  # in [0, 1), as in all events


class UnitsFound(msgspec.Struct, frozen=True):
    """A place was searched; `units` of the tag exist."""

    host: str
    tag: str
    units: tuple[str, ...]
    jitter: float = 0.0


class Stopped(msgspec.Struct, frozen=True):
    """A place was told to stop units; they may not have ended yet."""

    host: str
    tag: str


class Failed(msgspec.Struct, frozen=True):
    """A call of a place failed, or its tag could not be written."""

    host: str
    tag: str
    call: PlaceCall
    why: str
    refused: bool = False  # another try is useless until the user has changed something
    unasked: bool = False  # it failed before the place was called
    retry_after_s: float | None = None
    jitter: float = 0.0


class AgentCame(msgspec.Struct, frozen=True):
    """The agent of a host has a link to the broker. Repeated to a restarted shell."""

    host: str


class AgentLost(msgspec.Struct, frozen=True):
    """No agent of a host has a link to the broker any more, and none has announced that it leaves."""

    host: str
    jitter: float = 0.0


class AgentLeft(msgspec.Struct, frozen=True):
    """The agent of a host has left normally."""

    host: str
    jitter: float = 0.0


class HostDrained(msgspec.Struct, frozen=True):
    """A host is to finish what it executes, and is not used again."""

    host: str


class HostRevoked(msgspec.Struct, frozen=True):
    """A host was cut off, and is not used again."""

    host: str


class EndUnits(msgspec.Struct, frozen=True):
    """The run ends: every unit must end within the time."""

    grace_s: float


class PlacesTicked(msgspec.Struct, frozen=True):
    """Time has passed. Only here a tag is drawn; `random` is never the same twice."""

    random: str


Event = (
    Began | TagWritten | StartAccepted | UnitsLooked | UnitsFound | Stopped | Failed | AgentCame | AgentLost
    | AgentLeft | HostDrained | HostRevoked | EndUnits | PlacesTicked
)  # fmt: skip


class NeverCame(msgspec.Struct, frozen=True):
    """An agent ended before it connected, for a reason that was not reported before."""

    host: str
    why: str
    log: str
    again_s: float  # `inf`: the run is given up


class UnitEnded(msgspec.Struct, frozen=True):
    """An agent that had connected has ended, and its place knows the reason."""

    host: str
    why: str
    log: str
    again_s: float


class CannotTell(msgspec.Struct, frozen=True):
    """A lost agent cannot be searched, for a reason that was not reported before."""

    host: str
    why: str


class Came(msgspec.Struct, frozen=True):
    """The agent of a host has connected after a failure that was reported."""

    host: str


class Quarantined(msgspec.Struct, frozen=True):
    """The agent of a host was lost repeatedly."""

    host: str
    times: int
    seconds: float


class Unreached(msgspec.Struct, frozen=True):
    """An agent runs according to its place, but has not reached the broker for `REACH_S`."""

    host: str
    has_come: bool  # it had reached the broker before


class TooFew(msgspec.Struct, frozen=True):
    """Fewer hosts have connected than `--min-hosts`; the run is given up in `rest_s`."""

    have: int
    wanted: int
    missing: tuple[str, ...]
    rest_s: float


class Unnamed(msgspec.Struct, frozen=True):
    """A host that is no longer named may have an agent of this run."""

    host: str


class NotStopped(msgspec.Struct, frozen=True):
    """At the deadline of a stop, the agents of some hosts are not known to have ended."""

    hosts: tuple[str, ...]


Note = (
    NeverCame
    | UnitEnded
    | CannotTell
    | Came
    | Quarantined
    | Unreached
    | TooFew
    | Unnamed
    | NotStopped
)


class WriteTag(msgspec.Struct, frozen=True):
    """Write a tag durably: `TagWritten`, `Failed`. It replaces the host's former tag."""

    host: str
    tag: str


class DropTag(msgspec.Struct, frozen=True):
    """The unit of a tag has ended: it need not be searched again. Need not be durable."""

    host: str
    tag: str


class StartUnit(msgspec.Struct, frozen=True):
    """Ask the place to start one unit: `StartAccepted`, `Failed`."""

    host: str
    tag: str


class Look(msgspec.Struct, frozen=True):
    """Ask the place for the states of units: `UnitsLooked`, `Failed`."""

    host: str
    tag: str
    units: tuple[str, ...]


class Find(msgspec.Struct, frozen=True):
    """Let the place search for the units of a tag: `UnitsFound`, `Failed`."""

    host: str
    tag: str


class StopUnits(msgspec.Struct, frozen=True):
    """Ask the place to end units: `Stopped`, `Failed`."""

    host: str
    tag: str
    units: tuple[str, ...]
    grace_s: float


class ShowNote(msgspec.Struct, frozen=True):
    """Send a note to the user."""

    note: Note


class GiveUp(msgspec.Struct, frozen=True):
    """Stop the run because too few hosts have connected in time, or can connect; `EndUnits` will follow."""

    have: int
    wanted: int
    missing: tuple[str, ...]


class EndPlaces(msgspec.Struct, frozen=True):
    """End the process."""


Action = WriteTag | DropTag | StartUnit | Look | Find | StopUnits | ShowNote | GiveUp | EndPlaces


class HostView(msgspec.Struct, frozen=True):
    """A host, for display."""

    name: str
    place: str
    state: PlaceState
    why: str = ""
    log: str = ""
    out: str = ""  # "drained", "revoked"
    quarantine_s: float = 0.0  # the rest of it
    again_s: float = 0.0  # until the next try
    until_s: float | None = None


class Places:
    """All places of a run."""

    def __init__(self, config: PlacesConfig) -> None:
        self.config = config
        self.slots: dict[str, HostSlot] = {}
        for each in config.places:
            place = PlaceRecord(each.name)
            for host in each.hosts:
                assert host not in self.slots, f"{host} is named twice"
                self.slots[host] = slot = HostSlot(host, place, number=len(self.slots))
                place.slots.append(slot)
        self._due: list[tuple[float, str]] = []  # a heap; outdated entries are skipped
        self.began_at: float | None = None
        self.have_come: set[str] = set()  # hosts, at any time
        self.too_few_at = inf
        self.give_up_at = inf
        self.stop_at = inf  # when it leaves, even if units still live
        self._is_refusal_new = False
        self.stopping = False
        self.left = False
        self._actions: list[Action] = []

    def step(self, event: Event, now: float) -> list[Action]:
        """Handle an event; return actions, in order."""
        assert not self.left, "nothing happens to a machine that has left"
        assert (self.began_at is None) == isinstance(event, Began), "the first event is Began"
        affected = self._affected(event, now)
        match event:
            case Began():
                self._began(event, now)
            case PlacesTicked(random=random):
                self._start_due(affected, random, now)
            case EndUnits(grace_s=grace_s):
                self._stop(grace_s, now)
            case AgentCame() | AgentLost() | AgentLeft() | HostDrained() | HostRevoked():
                if event.host in self.slots:  # others were invited
                    self._heard(event, self.slots[event.host], now)
            case (
                TagWritten() | StartAccepted() | UnitsLooked() | UnitsFound() | Stopped() | Failed()
            ):
                self._answered(event, self.slots[event.host], now)
            case _:
                assert_never(event)
        for slot in affected:
            self._continue(slot, now)
        for slot in affected:
            self._plan(slot)
        self._count_hosts(now)
        self._leave(now)
        actions, self._actions = self._actions, []
        return actions

    def deadline(self) -> float:
        """Return when `PlacesTicked` is due, whatever happens until then."""
        while self._due and self._due[0][0] != self.slots[self._due[0][1]].due_at:
            heapq.heappop(self._due)
        next_at = self._due[0][0] if self._due else inf
        return min(next_at, self.too_few_at, self.give_up_at, self.stop_at)

    def _affected(self, event: Event, now: float) -> list[HostSlot]:
        """Return the slots that an event may change: those of its place, or those that are due."""
        if isinstance(event, Began | EndUnits):
            return list(self.slots.values())
        if not isinstance(event, PlacesTicked):
            slot = self.slots.get(event.host)
            return slot.place.slots if slot else []
        due = {}
        while self._due and self._due[0][0] <= now:
            place = self.slots[heapq.heappop(self._due)[1]].place
            due[place.name] = place
        return [slot for place in due.values() for slot in place.slots]

    def _plan(self, slot: HostSlot) -> None:
        """Note when a slot is due next."""
        slot.due_at = self._next_at(slot)
        if slot.due_at < inf:
            heapq.heappush(self._due, (slot.due_at, slot.host))
        if len(self._due) > 4 * len(self.slots) + _DUE_MIN:
            self._due = [(each.due_at, each.host) for each in self.slots.values()]
            heapq.heapify(self._due)

    def _next_at(self, slot: HostSlot) -> float:
        return min(self._start_due_at(slot), self._call_due(slot)[1], self._stop_due_at(slot))

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        for slot in self.slots.values():
            is_starting = slot.state in _BEFORE
            assert slot.is_written or not is_starting, f"PL1 {slot.host}"
            assert slot.starts or not is_starting, f"PL2 {slot.host}"
            assert (slot.former is None) == (slot.state is not PlaceState.WRITING), (
                f"PL2 {slot.host}"
            )
            assert len(slot.losses) < LOSSES_MAX, f"PL6 {slot.host}"
            assert slot.due_at == self._next_at(slot), f"{slot.host} is due at another time"
            assert not slot.is_being_stopped or slot.call is not PlaceCall.START, f"PL8 {slot.host}"
        assert self.stopping == (self.stop_at < inf), "PL7"

    def hosts(self, now: float) -> list[HostView]:
        """Return all hosts, for display."""
        return [self._view(slot, now) for slot in self.slots.values()]

    def _began(self, event: Began, now: float) -> None:
        self.began_at = now
        if self.config.min_hosts:
            self.too_few_at = now + TOO_FEW_S
            self.give_up_at = now + self.config.min_hosts_s
        for out, hosts in (("drained", event.drained), ("revoked", event.revoked)):
            for host in hosts:
                if host in self.slots:
                    self.slots[host].out = out
        for each in event.tags:
            slot = self.slots.get(each.host)
            if slot is None:
                self._show_note(Unnamed(each.host))
                continue
            slot.enter(UnitEvent.RETURNED)
            slot.tag, slot.starts = each.tag, 1  # it may have ended
            slot.is_written = slot.is_returned = slot.is_searched = True
            slot.find_at, slot.sure_at = now, now + FIND_S

    def _start_due(self, slots: Sequence[HostSlot], random: str, now: float) -> None:
        """Draw tags for due starts, and request that they are written (PL1)."""
        for slot in slots:
            if self._start_due_at(slot) > now:
                continue
            slot.former = Former(slot.tag, slot.units, slot.starts)
            slot.enter(UnitEvent.DUE)
            slot.tag = f"{self.config.run_id}-{random}-{slot.number}"
            slot.units, slot.starts, slot.finds = (), 0, 0
            slot.is_counted = False
            slot.doubles, slot.is_doubled = (), False
            slot.is_written = slot.is_returned = slot.is_searched = False
            slot.has_come = slot.has_left = slot.is_over = slot.unreached_reported = False
            slot.claims_at = slot.until_s = None
            self._ask(slot, WriteTag(slot.host, slot.tag))

    def _start_due_at(self, slot: HostSlot) -> float:
        """Return when the next unit of a host is started (PL5, PL6, PL7)."""
        if slot.state not in _NONE or slot.call is not None or slot.is_being_stopped:
            return inf
        if self.began_at is None or self._is_unwanted(slot) or not self._has_turn(slot):
            return inf
        return max(slot.start_at, slot.quarantine_until, slot.place.start_at)

    def _has_turn(self, slot: HostSlot) -> bool:
        """Return whether a place may be asked for another unit (PL5)."""
        return slot.place.has_proved or not any(
            not each.has_come and each.state not in _NONE for each in slot.place.slots
        )

    def _is_unwanted(self, slot: HostSlot) -> bool:
        return self.stopping or bool(slot.out)

    def _continue(self, slot: HostSlot, now: float) -> None:
        """Make the calls of a place that are due."""
        if self._stop_due_at(slot) <= now:
            grace_s = self._grace_s(slot, now)
            slot.is_being_stopped = True
            slot.stop_at = now + grace_s + STOP_AGAIN_S
            slot.look_at, slot.look_wait_s = min(slot.look_at, now + LOOK_S), LOOK_S
            units = slot.doubles + slot.units * self._is_to_end(slot)
            self._actions.append(StopUnits(slot.host, slot.tag, units, grace_s))
        call, due_at = self._call_due(slot)
        if due_at > now:
            return
        if call is PlaceCall.WRITE:
            self._ask(slot, WriteTag(slot.host, slot.tag))
        elif call is PlaceCall.FIND:
            slot.finds += 1
            self._ask(slot, Find(slot.host, slot.tag))
        else:
            self._ask(slot, Look(slot.host, slot.tag, slot.units))

    def _call_due(self, slot: HostSlot) -> tuple[PlaceCall, float]:
        """Return the next request to a place for a host that may have a unit, and its time (PL8)."""
        if slot.call is not None or not slot.may_live or not slot.tag:
            return PlaceCall.LOOK, inf
        if not slot.is_written:
            return PlaceCall.WRITE, slot.write_at
        look_at = slot.look_at if slot.units else inf
        is_missing = not slot.units and (
            self._is_unwanted(slot) or slot.state is PlaceState.RUNNING
        )
        if slot.state is PlaceState.UNKNOWN or is_missing:
            find_at = slot.find_at
        elif slot.state is PlaceState.RUNNING and not (slot.is_counted or slot.is_known_whole):
            find_at = max(slot.find_at, slot.sure_at)  # there may be a second one
        else:
            find_at = inf
        if find_at <= look_at:
            return PlaceCall.FIND, find_at
        return PlaceCall.LOOK, look_at

    def _stop_due_at(self, slot: HostSlot) -> float:
        """Return when units of a host are stopped, if they are (PL4)."""
        if slot.is_being_stopped or slot.call is PlaceCall.START or not slot.may_live:
            return inf
        is_due = slot.doubles or (slot.units and self._is_to_end(slot))
        return slot.stop_at if is_due else inf

    def _is_to_end(self, slot: HostSlot) -> bool:
        """Return whether the unit of a host is to be stopped (PL4)."""
        leaves = slot.state is PlaceState.RUNNING and slot.out == "drained" and not self.stopping
        return self._is_unwanted(slot) and not leaves

    def _grace_s(self, slot: HostSlot, now: float) -> float:
        if self.stopping:
            return max(0.0, self.stop_at - STOP_LAST_S - now)
        return REVOKED_GRACE_S if slot.out == "revoked" else self.config.stop_grace_s

    def _ask(self, slot: HostSlot, action: WriteTag | StartUnit | Look | Find) -> None:
        assert slot.call is None, f"PL8 {slot.host}"
        slot.call = _CALLS[type(action)]
        self._actions.append(action)

    def _ask_start(self, slot: HostSlot, now: float) -> None:
        assert slot.is_written, f"PL1 {slot.host}"
        slot.starts += 1
        # An agent that left before is not the one that starts now
        slot.is_answered = slot.is_counted = slot.has_left = slot.is_over = False
        slot.started_at, slot.sure_at = now, now + FIND_S
        slot.look_wait_s, slot.claims_at = LOOK_S, None
        self._ask(slot, StartUnit(slot.host, slot.tag))

    def _answered(
        self,
        event: TagWritten | StartAccepted | UnitsLooked | UnitsFound | Stopped | Failed,
        slot: HostSlot,
        now: float,
    ) -> None:
        call = event.call if isinstance(event, Failed) else _ANSWERS[type(event)]
        if call is PlaceCall.STOP:
            slot.is_being_stopped = False
        else:
            assert slot.call is call, f"PL8 {slot.host}"
            slot.call = None
        if event.tag != slot.tag:
            return  # a former unit was alive after all (`_came`)
        match event:
            case TagWritten():
                self._written(slot, now)
            case StartAccepted(units=units):
                self._started(slot, units, now)
            case UnitsLooked():
                self._looked(slot, event, now)
            case UnitsFound():
                self._found(slot, event, now)
            case Stopped():
                slot.doubles = ()
                slot.look_at = now  # this look, or a search, shows whether they have ended
            case Failed():
                self._failed(slot, event, now)
            case _:
                assert_never(event)

    def _written(self, slot: HostSlot, now: float) -> None:
        slot.is_written = True
        if slot.state is not PlaceState.WRITING:
            return
        slot.former = None
        if self._is_unwanted(slot):
            slot.enter(UnitEvent.UNWRITTEN)
            self._drop(slot)
            return
        slot.enter(UnitEvent.WRITTEN)
        self._ask_start(slot, now)

    def _started(self, slot: HostSlot, units: tuple[str, ...], now: float) -> None:
        self._know(slot, units, now)
        slot.is_answered, slot.is_refused, slot.is_over = bool(units), False, False
        slot.look_at = now + LOOK_S
        slot.is_searched = False
        if slot.state is PlaceState.RUNNING:
            return
        if units:
            slot.enter(UnitEvent.BEGINS)
        else:
            self._unsure(slot, now, FIND_S)

    def _know(self, slot: HostSlot, units: tuple[str, ...], now: float) -> None:
        """Record the units of a tag; a second unit must end (PL4)."""
        slot.units = units[:1] or slot.units
        if len(units) > 1:
            slot.doubles, slot.stop_at = units[1:], now
            slot.is_doubled = True

    def _looked(self, slot: HostSlot, event: UnitsLooked, now: float) -> None:
        """Handle a place's report about a unit; it changes the state only of a unit without link."""
        sight = _liveliest(slot.units, event.seen)
        slot.why, slot.log, slot.until_s = sight.why, sight.log or slot.log, sight.until_s
        slot.look_at = now + self._look_wait_s(slot)
        has_ended = sight.state in (PlaceState.GONE, PlaceState.NEVER_CAME)
        if has_ended and sight.lasting:
            slot.is_refused = self._is_refusal_new = True
        if slot.state is PlaceState.RUNNING and not self._is_unwanted(slot):
            if has_ended:  # it is another unit that has the link
                slot.units, slot.find_at = (), now + _wait_s(slot.finds, event.jitter)
        elif has_ended:
            self._seen_ended(slot, now, event.jitter)
        elif slot.state is PlaceState.RUNNING:
            pass  # it is to end
        elif sight.state is not PlaceState.UNKNOWN:
            self._seen_alive(slot, sight, now)
        elif slot.is_over and not slot.is_doubled and self._is_unwanted(slot):
            self._settle(slot, now, event.jitter)
        else:
            self._unsure(slot, now, FIND_S)

    def _seen_ended(self, slot: HostSlot, now: float, jitter: float) -> None:
        """Handle the reported end of a unit without link: it counts if there can be no other unit (PL2)."""
        if slot.is_known_whole:
            self._settle(slot, now, jitter)
            return
        if slot.is_answered and not slot.is_doubled:
            slot.sure_at = now  # the unit that was started last has ended
            if self.stopping:
                slot.find_at = now
        self._doubt(slot, now, jitter)

    def _seen_alive(self, slot: HostSlot, sight: Sight, now: float) -> None:
        """Handle the report that a unit without link waits, starts or runs."""
        slot.is_over = False
        if slot.state is PlaceState.UNKNOWN and slot.is_searched:
            return
        if sight.state is PlaceState.WAITING:
            slot.enter(UnitEvent.WAITS)
            slot.started_at = now
            return
        slot.enter(UnitEvent.BEGINS)
        if sight.state is PlaceState.RUNNING and slot.claims_at is None:
            slot.claims_at = now
        if slot.claims_at is not None and now - slot.claims_at >= REACH_S:
            if not slot.unreached_reported:
                slot.unreached_reported = True
                self._show_note(Unreached(slot.host, slot.has_come))
            self._doubt(slot, now, 0.0)
        elif now - slot.started_at >= BEGIN_S_MAX:
            self._doubt(slot, now, 0.0)

    def _look_wait_s(self, slot: HostSlot) -> float:
        if slot.state is PlaceState.RUNNING and not self._is_unwanted(slot):
            return LOOK_RUNNING_S
        slot.look_wait_s = min(LOOK_S_MAX, slot.look_wait_s * 1.5)
        return LOOK_S if self.stopping else slot.look_wait_s

    def _found(self, slot: HostSlot, event: UnitsFound, now: float) -> None:
        """Handle the result of a search (PL2): a found unit is started again under its tag, or stopped."""
        slot.find_at = now + self._find_wait_s(slot, event.jitter)
        if event.units:
            self._know(slot, event.units, now)
            slot.is_answered = slot.is_over = False
        is_found = bool(event.units) or slot.finds >= FINDS_MAX
        slot.is_counted = is_found and now >= slot.sure_at
        if slot.state is not PlaceState.UNKNOWN and not self._is_unwanted(slot):
            return
        if event.units:
            slot.look_at = now + LOOK_S
            slot.is_returned = False
            if self._is_unwanted(slot):
                slot.stop_at = min(slot.stop_at, now)
            elif not slot.is_being_stopped:
                self._ask_start(slot, now)
        elif now < slot.sure_at:
            slot.find_at = slot.sure_at
        else:
            self._settle(slot, now, event.jitter)

    def _find_wait_s(self, slot: HostSlot, jitter: float) -> float:
        """Return the wait before a search is repeated."""
        return STOP_AGAIN_S if self.stopping else max(STOP_AGAIN_S, _wait_s(slot.finds, jitter))

    def _failed(self, slot: HostSlot, event: Failed, now: float) -> None:
        """Handle a failed call: a start may have happened nevertheless, unless it was refused (PL2)."""
        slot.why, slot.is_refused = event.why, event.refused
        self._is_refusal_new = event.refused
        wait_s = _failure_wait_s(event, _wait_s(max(1, slot.finds), event.jitter))
        match event.call:
            case PlaceCall.WRITE:
                slot.write_at = now + max(wait_s, FIND_S)
                slot.start_at = max(slot.start_at, slot.write_at)
                if slot.state is PlaceState.WRITING:
                    slot.take_back()
                    slot.enter(UnitEvent.UNWRITTEN)
            case PlaceCall.START:
                self._start_failed(slot, event, now, wait_s)
            case PlaceCall.LOOK:
                slot.look_at = now + max(wait_s, self._look_wait_s(slot))
                if slot.state is not PlaceState.RUNNING:
                    self._unsure(slot, now, FIND_S)
            case PlaceCall.FIND:
                self._find_failed(slot, event.why, now, wait_s)
            case PlaceCall.STOP:
                slot.stop_at = now + STOP_AGAIN_S
            case _:
                assert_never(event.call)

    def _start_failed(self, slot: HostSlot, event: Failed, now: float, wait_s: float) -> None:
        slot.is_over = False
        if slot.state is PlaceState.RUNNING:
            return
        if slot.starts == 1 and (event.refused or event.unasked):
            self._settle(slot, now, event.jitter, wait_s)
            return
        self._unsure(slot, now, max(wait_s, FIND_S))
        slot.is_searched = True
        self._show_note_once(slot, event.why)

    def _find_failed(self, slot: HostSlot, why: str, now: float, wait_s: float) -> None:
        slot.find_at = now + (self._find_wait_s(slot, 0.0) if self.stopping else wait_s)
        if slot.state is not PlaceState.RUNNING:
            self._show_note_once(slot, why)

    def _show_note_once(self, slot: HostSlot, why: str) -> None:
        if why != slot.reported and not self._is_unwanted(slot):
            slot.reported = why
            self._show_note(CannotTell(slot.host, why))

    def _heard(
        self,
        event: AgentCame | AgentLost | AgentLeft | HostDrained | HostRevoked,
        slot: HostSlot,
        now: float,
    ) -> None:
        match event:
            case AgentCame():
                self._came(slot, now)
            case AgentLost(jitter=jitter):
                if slot.state is PlaceState.RUNNING:
                    self._lost(slot, now, jitter)
            case AgentLeft(jitter=jitter):
                if slot.state is PlaceState.RUNNING:
                    slot.has_left = slot.is_over = True
                    slot.start_at = now + _longer(LEFT_AGAIN_S, jitter)
                    slot.stop_at = now + FIND_S
                    self._unlinked(slot, now)
            case HostDrained():
                self._take_out(slot, slot.out or "drained", now)
            case HostRevoked():
                self._take_out(slot, "revoked", now)
            case _:
                assert_never(event)

    def _came(self, slot: HostSlot, now: float) -> None:
        """Handle an agent that has its link (PL3); it may be one that was believed to have ended."""
        if self.stopping and slot.state in _NONE:
            return  # the broker ends it
        slot.take_back()
        is_new = slot.state is not PlaceState.RUNNING
        slot.enter(UnitEvent.CAME)
        slot.has_come, slot.has_left, slot.is_over, slot.is_returned = True, False, False, False
        slot.claims_at, slot.finds, slot.place.fails = None, 0, 0
        slot.place.has_proved = True
        self.have_come.add(slot.host)
        if is_new:
            slot.came_at, slot.look_at = now, min(slot.look_at, now + LOOK_RUNNING_S)
            slot.find_at = now + FIND_S  # if its unit is not known
            slot.why = slot.log = ""
        if slot.reported:
            slot.reported = ""
            self._show_note(Came(slot.host))

    def _lost(self, slot: HostSlot, now: float, jitter: float) -> None:
        """Handle a lost link: the agent may live (PL2), and the host may flap (PL6)."""
        if now - slot.came_at >= STEADY_S:
            slot.quarantines = 0
        recent = tuple(at for at in slot.losses if now - at < FLAP_S)
        slot.losses = (*recent, now)
        slot.start_at = now + _wait_s(len(slot.losses), jitter)
        if len(slot.losses) >= LOSSES_MAX:
            seconds = min(QUARANTINE_S_MAX, QUARANTINE_S * 2**slot.quarantines)
            slot.losses, slot.quarantines = (), slot.quarantines + 1
            slot.quarantine_until = now + seconds
            if not self._is_unwanted(slot):
                self._show_note(Quarantined(slot.host, LOSSES_MAX, seconds))
        self._unlinked(slot, now)

    def _unlinked(self, slot: HostSlot, now: float) -> None:
        slot.enter(UnitEvent.UNSURE)
        slot.is_searched = True
        slot.finds = 0
        slot.look_at, slot.look_wait_s = now, LOOK_S
        is_urgent = self.stopping or not slot.units
        slot.find_at = now + (0.0 if is_urgent else FIND_S)
        # Another unit of the tag may still start, if it was started twice
        slot.sure_at = now if slot.is_known_whole else max(now, slot.sure_at)
        if not slot.tag:
            self._settle(slot, now, 0.0)

    def _take_out(self, slot: HostSlot, why: str, now: float) -> None:
        slot.out = why
        self._end(slot, now)

    def _unsure(self, slot: HostSlot, now: float, wait_s: float) -> None:
        """Handle a place that does not know: search the tag later."""
        if slot.state is not PlaceState.UNKNOWN:
            slot.find_at = now + wait_s
        slot.enter(UnitEvent.UNSURE)

    def _doubt(self, slot: HostSlot, now: float, jitter: float) -> None:
        """Handle a report of a place that contradicts the link: search the tag."""
        if slot.state is not PlaceState.UNKNOWN:
            slot.is_searched = True
            self._unsure(slot, now, 0.0 if self.stopping else _wait_s(slot.finds, jitter))

    def _settle(self, slot: HostSlot, now: float, jitter: float, wait_s: float = 0.0) -> None:
        """Handle a unit's end (PL2): blame its place if it had not connected, plan the next (PL6)."""
        is_failure = not slot.has_come and not slot.is_returned
        slot.enter(UnitEvent.ENDED)
        slot.is_searched = slot.is_returned = False
        self._drop(slot)
        if self._is_unwanted(slot):
            return
        place = slot.place
        if is_failure:
            place.fails, place.has_proved = place.fails + 1, False
            place.start_at = now + max(wait_s, _wait_s(place.fails, jitter))
        again_s = max(0.0, max(slot.start_at, slot.quarantine_until, place.start_at) - now)
        again_s = inf if self._is_hopeless() else again_s
        if is_failure and slot.why != slot.reported:
            self._show_note(NeverCame(slot.host, slot.why, slot.log, again_s))
            slot.reported = slot.why
        elif slot.has_come and not slot.has_left and slot.why:
            self._show_note(UnitEnded(slot.host, slot.why, slot.log, again_s))
            slot.reported = slot.why

    def _drop(self, slot: HostSlot) -> None:
        if slot.is_written:
            slot.is_written = False
            self._actions.append(DropTag(slot.host, slot.tag))

    def _stop(self, grace_s: float, now: float) -> None:
        """Stop all units; a second stop can only shorten the time (PL7)."""
        self.stopping = True
        self.stop_at = min(self.stop_at, now + grace_s + STOP_LAST_S)
        self.too_few_at = self.give_up_at = inf
        for slot in self.slots.values():
            self._end(slot, now)
            if slot.state is PlaceState.RUNNING and not slot.tag:
                slot.enter(UnitEvent.ENDED)  # no place knows it: the broker ends it

    def _end(self, slot: HostSlot, now: float) -> None:
        """Stop the units of a host, or search for them first."""
        slot.stop_at = now
        slot.find_at = min(slot.find_at, now + STOP_AGAIN_S * bool(slot.units))
        slot.look_wait_s = LOOK_S

    def _leave(self, now: float) -> None:
        if not self.stopping or self.left:
            return
        rest = (slot.host for slot in self.slots.values() if slot.state not in _NONE)
        first = next(rest, None)
        if first is not None and now < self.stop_at:
            return
        if first is not None:
            self._show_note(NotStopped((first, *rest)))
        self._actions.append(EndPlaces())
        self.left = True

    def _count_hosts(self, now: float) -> None:
        """Report that too few hosts have connected, and finally give up."""
        have, wanted = len(self.have_come), self.config.min_hosts
        if have >= wanted or self.give_up_at == inf:
            self.too_few_at = self.give_up_at = inf
        elif now >= self.give_up_at or self._is_hopeless():
            self.too_few_at = self.give_up_at = inf
            self._actions.append(GiveUp(have, wanted, self._missing()))
        elif now >= self.too_few_at:
            self.too_few_at = now + TOO_FEW_AGAIN_S
            self._show_note(TooFew(have, wanted, self._missing(), self.give_up_at - now))
        self._is_refusal_new = False

    def _is_hopeless(self) -> bool:
        """Return whether so many hosts are refused for good that the run is given up."""
        is_asked = self.give_up_at < inf and len(self.have_come) < self.config.min_hosts
        return is_asked and self._is_refusal_new and self._hopeful() < self.config.min_hosts

    def _hopeful(self) -> int:
        """Return how many hosts have connected, or may connect without the user."""
        slots = self.slots.values()
        return sum(slot.host in self.have_come or not slot.is_refused for slot in slots)

    def _missing(self) -> tuple[str, ...]:
        return tuple(host for host in self.slots if host not in self.have_come)

    def _show_note(self, note: Note) -> None:
        self._actions.append(ShowNote(note))

    def _view(self, slot: HostSlot, now: float) -> HostView:
        again_at = slot.find_at if slot.state is PlaceState.UNKNOWN else self._start_due_at(slot)
        is_planned = again_at < inf and slot.state is not PlaceState.RUNNING
        return HostView(
            slot.host, slot.place.name, slot.state, slot.why, slot.log, slot.out,
            quarantine_s=max(0.0, slot.quarantine_until - now),
            again_s=max(0.0, again_at - now) if is_planned else 0.0,
            until_s=slot.until_s,
        )  # fmt: skip


_CALLS: Final = {
    WriteTag: PlaceCall.WRITE, StartUnit: PlaceCall.START, Look: PlaceCall.LOOK, Find: PlaceCall.FIND,
}  # fmt: skip
_ANSWERS: Final = {
    TagWritten: PlaceCall.WRITE, StartAccepted: PlaceCall.START, UnitsLooked: PlaceCall.LOOK,
    UnitsFound: PlaceCall.FIND, Stopped: PlaceCall.STOP,
}  # fmt: skip
_LIVELINESS: Final = (
    PlaceState.RUNNING, PlaceState.STARTING, PlaceState.WAITING, PlaceState.UNKNOWN, PlaceState.GONE,
    PlaceState.NEVER_CAME,
)  # fmt: skip


def _liveliest(units: tuple[str, ...], seen: Sequence[Sight]) -> Sight:
    """Return the state of a tag from the states of its units: it has ended when all of them have."""
    missing = [
        Sight(unit, PlaceState.UNKNOWN) for unit in units if unit not in {s.unit for s in seen}
    ]
    sights = [*(sight for sight in seen if sight.unit in units), *missing]
    return min(sights, key=lambda sight: _LIVELINESS.index(sight.state))


def _wait_s(failures: int, jitter: float) -> float:
    """Return the wait after this number of consecutive failures (PL6)."""
    return _longer(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)], jitter)


def _longer(seconds: float, jitter: float) -> float:
    return seconds * (1.0 + JITTER * jitter)


def _failure_wait_s(event: Failed, usual_s: float) -> float:
    """Return the wait after a failed call: what the place asks for, within limits (PL6)."""
    if event.refused:
        return _longer(REFUSED_S, event.jitter)
    return max(usual_s, min(event.retry_after_s or 0.0, BUSY_S_MAX))
