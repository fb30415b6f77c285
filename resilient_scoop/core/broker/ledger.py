"""The ledger: writes facts (calls, outcomes, answers) into state and journal.

LE1  Only the current attempt of a parent changes what the parent owns (one writer).
LE2  A record is logged exactly when it changes the state, before any process is told of it: outcomes and
answers are `Send`, which waits for the commit. A record of another shape than what arrived (part
of an outcome came too late) is made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.broker.reused import Reused
from resilient_scoop.core.events import (
    INPUT_KEY,
    Discard,
    Erase,
    Put,
    SendHistory,
    Table,
)
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.fold import apply, apply_progress
from resilient_scoop.core.facts.outcomes import parts_of
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error
from resilient_scoop.wire.tally import TALLY_KEY, encode_tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilient_scoop.core.broker.leases import Lease, OpenBatch, Peer
    from resilient_scoop.core.broker.members import Members
    from resilient_scoop.core.broker.outbox import Outbox
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.core.facts.fold import Change, PartChange, Span
    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState


class Ledger:
    """Writes facts into the state and the journal, and sends them to the processes that wait for them."""

    def __init__(
        self,
        state: DurableState,
        scheduler: Scheduler,
        members: Members,
        outbox: Outbox,
        consts: dict[str, bytes],
    ) -> None:
        self.state = state
        self.scheduler = scheduler
        self.members = members
        self.outbox = outbox
        self.consts = consts
        self.stopping: str | None = None  # reason why no more work is assigned
        self.reused = Reused(state.parents.values(), state.items_done)
        self.spent: list[bytes] = []  # keys of `Args` that are no longer needed

    def stop(self, reason: str) -> None:
        """Assign no more work, and leave in doubt what has begun."""
        self.stopping = reason

    def log(self, parent: ParentFacts, raw: bytes, *, forced: bool = True) -> int:
        """Append a record to a parent's log; return its sequence number (S4)."""
        self.state.seq += 1
        key = ids.record_key(parent.prefix, self.state.seq)
        self.outbox.actions.append(Put(Table.LOG, key, raw, forced))
        return self.state.seq

    def record(self, record: wire.Logged, *, forced: bool = True) -> Change:
        """Apply a record made by the broker, and log it if it is new (LE2)."""
        change = apply(self.state, record, self.state.seq + 1)
        if change.is_new:
            self.log(self.state.parent(record.parent), wire.encode(record), forced=forced)
        self.spent += change.spent
        return change

    def tell(self, parent: ParentFacts, raw: bytes) -> None:
        """Send a record to the process that runs the parent, if any."""
        if parent.path in ids.SCRIPTS:
            if self.members.root is not None:
                self.outbox.send(self.members.root[1], raw)
            return
        lease = self.scheduler.lease_of(parent.path)
        if lease is not None:
            self.outbox.send(lease.peer.id, raw)

    def current(self, peer: Peer, path: str, attempt: wire.Attempt) -> bool:
        """Return whether this is the parent's one writer (LE1); fence it off if not."""
        if path in ids.SCRIPTS:
            good = self.members.root == (attempt, peer.id)
        else:
            lease = self.scheduler.lease_of(path)
            good = lease is not None and lease.peer is peer and lease.attempt == attempt
        if not good:
            self._fence(peer, attempt)
        return good

    def _fence(self, peer: Peer, attempt: wire.Attempt) -> None:
        """Tell a worker to stop an attempt; other items of that slice are to do again."""
        lease = peer.leases.get(attempt)
        if lease is not None:
            self.scheduler.end(lease)
            self.again(lease.batch, list(lease.left), resumes=False)
        self.outbox.send(peer.id, wire.encode(wire.Drop([attempt])))

    def define(self, define: wire.Define, raw: bytes) -> bool:
        """Learn a callable; return whether it is new."""
        if define.fn in self.state.defines:
            return False
        self.state.defines[define.fn] = define
        self.outbox.actions.append(Put(Table.DEFINE, define.fn, raw, forced=False))
        return True

    def calls(
        self, peer: Peer, calls: wire.Calls, args: list[bytes], raw: bytes, raw_args: bytes
    ) -> list[Lease]:
        """Record a parent's calls; known ones change nothing.

        Return the leases that have ended because other calls have replaced theirs.
        """
        if not self.current(peer, calls.parent, calls.attempt):
            return []
        parent, state = self.state.parent(calls.parent), self.state
        keep = state.args_bytes + len(raw_args) <= self.scheduler.config.args_bytes_max
        change = apply(state, calls, state.seq + 1, args if keep else None)
        changed: list[tuple[OpenBatch, PartChange]] = []
        obsolete: list[Lease] = []
        for part in change.parts:
            if part.is_whole:
                self.scheduler.enqueue_whole(parent, part.batch)
            else:
                batch = self.scheduler.open(parent, part.batch)
                changed.append((batch, part))
                obsolete += self._replace(batch, part)
        if change.is_new:
            record = self.log(parent, raw, forced=False)
            key = ids.record_key(parent.prefix, record)
            self.outbox.actions.append(Put(Table.ARGS, key, raw_args, forced=False))
            if calls.parent in ids.SCRIPTS:
                self.members.root_deaths = 0
        self.spent += change.spent
        for batch, part in changed:
            self.give_up(batch, part.begun)
            self._close_if_over(batch)
        return obsolete

    def _replace(self, batch: OpenBatch, part: PartChange) -> list[Lease]:
        """Take back running items that have changed, and queue new ones; return the ended leases."""
        ended: list[Lease] = []
        path, call = batch.parent.path, batch.call
        if part.lost:
            self.reused.lose(path, call, part.lost, batch.facts.done)
        for low, high in part.replaced:
            self.scheduler.withdraw(batch, low, high)
            ended += self.release(batch, [(low, high)])
            kids = self.state.kids_within(path, call, low, high)
            below = [ids.item_path(path, call, index) for index in kids]
            self.reused.lose_below(below, self.state.kids)
            ended += self._drop_kids(path, call, low, high, counted=False)
        batch.asked = part.fn
        self.scheduler.enqueue(batch, part.new, resumes=False)
        return ended

    def release(self, batch: OpenBatch, spans: Sequence[Span]) -> list[Lease]:
        """End the leases' hold on items; return leases without items, whose workers are told to stop."""
        ended = []
        for start, stop in spans:
            for lease in list(batch.leases):
                if lease.left.overlap(start, stop):
                    self.scheduler.settle(lease, start, stop)
                    if not lease.left:
                        ended.append(lease)
                        self.outbox.send(lease.peer.id, wire.encode(wire.Drop([lease.attempt])))
        return ended

    def observed(self, peer: Peer, observed: wire.Observed, raw: bytes) -> None:
        """Record a parent's observations."""
        if not self.current(peer, observed.parent, observed.attempt):
            return
        parent = self.state.parent(observed.parent)
        if apply(self.state, observed, self.state.seq + 1).is_new:
            self.log(parent, raw)
        if observed.asks:
            noted = wire.Noted(observed.parent, observed.observations[-1].no)
            self.outbox.send(peer.id, wire.encode(noted))

    def stream(self, peer: Peer, piece: wire.Output | wire.Input, raw: bytes) -> None:
        """Record the script's output or input."""
        if isinstance(piece, wire.Input):
            self.input(peer, piece, raw)
        else:
            self.output(peer, piece, raw)

    def output(self, peer: Peer, output: wire.Output, raw: bytes) -> None:
        """Record the script's output; a repetition changes nothing."""
        if not self.current(peer, ids.ROOT, output.attempt):
            return
        end = output.offset + len(output.data)
        known = self.state.output_bytes
        if end <= known or output.offset > known:
            return
        if output.offset < known:
            output = wire.Output(output.attempt, known, output.data[known - output.offset :])
            raw = wire.encode(output)
        self.state.output_bytes = end
        self.outbox.actions.append(Put(Table.OUTPUT, ids.record_key(b"", known), raw))

    def progress(self, peer: Peer, message: wire.Progress, raw: bytes) -> None:
        """Record the progress of a running item, if it is not done."""
        if not message.parent and self.members.root != (message.attempt, peer.id):
            return
        key = apply_progress(self.state, message)
        if key is not None:
            self.erase_stale()  # first, because this record may replace one of them
            self.outbox.actions.append(Put(Table.PROGRESS, key, raw, forced=False))

    def erase_stale(self) -> None:
        """Erase the progress of items that are done or gone (K1)."""
        stale, self.state.progress.stale = self.state.progress.stale, []
        self.outbox.actions += [Erase(Table.PROGRESS, key) for key in stale]

    def write_tally(self) -> None:
        """Write the totals, in the turn that erases the counted records (N1)."""
        self.state.tally.is_new = False
        self.outbox.actions.append(
            Put(Table.META, TALLY_KEY, encode_tally(self.state.tally.counts), forced=False)
        )

    def input(self, peer: Peer, read: wire.Input, raw: bytes) -> None:
        """Record the script's input; a repetition changes nothing."""
        if self.current(peer, ids.ROOT, read.attempt) and read.no == self.state.inputs:
            self.outbox.actions.append(Put(Table.META, ids.record_key(INPUT_KEY, read.no), raw))
            self.state.inputs += 1

    def history(self, peer: Peer, wanted: wire.HistoryWanted) -> None:
        """Answer with a page of the parent's log."""
        if not self.current(peer, wanted.parent, wanted.attempt):
            return
        parent = self.state.parent(wanted.parent)
        after = max(wanted.after, parent.record_before(wanted.from_call))
        page = SendHistory(
            peer.id, wanted.parent, wanted.attempt, parent.prefix, after, self.state.seq,
            parent.next_call(), self.state.output_bytes, checkpoints.marks(parent),
            list(parent.dropped), list(parent.trimmed_by), wanted.no,
        )  # fmt: skip
        self.outbox.actions.append(page)

    def const(self, const: wire.Const, raw: bytes) -> None:
        """Record a constant and send it to all; the first value of a name counts."""
        kept = self.consts.setdefault(const.name, raw)
        if kept is raw:
            self.outbox.actions.append(Put(Table.CONST, const.name.encode(), raw))
        for peer in self.members.peers.values():
            if peer.role != "agent":
                self.outbox.send(peer.id, kept)

    def outcomes(self, peer: Peer, outcomes: wire.Outcomes, raw: bytes) -> None:
        """Record outcomes; count each item once (ONE-COMMIT) and tell the parent."""
        parent = self.state.parents.get(outcomes.parent)
        for outcome in outcomes.items:
            lease = None if outcome.task is None else peer.leases.get(outcome.task)
            if lease is not None:
                self.scheduler.measure(lease.fn, len(outcome.values), outcome.spent_s)
        if parent is None:
            self._forget_late(peer, outcomes)
            return
        change = apply(self.state, outcomes, self.state.seq + 1)
        whole = len(change.counted) == len(outcomes.items)
        settled: list[OpenBatch] = []
        for each in change.counted:
            outcome, spans = each.outcome, each.spans
            batch = self.scheduler.open(parent, each.batch)
            if not (each.is_whole and self._end_whole(peer, batch, outcome)):
                settled.append(batch)
                self._settle(batch, spans, outcome.task)
                whole = whole and spans == [(outcome.start, outcome.start + len(outcome.values))]
            self.reused.find(parent.path, outcome, spans)
            self.state.tally.tried_again(outcome.again)
        for batch in settled:  # it may have had several of these outcomes
            self._close_if_over(batch)
        if change.is_new:
            if not whole:
                parts = [
                    part for each in change.counted for part in parts_of(each.outcome, each.spans)
                ]
                raw = wire.encode(wire.Outcomes(outcomes.parent, parts))
            self.log(parent, raw)
            self.tell(parent, raw)
            self.spent += change.spent
            self._erase_spent()
        if not whole:
            self._forget_late(peer, outcomes)

    def _end_whole(self, peer: Peer, batch: OpenBatch, outcome: wire.Outcome) -> bool:
        """Drop a batch that one worker has held and done completely, the most frequent case."""
        if len(batch.leases) != 1 or batch.ready:
            return False
        lease, kids = batch.leases[0], self.state.kid_items
        if lease.parked or lease.peer is not peer or lease.attempt != outcome.task:
            return False
        if kids and (batch.parent.path, batch.call) in kids:
            return False
        self.scheduler.end(lease)
        self.scheduler.close(batch)
        return True

    def _forget_late(self, peer: Peer, outcomes: wire.Outcomes) -> None:
        """Remove reported items from the worker's leases, whether or not their outcome counted."""
        for outcome in outcomes.items:
            lease = None if outcome.task is None else peer.leases.get(outcome.task)
            if lease is None:
                continue
            stale = lease.left.overlap(outcome.start, outcome.start + len(outcome.values))
            for start, stop in stale:
                self.scheduler.settle(lease, start, stop)
                self.again(lease.batch, [(start, stop)], resumes=False)

    def _erase_spent(self) -> None:
        """Drop arguments that are no longer needed: most never reach the disk."""
        if self.spent:
            self.outbox.actions += [Erase(Table.ARGS, key) for key in self.spent]
            self.spent.clear()

    def _settle(
        self, batch: OpenBatch, spans: Sequence[Span], by: wire.Attempt | None = None
    ) -> None:
        """Handle items that are done: update the queue, all leases, and the parents below them."""
        for start, stop in spans:
            if batch.ready:
                self.scheduler.withdraw(batch, start, stop)
            self._drop_kids(batch.parent.path, batch.call, start, stop, counted=True)
            mine = None if by is None else self.scheduler.leases.get(by)
            if mine is not None and mine.batch is batch and mine.left.covers(start, stop):
                self.scheduler.settle(mine, start, stop)  # no other lease has them (Q1)
                continue
            for lease in list(batch.leases):
                self.scheduler.settle(lease, start, stop)
                if not lease.left and lease.attempt != by:
                    self.outbox.send(lease.peer.id, wire.encode(wire.Drop([lease.attempt])))

    def _close_if_over(self, batch: OpenBatch) -> None:
        if batch.parent.batches.get(batch.call) is not batch.facts:
            self.scheduler.close(batch)

    def name(self, fn: bytes) -> str:
        """Return the name of a function, for display."""
        define = self.state.defines.get(fn)
        return "?" if define is None else (define.options.name or define.name)

    def settle_error(self, batch: OpenBatch, index: int, payload: bytes) -> None:
        """End an item with an outcome made by the broker."""
        parent, facts = batch.parent, batch.facts
        piece = facts.piece_at(index)
        assert piece is not None, f"S1 {parent.path}.{batch.call}[{index}]"
        outcome = wire.Outcome(
            batch.call, index, self.state.fingerprint(piece.fn),
            facts.digests_of(index, index + 1), [payload], [0],
            once=index in parent.intents.get(batch.call, ()),
        )  # fmt: skip
        record = wire.Outcomes(parent.path, [outcome])
        self.record(record)
        self._settle(batch, [(index, index + 1)])
        self._close_if_over(batch)
        self.tell(parent, wire.encode(record))

    def again(self, batch: OpenBatch, spans: Iterable[Span], *, resumes: bool) -> int:
        """Queue the items of an ended lease again, except those that have started (A2).

        Return their number.
        """
        count = 0
        left_open = self.stopping not in (None, "ended")
        intents = None if left_open else batch.parent.intents.get(batch.call)
        for start, stop in spans:
            for low, high in batch.facts.undone.overlap(start, stop):
                begun: list[Span] = [] if intents is None else intents.overlap(low, high)
                open_ = [(low, high)] if intents is None else intents.gaps(low, high)
                count += sum(b - a for a, b in open_)
                self.scheduler.enqueue(batch, open_, resumes=resumes)
                self.give_up(batch, begun)
        return count

    def give_up(self, batch: OpenBatch, spans: Iterable[Span]) -> None:
        """End items that must not be started twice (`core.broker.permission`)."""
        for start, stop in spans:
            for index in range(start, stop):
                piece = batch.facts.piece_at(index)
                assert piece is not None, f"S1 {batch.parent.path}.{batch.call}[{index}]"
                path = ids.item_path(batch.parent.path, batch.call, index)
                self.settle_error(batch, index, broker_error("lost", path, self.name(piece.fn)))

    def abandon(self, batch: OpenBatch, record: wire.Abandoned) -> None:
        """Remove ready items from a batch that has been given up."""
        self.record(record)
        for start, stop in record.spans:
            self.scheduler.withdraw(batch, start, stop)
            self._drop_kids(batch.parent.path, batch.call, start, stop, counted=True)
        self._close_if_over(batch)
        self._erase_spent()

    def _drop_kids(
        self, path: str, call: int, start: int, stop: int, *, counted: bool
    ) -> list[Lease]:
        ended: list[Lease] = []
        if self.state.kid_items:
            for index in self.state.kids_within(path, call, start, stop):
                ended += self._drop(ids.item_path(path, call, index), counted=counted)
        return ended

    def _drop(self, path: str, *, counted: bool) -> list[Lease]:
        """Drop the descendants of a parent that is done, or has changed; return their leases."""
        gone = [path]
        ended: list[Lease] = []
        kept: list[Generation] = []
        while gone:
            each = gone.pop()
            gone += self.state.kids.get(each, ())
            parent = self.state.parents.get(each)
            if parent is not None and parent.blocks:
                kept += [one for block in parent.blocks.values() for one in block]
            for facts in () if parent is None else list(parent.batches.values()):
                batch = self.scheduler.batches.get(facts)
                if batch is not None:
                    self.scheduler.withdraw(batch, 0, 1 << 62)
                    ended += self.release(batch, list(facts.undone))
                    self.scheduler.close(batch)
            if self.state.progress.batches:
                self.state.progress.drop_all(each)
        for prefix in self.state.drop(path, counted=counted):
            self.outbox.actions += [Erase(Table.LOG, prefix), Erase(Table.ARGS, prefix)]
        if kept:
            names = checkpoints.unnamed(self.state.parents.values(), kept)
            self.outbox.actions += [Discard(name) for name in names]
        return ended
