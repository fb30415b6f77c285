"""Planted bugs of an agent: which items it blames, when it starts processes, when it gives up, how it ends.

Worlds with failing hosts find them. If random faults would seldom reach a bug, its faults are
fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from resilient_scoop.core import agent
from resilient_scoop.core.agent import Agent, Slot
from resilient_scoop.core.endings import LAUNCHER_GONE
from resilient_scoop.core.link import Link
from resilient_scoop.wire import messages as wire
from tests.sim.planting import Mutant, Patch
from tests.sim.troubles import Trouble

_TIRED = {"hosts": Trouble(stillborn=0.95), "until": 10.0}
_YOUNG = {"hosts": Trouble(young=0.95, oom=0.3), "until": 10.0}
_UNFIT = {"hosts": Trouble(unfit=0.95), "until": 10.0}
_FULL_UP = {"hosts": Trouble(refuses=0.5, young=0.95), "until": 10.0}
_IGNORES_STOP = {"hosts": Trouble(ignores_stop=0.9), "rates": {"stop": 0.5}, "until": 10.0}
_ALONE = {"hosts": Trouble(gone=0.5), "until": 10.0}
_PAUSED = {"rates": {"pause": 2.0, "broker": 0.5}, "until": 10.0}
_LATE = (("map", "laggard", [1, 2, 3]), ("map", "hangs", [4]))


def _timeouts_are_crashes() -> Sequence[Patch]:
    kill = Agent._kill

    def bug(self: Agent, slot: Slot, reason: str = "") -> None:
        kill(self, slot)

    return [(Agent, "_kill", bug)]


def _orderly_ends_are_crashes() -> Sequence[Patch]:
    lost = agent._lost

    def bug(slot: Slot, event: agent.Exited, reason: str) -> wire.ProcessLost:
        return lost(slot, event, "crash" if reason == "asked" and not slot.killed_for else reason)

    return [(agent, "_lost", bug)]


def _memory_is_not_reported() -> Sequence[Patch]:
    return [(agent, "_SIGKILL", -15)]


def _no_back_off() -> Sequence[Patch]:
    return [(agent, "_backoff_s", lambda _hasty: 0.0)]


def _stillborn_for_ever() -> Sequence[Patch]:
    return [(agent, "STILLBORN_MAX", 1 << 30)]


def _unfit_for_ever() -> Sequence[Patch]:
    return [(Agent, "_is_unfit", lambda _self, _slot: False)]


def _unfit_is_not_reported() -> Sequence[Patch]:
    tell = Agent._tell

    def bug(self: Agent, message: wire.Up) -> None:
        if not isinstance(message, wire.Unfit):
            tell(self, message)

    return [(Agent, "_tell", bug)]


def _refused_for_ever() -> Sequence[Patch]:
    return [(agent, "REFUSED_S_MAX", float("inf"))]


def _refused_at_once_given_up() -> Sequence[Patch]:
    """Never try to start a refused process again."""
    refused = Agent._refused

    def bug(self: Agent, slot: Slot, why: str, now: float, *, full: bool = False) -> None:
        refused(self, slot, why, now, full=full)
        slot.start_at = float("inf")

    return [(Agent, "_refused", bug)]


def _started_after_a_stop() -> Sequence[Patch]:
    start_due = Agent._start_due

    def bug(self: Agent, now: float) -> None:
        stopping, self.stopping = self.stopping, None
        start_due(self, now)
        self.stopping = stopping

    return [(Agent, "_start_due", bug)]


def _deaths_reported_only_at_once() -> Sequence[Patch]:
    tell = Agent._tell

    def bug(self: Agent, message: wire.Up) -> None:
        if self.greeted:
            tell(self, message)

    return [(Agent, "_tell", bug)]


def _owed_is_forgotten() -> Sequence[Patch]:
    meet = Agent._meet

    def bug(self: Agent, epoch: int) -> None:
        self.link = Link(self.run, self.link.epoch)
        meet(self, epoch)

    return [(Agent, "_meet", bug)]


def _the_paused_are_vouched_for() -> Sequence[Patch]:
    return [(Agent, "_runs", lambda _self, _slot, _state, _passed_s: True)]


def _the_dead_are_there() -> Sequence[Patch]:
    """Name processes in a Hello whose end is known."""
    meet = Agent._meet

    def bug(self: Agent, epoch: int) -> None:
        states = {slot: slot.state for slot in self.slots.values()}
        for slot in states:
            slot.state = agent.SlotState.RUNNING if slot.incarnation else slot.state
        meet(self, epoch)
        for slot, state in states.items():
            slot.state = state

    return [(Agent, "_meet", bug)]


def _no_end_at_a_stop() -> Sequence[Patch]:
    return [(Agent, "_is_late", lambda _self, _slot, _now: False)]


def _the_launcher_is_not_missed() -> Sequence[Patch]:
    stop = Agent.stop

    def bug(self: Agent, reason: str, now: float) -> None:
        stop(self, "asked" if reason == LAUNCHER_GONE else reason, now)

    return [(Agent, "stop", bug)]


def _done_and_started_again() -> Sequence[Patch]:
    plan = Agent._plan

    def bug(self: Agent, slot: Slot, event: agent.Exited, now: float, *, unfit: bool) -> None:
        flight = msgspec.structs.replace(event.flight, has_ended=False)
        plan(self, slot, agent.Exited(event.name, event.code, flight), now, unfit=unfit)

    return [(Agent, "_plan", bug)]


AGENT_MUTANTS = (
    Mutant("late items are crashes", _timeouts_are_crashes, _LATE),
    Mutant("ends in order are crashes", _orderly_ends_are_crashes, None, _YOUNG),
    Mutant("a death for memory is a crash", _memory_is_not_reported, None, _YOUNG),
    Mutant("who dies at once is started at once", _no_back_off, None, _YOUNG),
    Mutant("who never begins is started forever", _stillborn_for_ever, None, _TIRED),
    Mutant("who cannot import tries forever", _unfit_for_ever, None, _UNFIT),
    Mutant("that workers cannot import is not reported", _unfit_is_not_reported, None, _UNFIT),
    Mutant("refusals are waited for without end", _refused_for_ever, None, _FULL_UP),
    Mutant("a refused process is not tried again", _refused_at_once_given_up, None, _FULL_UP),
    Mutant("processes start after a stop", _started_after_a_stop, None, _IGNORES_STOP),
    Mutant("deaths are lost while no broker is there", _deaths_reported_only_at_once, None, _YOUNG),
    Mutant("deaths are lost with the broker", _owed_is_forgotten, None, _PAUSED),
    Mutant("paused processes are vouched for", _the_paused_are_vouched_for, None, _PAUSED),
    Mutant("a Hello names the dead", _the_dead_are_there, None, _YOUNG),
    Mutant("nothing is killed at a stop", _no_end_at_a_stop, None, _IGNORES_STOP),
    Mutant("a gone launcher is only a stop", _the_launcher_is_not_missed, None, _ALONE),
    Mutant("what is done starts again", _done_and_started_again, None, _IGNORES_STOP),
)
