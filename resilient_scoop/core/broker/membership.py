"""The peers of the broker: arrivals, adoption after a restart, deaths, blame, expired leases.

M1 A live lease is on a live peer, and both know it. M2 A death is blamed on the item that was on
the CPU and on nothing else; prefetched items and waiting parents are innocent. A process that was
told to end blames no item (BLAST-RADIUS). M3 An item of an `idempotent=False` call that has begun
and whose worker is lost is never ready again (AT-MOST-ONCE; `core.broker.permission`). M4 A
parent's attempt is not adopted if a later one has written: it lacks answers that the later one got.
So there is one writer over restarts, too (LE1). M5 A worker that executes a call that another call has
replaced is ended, unless it holds a call that must not start twice: no item is blamed.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.broker import permission
from resilient_scoop.core.broker.fruitless import Fruitless
from resilient_scoop.core.broker.hosts import Hosts
from resilient_scoop.core.broker.leases import OpenBatch, Peer
from resilient_scoop.core.broker.roomless import Roomless
from resilient_scoop.core.broker.timeouts import (
    Limits,
    carry_tries,
    held_below,
    tries_of,
)
from resilient_scoop.core.endings import LAUNCHER_GONE, SESSION_CLOSED
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_scoop.config import BrokerConfig
    from resilient_scoop.core.broker.leases import Lease
    from resilient_scoop.core.broker.ledger import Ledger
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.ids import PeerId


class Membership:
    """The peers in one epoch of the broker."""

    def __init__(
        self, config: BrokerConfig, epoch: int, seed: int, ledger: Ledger,
        next_ask: Callable[[], int],
    ) -> None:  # fmt: skip
        self.config = config
        self.epoch = epoch
        self.seed = seed
        self.ledger = ledger
        self.state: DurableState = ledger.state
        self.scheduler: Scheduler = ledger.scheduler
        self.members = ledger.members
        self.outbox = ledger.outbox
        self.peers = ledger.members.peers
        self.dead: list[PeerId] = []  # dead peers, to be taken by the exchange
        self.silent: dict[PeerId, Peer] = {}  # processes considered lost, which may only have slept
        self.roomless = Roomless(self.scheduler)
        self.fruitless = Fruitless(self.state, config.crashes_max)
        self.revived: list[Peer] = []  # of these, those that have sent again in this turn
        self.agent_alive_at = 0.0  # time of the last message of this host's agent
        self.hosts = Hosts(self, self.scheduler, self.outbox, next_ask)
        self.limits = Limits(self.scheduler.leases)
        self._awaited: set[bytes] | None = set() if config.adopt else None
        self._grace_until: float | None = None
        self._kills: list[tuple[Peer, wire.Attempt]] = []  # that no agent was told yet
        self.in_doubt = True  # intents of an earlier epoch are still to be checked

    @property
    def stopping(self) -> str | None:
        """Why the run stops; None while it continues."""
        return self.ledger.stopping

    def stops(self, peer: Peer) -> bool:
        """Return whether a process is told of the run's stop.

        Other hosts outlive the launcher, and the program of a session knows that it has closed it.
        """
        if self.stopping == SESSION_CLOSED and peer.is_program:
            return False
        return peer.host is None or self.stopping != LAUNCHER_GONE

    def welcome(
        self, peer_id: PeerId, hello: wire.Hello, now: float, host: str | None = None
    ) -> Peer:
        """Greet a peer; let it keep items that it holds and that are undone."""
        if peer_id in self.peers:
            self.lose(self.peers[peer_id], None)
        peer = Peer(peer_id, hello.role, hello.node, hello.name, now, now, host=host)
        self.peers[peer_id] = peer
        dropped: list[wire.Attempt] = []
        if host is not None:
            peer.given = self.hosts.guests.of[peer_id]
            self.hosts.arrived(peer, now, greets=True)
        elif hello.role == "worker":
            self.scheduler.workers[peer_id] = peer
        if hello.role == "worker":
            adopt = self._reserve if self.hosts.has_ended(peer) else self._adopt
            dropped = [held.attempt for held in hello.held if not adopt(peer, held, now)]
            self._park_waiting(peer, hello, now)
        self._await(peer_id, hello, now)
        due = [(of, at) for of, at in self._kills if _is_agent_of(peer, of)]
        self._kills = [each for each in self._kills if each not in due]
        for of, attempt in due:
            self._kill(of, attempt)
        greeting = wire.Welcome(self.epoch, self.seed, self.config.lease_s, dropped)
        self.outbox.send(peer_id, wire.encode(greeting))
        if hello.role != "agent" and self.ledger.consts and not self.hosts.has_ended(peer):
            self.outbox.send(peer_id, *self.ledger.consts.values())
        if self.stopping is not None:
            if self.stops(peer):
                self.outbox.send(peer_id, wire.encode(wire.Stop(self.stopping)))
        elif hello.role == "origin":
            self._seat_origin(peer, hello)
        return peer

    def succeed_agent(self, agent: Peer, hello: wire.Hello) -> None:
        """Remove the processes of a former agent that its successor does not have: they died with it.

        Called after the whole bundle of the Hello, which may say how one of them died. The Hello
        may have been in transit for long, so a process that sends later is alive after all.
        """
        listed = set(hello.incarnations)
        gone = [
            peer
            for peer in self.peers.values()
            if peer is not agent
            and peer.node == hello.node
            and peer.host == agent.host
            and peer.id not in listed
            and not self.hosts.has_ended(peer)
        ]
        if gone and self.stopping is None:
            self.state.tally.died(1 + sum(peer.role != "agent" for peer in gone))
        for peer in gone:
            self.silence(peer, died=True)
        if agent.host is not None:
            self.dead += self.hosts.forgettable(agent.id, agent.heard_at)

    def expect(self, hosts: Iterable[str]) -> None:
        """Right after a start: these hosts may have processes of an earlier broker that are still alive."""
        named = {_of_host(host) for host in hosts}
        if named:
            self._awaited = named | (self._awaited or set())

    def _await(self, peer_id: PeerId, hello: wire.Hello, now: float) -> None:
        if self._awaited is None:
            return
        if hello.role == "agent":
            self._awaited |= {each for each in hello.incarnations if each not in self.peers}
            if self._grace_until is None:
                self._grace_until = now + self.config.grace_s
            self._awaited.discard(_of_host(hello.node))
        self._awaited.discard(peer_id)

    def recovering(self, now: float) -> bool:
        """Return whether workers of an earlier broker may still arrive and report what they hold."""
        if self._awaited is None:
            return False
        if self._grace_until is None or (self._awaited and now < self._grace_until):
            return True
        self._awaited = None
        return False

    def arriving(self, now: float) -> bool:
        """As `recovering`, and until the script's process has arrived, within the same time."""
        if self.recovering(now):
            return True
        no_root = self.config.adopt and self.members.root is None
        return no_root and self._grace_until is not None and now < self._grace_until

    def _adopt(self, peer: Peer, held: wire.Held, now: float) -> bool:
        batch = self.scheduler.find(held.parent, held.call)
        if batch is None or not held.spans:
            return False
        offset = 0
        for start, stop in held.spans:
            size = (stop - start) * ids.DIGEST_BYTES
            digests = held.digests[offset : offset + size]
            offset += size
            part = wire.Part(held.call, start, stop - start, held.fn, digests, last=False)
            if not batch.ready.covers(start, stop):
                return False
            if not self.state.same(batch.facts, part, start, stop):
                return False
            if self._is_past(held, start, stop):
                return False
        for start, stop in held.spans:
            self.scheduler.withdraw(batch, start, stop)
        item_s = self.config.slice_s / 2
        self.scheduler.lease(held.attempt, batch, Intervals(held.spans), peer, item_s, now)
        return True

    def _reserve(self, peer: Peer, held: wire.Held, now: float) -> bool:
        """Keep from other workers what a process that has ended had finished, until it arrives."""
        batch = self.scheduler.find(held.parent, held.call)
        if batch is None:
            return False
        left, offset = Intervals(), 0
        for start, stop in held.spans:
            size = (stop - start) * ids.DIGEST_BYTES
            part = wire.Part(
                held.call, start, stop - start, held.fn, held.digests[offset : offset + size],
                last=False,
            )  # fmt: skip
            offset += size
            for low, high in batch.ready.overlap(start, stop):
                if self.state.same(batch.facts, part, low, high):
                    left.add(low, high)
        if not left or held.attempt in self.scheduler.leases:
            return False
        for low, high in left:
            self.scheduler.withdraw(batch, low, high)
        self.scheduler.lease(held.attempt, batch, left, peer, self.config.slice_s / 2, now)
        return True

    def _is_past(self, held: wire.Held, start: int, stop: int) -> bool:
        """Return whether a later attempt at one of these items, as a parent, has written (M4)."""
        parents = self.state.parents
        for index in self.state.kids_within(held.parent, held.call, start, stop):
            child = parents.get(ids.item_path(held.parent, held.call, index))
            if child is not None and child.is_past(held.attempt):
                return True
        return False

    def _park_waiting(self, peer: Peer, hello: wire.Hello, now: float) -> None:
        for each in hello.waiting:
            place = ids.parse_item(each.parent)
            if place is not None:
                parked = wire.Parked(each.attempt, place[2], True, each.left_s, each.tries)  # noqa: FBT003 - a struct is made faster by positions
                self.park(peer, parked, now)

    def park(self, peer: Peer, parked: wire.Parked, now: float) -> None:
        """Note that an item waits for others."""
        lease = peer.leases.get(parked.attempt)
        if lease is not None and parked.index in lease.left:
            self.scheduler.park(lease, parked.index)
            if parked.left_s >= 0 or parked.tries:
                until = now + parked.left_s if parked.left_s >= 0 else inf
                self.limits.put(lease, parked.index, until, parked.tries)

    def _seat_origin(self, peer: Peer, hello: wire.Hello) -> None:
        """Grant the origin the root future, or let it keep the running one."""
        root = self.state.parent(ids.ROOT)
        for each in hello.waiting:
            if each.parent == ids.ROOT and self.members.root is None:
                self.members.root = (each.attempt, peer.id)
                return
        if self.members.root is not None and self.members.root[1] != peer.id:
            old, at = self.members.root  # if it is alive after all, it must yield
            self.outbox.send(at, wire.encode(wire.Drop([old])))
        attempt = self.scheduler.next_attempt()
        self.members.root = (attempt, peer.id)
        written = self.state.output_bytes + self.state.inputs > 0
        replay = root.logged or root.next_call() > 0 or written
        task = wire.Task(
            attempt.no, "", 0, 0, b"", b"", [], replay=replay, tries=self.members.root_deaths
        )
        self.outbox.send(peer.id, wire.encode(wire.Grant([task])))

    def process_lost(self, lost: wire.ProcessLost, agent: Peer) -> None:
        """Handle the death of a process, reported by its agent.

        One of another host is believed only for identities that its host has used: it might invent
        the death of a process of another host from which this broker has received nothing yet.
        """
        if agent.host is None or self.hosts.guests.has_used(
            agent.host, ids.PeerId(lost.incarnation)
        ):
            if self._awaited is not None:
                self._awaited.discard(lost.incarnation)
            self.silent.pop(ids.PeerId(lost.incarnation), None)
            self.dead.append(ids.PeerId(lost.incarnation))
        peer = self.peers.get(ids.PeerId(lost.incarnation))
        if lost.reason in ("crash", "oom") and self.stopping is None:
            self.state.tally.died()
        if peer is None:
            if agent.host is None or self.hosts.guests.was_given(lost):
                self._blame_unseen(lost)
            return
        if peer.role == "origin" and lost.reason != "asked":
            self.members.root_deaths += 1
            self.fruitless.died(lost, others_compute=bool(self.scheduler.leases))
        self.lose(peer, lost)

    def lose(self, peer: Peer, lost: wire.ProcessLost | None, *, died: bool = False) -> int:
        """Remove a process: its items must run again, and only the executing one is blamed (M2).

        Return how many items must run again.
        """
        self.peers.pop(peer.id, None)
        self._kills = [each for each in self._kills if each[0] is not peer]
        if peer.host is not None:
            self.hosts.gone(peer)
        count = 0
        self.scheduler.workers.pop(peer.id, None)
        self.roomless.forget(peer.id)
        if self.members.is_root(peer.id):
            self.members.root = None
        for lease in list(peer.leases.values()):
            self.scheduler.end(lease)
            if lease.limits or lost is not None:
                carry_tries(lease, lost)
            if lost is not None and lost.on_cpu == lease.attempt and lost.index in lease.left:
                self._blame(lease.batch, lease.fn, lost)
            left = list(lease.left)
            again = self.ledger.again(lease.batch, left, resumes=True)
            count += again
            died = died or (lost is not None and lost.reason != "asked")
            if died and self.stopping is None:
                self.state.tally.handed_out_again(again)
        return count

    def settle_doubts(self) -> None:
        """Give up, once per epoch, items that had started when the last broker ended (M3)."""
        if self.in_doubt:
            self.in_doubt = False
            permission.settle_doubts(self.ledger)

    def _blame_unseen(self, lost: wire.ProcessLost) -> None:
        """Blame an item for a death that an earlier broker missed, or of a process never seen."""
        batch = self.scheduler.find(lost.parent, lost.call)
        if lost.on_cpu is None or batch is None or lost.index not in batch.ready:
            return  # no item was executing, or it is done, or another worker has it
        piece = batch.facts.piece_at(lost.index)
        assert piece is not None, f"S1 {lost.parent}.{lost.call}[{lost.index}]"
        self._blame(batch, piece.fn, lost)

    def _blame(self, batch: OpenBatch, fn: bytes, lost: wire.ProcessLost) -> None:
        """Record that an item was executing; give it up if this was too often."""
        parent, index = batch.parent, lost.index
        deaths = parent.crashes.get((batch.call, index), ())
        if lost.reason == "asked" or any(d.incarnation == lost.incarnation for d in deaths):
            return
        crashed = wire.Crashed(
            parent.path, batch.call, index, lost.exit, lost.reason,
            batch.facts.digests_of(index, index + 1), lost.incarnation, lost.at, lost.tries,
        )  # fmt: skip
        self.ledger.record(crashed)
        self.state.tally.is_new = True  # else recovery would count the log's deaths (N3)
        payload = self._verdict(batch, fn, lost)
        if payload is not None:
            self.scheduler.enqueue(batch, [(index, index + 1)], resumes=False)
            if lost.reason == "timeout":
                path = ids.item_path(parent.path, batch.call, index)
                for attempt, peer in held_below(self.scheduler, path):
                    self._kill(peer, attempt)
            self.ledger.settle_error(batch, index, payload)

    def _kill(self, peer: Peer, attempt: wire.Attempt) -> None:
        """Let a worker be killed if it is executing an attempt; no item is blamed for it."""
        kill = wire.encode(wire.Kill(peer.id, "asked", attempt))
        agents = [each for each in self.peers.values() if _is_agent_of(each, peer)]
        for agent in agents:
            self.outbox.send(agent.id, kill)
        if not agents:
            self._kills.append((peer, attempt))  # until its agent arrives, shortly after a start

    def end_obsolete(self, lease: Lease) -> None:
        """End the execution of a call that another call has replaced (M5)."""
        held = (lease, *lease.peer.leases.values())
        if all(self.scheduler.options(each.fn).idempotent for each in held):
            self._kill(lease.peer, lease.attempt)

    def _verdict(self, batch: OpenBatch, fn: bytes, lost: wire.ProcessLost) -> bytes | None:
        """Return the outcome of an item that may not be tried again, or None."""
        index = lost.index
        deaths = batch.parent.crashes[batch.call, index]
        options, name = self.scheduler.options(fn), self.ledger.name(fn)
        path = ids.item_path(batch.parent.path, batch.call, index)
        late = sum(each.reason == "timeout" for each in deaths)
        tries = tries_of(deaths, batch.tried, index)
        if lost.reason == "timeout" and (tries > options.retries or not options.idempotent):
            return broker_error("timeout", path, name, options.timeout_s)
        if lost.reason != "timeout" and len(deaths) - late >= self.config.crashes_max:
            exits = [[each.exit, each.reason] for each in deaths]
            return broker_error("crashed", path, name, exits)
        return None

    def vouch(self, agent: Peer, alive: wire.Alive, now: float) -> None:
        """Handle an agent's report of running processes, and of ended ones whose results it sends."""
        if agent.host is None:
            self.agent_alive_at = now
        else:
            self.hosts.vouched(agent, alive, now)
            if self._awaited is not None:
                self._awaited |= {each for each in alive.ended if each not in self.peers}
        for each in (*alive.incarnations, *alive.ended):
            peer = self.peers.get(ids.PeerId(each)) or self.revive(ids.PeerId(each), now)
            if peer is not None:
                peer.alive_at = now

    def extend(self, gap_s: float, now: float) -> None:
        """Do not count the time that the broker itself slept."""
        self.hosts.extend(gap_s, now)
        self.agent_alive_at += gap_s
        for peer in self.peers.values():
            peer.alive_at += gap_s
            peer.heard_at += gap_s
            peer.moved_at += gap_s
        if self._grace_until is not None:
            self._grace_until += gap_s

    def time_out(self, now: float) -> None:
        """End, or retry, waiting items whose `timeout=` is over (T1)."""
        for lease, index, tries in self.limits.due(now):
            batch, fn, attempt = lease.batch, lease.fn, lease.attempt
            mark = b"%d.%d" % (attempt.epoch, attempt.no)
            self.scheduler.settle(lease, index, index + 1)
            self.outbox.send(lease.peer.id, wire.encode(wire.Evict(attempt, index)))
            lost = wire.ProcessLost(mark, 0, "timeout", attempt, index, tries=tries)
            self._blame(batch, fn, lost)
            self.ledger.again(batch, [(index, index + 1)], resumes=True)

    def expire(self, now: float) -> None:
        """Consider peers lost that were silent for the time of a lease."""
        for peer in list(self.peers.values()):
            if now - peer.alive_at > self.config.lease_s and (
                peer.host is None or self.hosts.is_silent(peer, self.config.lease_s)
            ):
                self.silence(peer)
        if self.hosts.by_name:
            self.hosts.tick(now)

    def silence(self, peer: Peer, *, died: bool = False) -> int:
        """Consider a silent process lost; return how many items must run again."""
        self.outbox.send(peer.id, wire.encode(wire.Drop(list(peer.leases))))
        root = self.members.root
        again = self.lose(peer, None, died=died)
        self.members.root = root  # it stays the origin until another one arrives
        self.silent[peer.id] = peer
        return again

    def revive(self, peer_id: PeerId, now: float) -> Peer | None:
        """Take back a process that was considered lost: tell it which leases it no longer has.

        All its messages count: one that was acknowledged and not handled would be lost for good.
        """
        peer = self.silent.pop(peer_id, None)
        if peer is None:
            return None
        peer.alive_at = peer.heard_at = now
        self.peers[peer_id] = peer
        self.revived.append(peer)
        if peer.host is not None:
            self.hosts.arrived(peer, now)
        elif peer.role == "worker":
            self.scheduler.workers[peer_id] = peer
        if peer.role != "agent" and self.ledger.consts:
            self.outbox.send(peer_id, *self.ledger.consts.values())  # it may not know some of them
        return peer


def _is_agent_of(agent: Peer, worker: Peer) -> bool:
    """Return whether a peer is the agent of a worker's host."""
    return agent.role == "agent" and agent.host == worker.host


def _of_host(host: str) -> bytes:
    """Return a placeholder for a host whose processes are not known yet."""
    return b"host " + host.encode()
