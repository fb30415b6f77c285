"""Planted bugs of other hosts: what they may send, how they are lost, drained or cut off, how agents end.

Worlds with other hosts find them. If random faults would seldom reach a bug, its faults are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from resilient_scoop.core import agent
from resilient_scoop.core.agent import Agent
from resilient_scoop.core.broker import guests, hosts
from resilient_scoop.core.broker.exchange import Exchange
from resilient_scoop.core.broker.guests import Guests
from resilient_scoop.core.broker.host_life import HostState, KnownHost
from resilient_scoop.core.broker.hosts import Hosts
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.endings import LAUNCHER_GONE
from resilient_scoop.core.events import Lied
from resilient_scoop.wire import messages as wire
from tests.sim.grid import Weather
from tests.sim.planting import Mutant, Patch

_CALM: dict[str, Any] = {"rates": {}, "points": {}, "until": 10.0, "lease_s": 3.0}


def _weather(*, local: int = 1, orphan_s: float = 15.0, **rates: float) -> dict[str, Any]:
    """Return a world with these faults of hosts and no others."""
    return {**_CALM, "grid": Weather((local, 2, 2), (0.0002, 0.01, 0.05), orphan_s, rates)}


_LIES = _weather(lie=2.0)
_AWAY = _weather(off=0.3, apart=0.3)
_LONG = (("map", "slow", list(range(12))), ("map", "slow", list(range(12))))


def _script_rules_are_not_kept() -> Sequence[Patch]:
    """Let any worker send what only the script's process may send, and name the script's attempts."""
    of_worker = Guests._of_worker

    def bug(self: Guests, guest: Any, message: wire.Up, *, arrives: bool) -> str:
        if isinstance(message, wire.Output | wire.RunEnded | wire.Calls):
            return ""
        return of_worker(self, guest, message, arrives=arrives)

    def current(self: Any, peer: Any, path: str, attempt: wire.Attempt) -> bool:
        return True

    from resilient_scoop.core.broker.ledger import Ledger

    return [(Guests, "_of_worker", bug), (Ledger, "current", current)]


def _attempts_are_not_checked() -> Sequence[Patch]:
    return [(Guests, "_named", lambda *_args, **_more: "")]


def _places_are_not_checked() -> Sequence[Patch]:
    return [(guests.Given, "covers", lambda *_args: True), (Guests, "_named", _known_or_lie)]


def _known_or_lie(self: Guests, guest: Any, attempt: Any, place: Any, *, arrives: bool) -> str:
    """Accept attempts of any guest."""
    return "" if any(attempt in each.given for each in self.of.values()) else "never given"


def _roles_are_not_checked() -> Sequence[Patch]:
    hello = Guests._hello

    def bug(self: Guests, guest: Any, message: wire.Hello) -> str:
        found = hello(self, guest, message)
        return "" if "role" in found else found

    return [(Guests, "_hello", bug)]


def _identities_are_not_bound() -> Sequence[Patch]:
    bind = Guests.bind

    def bug(self: Guests, peer: Any, host: KnownHost, here: Any) -> str:
        found = bind(self, peer, host, ())
        if "identity" in found:
            del self.of[peer]
            bind(self, peer, host, ())
            return ""
        return found

    return [(Guests, "bind", bug)]


def _agents_speak_for_anybody() -> Sequence[Patch]:
    return [(Guests, "_not_its_own", lambda *_args: "")]


def _records_of_guests_are_short() -> Sequence[Patch]:
    end = guests.Guest.end

    def bug(self: guests.Guest, attempt: wire.Attempt) -> None:
        end(self, attempt)
        for each in list(self.over)[:-1]:
            del self.over[each], self.given[each]

    return [(guests.Guest, "end", bug)]


def _silent_hosts_are_never_lost() -> Sequence[Patch]:
    return [(Hosts, "tick", lambda _self, _now: None)]


def _only_the_agent_is_lost() -> Sequence[Patch]:
    def bug(self: Hosts, host: KnownHost, *, died: bool) -> int:
        found = host.agent
        return 0 if found is None else self.departures.silence(found, died=died)

    return [(Hosts, "_lose_all", bug)]


def _unresponsive_hosts_are_not_noticed() -> Sequence[Patch]:
    return [(Hosts, "pings", lambda _self, _agent: None)]


def _the_own_stall_counts() -> Sequence[Patch]:
    return [(Hosts, "extend", lambda _self, _gap_s, _now: None)]


def _lost_hosts_get_work() -> Sequence[Patch]:
    def bug(self: Hosts, peer: Any, host: KnownHost) -> None:
        if peer.role == "worker":
            self.scheduler.workers[peer.id] = peer

    return [(Hosts, "_seat", bug), (Hosts, "check", lambda _self: None)]


def _flaps_are_not_counted() -> Sequence[Patch]:
    return [(Hosts, "_count_loss", lambda _self, _host, _now: None)]


def _a_quarantine_never_ends() -> Sequence[Patch]:
    served = (Hosts, "_is_served", lambda _self, _host, _now: False)
    return [served, (Hosts, "due", lambda _self: inf), (hosts, "QUARANTINE_S", 3.0)]


def _drained_at_once() -> Sequence[Patch]:
    """Tell a drained host to end at once, also with begun items."""

    def bug(self: Hosts, peer: Any) -> None:
        self.guests.of[peer.id].host.empty_by = 0.0

    settle = Hosts.settle

    def settled(self: Hosts, now: float) -> None:
        deadlines = {host: host.empty_by for host in self.by_name.values()}
        settle(self, now)
        for host, until in deadlines.items():
            if host.state is HostState.DRAINING:
                host.empty_by = until

    return [(Hosts, "_empty", bug), (Hosts, "settle", settled)]


def _the_revoked_are_heard() -> Sequence[Patch]:
    admit = Exchange._admit

    def bug(self: Exchange, peer: Any, header: Any, now: float, name: str) -> bool:
        host = self.hosts.get(name)
        before, host.state = (
            host.state,
            HostState.UP if host.state is HostState.REVOKED else host.state,
        )
        admitted = admit(self, peer, header, now, name)
        if before is HostState.REVOKED:
            host.state = before
        return admitted

    return [(Exchange, "_admit", bug)]


def _revoked_and_kept() -> Sequence[Patch]:
    """Let a revoked host keep its items."""
    revoke = Hosts.revoke

    def bug(self: Hosts, name: str, why: str) -> None:
        host = self.get(name)
        peers, host.peers = host.peers, {}
        identities, host.identities = host.identities, set()
        revoke(self, name, why)
        host.peers, host.identities = peers, identities

    return [(Hosts, "revoke", bug), (Hosts, "check", lambda _self: None)]


def _orphans_stay() -> Sequence[Patch]:
    def bug(self: Agent, now: float) -> None:
        limit_s = self.config.orphan_timeout_s
        if limit_s is not None and self.heard_at < inf:
            self.heard_at = max(self.heard_at, now + 1.0 - limit_s)

    return [(Agent, "_mind_silence", bug)]


def _sleep_makes_orphans() -> Sequence[Patch]:
    def bug(self: Agent, now: float) -> None:
        if self.heard_at == inf:
            self.heard_at = now

    return [(Agent, "_mind_own_pause", bug)]


def _remote_agents_end_with_the_launcher() -> Sequence[Patch]:
    step = Agent.step

    def bug(self: Agent, event: agent.Event, now: float) -> Any:
        if isinstance(event, agent.LauncherGone):
            self.stop(LAUNCHER_GONE, now)
        return step(self, event, now)

    return [(Agent, "step", bug)]


def _missed_stops_are_for_ever() -> Sequence[Patch]:
    return [(Agent, "_resume", lambda _self, _now: None)]


def _the_launchers_end_stops_all() -> Sequence[Patch]:
    return [(Membership, "stops", lambda _self, _peer: True)]


def _liars_stay() -> Sequence[Patch]:
    """Report a lie, but handle its message."""
    judged = Exchange._judged

    def bug(self: Exchange, event: Any) -> Any:
        found = judged(self, event)
        if not isinstance(found, Lied) or not found.why:
            return found
        self.hosts.notes.append(f"noted: {found.why}")
        return event

    return [(Exchange, "_judged", bug)]


def _any_agent_is_over() -> Sequence[Patch]:
    """Treat the end of a former agent as that of the present one."""
    over = Hosts.over

    def bug(self: Hosts, name: str, agent: Any, now: float, *, died: bool) -> None:
        host = self.by_name.get(name)
        present = None if host is None else host.agent
        over(self, name, agent if present is None else present.id, now, died=died)

    return [(Hosts, "over", bug)]


GRID_MUTANTS = (
    Mutant("guests speak for the script", _script_rules_are_not_kept, _LONG, _LIES),
    Mutant("attempts of guests are not checked", _attempts_are_not_checked, _LONG, _LIES),
    Mutant("attempts of other guests are taken", _places_are_not_checked, _LONG, _LIES),
    Mutant("roles of guests are not checked", _roles_are_not_checked, _LONG, _LIES),
    Mutant("identities are not bound to a host", _identities_are_not_bound, _LONG, _LIES),
    Mutant("agents speak for any process", _agents_speak_for_anybody, _LONG, _LIES),
    Mutant("a lie is only noted", _liars_stay, _LONG, _LIES),
    Mutant("what guests held is forgotten soon", _records_of_guests_are_short, None, _AWAY),
    Mutant("silent hosts are never lost", _silent_hosts_are_never_lost, _LONG, _AWAY),
    Mutant("only the agent of a host is lost", _only_the_agent_is_lost, _LONG, _AWAY),
    Mutant("deaf hosts are not noticed", _unresponsive_hosts_are_not_noticed, _LONG, _weather(deaf=0.5)),
    Mutant(
        "the broker's stall counts against hosts", _the_own_stall_counts, _LONG,
        {**_weather(), "rates": {"pause": 1.0}},
    ),
    Mutant("lost hosts get work", _lost_hosts_get_work, _LONG, _weather(mute=0.5, deaf=0.5)),
    Mutant("flapping hosts stay", _flaps_are_not_counted, _LONG * 4, _weather(flap=1.0)),
    Mutant("a quarantine never ends", _a_quarantine_never_ends, _LONG * 6, _weather(flap=1.0)),
    Mutant("the end of any agent counts", _any_agent_is_over, _LONG * 2,
           {**_weather(), "rates": {"agent": 1.0}}),
    Mutant("a drain does not wait", _drained_at_once, _LONG, _weather(drain=1.0)),
    Mutant("revoked hosts are heard", _the_revoked_are_heard, _LONG, _weather(revoke=1.0)),
    Mutant("revoked hosts keep their work", _revoked_and_kept, _LONG, _weather(revoke=1.0)),
    Mutant("orphans stay", _orphans_stay, None, _weather(gone=0.5)),
    Mutant("sleeping hosts wake as orphans", _sleep_makes_orphans, None, _weather(asleep=1.0)),
    Mutant("remote agents end with the launcher", _remote_agents_end_with_the_launcher, None,
           _weather(gone=0.5)),
    Mutant("a missed stop is never made good", _missed_stops_are_for_ever, None,
           {**_weather(local=0), "rates": {"stop": 0.5, "broker": 1.0}}),
    Mutant("the launcher's end stops other hosts", _the_launchers_end_stops_all, None,
           _weather(gone=0.5)),
)  # fmt: skip
