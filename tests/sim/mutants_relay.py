"""Planted bugs in what agents keep of the messages of their processes (`core.relay`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core import relay
from resilient_scoop.core.agent import Agent
from resilient_scoop.core.broker.hosts import Hosts
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.relay import Line, Relay
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from tests.sim.grid import Weather
from tests.sim.handed import Keeping
from tests.sim.planting import Mutant, Patch

_LONG = (("map", "slow", list(range(12))),) * 4


def _weather(keeping: Keeping) -> dict[str, Any]:
    """Return a world of other hosts in which workers and brokers die, without other faults."""
    hosts = Weather((0, 2, 2), (0.0002, 0.01, 0.05), 60.0, {}, keeping)
    rates = {"broker": 0.5, "worker": 2.0}
    return {"rates": rates, "points": {}, "until": 10.0, "lease_s": 10.0, "grid": hosts}


_STRICT = _weather(Keeping(strict=True))
_SMALL = _weather(Keeping(150, 150))
_FILES = _weather(Keeping(0, strict=True))
_TORN = _weather(Keeping(0, torn=0.5))


def _nothing_is_kept() -> Sequence[Patch]:
    return [(Relay, "_keep", lambda *_args: None)]


def _ends_are_told_at_once() -> Sequence[Patch]:
    end = Agent._end

    def bug(self: Agent, slot: Any, lost: wire.ProcessLost, now: float) -> None:
        end(self, slot, lost, now)
        if self.relay is not None:
            self.relay.give_up(PeerId(slot.incarnation))

    return [(Agent, "_end", bug)]


def _what_comes_is_not_named() -> Sequence[Patch]:
    return [(relay, "_joined", lambda _held: [])]


def _what_comes_is_not_held() -> Sequence[Patch]:
    return [(Membership, "_reserve", lambda *_args: False)]


def _anything_acknowledges() -> Sequence[Patch]:
    acknowledged = Relay._acknowledged

    def bug(self: Relay, line: Line, ack: int) -> None:
        acknowledged(self, line, line.last)

    return [(Relay, "_acknowledged", bug)]


def _memory_has_no_limit() -> Sequence[Patch]:
    def bug(self: Relay, line: Line, no: int, frames: Sequence[bytes]) -> None:
        size = sum(map(len, frames))
        self.memory_bytes += size
        line.copies.append(relay._Copy(no, size, frames))
        line.last = no

    return [(Relay, "_keep", bug)]


def _files_stay() -> Sequence[Patch]:
    def bug(self: Relay, copy: Any) -> None:
        if copy.frames is not None:
            self.memory_bytes -= copy.size

    return [(Relay, "_forget", bug)]


def _gaps_are_not_seen() -> Sequence[Patch]:
    def bug(self: Relay, line: Line, no: int, frames: Sequence[bytes]) -> None:
        if self.config.memory_bytes_max > 0:
            keep(self, line, no, frames)
        line.last = no

    keep = Relay._keep
    return [(Relay, "_keep", bug)]


def _everything_is_said_again() -> Sequence[Patch]:
    return [(relay, "_counting", lambda frames, owned: list(frames))]


def _new_brokers_are_not_greeted() -> Sequence[Patch]:
    def bug(self: Relay, epoch: int) -> None:
        self.epoch = epoch
        for line in self.lines.values():
            if line.state is relay.LineState.SENDING:
                line.epoch = epoch

    return [(Relay, "meet", bug)]


def _brokers_that_the_process_met_are_greeted_again() -> Sequence[Patch]:
    settle = Relay._settle

    def bug(self: Relay, line: Line, now: float) -> None:
        epoch, self.epoch = self.epoch, max(self.epoch, line.epoch + 1)
        settle(self, line, now)
        self.epoch = epoch
        line.epoch = epoch

    return [(Relay, "_settle", bug)]


def _torn_files_are_said() -> Sequence[Patch]:
    def bug(self: Relay, copy: Any) -> Any:
        return copy.frames if copy.frames is not None else self.store.read(copy.file)

    return [(Relay, "_frames", bug)]


def _the_ended_get_work() -> Sequence[Patch]:
    vouched = Hosts.vouched

    def bug(self: Hosts, agent: Any, alive: Any, now: float) -> None:
        vouched(self, agent, alive, now)
        for peer in self.guests.of[agent.id].host.peers.values():
            if peer.role == "worker":
                self.scheduler.workers[peer.id] = peer

    return [(Hosts, "vouched", bug)]


RELAY_MUTANTS = (
    Mutant("agents keep nothing", _nothing_is_kept, _LONG, _STRICT),
    Mutant("ends are told before results", _ends_are_told_at_once, _LONG, _STRICT),
    Mutant("results that come are not named", _what_comes_is_not_named, _LONG, _STRICT),
    Mutant("results that come are not held", _what_comes_is_not_held, _LONG, _STRICT),
    Mutant("anything acknowledges", _anything_acknowledges, _LONG, _STRICT),
    Mutant("copies have no limit", _memory_has_no_limit, _LONG, _SMALL),
    Mutant("files of copies stay", _files_stay, _LONG, _FILES),
    Mutant("gaps in copies are not seen", _gaps_are_not_seen, _LONG, _SMALL),
    Mutant("everything of the dead is said", _everything_is_said_again, None, _weather(Keeping())),
    Mutant("new brokers are not greeted for the dead", _new_brokers_are_not_greeted, _LONG, _STRICT),
    Mutant("brokers are greeted for the dead twice", _brokers_that_the_process_met_are_greeted_again,
           _LONG, _STRICT),
    Mutant("torn files are said as they are", _torn_files_are_said, _LONG, _TORN),
    Mutant("processes that have ended get work", _the_ended_get_work, _LONG, _STRICT),
)  # fmt: skip
