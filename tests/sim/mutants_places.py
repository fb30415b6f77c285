"""Planted bugs in the places of a run: two agents for a host, orphans, early timeouts, blame, stops."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from resilient_scoop.core import places
from resilient_scoop.core.places import HostSlot, Places, PlaceState, UnitEvent
from tests.sim.places import Climate, World
from tests.sim.planting import Patch

_KILLED = {"rates": {"kill": 0.05}, "until": 120.0}
_FLAPPING = {"rates": {"crash": 0.05}, "until": 600.0, "chances": {}}
_TWICE = {"chances": {"twice": 0.8, "answer lost": 0.3}, "until": 120.0}
_UNSEEN = {
    "chances": {"twice": 0.8, "answer lost": 0.8, "finds ended": 0.8},
    "rates": {"power": 0.05}, "until": 120.0, "hosts": 4, "queue": 0,
}  # fmt: skip
_LOST = {"chances": {"answer lost": 0.5}, "until": 120.0}
_FAILING = {"chances": {"unborn": 0.8}, "until": 600.0, "hosts": 0, "queue": 3}
_CUT = {"rates": {"cut": 0.02, "power": 0.02}, "until": 600.0}
_OUT = {"rates": {"drain": 0.05, "revoke": 0.05}, "until": 120.0, "hosts": 4}
_HANGS = {"chances": {"hang": 0.5, "stop fails": 0.8}, "stops_in_calm": False, "grace_s": 30.0}
_LEAVES = {
    "chances": {"twice": 0.8, "cannot tell": 0.8, "ignores stop": 0.8, "stop fails": 0.3, "slow": 0.3},
    "rates": {"leave": 0.2, "drain": 0.02, "revoke": 0.02},
    "until": 30.0, "hosts": 4, "stops_in_calm": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlacesMutant:
    """A bug, and the faults under which it has an effect."""

    name: str
    patches: Callable[[], Sequence[Patch]]
    weather: dict[str, Any] = field(default_factory=dict)


def _started_before_the_tag_is_durable() -> Sequence[Patch]:
    ask = Places._ask

    def bug(self: Places, slot: HostSlot, action: Any) -> None:
        ask(self, slot, action)
        if isinstance(action, places.WriteTag) and slot.state is PlaceState.WRITING:
            self._actions.append(places.StartUnit(slot.host, slot.tag))

    return [(Places, "_ask", bug)]


def _tags_are_not_searched_after_a_restart() -> Sequence[Patch]:
    began = Places._began

    def bug(self: Places, event: places.Began, now: float) -> None:
        began(self, places.Began((), event.drained, event.revoked), now)

    return [(Places, "_began", bug)]


def _a_first_search_counts() -> Sequence[Patch]:
    return [(places, "FIND_S", 0.0)]


def _unknown_is_gone() -> Sequence[Patch]:
    def bug(self: Places, slot: HostSlot, now: float, wait_s: float) -> None:
        self._settle(slot, now, 0.0)

    return [(Places, "_unsure", bug)]


def _a_failed_start_was_not_made() -> Sequence[Patch]:
    failed = Places._start_failed

    def bug(self: Places, slot: HostSlot, event: places.Failed, now: float, wait_s: float) -> None:
        never = replace_event(event, refused=True)
        failed(self, slot, never, now, wait_s)

    return [(Places, "_start_failed", bug)]


def replace_event(event: places.Failed, **changes: Any) -> places.Failed:
    """Return an event with other fields."""
    return places.Failed(**{f: getattr(event, f) for f in event.__struct_fields__} | changes)


def _the_end_of_any_start_counts() -> Sequence[Patch]:
    return [(HostSlot, "is_known_whole", property(lambda _self: True))]


def _a_place_outranks_the_link() -> Sequence[Patch]:
    looked = Places._looked

    def bug(self: Places, slot: HostSlot, event: places.UnitsLooked, now: float) -> None:
        if slot.state is PlaceState.RUNNING and any(s.state is PlaceState.GONE for s in event.seen):
            slot.enter(UnitEvent.UNSURE)
        looked(self, slot, event, now)

    return [(Places, "_looked", bug)]


def _a_slow_start_is_taken_away() -> Sequence[Patch]:
    alive = Places._seen_alive

    def bug(self: Places, slot: HostSlot, sight: places.Sight, now: float) -> None:
        alive(self, slot, sight, now)
        if now - slot.started_at > 10.0 and slot.state is PlaceState.STARTING:
            slot.doubles, slot.stop_at = slot.units, now

    return [(Places, "_seen_alive", bug)]


def _doubles_are_left_alone() -> Sequence[Patch]:
    def bug(self: Places, slot: HostSlot, units: tuple[str, ...], now: float) -> None:
        slot.units = units[:1] or slot.units

    return [(Places, "_know", bug)]


def _doubles_of_a_lost_answer_are_not_searched() -> Sequence[Patch]:
    ask_start = Places._ask_start

    def bug(self: Places, slot: HostSlot, now: float) -> None:
        ask_start(self, slot, now)
        slot.is_counted = True

    return [(Places, "_ask_start", bug)]


def _all_units_are_asked_for_at_once() -> Sequence[Patch]:
    return [(Places, "_has_turn", lambda _self, _slot: True)]


def _no_back_off() -> Sequence[Patch]:
    return [(places, "_wait_s", lambda _failures, _jitter: 0.0)]


def _no_quarantine() -> Sequence[Patch]:
    return [(places, "LOSSES_MAX", 1 << 30)]


def _an_endless_quarantine() -> Sequence[Patch]:
    return [(places, "QUARANTINE_S_MAX", inf), (places, "QUARANTINE_S", 1e9)]


def _a_failure_is_for_good() -> Sequence[Patch]:
    settle = Places._settle

    def bug(self: Places, slot: HostSlot, now: float, jitter: float, wait_s: float = 0.0) -> None:
        settle(self, slot, now, jitter, wait_s)
        if slot.state is PlaceState.NEVER_CAME:
            slot.start_at = inf

    return [(Places, "_settle", bug)]


def _a_lost_agent_is_waited_for_forever() -> Sequence[Patch]:
    unlinked = Places._unlinked

    def bug(self: Places, slot: HostSlot, now: float) -> None:
        unlinked(self, slot, now)
        slot.find_at = inf

    return [(Places, "_unlinked", bug)]


def _one_that_left_is_started_at_once() -> Sequence[Patch]:
    return [(places, "LEFT_AGAIN_S", 0.0)]


def _drained_hosts_are_used_again() -> Sequence[Patch]:
    return [(Places, "_take_out", lambda _self, _slot, _why, _now: None)]


def _drained_agents_are_stopped() -> Sequence[Patch]:
    return [(Places, "_is_to_end", Places._is_unwanted)]


def _a_stop_waits_for_places() -> Sequence[Patch]:
    stop = Places._stop

    def bug(self: Places, grace_s: float, now: float) -> None:
        stop(self, grace_s, now)
        self.stop_at = now + 1e6

    return [(Places, "_stop", bug)]


def _a_stop_does_not_wait() -> Sequence[Patch]:
    stop = Places._stop

    def bug(self: Places, grace_s: float, now: float) -> None:
        stop(self, grace_s, now)
        self.stop_at = now

    return [(Places, "_stop", bug)]


def _a_start_under_way_is_forgotten_at_a_stop() -> Sequence[Patch]:
    started = Places._started

    def bug(self: Places, slot: HostSlot, units: tuple[str, ...], now: float) -> None:
        started(self, slot, units, now)
        if self.stopping and slot.state is PlaceState.STARTING:
            self._settle(slot, now, 0.0)

    return [(Places, "_started", bug)]


def _a_failed_stop_is_not_repeated() -> Sequence[Patch]:
    failed = Places._failed

    def bug(self: Places, slot: HostSlot, event: places.Failed, now: float) -> None:
        failed(self, slot, event, now)
        if event.call is places.PlaceCall.STOP:
            slot.stop_at = inf

    return [(Places, "_failed", bug)]


def _what_was_not_stopped_is_not_named() -> Sequence[Patch]:
    say = Places._show_note

    def bug(self: Places, note: places.Note) -> None:
        if not isinstance(note, places.NotStopped):
            say(self, note)

    return [(Places, "_show_note", bug)]


def _who_left_ends_its_tag() -> Sequence[Patch]:
    looked = Places._looked

    def bug(self: Places, slot: HostSlot, event: places.UnitsLooked, now: float) -> None:
        slot.is_over, doubled = slot.has_left, slot.is_doubled
        slot.is_doubled = doubled and not slot.has_left
        looked(self, slot, event, now)
        slot.is_doubled = doubled

    return [(Places, "_looked", bug)]


PLACES_MUTANTS = (
    PlacesMutant("started before its tag is durable", _started_before_the_tag_is_durable),
    PlacesMutant("no search after a restart", _tags_are_not_searched_after_a_restart, _KILLED),
    PlacesMutant("a search counts at once", _a_first_search_counts, _KILLED),
    PlacesMutant("unknown is gone", _unknown_is_gone),
    PlacesMutant("a failed start was not made", _a_failed_start_was_not_made, _LOST),
    PlacesMutant("the end of any start counts", _the_end_of_any_start_counts, _CUT),
    PlacesMutant("a place outranks the link", _a_place_outranks_the_link),
    PlacesMutant("a slow start is taken away", _a_slow_start_is_taken_away),
    PlacesMutant("doubles are left alone", _doubles_are_left_alone, _TWICE),
    PlacesMutant("an unseen double", _doubles_of_a_lost_answer_are_not_searched, _UNSEEN),
    PlacesMutant("all units are asked for at once", _all_units_are_asked_for_at_once, _FAILING),
    PlacesMutant("no back-off", _no_back_off, _FAILING),
    PlacesMutant("no quarantine", _no_quarantine, _FLAPPING),
    PlacesMutant("an endless quarantine", _an_endless_quarantine, _FLAPPING),
    PlacesMutant("a failure is for good", _a_failure_is_for_good, _FAILING),
    PlacesMutant("a lost agent is waited for forever", _a_lost_agent_is_waited_for_forever, _CUT),
    PlacesMutant("who left is started at once", _one_that_left_is_started_at_once),
    PlacesMutant("drained hosts are used again", _drained_hosts_are_used_again, _OUT),
    PlacesMutant("drained agents are stopped", _drained_agents_are_stopped, _OUT),
    PlacesMutant("a stop waits for places", _a_stop_waits_for_places, _HANGS),
    PlacesMutant("a stop does not wait", _a_stop_does_not_wait),
    PlacesMutant("a start is forgotten at a stop", _a_start_under_way_is_forgotten_at_a_stop),
    PlacesMutant("a failed stop is not repeated", _a_failed_stop_is_not_repeated, _HANGS),
    PlacesMutant("what lives is not named", _what_was_not_stopped_is_not_named, _HANGS),
    PlacesMutant("who left ends its tag", _who_left_ends_its_tag, _LEAVES),
)


def found_by(mutant: PlacesMutant, seeds: int) -> tuple[int, str] | None:
    """Return the first seed that finds a bug, with the message; None if no seed does."""
    patches = mutant.patches()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, bug in patches:
        setattr(owner, name, bug)
    try:
        for seed in range(seeds):
            climate = replace(Climate.draw(random.Random(seed)), **mutant.weather)
            try:
                World(seed, climate=climate).run()
            except (AssertionError, LookupError, TypeError) as error:
                return seed, str(error) or repr(error)
    finally:
        for owner, name, good in before:
            setattr(owner, name, good)
    return None
