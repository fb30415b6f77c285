"""The other hosts of a run: which are connected, lost, draining, or excluded (`host_life`).

  HO1  Only workers of a host that is UP are given work, and none that has ended. What an ended worker had
       finished stays with it until its agent has sent the results, or the host is lost.
  HO2  A lost host loses all its leases at one moment. It is judged by what is heard of any of its
       processes, since all of them use its agent's connection; a worker of it is judged by what its
       agent has said since, never by a silence of the whole host.
  HO3  A broker that did not run for a while counts that time against no host.
  HO4  A host that is drained loses nothing that it has begun, unless its deadline is over: what has not
       begun goes back to the queue, a parent moves when it has saved or has no open block, and only an
       empty host is told to end. What a worker must not do twice stays until it is done.
  HO5  A quarantine ends by itself. It never takes the last workers of a run.
  HO6  A host that is revoked has no peers, and none of its messages counts until it is enrolled again.
  HO7  An agent counts as ended before its host is silent only if the host has reported the end of this
       agent: then all its processes have ended, and nothing waits for their silence. Messages that they had
       sent still count.

The host of the broker is none of these: its agent is a child of the launcher. All of this is volatile; the
shell repeats drains and revocations to a new broker.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.broker.guests import LIES_MAX, Guest, Guests
from resilient_scoop.core.broker.host_life import HostEvent, HostState, KnownHost
from resilient_scoop.core.endings import DRAINED
from resilient_scoop.core.events import CutHost
from resilient_scoop.core.facts.checkpoints import newest
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.broker.leases import Lease, Peer
    from resilient_scoop.core.broker.outbox import Outbox
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.ids import PeerId
    from resilient_scoop.wire.messages import ProcessLost

FLAPS_MAX: Final = 3
FLAPS_S: Final = 600.0
"""A host that is lost `FLAPS_MAX` times in this time is put into quarantine."""
QUARANTINE_S: Final = 60.0
QUARANTINE_S_MAX: Final = 3600.0
"""Each quarantine of a host is twice as long as the one before, up to this."""
LEAVE_S: Final = 20.0
"""Time for the processes of a drained host to end after they were told to."""
UNFIT_S: Final = 60.0
"""Time of a host that lacks what the run needs for what it has begun."""
FORGET_S: Final = 900.0
"""Processes of an earlier agent of a host that were silent for so long are dead."""
PINGS_MAX: Final = 4
_RATE_S: Final = 10.0
_NEAR_S: Final = 0.005
"""A round trip that the ordinary second slice hides."""
_REPORT_S: Final = 0.1
"""How long a worker may keep finished items before it reports them."""


class Departures(Protocol):
    """Removes processes (`core.broker.membership`)."""

    peers: dict[PeerId, Peer]
    silent: dict[PeerId, Peer]
    dead: list[PeerId]

    @property
    def stopping(self) -> str | None:
        """Why the run stops; None while it continues."""

    def lose(self, peer: Peer, lost: ProcessLost | None, *, died: bool = False) -> int:
        """Remove a process; return how many items must run again."""

    def silence(self, peer: Peer, *, died: bool = False) -> int:
        """Consider a process lost that may come back; return the same as `lose`."""


class HostStatus(msgspec.Struct, frozen=True):
    """A host, for display."""

    name: str
    state: str
    why: str
    workers: int
    busy: int
    done: int
    rate: float  # items per second, lately
    heard_s: float  # since its last message
    slack_s: float  # until it counts as lost
    rtt_s: float  # 0: not measured
    lost: int  # items that ran again elsewhere
    at_risk_s: float  # time since its leases were granted, in all: lost if it dies now
    lies: int = 0
    until_s: float = -1.0  # until the end of its quarantine, or the deadline of its drain; -1: none


class Hosts:
    """All other hosts of a run, in one epoch of the broker."""

    def __init__(
        self, departures: Departures, scheduler: Scheduler, outbox: Outbox,
        next_ask: Callable[[], int],
    ) -> None:  # fmt: skip
        self.departures = departures
        self.scheduler = scheduler
        self.state = scheduler.state
        self.outbox = outbox
        self.next_ask = next_ask  # the number of a request for checkpoints
        self.timeout_s = scheduler.config.heartbeat_timeout_s
        self.by_name: dict[str, KnownHost] = {}
        self.guests = Guests(departures.peers, scheduler.epoch)
        self.notes: list[str] = []  # messages for the user
        self.arrivals = 0  # number of arrivals and returns of hosts

    def get(self, name: str) -> KnownHost:
        """Return a host; it is made on first use, and kept: hosts are enrolled by hand."""
        found = self.by_name.get(name)
        if found is None:
            found = self.by_name[name] = KnownHost(name)
        return found

    def arrived(self, peer: Peer, now: float, *, greets: bool = False) -> None:
        """Handle the arrival or return of a process of a host; `greets`: it has received our messages."""
        guest = self.guests.of[peer.id]
        host = guest.host
        host.peers[peer.id] = peer
        host.heard_at = max(host.heard_at, now)
        guest.asked_seq = -1
        if peer.role == "agent":
            host.vouched_at = max(host.vouched_at, now)
            if greets or host.pinged not in host.peers:
                host.pinged = peer.id
                host.pings.clear()
                host.is_unresponsive = host.is_unresponsive and not greets
            self._heard(host, now)
        if host.end_sent_at is not None:
            self.outbox.send(peer.id, wire.encode(wire.Stop(DRAINED)))
        self._seat(peer, host)

    def vouched(self, agent: Peer, alive: wire.Alive, now: float) -> None:
        """Handle an agent's report of its running workers, and of ended ones whose results it sends."""
        host = self.guests.of[agent.id].host
        host.vouched_at = host.heard_at = now
        if alive.ended or host.ended:
            host.ended = frozenset(map(ids.PeerId, alive.ended))
            self._seat_all(host)
        for each in self.guests.dropped.intersection(map(ids.PeerId, alive.incarnations)):
            # The agent was not known yet when the worker was dropped, or the order was lost with it.
            self.outbox.send(agent.id, wire.encode(wire.Kill(each, "asked")))
        self._heard(host, now)

    def has_ended(self, peer: Peer) -> bool:
        """Return whether a process of another host has ended; only its results still arrive."""
        return peer.host is not None and peer.id in self.by_name[peer.host].ended

    def _heard(self, host: KnownHost, now: float) -> None:
        """Handle a message of the agent of a host."""
        before = host.state
        if before is HostState.UP or host.is_unresponsive:
            return
        host.enter(HostEvent.HEARD)
        if before is HostState.DRAINED:
            host.end_sent_at, host.empty_by = None, inf
        if host.state is HostState.UP:
            self.arrivals += 1
            host.why = ""
            host.pings = deque((no, now) for no, _ in host.pings)
            if before is HostState.LOST:
                self._note(f"host {host.name} is back")
            self._seat_all(host)

    def _seat_all(self, host: KnownHost) -> None:
        for peer in host.peers.values():
            self._seat(peer, host)

    def _seat(self, peer: Peer, host: KnownHost) -> None:
        """Allow or forbid that a worker gets work (HO1)."""
        if peer.role != "worker":
            return
        if host.state is HostState.UP and peer.id not in host.ended:
            self.scheduler.workers[peer.id] = peer
            peer.lag_s = host.rtt_s + _REPORT_S if host.rtt_s > _NEAR_S else 0.0
        else:
            self.scheduler.workers.pop(peer.id, None)

    def answers(self, peer: PeerId, ack: int, now: float) -> None:
        """Handle an acknowledgement; if it is an agent's, measure the round-trip time."""
        host, sent_at = self.guests.of[peer].host, None
        if host.pinged != peer:
            return
        while host.pings and host.pings[0][0] <= ack:
            sent_at = host.pings.popleft()[1]
        if sent_at is None:
            return
        host.is_unresponsive = False
        sample_s = max(0.0, now - sent_at)
        host.rtt_s = sample_s if not host.rtt_s else host.rtt_s + (sample_s - host.rtt_s) / 4
        self._seat_all(host)

    def pings(self, agent: PeerId) -> KnownHost | None:
        """Return the host of an agent that must get a ping now."""
        guest = self.guests.of.get(agent)
        if guest is None or guest.host.pinged != agent or agent not in guest.host.peers:
            return None
        return guest.host if len(guest.host.pings) < PINGS_MAX else None

    def gone(self, peer: Peer) -> None:
        """Remove a process of a host that has ended, or counts as lost."""
        if peer.host is not None:
            self.by_name[peer.host].peers.pop(peer.id, None)

    def left(self, agent: PeerId) -> None:
        """Handle the normal end of an agent: its host has left."""
        guest = self.guests.of.get(agent)
        if guest is None or guest.role != "agent" or guest.host.agent is not None:
            return
        host, before = guest.host, guest.host.state
        self._lose_all(host, died=False)
        host.enter(HostEvent.LEFT)
        if before is HostState.DRAINING:
            self._drained(host)
        elif before is HostState.UP and self.departures.stopping is None:
            host.why = "its agent has ended"
            self._note(f"host {host.name} has left the run: its agent has ended")

    def over(self, name: str, agent: PeerId, now: float, *, died: bool) -> None:
        """Handle a host's report that its agent, and all its processes, have ended (HO7)."""
        host = self.by_name.get(name)
        if host is None or host.agent is None or host.agent.id != agent:
            return  # the agent has left, counts as lost, was not admitted, or was replaced
        if died:
            self._lost(host, "its agent has died", now, is_seen=True)
        else:
            self._end_all(host, died=False)
            self.left(agent)

    def forgettable(self, agent: PeerId, now: float) -> list[PeerId]:
        """Return processes of earlier agents that must be dead, because a new agent has arrived."""
        silent = self.departures.silent
        found = [
            each
            for each in self.guests.of[agent].host.identities
            if each in silent and now - silent[each].alive_at > FORGET_S
        ]
        for each in found:
            del silent[each]
        return found

    def tick(self, now: float) -> None:
        """Find silent hosts, and end quarantines and drains whose time is over."""
        for host in self.by_name.values():
            if not host.counts or now - host.counts[-1][0] >= 1.0:
                host.counts.append((now, host.done))
            if host.peers:
                silent_s = now - host.heard_at
                unanswered_s = now - host.pings[0][1] if host.pings else 0.0
                if silent_s > self.timeout_s:
                    self._lost(host, f"nothing was heard of it for {silent_s:.0f} s", now)
                elif unanswered_s > self.timeout_s and not host.is_unresponsive:
                    host.is_unresponsive = True
                    self._lost(host, f"it did not answer for {unanswered_s:.0f} s", now)
            if host.state is HostState.QUARANTINED and self._is_served(host, now):
                self._serve(host)

    def due(self) -> float:
        """Return the time at which `tick` is due."""
        due = inf
        for host in self.by_name.values():
            if host.peers:
                due = min(due, host.heard_at + self.timeout_s + 0.01)
                if host.pings and not host.is_unresponsive:
                    due = min(due, host.pings[0][1] + self.timeout_s + 0.01)
            if host.state is HostState.QUARANTINED:
                due = min(due, host.free_at)
            if host.state is HostState.DRAINING:
                end_due = inf if host.end_sent_at is None else host.end_sent_at + LEAVE_S + 0.01
                due = min(due, end_due, inf if host.end_sent_at is not None else host.empty_by)
        return due

    def extend(self, gap_s: float, now: float) -> None:
        """Do not count the time in which the broker itself did not run (HO3)."""
        for host in self.by_name.values():
            host.heard_at = min(now, host.heard_at + gap_s)
            host.vouched_at = min(now, host.vouched_at + gap_s)
            host.pings = deque((no, min(now, at + gap_s)) for no, at in host.pings)
            host.lost_at = [at + gap_s for at in host.lost_at]
            if host.end_sent_at is not None:
                host.end_sent_at = min(now, host.end_sent_at + gap_s)

    def is_silent(self, peer: Peer, lease_s: float) -> bool:
        """Return whether a worker of a host has been silent while its agent was not (HO2)."""
        assert peer.host is not None, "HO2"
        vouched_at = self.by_name[peer.host].vouched_at
        return peer.role == "worker" and vouched_at - peer.alive_at > lease_s

    def _lost(self, host: KnownHost, why: str, now: float, *, is_seen: bool = False) -> None:
        """Handle a lost host: all items that its processes held run again, at once (HO2)."""
        counted = host.state in (HostState.UP, HostState.QUARANTINED)
        was_ended = host.end_sent_at is not None
        lose = self._end_all if is_seen else self._lose_all
        again = lose(host, died=not was_ended)
        host.enter(HostEvent.SILENT)
        host.pings.clear()
        if host.state is HostState.DRAINED:
            self._drained(host)
            return
        host.why = why
        if self.departures.stopping is not None or not counted:
            return
        items = "1 item runs" if again == 1 else f"{again} items run"
        self._note(f"host {host.name} is lost: {why}; {items} again elsewhere")
        self._count_loss(host, now)

    def _lose_all(self, host: KnownHost, *, died: bool) -> int:
        """Take everything from the processes of a host; return how many items must run again."""
        again = 0
        for peer in list(host.peers.values()):
            again += self.departures.silence(peer, died=died)
        host.peers.clear()
        host.lost_items += again
        return again

    def _end_all(self, host: KnownHost, *, died: bool) -> int:
        """Do the same as `_lose_all`, for processes that are known to have ended."""
        again = 0
        for peer in list(host.peers.values()):
            again += self.departures.lose(peer, None, died=died)
            self.departures.dead.append(peer.id)
        host.lost_items += again
        return again

    def _count_loss(self, host: KnownHost, now: float) -> None:
        if host.lost_at and now - host.lost_at[-1] > FLAPS_S + QUARANTINE_S * 2**host.sentences:
            host.sentences = 0
        host.lost_at = [at for at in host.lost_at if now - at < FLAPS_S] + [now]
        if len(host.lost_at) < FLAPS_MAX or host.state is HostState.QUARANTINED:
            return
        host.enter(HostEvent.FLAPS)
        sentence_s = min(QUARANTINE_S * 2**host.sentences, QUARANTINE_S_MAX)
        host.free_at = now + sentence_s
        host.sentences += 1
        host.why = f"it was lost {len(host.lost_at)} times in {FLAPS_S / 60:.0f} minutes"
        host.lost_at.clear()
        self._note(f"host {host.name} gets no work for {sentence_s:.0f} s: {host.why}")

    def _is_served(self, host: KnownHost, now: float) -> bool:
        """Return whether a quarantine is over, or its host has the only workers (HO5)."""
        alone = any(peer.role == "worker" for peer in host.peers.values())
        return now >= host.free_at or (alone and not self.scheduler.workers)

    def _serve(self, host: KnownHost) -> None:
        host.enter(HostEvent.SERVED)
        host.free_at, host.why = inf, "it is silent since its quarantine"
        self._note(f"the quarantine of host {host.name} is over")
        if host.agent is not None and not host.is_unresponsive:
            host.enter(HostEvent.HEARD)
            host.why = ""
            self._seat_all(host)

    def drain(self, name: str, deadline_s: float | None, now: float, why: str = "") -> None:
        """Give a host no more work, and let it end when it is empty, or at its deadline."""
        host = self.get(name)
        before = host.state
        host.enter(HostEvent.DRAIN)
        by = inf if deadline_s is None else now + deadline_s
        host.empty_by = min(host.empty_by, by) if before is HostState.DRAINING else by
        host.why = why or "it was asked to leave"
        self._seat_all(host)
        if host.state is HostState.DRAINING and before is not HostState.DRAINING:
            host.end_sent_at = None
            within = "" if deadline_s is None else f" within {deadline_s:g} s"
            self._note(f"host {name} is drained{within}: {host.why}")

    def does_without(self, peer: Peer, why: str, now: float) -> bool:
        """Let a host leave that lacks what the run needs, if others can do its work."""
        host = self.guests.of[peer.id].host
        if host.state is HostState.UP and all(
            worker.host == host.name for worker in self.scheduler.workers.values()
        ):
            return False
        if host.state is not HostState.DRAINING:
            self.drain(host.name, UNFIT_S, now, why)
        return True

    def settle(self, now: float) -> None:
        """Continue to empty hosts that drain (HO4)."""
        for host in self.by_name.values():
            if host.state is not HostState.DRAINING:
                continue
            if host.end_sent_at is None:
                for peer in host.peers.values():
                    self._empty(peer)
                busy = any(peer.leases for peer in host.peers.values())
                if not busy or now >= host.empty_by:
                    self._tell_to_end(host, now)
            if not host.peers:
                host.enter(HostEvent.LEFT)
                self._drained(host)
            elif host.end_sent_at is not None and now - host.end_sent_at > LEAVE_S:
                self.revoke(host.name, f"it was to leave, and has not ended in {LEAVE_S:.0f} s")

    def _empty(self, peer: Peer) -> None:
        """Take back items that a worker has not begun, and move its parents."""
        if not peer.leases:
            return
        guest = self.guests.of[peer.id]
        if guest.asked_seq < 0:
            guest.asked_seq = self.state.seq
            self.outbox.send(peer.id, wire.encode(wire.CheckpointWanted(self.next_ask())))
        for lease in list(peer.leases.values()):
            if lease.busy() and not lease.retracting:
                lease.retracting = True
                self.outbox.send(peer.id, wire.encode(wire.Retract(lease.attempt)))
            for index in sorted(lease.parked):
                self._move(peer, guest, lease, index)

    def _move(self, peer: Peer, guest: Guest, lease: Lease, index: int) -> None:
        """Let a parent continue on another host, as soon as that loses nothing."""
        path = ids.item_path(lease.batch.parent.path, lease.batch.call, index)
        parent = self.state.parents.get(path)
        if parent is None or guest.open is None:
            return  # it has made no call, or it is not known yet whether it has an open block
        if path in guest.open and newest(parent) <= guest.asked_seq:
            return
        if self.scheduler.move(lease, index):
            # Before another grant of the item, which does not wait either.
            self.outbox.offer(peer.id, wire.encode(wire.Evict(lease.attempt, index)))

    def answered(self, peer: Peer, answer: wire.OpenBlocks) -> None:
        """Handle the report which parents of a worker have an open block."""
        self.guests.of[peer.id].open = frozenset(answer.parents)

    def _tell_to_end(self, host: KnownHost, now: float) -> None:
        host.end_sent_at = now
        for peer in host.peers.values():
            self.outbox.send(peer.id, wire.encode(wire.Stop(DRAINED)))

    def _drained(self, host: KnownHost) -> None:
        host.end_sent_at, host.empty_by = None, inf
        self._note(f"host {host.name} has left the run: {host.why}")

    def revoke(self, name: str, why: str) -> None:
        """Cut a host off at once (HO6)."""
        host = self.get(name)
        if host.state is HostState.REVOKED:
            return
        again = sum(self.departures.lose(peer, None) for peer in list(host.peers.values()))
        host.lost_items += again
        gone = sorted(host.identities)
        for each in gone:
            self.departures.silent.pop(each, None)
        self.guests.forget_host(host)
        host.enter(HostEvent.REVOKE)
        host.why, host.is_unresponsive = why, False
        host.pings.clear()
        items = "1 item runs" if again == 1 else f"{again} items run"
        self._note(
            f"host {name} is cut off: {why}; {items} again elsewhere. "
            "To let it in again, invite it again: rscoop invite RUN"
        )
        self.outbox.actions.append(CutHost(name, why, gone))

    def join(self, name: str) -> None:
        """Allow a host to come back that was enrolled again after it was cut off or drained."""
        host = self.get(name)
        if host.state is HostState.REVOKED:
            host.lies = 0
        if host.state in (HostState.REVOKED, HostState.DRAINED, HostState.DRAINING):
            host.why, host.empty_by, host.end_sent_at = "", inf, None
        host.enter(HostEvent.ENROLL)
        self._seat_all(host)

    def expel(self, peer_id: PeerId, name: str, why: str, now: float) -> None:
        """Drop a process that has broken a rule, and finally its host (GU4)."""
        if not why:
            return  # of one that is dropped already
        host, guest = self.get(name), self.guests.of.get(peer_id)
        is_its_own = guest is not None and guest.host is host
        host.lies += 1
        who = f"process {peer_id.hex()}"
        if guest is not None and is_its_own and guest.name:
            who = f"{guest.role} {guest.name}"
        if host.lies >= LIES_MAX:
            self.revoke(name, f"it broke the rules {host.lies} times, at last {who}: {why}")
            return
        self._note(f"{who} of host {name} is dropped: {why} ({host.lies} of {LIES_MAX} such acts)")
        if not is_its_own:  # the identity is that of another process, which is not to blame
            if peer_id in host.peers:
                host.lost_items += self.departures.lose(host.peers[peer_id], None)
            return
        self.guests.dropped.add(peer_id)
        self.departures.silent.pop(peer_id, None)
        agent = host.agent
        peer = host.peers.get(peer_id)
        if peer is not None:
            host.lost_items += self.departures.lose(peer, None)
        if agent is None:
            return
        if agent is peer:
            self.outbox.offer(peer_id, wire.encode(wire.Stop(DRAINED)))
            self._lost(host, "its agent broke the rules", now)
        else:
            self.outbox.send(agent.id, wire.encode(wire.Kill(peer_id, "asked")))

    def statuses(self, now: float) -> list[HostStatus]:
        """Return the hosts for display, by name."""
        return [self._status(self.by_name[name], now) for name in sorted(self.by_name)]

    def _status(self, host: KnownHost, now: float) -> HostStatus:
        workers = [peer for peer in host.peers.values() if peer.role == "worker"]
        heard_s = now - host.heard_at if host.heard_at else -1.0
        risk_s = sum(now - lease.granted_at for peer in workers for lease in peer.leases.values())
        until = host.free_at if host.state is HostState.QUARANTINED else host.empty_by
        return HostStatus(
            host.name, host.state.value, host.why, len(workers),
            sum(peer.items > 0 for peer in workers), host.done, self._rate(host, now), heard_s,
            max(0.0, self.timeout_s - heard_s) if host.peers else 0.0, host.rtt_s,
            host.lost_items, risk_s, host.lies, until - now if until < inf else -1.0,
        )  # fmt: skip

    def _rate(self, host: KnownHost, now: float) -> float:
        for at, done in host.counts:
            if now - at <= _RATE_S:
                return (host.done - done) / (now - at) if now > at else 0.0
        return 0.0

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def check(self) -> None:
        """Assert the invariants between turns."""
        for host in self.by_name.values():
            for peer in host.peers.values():
                seated = peer.id in self.scheduler.workers
                assert not seated or host.state is HostState.UP, f"HO1 {peer.name} of {host.name}"
                assert not seated or peer.id not in host.ended, f"HO1 {peer.name} has ended"
                assert self.departures.peers.get(peer.id) is peer, f"HO2 {peer.name}"
                assert self.guests.of[peer.id].host is host, f"GU3 {peer.name}"
            assert host.state is not HostState.REVOKED or not host.peers, f"HO6 {host.name}"
            assert host.state is not HostState.QUARANTINED or host.free_at < inf, f"HO5 {host.name}"
