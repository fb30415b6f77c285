"""The broker as a pure machine: events and time in, actions out.

It owns seven parts, whose modules name their invariants: the ledger (facts), the keeper
(checkpoints), the scheduler (who runs what), the membership (peers, and the other hosts), the
questions (requested cancellations), the handover (requested checkpoints), the rounds (eviction of
callables). They share the `Members` and the `Outbox` of a turn. `check` asserts, besides theirs:

  B1  Every known undone item is ready or in exactly one lease.
  B2  Nothing that depends on a record is an `Offer`: outcomes, answers, greetings and permissions to begin
      wait for the commit; grants and retractions do not.

It never unpickles, runs user code, or reads a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from resilient_scoop import ids
from resilient_scoop.core.broker import permission
from resilient_scoop.core.broker.abandonments import Abandonments
from resilient_scoop.core.broker.callable_cache import CallableCache
from resilient_scoop.core.broker.callable_eviction import CallableEviction
from resilient_scoop.core.broker.cancellations import Cancellations
from resilient_scoop.core.broker.checkpoint_keeper import CheckpointKeeper
from resilient_scoop.core.broker.handover import Handover
from resilient_scoop.core.broker.holdback import Awaited, HoldBack, available
from resilient_scoop.core.broker.leases import OpenBatch, Peer
from resilient_scoop.core.broker.ledger import Ledger
from resilient_scoop.core.broker.members import Members
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.broker.outbox import Outbox
from resilient_scoop.core.broker.scheduler import Scheduler, Slice
from resilient_scoop.core.events import (
    Action,
    AgentOver,
    AskCheckpoints,
    DrainHost,
    Event,
    GrantStored,
    Heard,
    Interrupt,
    JoinHost,
    Lied,
    Put,
    RevokeHost,
    StoredArgs,
    Swept,
    Table,
    Tick,
)
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.progress import SCRIPT
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.config import BrokerConfig
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.core.ports import Reader
    from resilient_scoop.ids import PeerId

_STALL_S = 2.0


class Broker:
    """The broker's state machine; see the module docstring for its invariants."""

    def __init__(
        self,
        config: BrokerConfig,
        state: DurableState,
        *,
        epoch: int,
        seed: int,
        consts: dict[str, bytes] | None = None,
    ) -> None:
        self.config = config
        self.state = state
        self.epoch = epoch
        awaited = Awaited()
        self.scheduler = Scheduler(state, config, epoch, held=HoldBack(awaited))
        self.members = Members()
        self.outbox = Outbox()
        self.ledger = Ledger(
            state, self.scheduler, self.members, self.outbox, {} if consts is None else consts
        )
        self.keeper = CheckpointKeeper(self.ledger)
        self.handover = Handover(self.scheduler, self.members, self.outbox, awaited, epoch)
        next_ask = self.handover.next_no
        self.membership = Membership(config, epoch, seed, self.ledger, next_ask)
        self.hosts = self.membership.hosts
        self.questions = Cancellations(self.ledger)
        self.abandonments = Abandonments(self.ledger)
        self.rounds = CallableEviction(self.members, self.outbox, epoch, config.callables_max)
        self.ended: wire.RunEnded | None = None
        self.busy_disk = False  # no space: assign no work
        self._stepped_at: float | None = None
        self._has_unfit = False  # of batches that no replay has made yet
        self._no_import = ""  # why a worker cannot import the script
        self._enqueue_all()

    def step(self, event: Event, now: float, *, more: bool = False) -> list[Action]:
        """Handle one event at time `now` (monotonic seconds); return actions, in order.

        `more`: another event of the same turn follows at once, and work is assigned after it.
        """
        self.outbox.actions = []
        self._mind_own_stall(now)
        match event:
            case Heard():
                self._hear(event, now)
            case Interrupt(reason):
                self._stop(reason)
            case AskCheckpoints():
                self.handover.ask(event, now)
            case Tick():
                self.membership.expire(now)
                self.membership.time_out(now)
            case Swept():
                self.keeper.swept(event)
            case Lied() | DrainHost() | RevokeHost() | JoinHost() | AgentOver():
                self._with_host(event, now)
            case _:
                assert_never(event)
        self._end_step(now, more=more)
        if self.state.progress.stale:
            self.ledger.erase_stale()
        if self.state.tally.is_new:
            self.ledger.write_tally()
        return self.outbox.actions

    def _end_step(self, now: float, *, more: bool) -> None:
        if self._no_import and self.scheduler.ready:
            self.keeper.halted = self.keeper.halted or self._no_import
        if hopeless := self.keeper.halted or self.membership.fruitless.verdict:
            self._stop(hopeless)
        if more:
            return
        self._hand_over(now)
        self.keeper.sweep()
        self._tend_rounds()
        if self.hosts.by_name and self.membership.stopping is None:
            self.hosts.settle(now)
        self._assign(now)

    def _with_host(
        self, event: Lied | DrainHost | RevokeHost | JoinHost | AgentOver, now: float
    ) -> None:
        match event:
            case Lied(peer, host, why):
                self.hosts.expel(peer, host, why, now)
            case DrainHost(host, deadline_s):
                self.hosts.drain(host, deadline_s, now)
            case RevokeHost(host, why):
                self.hosts.revoke(host, why)
            case JoinHost(host):
                self.hosts.join(host)
            case AgentOver(host, agent, died):
                self.hosts.over(host, agent, now, died=died)
            case _:
                assert_never(event)

    def deadline(self, now: float) -> float:
        """Return when the next `Tick` is due."""
        if self.membership.recovering(now):
            return now + 0.05
        if self.keeper.is_sweeping:
            return now + 0.005
        if not self.scheduler.ready and any(p.items > 1 for p in self.scheduler.workers.values()):
            return now + self.config.slice_s
        due = min(now + self.config.beat_s, self.membership.limits.next())
        if self.hosts.by_name and self.membership.stopping is None:
            return min(due, self.hosts.due())
        return due

    def check(self) -> None:
        """Assert the invariants."""
        leased: dict[OpenBatch, Intervals] = {}
        for lease in self.scheduler.leases.values():
            assert self.members.peers.get(lease.peer.id) is lease.peer, "M1 lease without peer"
            assert lease.peer.leases.get(lease.attempt) is lease, "M1 peer without lease"
            assert lease in lease.batch.leases, "M1 batch without lease"
            assert lease.left, "M1 empty lease"
            spans = leased.setdefault(lease.batch, Intervals())
            for start, stop in lease.left:
                assert not spans.overlap(start, stop), f"Q1 {lease.batch.call} leased twice"
                spans.add(start, stop)
        ready = 0
        for parent in self.state.parents.values():
            for facts in parent.batches.values():
                batch = self.scheduler.open(parent, facts)
                assert not any(batch.ready.overlap(*s) for s in leased.get(batch, ())), "Q1"
                both = Intervals([*batch.ready, *leased.get(batch, Intervals())])
                assert both == facts.undone, f"B1 {parent.path}.{batch.call} {both} {facts.undone}"
                ready += available(batch, 0, 1 << 62)
                for start, stop in facts.undone:
                    assert not facts.done.overlap(start, stop), "S1"
                    assert facts.piece_at(start), "S1 no piece"
                    assert facts.piece_at(stop - 1), "S1 no piece"
        for facts, batch in self.scheduler.batches.items():
            assert batch.parent is self.state.parents.get(batch.parent.path), (
                "Q3 of a parent that is gone"
            )
            assert batch.parent.batches.get(batch.call) is facts, "Q3 a batch that is done"
        self.scheduler.held.check()
        self.hosts.check()
        if not self.membership.in_doubt and self.membership.stopping is None:
            permission.check(self.scheduler)
        assert ready == self.scheduler.ready, "Q2 count of ready items"

    def _enqueue_all(self) -> None:
        """Make all undone items ready, at the start of an epoch."""
        for parent in self.state.parents.values():
            for facts in parent.batches.values():
                batch = self.scheduler.open(parent, facts)
                batch.asked = facts.pieces[-1].fn if self.config.adopt and facts.pieces else b""
                self.scheduler.enqueue(batch, list(facts.undone), resumes=True)

    def _mind_own_stall(self, now: float) -> None:
        if self._stepped_at is not None and now - self._stepped_at > _STALL_S:
            self.membership.extend(now - self._stepped_at, now)
        self._stepped_at = now

    def _stop(self, reason: str) -> None:
        """Assign no more work and tell all processes to stop; journaled records stay."""
        if self.membership.stopping is None:
            self.ledger.stop(reason)
            for peer in self.members.peers.values():
                if self.membership.stops(peer):
                    self.outbox.send(peer.id, wire.encode(wire.Stop(reason)))

    @property
    def is_deserted(self) -> bool:
        """Whether all processes that were told to end at a stop have ended."""
        return not any(
            self.membership.stops(peer) and not peer.is_program
            for peer in self.members.peers.values()
        )

    def _tend_rounds(self) -> None:
        """Ask processes that were believed lost, and missed a round, to forget, too (CE1)."""
        if self.membership.revived:
            for peer in self.membership.revived:
                self.rounds.ask(peer)
            self.membership.revived.clear()
        self.rounds.tend(stopping=self.membership.stopping is not None)

    def callable_cache(self, journal: Reader) -> CallableCache:
        """Return the part that drops callables from memory, and erases unnamed ones from the journal."""
        return CallableCache(
            self.state.defines, self.scheduler, self.rounds, journal,
            self.config, has_dropped=any(parent.dropped for parent in self.state.parents.values()),
        )  # fmt: skip

    def take_dead(self) -> list[PeerId]:
        """Return, once, the processes that will never send again."""
        dead, self.membership.dead = self.membership.dead, []
        return dead

    def _hand_over(self, now: float) -> None:
        """Stop if all checkpoints were requested for a hand-over and are made."""
        if self.handover.is_active:
            recovering, stopping = self.membership.arriving(now), self.membership.stopping
            if self.handover.settle(now, recovering=recovering, stopping=stopping is not None):
                self._stop("handed over")

    def _hear(self, event: Heard, now: float) -> None:
        peer = self.members.peers.get(event.peer)
        if event.messages and isinstance(event.messages[0], wire.Hello):
            peer = self.membership.welcome(event.peer, event.messages[0], now, event.host)
        if peer is None:
            peer = self.membership.revive(event.peer, now)
        if peer is None:
            self._hear_dead(event, now)
            return
        peer.alive_at = peer.heard_at = now
        for at, message in enumerate(event.messages):
            if isinstance(message, wire.Calls):
                args = event.messages[at + 1]
                assert isinstance(args, wire.Args), "Calls without Args"
                peer.moved_at = now
                self.abandonments.asked_for(message)
                frames = event.raw[at], event.raw[at + 1]
                for lease in self.ledger.calls(peer, message, args.args, *frames):
                    self.membership.end_obsolete(lease)
                self._judge_unfit(message)
            else:
                self._handle(peer, message, event.raw[at], now)
        if peer.role == "agent" and isinstance(event.messages[0], wire.Hello):
            self.membership.succeed_agent(peer, event.messages[0])

    def _hear_dead(self, event: Heard, now: float) -> None:
        """Handle the last messages of a dead process: its outcomes count if still wanted."""
        ghost = Peer(event.peer, "worker", "", "", now, now)
        for message, raw in zip(event.messages, event.raw, strict=True):
            if isinstance(message, wire.Outcomes):
                self.ledger.outcomes(ghost, message, raw)
            elif isinstance(message, wire.Progress):
                self.ledger.progress(ghost, message, raw)

    def _handle(self, peer: Peer, message: wire.Up, raw: bytes, now: float) -> None:  # noqa: C901, PLR0912, PLR0915 - one case per message
        match message:
            case wire.Outcomes():
                peer.stuck, peer.moved_at = False, now
                self.ledger.outcomes(peer, message, raw)
            case wire.Define():
                is_new = self.ledger.define(message, raw)
                self.rounds.hear(message.fn, len(raw) if is_new else 0)
            case wire.Observed():
                self.ledger.observed(peer, message, raw)
            case wire.Output() | wire.Input():
                self.ledger.stream(peer, message, raw)
            case wire.Parked():
                self._parked(peer, message, now)
            case wire.Stuck():
                self._stuck(peer, message)
            case wire.Returned():
                self._returned(peer, message)
            case wire.BeginWanted():
                permission.permit(self.ledger, peer, message, self.membership.stopping)
            case wire.HistoryWanted():
                self.ledger.history(peer, message)
            case wire.Cancel() | wire.Abandon():
                self._not_wanted(peer, message)
            case wire.Const():
                self.ledger.const(message, raw)
            case wire.Alive():
                self.membership.vouch(peer, message, now)
            case wire.ProcessLost():
                self.membership.process_lost(message, peer)
            case wire.Progress():
                self.ledger.progress(peer, message, raw)
            case wire.RunEnded():
                self._run_ended(peer, message, raw)
            case wire.Bye():
                self._left(peer)
            case wire.Checkpoint():
                self.keeper.checkpoint(peer, message, raw)
            case wire.Verified():
                self.keeper.verified(peer, message)
            case wire.OpenBlocks():
                self._answered(peer, message)
            case wire.Halted():
                self.keeper.halt(peer, message)
            case wire.NoRoom():
                self.membership.roomless.hear(peer, message)
            case wire.Unfit():
                self._set_aside(peer, message, now)
            case wire.Forgotten(no=no):
                self.rounds.answered(peer.id, no)
            case wire.Hello() | wire.Calls() | wire.Args():
                pass  # handled with their bundle
            case _:
                assert_never(message)

    def _parked(self, peer: Peer, message: wire.Parked, now: float) -> None:
        """Handle an item that waits for its own calls, or continues."""
        peer.stuck, peer.moved_at = False, now
        if message.parked:
            self.membership.park(peer, message, now)
            return
        lease = peer.leases.get(message.attempt)
        if lease is not None:
            lease.unpark(message.index)

    def _stuck(self, peer: Peer, message: wire.Stuck) -> None:
        """Move a parked item that could continue while its worker executes another one."""
        lease = peer.leases.get(message.attempt)
        if lease is not None and self.scheduler.evict(lease, message.index, message.tries):
            # Before another grant of the item, which does not wait either.
            self.outbox.offer(peer.id, wire.encode(wire.Evict(message.attempt, message.index)))

    def _left(self, peer: Peer) -> None:
        """Handle the normal end of a process."""
        self.membership.lose(peer, None)
        if peer.host is not None:
            self.hosts.left(peer.id)

    def _answered(self, peer: Peer, answer: wire.OpenBlocks) -> None:
        """Handle the report which parents of a process have an open block."""
        self.handover.answered(peer, answer)
        if peer.host is not None:
            self.hosts.answered(peer, answer)

    def _not_wanted(self, peer: Peer, message: wire.Cancel | wire.Abandon) -> None:
        """Handle a parent that cancels an item, or gives up batches."""
        if isinstance(message, wire.Cancel):
            self.questions.ask(peer, message)
        else:
            self.abandonments.ask(peer, message)

    def _returned(self, peer: Peer, returned: wire.Returned) -> None:
        """Handle items that a worker gives back, or its answer that an item has started."""
        if returned.begun >= 0:
            self.questions.begun(returned.attempt, returned.begun)
        lease = peer.leases.get(returned.attempt)
        if lease is None:
            return
        # `retracting` stays: the remaining items have started, there is nothing more to get.
        spans = lease.left.overlap(returned.stop, 1 << 62)
        for low, high in spans:
            self.scheduler.settle(lease, low, high)
            permission.not_begun(self.ledger, lease.batch, low, high)
            self.ledger.again(lease.batch, [(low, high)], resumes=False)

    def _set_aside(self, peer: Peer, unfit: wire.Unfit, now: float) -> None:
        is_lacking = peer.host is not None and not unfit.differs
        if is_lacking and self.hosts.does_without(peer, unfit.reason, now):
            self._put_back(peer, unfit)
            return
        self._ease(peer, unfit)
        self._unfit(unfit)

    def _unfit(self, unfit: wire.Unfit) -> None:
        """Stop because a worker lacks what a batch needs, or the script, unless it is no longer needed.

        Batches from the journal count only after the replay has made them: a changed script may
        call another function there. The script counts from the first call that waits for a worker:
        until then its process may fail with the same error, which ends the run as the script's own.
        """
        if not unfit.parent:
            self._no_import = self._no_import or unfit.reason
            return
        batch = self.scheduler.find(unfit.parent, unfit.call)
        if batch is None:
            return
        if not batch.asked:
            batch.unfit, self._has_unfit = unfit, True
        elif batch.asked == unfit.fn and unfit.differs:
            self._hand_out_again(batch)
        elif batch.asked == unfit.fn:
            self.keeper.halted = self.keeper.halted or unfit.reason

    def _hand_out_again(self, batch: OpenBatch) -> None:
        """Hand out the items again that were set aside: now their failure is the call's own."""
        for lease in [each for each in batch.leases if not each.busy()]:
            self.scheduler.end(lease)
            self.ledger.again(batch, list(lease.left), resumes=True)
            self.outbox.send(lease.peer.id, wire.encode(wire.Drop([lease.attempt])))

    def _put_back(self, peer: Peer, unfit: wire.Unfit) -> None:
        """Give set-aside items to other hosts."""
        for lease in list(peer.leases.values()):
            if (lease.batch.parent.path, lease.batch.call) == (unfit.parent, unfit.call):
                self.scheduler.end(lease)
                self.ledger.again(lease.batch, list(lease.left), resumes=True)
                self.outbox.send(peer.id, wire.encode(wire.Drop([lease.attempt])))

    def _ease(self, peer: Peer, unfit: wire.Unfit) -> None:
        """Do not count set-aside items as a worker's load: it has time for others."""
        for lease in peer.leases.values():
            if (lease.batch.parent.path, lease.batch.call) == (unfit.parent, unfit.call):
                for low, high in list(lease.left):
                    for index in range(low, high):
                        self.scheduler.park(lease, index)

    def _judge_unfit(self, calls: wire.Calls) -> None:
        """Check again what a worker lacks, after the parent has made the batch."""
        if not self._has_unfit:
            return
        for part in calls.parts:
            batch = self.scheduler.find(calls.parent, part.call)
            if batch is not None and batch.unfit is not None and batch.asked:
                unfit, batch.unfit = batch.unfit, None
                self._unfit(unfit)

    def _run_ended(self, peer: Peer, ended: wire.RunEnded, raw: bytes) -> None:
        if self.members.root != (ended.attempt, peer.id):
            self.outbox.send(peer.id, wire.encode(wire.Drop([ended.attempt])))
            return
        self.ended = ended
        self.state.progress.drop_all(SCRIPT[0])
        self.outbox.actions.append(Put(Table.META, b"ended", raw))
        self._stop("ended")

    def _assign(self, now: float) -> None:
        if self.busy_disk or self.membership.stopping or self.membership.recovering(now):
            return
        if self.membership.roomless.reported and self.membership.roomless.holds_back():
            return
        self.membership.settle_doubts()
        if self.questions.open:
            self.questions.settle()
        if self.abandonments.open:
            self.abandonments.settle()
        while self.scheduler.ready and (chosen := self.scheduler.choose(now)) is not None:
            self._grant(*chosen)
        lease = self.scheduler.take_over(now)
        for each in [*self.handover.to_take_back(), *([] if lease is None else [lease])]:
            each.retracting = True
            # After the grant of this lease, which may wait for a commit.
            self.outbox.send(each.peer.id, wire.encode(wire.Retract(each.attempt)))

    def _grant(self, peer: Peer, slices: list[Slice]) -> None:
        """Offer slices: a grant depends on no record (B2).

        Slices whose arguments must be read are sent later.
        """
        whole = [s for s in slices if s.task.args and s.resume is None]
        stored = [s for s in slices if not s.task.args or s.resume is not None]
        if whole:
            frames = self._definitions(peer, whole)
            grant = wire.Grant([s.task for s in whole])
            self.outbox.offer(peer.id, *frames, wire.encode(grant))
        if stored:
            frames = self._definitions(peer, stored)
            where = [None if each.task.args else _where(each) for each in stored]
            tasks, resumes = [each.task for each in stored], [each.resume for each in stored]
            self.outbox.actions.append(GrantStored(peer.id, frames, tasks, where, resumes))

    def _definitions(self, peer: Peer, slices: list[Slice]) -> list[bytes]:
        """Return the definitions of callables that the worker does not know."""
        frames = []
        for each in slices:
            fn = each.task.fn
            if fn not in peer.functions and fn in self.state.defines:
                peer.functions.add(fn)
                frames.append(wire.encode(self.state.defines[fn]))
        return frames


def _where(each: Slice) -> StoredArgs:
    key = ids.record_key(each.lease.batch.parent.prefix, each.piece.record)
    offset = each.piece.offset + each.task.start - each.piece.start
    return StoredArgs(key, offset, each.lease.left.count())
