"""Checks what the machine of the places must never do, from outside: from events, actions and the world.

It counts failures and losses itself, and reads only the states of units from the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resilient_scoop.core import places
from resilient_scoop.core.places import Places, PlaceState

if TYPE_CHECKING:
    from tests.sim.places import Agent, World

WAITS_S = (0.0, 1.0, 15.0, 30.0, 60.0)
LEAVES_S = 5.0
"""Time for an agent that has left, in which it is not stopped."""
NONE = (PlaceState.WANTED, PlaceState.GONE, PlaceState.NEVER_CAME)


class Watch:
    """Checks PL1 to PL8 and progress."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calm_at: float | None = None
        self.stop_until: float | None = None
        self.not_stopped: set[str] | None = None
        self.new_life()

    def new_life(self) -> None:
        """Begin again with another shell, whose machine knows nothing of the past."""
        self.calls: dict[str, str] = {}  # by host
        self.stops: set[str] = set()
        self.stop_failed_at: dict[str, float] = {}
        self.tags: set[str] = set()  # tags that were drawn
        self.starts: dict[str, int] = {}  # units by tag
        self.under_way: set[str] = set()  # hosts whose first start was asked for
        self.proved: set[str] = set()  # places
        self.fails: dict[str, int] = {}  # by place
        self.failed_at: dict[str, float] = {}
        self.losses: dict[str, list[float]] = {}  # failures by host
        self.quarantine_until: dict[str, float] = {}
        self.left_at: dict[str, float] = {}  # losses of hosts that are not back
        self.states: dict[str, PlaceState] = {}
        self.claims: dict[str, set[str]] = {}  # units that a place named for a tag

    def before(self, machine: Places, event: places.Event) -> None:
        self.states = {host: slot.state for host, slot in machine.slots.items()}
        match event:
            case (
                places.UnitsLooked()
                | places.UnitsFound()
                | places.StartAccepted()
                | places.TagWritten()
            ):
                self.calls.pop(event.host)
            case places.Stopped():
                self.stops.remove(event.host)
            case places.Failed():
                if event.call is places.PlaceCall.STOP:
                    self.stops.remove(event.host)
                    self.stop_failed_at[event.host] = self.world.now
                else:
                    self.calls.pop(event.host)
            case _:
                pass
        if isinstance(event, places.UnitsFound | places.StartAccepted):
            self.claims.setdefault(event.tag, set()).update(event.units)

    def after(self, machine: Places, event: places.Event, actions: Sequence[places.Action]) -> None:
        now = self.world.now
        self._count(machine, event, now)
        for action in actions:
            self._action(machine, action, now)
        for host, slot in machine.slots.items():
            if isinstance(event, places.AgentCame) and event.host == host:
                assert slot.state is PlaceState.RUNNING, f"PL3 {host} is {slot.state}"
            if self.states[host] is PlaceState.RUNNING and slot.state is not PlaceState.RUNNING:
                is_reported = isinstance(event, places.AgentLost | places.AgentLeft)
                assert is_reported or self._is_unwanted(host), f"PL3 {host}: its link was there"
        if self.stop_until is not None:
            late_s = now - self.stop_until
            assert machine.left or late_s <= 0.01 or not machine.stopping, "PL7 it stays"
        for host, at in self.stop_failed_at.items():
            may_live = machine.slots[host].state not in NONE and machine.slots[host].units
            since = max(at, self.left_at.get(host, -LEAVES_S) + LEAVES_S)
            is_late = now - since > 2.0 and self.calls.get(host) != "start"
            is_wanted = not machine.stopping or machine.left
            assert is_wanted or not (may_live and is_late), f"PL7 {host}: a stop is not repeated"
        self._check_doubles()

    def _count(self, machine: Places, event: places.Event, now: float) -> None:
        """Count failures and losses."""
        for host, slot in machine.slots.items():
            place = self.world.hosts[host].place
            if slot.state is PlaceState.RUNNING or slot.state in NONE:
                self.under_way.discard(host)
            is_new = slot.state is not self.states[host]
            is_failure = slot.state is PlaceState.NEVER_CAME and not self._is_unwanted(host)
            if is_new and is_failure and self.starts.get(slot.tag):
                self.fails[place] = self.fails.get(place, 0) + 1
                self.failed_at[place] = now
                self.proved.discard(place)
        match event:
            case places.AgentCame(host=host):
                self.proved.add(self.world.hosts[host].place)
                self.fails[self.world.hosts[host].place] = 0
                self.left_at.pop(host, None)
            case places.AgentLost(host=host) if self.states[host] is PlaceState.RUNNING:
                recent = [at for at in self.losses.get(host, []) if now - at < 300.0]
                self.losses[host] = [*recent, now]
                if len(self.losses[host]) == 3:
                    self.losses[host] = []
                    self.quarantine_until[host] = now + 300.0
            case places.AgentLeft(host=host) if self.states[host] is PlaceState.RUNNING:
                self.left_at[host] = now
            case _:
                pass

    def _action(self, machine: Places, action: places.Action, now: float) -> None:
        match action:
            case places.WriteTag(host=host, tag=tag):
                self._call(host, "write")
                if tag not in self.tags and machine.slots[host].state is PlaceState.WRITING:
                    self._drawn(host, tag, now)
            case places.StartUnit(host=host, tag=tag):
                self._call(host, "start")
                self._start(host, tag)
            case places.Look(host=host):
                self._call(host, "look")
            case places.Find(host=host):
                self._call(host, "find")
            case places.StopUnits():
                self._stop(machine, action)
            case places.ShowNote(note=places.NotStopped(hosts=hosts)):
                self.not_stopped = set(hosts)
            case places.ShowNote(note=places.Quarantined(seconds=seconds)):
                assert 300.0 <= seconds <= 3600.0, "PL6 a quarantine"
            case places.DropTag(host=host, tag=tag):
                self._dropped(host, tag)
            case places.ShowNote() | places.GiveUp() | places.EndPlaces():
                pass

    def _call(self, host: str, call: str) -> None:
        assert host not in self.calls, f"PL8 {host}: {call} beside {self.calls.get(host)}"
        assert call != "start" or host not in self.stops, f"PL8 {host}: start beside a stop"
        self.calls[host] = call

    def _drawn(self, host: str, tag: str, now: float) -> None:
        """Check a new tag: it is not too early (PL5, PL6), and no start is in progress (PL2)."""
        self.tags.add(tag)
        place = self.world.hosts[host].place
        assert not self._is_unwanted(host), f"PL7 {host}: a start after its end"
        wait_s = WAITS_S[min(self.fails.get(place, 0), 4)]
        early_s = self.failed_at.get(place, -99.0) + wait_s - now
        assert early_s <= 1e-6, f"PL6 {host} is started {early_s:.1f} s early"
        early_s = (
            max(self.quarantine_until.get(host, 0.0), self.left_at.get(host, -60.0) + 60.0) - now
        )
        assert early_s <= 1e-6, f"PL6 {host} is started {early_s:.1f} s early"
        mates = {each for each in self.under_way if self.world.hosts[each].place == place}
        assert place in self.proved or not mates, f"PL5 {host}, while {mates} is under way"
        living = [agent.tag for agent in self._agents(host) if not agent.is_double]
        assert not living, f"PL2 {host}: a new tag while {living} may live"
        self.under_way.add(host)

    def _start(self, host: str, tag: str) -> None:
        assert self.world.written.get(host) == tag, f"PL1 {tag} is started, and not written down"
        assert not self._is_unwanted(host), f"PL7 {host} is started"
        self.starts[tag] = self.starts.get(tag, 0) + 1
        others = [a.tag for a in self._agents(host) if a.tag != tag and not a.is_double]
        assert not others, f"PL2 {host}: {tag} is started while {others} may live"

    def _stop(self, machine: Places, action: places.StopUnits) -> None:
        host = action.host
        assert host not in self.stops, f"PL8 {host}: two stops"
        assert self.calls.get(host) != "start", f"PL8 {host}: a stop beside a start"
        self.stops.add(host)
        self.stop_failed_at.pop(host, None)
        if self.world.is_stopping:
            return
        if host in self.world.out:
            kept = (
                self.world.out[host] == "drained"
                and machine.slots[host].state is PlaceState.RUNNING
            )
            assert not kept or self._are_doubles(action), f"PL4 {host} was to leave by itself"
            return
        assert self._are_doubles(action), f"PL4 {host} is stopped without need"

    def _are_doubles(self, action: places.StopUnits) -> bool:
        named = self.claims.get(action.tag, set())
        return len(named) > 1 and len(set(action.units)) < len(named)

    def _dropped(self, host: str, tag: str) -> None:
        living = [agent.tag for agent in self._agents(host) if agent.tag == tag]
        assert not living, f"PL2 {host}: {tag} is dropped and may live"

    def _is_unwanted(self, host: str) -> bool:
        shell = self.world.shell
        assert shell is not None
        return shell.machine.stopping or bool(shell.machine.slots[host].out)

    def _agents(self, host: str) -> list[Agent]:
        """Return agents that live, or will live, as far as known."""
        agents = self.world.hosts[host].agents
        return [agent for agent in agents if agent.is_alive and not agent.is_disowned]

    def accepted(self, agent: Agent) -> None:
        """Check a start that a place has accepted."""
        if not agent.is_double:
            self._check_doubles()

    def _check_doubles(self) -> None:
        for name in self.world.hosts:
            living = [agent.tag for agent in self._agents(name) if not agent.is_double]
            assert len(living) <= 1, f"two agents on {name}: {living}"

    def bound_s(self) -> float:
        """Return how long a host without faults may wait for its agent.

        The limit is the sum of a refusal or a long start, a search, and the retries of its place;
        or the quarantine of the host.
        """
        shell = self.world.shell
        longest = 0.0
        if shell is not None:
            slots = shell.machine.slots.values()
            longest = max(0.0, *(slot.quarantine_until - self.world.now for slot in slots))
        if not self.world.faults:
            return 30.0
        return max(longest, 900.0) + 300.0

    def in_calm(self) -> None:
        """Check that each host has its agent, and no second one."""
        for name in self.world.hosts:
            living = self._agents(name)
            if name in self.world.out:
                assert not living, f"PL4 {name} was taken out, and {living[0].tag} lives"
            elif "ignores stop" not in self.world.faults:
                assert len(living) <= 1, f"PL4 two agents on {name}"

    def stop_began(self, grace_s: float) -> None:
        self.not_stopped = None
        self.stop_until = None
        self.grace_s = grace_s

    def after_stop(self) -> None:
        """Check that agents left after a stop are reported, and that the next shell can find them."""
        self.stop_until = None
        for name in self.world.hosts:
            for agent in self._agents(name):
                if agent.is_double:
                    continue
                assert name in (self.not_stopped or ()), f"{agent.tag} lives, and is not named"
                written = self.world.written.get(name)
                assert written == agent.tag, f"an orphan: {agent.tag}, written: {written}"

    def at_end(self) -> None:
        """Check that after a time without faults and a stop, nothing is left."""
        for name in self.world.hosts:
            living = [agent.tag for agent in self._agents(name) if not agent.is_double]
            assert not living, f"an orphan at the end: {living}"
        grace_s = self.world.climate.grace_s
        if grace_s >= 3.0:
            assert not self.not_stopped, f"not stopped: {self.not_stopped}"
            assert not self.world.written, f"tags are left: {self.world.written}"
