"""What was asked for and what came of it: the facts that the broker writes down.

L1  Only the current attempt of a parent changes what the parent owns (one writer).
L2  A record is logged exactly when it changes the state, before anybody is told of it: outcomes and
answers are `Send`, which waits for the commit. A record of another shape than what arrived (part
of an outcome came too late) is made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.events import (
    INPUT_KEY,
    Action,
    Discard,
    Erase,
    Offer,
    Put,
    Send,
    SendHistory,
    Table,
)
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.outcomes import parts_of
from resilient_scoop.core.facts.progress import apply_progress
from resilient_scoop.core.facts.tally import count
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error
from resilient_scoop.wire.tally import TALLY_KEY, encode_tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.broker.peers import Lease, Peer
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.core.facts.state import Batch, Parent, State
    from resilient_scoop.ids import PeerId

Spans = list[tuple[int, int]]


class Ledger:
    """Writes facts into the state and the journal, and tells those who wait for them."""

    def __init__(self, state: State, scheduler: Scheduler, consts: dict[str, bytes]) -> None:
        self.state = state
        self.scheduler = scheduler
        self.consts = consts
        self.peers: dict[PeerId, Peer] = {}
        self.actions: list[Action] = []
        self.root: tuple[wire.Attempt, PeerId] | None = None
        self.root_deaths = 0
        self.stopping: str | None = None  # why nothing more is handed out
        self.heard_defined: set[bytes] = set()  # callables, since the last round of forgetting
        self.new_defined = self.new_defined_bytes = 0  # of these, how many were new
        self.revived: list[Peer] = []  # who is to forget, too

    # --- doing --------------------------------------------------------------------------------

    def send(self, to: PeerId, *frames: bytes) -> None:
        """Send once this turn's records are durable."""
        self.actions.append(Send(to, list(frames)))

    def offer(self, to: PeerId, *frames: bytes) -> None:
        """Send at once."""
        self.actions.append(Offer(to, list(frames)))

    def log(self, parent: Parent, raw: bytes, *, forced: bool = True) -> int:
        """Append a record to a parent's log; return its sequence number (S4)."""
        self.state.seq += 1
        key = parent.prefix + self.state.seq.to_bytes(8, "big")
        self.actions.append(Put(Table.LOG, key, raw, forced))
        return self.state.seq

    def tell(self, parent: Parent, raw: bytes) -> None:
        """Send a record to the process that runs the parent, if any does."""
        if parent.path == ids.ROOT:
            if self.root is not None:
                self.send(self.root[1], raw)
            return
        lease = self.lease_of(parent.path)
        if lease is not None:
            self.send(lease.peer.id, raw)

    def lease_of(self, path: str) -> Lease | None:
        """Return the lease in which the future at `path` runs."""
        place = ids.parse_item(path)
        if place is None:
            return None
        above = self.state.parents.get(place[0])
        batch = None if above is None else above.batches.get(place[1])
        if batch is None:
            return None
        return next((lease for lease in batch.leases if place[2] in lease.left), None)

    def current(self, peer: Peer, path: str, attempt: wire.Attempt) -> bool:
        """Tell whether this is the parent's one writer (L1); fence it off if not."""
        if path == ids.ROOT:
            good = self.root == (attempt, peer.id)
        else:
            lease = self.lease_of(path)
            good = lease is not None and lease.peer is peer and lease.attempt == attempt
        if not good:
            self._fence(peer, attempt)
        return good

    def _fence(self, peer: Peer, attempt: wire.Attempt) -> None:
        """Tell a worker to stop an attempt; what else it held of that slice is to do again."""
        lease = peer.leases.get(attempt)
        if lease is not None:
            self.scheduler.end(lease)
            self.again(lease.batch, list(lease.left), resumes=False)
        self.send(peer.id, wire.encode(wire.Drop([attempt])))

    # --- what parents ask for -----------------------------------------------------------------

    def define(self, define: wire.Define, raw: bytes) -> None:
        """Learn a callable."""
        self.heard_defined.add(define.fn)
        if define.fn not in self.state.defines:
            self.new_defined += 1
            self.new_defined_bytes += len(raw)
            self.state.defines[define.fn] = define
            self.actions.append(Put(Table.DEFINE, define.fn, raw, forced=False))

    def calls(
        self, peer: Peer, calls: wire.Calls, args: list[bytes], raw: bytes, raw_args: bytes
    ) -> None:
        """Take in a parent's calls; what is known already changes nothing."""
        if not self.current(peer, calls.parent, calls.attempt):
            return
        parent = self.state.parent(calls.parent)
        keep = self.state.args_bytes + len(raw_args) <= self.scheduler.config.args_bytes_max
        record, offset, new = self.state.seq + 1, 0, False
        for part in calls.parts:
            if parent.begins(part):
                whole = self.state.begin_whole(parent, part, record, offset, args if keep else None)
                self.scheduler.enqueue_whole(whole)
                new = True
                offset += part.count
                continue
            batch = parent.batches.get(part.call)
            finished = part.call in parent.finished and part.call not in parent.dropped
            begun: Spans = []
            known = batch is not None or (finished and not part.fresh)
            if batch is not None:
                new = new or (part.last and self._ends_anew(batch, part.start + part.count))
                begun = self._clear_changed(parent, batch, part)
                batch.asked = part.fn
            spans = self.state.apply_part(parent, part, record, offset, args if keep else None)
            for each, start, stop in spans:
                each.asked = part.fn
                self.scheduler.enqueue(each, [(start, stop)], resumes=False)
            if batch is not None and begun:
                self.give_up(batch, begun)
            new = new or bool(spans) or not known or part.fresh
            offset += part.count
        if new:
            self.log(parent, raw, forced=False)
            parent.writer = calls.attempt
            key = parent.prefix + record.to_bytes(8, "big")
            self.actions.append(Put(Table.ARGS, key, raw_args, forced=False))
            if calls.parent == ids.ROOT:
                self.root_deaths = 0

    def _ends_anew(self, batch: Batch, stop: int) -> bool:
        """Tell whether it is news that a batch ends at `stop`."""
        beyond = batch.undone.overlap(stop, 1 << 62) or batch.done.overlap(stop, 1 << 62)
        return not batch.last or bool(beyond)

    def _clear_changed(self, parent: Parent, batch: Batch, part: wire.Part) -> Spans:
        """Take back what is under way of items that turn out to be others.

        Return those in whose places calls had begun that must not be started twice.
        """
        changed = self.state.differing(batch, part)
        intents = parent.intents.get(part.call)
        begun = (
            [] if intents is None else [run for span in changed for run in intents.overlap(*span)]
        )
        if part.last:
            changed += batch.undone.overlap(part.start + part.count, 1 << 62)
        for low, high in changed:
            self.scheduler.withdraw(batch, low, high)
            self.release(batch, [(low, high)])
            self.state.reused.lose_below(self.state, parent.path, part.call, low, high)
            self._drop_kids(parent.path, part.call, low, high, counted=False)
        return begun

    def release(self, batch: Batch, spans: Spans) -> None:
        """End the leases' hold on items; a worker that is left with nothing is told to stop."""
        for start, stop in spans:
            for lease in list(batch.leases):
                if lease.left.overlap(start, stop):
                    self.scheduler.settle(lease, start, stop)
                    if not lease.left:
                        self.send(lease.peer.id, wire.encode(wire.Drop([lease.attempt])))

    def observed(self, peer: Peer, observed: wire.Observed, raw: bytes) -> None:
        """Keep what a parent was told."""
        if not self.current(peer, observed.parent, observed.attempt):
            return
        parent = self.state.parent(observed.parent)
        if observed.observations[-1].no >= parent.next_observation:
            self.log(parent, raw)
            parent.writer = observed.attempt
            self.state.apply_observed(parent, observed)
        if observed.asks:
            noted = wire.Noted(observed.parent, observed.observations[-1].no)
            self.send(peer.id, wire.encode(noted))

    def stream(self, peer: Peer, piece: wire.Output | wire.Input, raw: bytes) -> None:
        """Keep what the script wrote or read."""
        if isinstance(piece, wire.Input):
            self.input(peer, piece, raw)
        else:
            self.output(peer, piece, raw)

    def output(self, peer: Peer, output: wire.Output, raw: bytes) -> None:
        """Keep what the script wrote; a repetition changes nothing."""
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
        self.actions.append(Put(Table.OUTPUT, known.to_bytes(8, "big"), raw))

    def progress(self, peer: Peer, said: wire.Progress, raw: bytes) -> None:
        """Keep what a running item said of itself, if it is still to do."""
        if not said.parent and self.root != (said.attempt, peer.id):
            return
        key = apply_progress(self.state, said)
        if key is not None:
            self.erase_stale()  # before this, where it stands in the place of one
            self.actions.append(Put(Table.PROGRESS, key, raw, forced=False))

    def erase_stale(self) -> None:
        """Erase what was said by items that are done or gone (K1)."""
        stale, self.state.words.stale = self.state.words.stale, []
        self.actions += [Erase(Table.PROGRESS, key) for key in stale]

    def write_tally(self) -> None:
        """Write the totals, in the turn that erases what they stand for (N1)."""
        self.state.tally.is_new = False
        self.actions.append(
            Put(Table.META, TALLY_KEY, encode_tally(self.state.tally.said), forced=False)
        )

    def input(self, peer: Peer, read: wire.Input, raw: bytes) -> None:
        """Keep what the script read; a repetition changes nothing."""
        if self.current(peer, ids.ROOT, read.attempt) and read.no == self.state.inputs:
            self.actions.append(Put(Table.META, INPUT_KEY + read.no.to_bytes(8, "big"), raw))
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
        self.actions.append(page)

    def const(self, const: wire.Const, raw: bytes) -> None:
        """Keep a constant and hand it to everybody; the first of a name stands."""
        kept = self.consts.setdefault(const.name, raw)
        if kept is raw:
            self.actions.append(Put(Table.CONST, const.name.encode(), raw))
        for peer in self.peers.values():
            if peer.role != "agent":
                self.send(peer.id, kept)

    # --- what comes of it ---------------------------------------------------------------------

    def outcomes(self, peer: Peer, outcomes: wire.Outcomes, raw: bytes) -> None:
        """Take in outcomes; count each item once (ONE-COMMIT) and tell the parent."""
        parent = self.state.parents.get(outcomes.parent)
        counted: list[tuple[wire.Outcome, Spans]] = []
        whole = True
        for outcome in outcomes.items:
            lease = None if outcome.task is None else peer.leases.get(outcome.task)
            if lease is not None:
                self.scheduler.measure(lease.fn, len(outcome.values), outcome.spent_s)
                if self._end_whole(lease, parent, outcome):
                    counted.append((outcome, [(0, len(outcome.values))]))
                    continue
            spans = [] if parent is None else self.state.wanted(parent, outcome)
            whole = whole and spans == [(outcome.start, outcome.start + len(outcome.values))]
            if parent is not None and spans:
                counted.append((outcome, spans))
                # At once: two attempts of one item may have ended on one worker.
                failed = bool(outcome.failed)
                self._settle(parent.batches[outcome.call], spans, outcome.task, failed=failed)
        if parent is not None and counted:
            for each, spans in counted:
                count(self.state, parent, each, spans)
                self.state.tally.tried_again(each.again)
            if not whole:
                parts = [part for each, spans in counted for part in parts_of(each, spans)]
                raw = wire.encode(wire.Outcomes(outcomes.parent, parts))
            self.log(parent, raw)
            self.tell(parent, raw)
            self._erase_spent()
        if not whole:
            self._forget_late(peer, outcomes)

    def _end_whole(self, lease: Lease, parent: Parent | None, outcome: wire.Outcome) -> bool:
        """Settle a batch of which one worker had all and has done all: by far most are so."""
        batch = lease.batch
        if batch.parent is not parent or batch.call != outcome.call or len(batch.leases) != 1:
            return False
        kids = self.state.kid_items
        if lease.parked or (kids and (batch.parent.path, batch.call) in kids):
            return False
        if batch.ready or not self.state.is_whole(batch, outcome):
            return False
        self.scheduler.end(lease)
        self.state.end_whole(batch, failed=bool(outcome.failed))
        return True

    def _forget_late(self, peer: Peer, outcomes: wire.Outcomes) -> None:
        """A worker has no more of what it reported, whether or not it counted."""
        for outcome in outcomes.items:
            lease = None if outcome.task is None else peer.leases.get(outcome.task)
            if lease is None:
                continue
            stale = lease.left.overlap(outcome.start, outcome.start + len(outcome.values))
            for start, stop in stale:
                self.scheduler.settle(lease, start, stop)
                self.again(lease.batch, [(start, stop)], resumes=False)

    def _erase_spent(self) -> None:
        """Keep no arguments that nobody will ask for: most never reach the disk."""
        if self.state.spent:
            self.actions += [Erase(Table.ARGS, key) for key in self.state.spent]
            self.state.spent.clear()

    def _settle(
        self, batch: Batch, spans: Spans, by: wire.Attempt | None = None, *, failed: bool
    ) -> None:
        """Items are done: update the queue, all leases, what hung below them, the state."""
        parent, call = batch.parent, batch.call
        for start, stop in spans:
            if batch.ready:
                self.scheduler.withdraw(batch, start, stop)
            self._drop_kids(parent.path, call, start, stop, counted=True)
            for lease in list(batch.leases):
                self.scheduler.settle(lease, start, stop)
                if not lease.left and lease.attempt != by:
                    self.send(lease.peer.id, wire.encode(wire.Drop([lease.attempt])))
        self.state.apply_done(parent, call, spans, failed=failed)

    def name(self, fn: bytes) -> str:
        """Return the name of a function, for display."""
        define = self.state.defines.get(fn)
        return "?" if define is None else (define.options.name or define.name)

    def settle_error(self, batch: Batch, index: int, payload: bytes) -> None:
        """End an item with an outcome of the broker's own making."""
        parent = batch.parent
        piece = batch.piece_at(index)
        assert piece is not None, f"S1 {parent.path}.{batch.call}[{index}]"
        outcome = wire.Outcome(
            batch.call, index, self.state.fingerprint(piece.fn),
            batch.digests_of(index, index + 1), [payload], [0],
            once=index in parent.intents.get(batch.call, ()),
        )  # fmt: skip
        raw = wire.encode(wire.Outcomes(parent.path, [outcome]))
        count(self.state, parent, outcome, [(index, index + 1)])
        self.log(parent, raw)
        self._settle(batch, [(index, index + 1)], failed=True)
        self.tell(parent, raw)

    def again(self, batch: Batch, spans: Iterable[tuple[int, int]], *, resumes: bool) -> int:
        """Items of a lease that has ended are to do again, but those that were begun (A2).

        Return how many are.
        """
        count = 0
        left_open = self.stopping not in (None, "ended")
        intents = None if left_open else batch.parent.intents.get(batch.call)
        for start, stop in spans:
            for low, high in batch.undone.overlap(start, stop):
                begun: Spans = [] if intents is None else intents.overlap(low, high)
                open_ = [(low, high)] if intents is None else intents.gaps(low, high)
                count += sum(b - a for a, b in open_)
                self.scheduler.enqueue(batch, open_, resumes=resumes)
                self.give_up(batch, begun)
        return count

    def give_up(self, batch: Batch, spans: Iterable[tuple[int, int]]) -> None:
        """End items that must not be started twice (`core.broker.permission`)."""
        for start, stop in spans:
            for index in range(start, stop):
                piece = batch.piece_at(index)
                assert piece is not None, f"S1 {batch.parent.path}.{batch.call}[{index}]"
                path = ids.item_path(batch.parent.path, batch.call, index)
                self.settle_error(batch, index, broker_error("lost", path, self.name(piece.fn)))

    def abandon(self, batch: Batch, record: wire.Abandoned) -> None:
        """Take items out of a batch that are ready and that nobody wants."""
        self.log(batch.parent, wire.encode(record))
        for start, stop in record.spans:
            self.scheduler.withdraw(batch, start, stop)
            self._drop_kids(batch.parent.path, batch.call, start, stop, counted=True)
        self.state.apply_abandoned(batch.parent, record)
        self._erase_spent()

    def _drop_kids(self, path: str, call: int, start: int, stop: int, *, counted: bool) -> None:
        if not self.state.kid_items:
            return
        for index in self.state.kids_within(path, call, start, stop):
            self._drop(ids.item_path(path, call, index), counted=counted)

    def _drop(self, path: str, *, counted: bool) -> None:
        """A parent is done, or another one: its descendants are nobody's any more."""
        gone, kept = [path], list[checkpoints.Kept]()
        while gone:
            each = gone.pop()
            gone += self.state.kids.get(each, ())
            parent = self.state.parents.get(each)
            if parent is not None and parent.blocks:
                kept += [one for block in parent.blocks.values() for one in block]
            for batch in () if parent is None else list(parent.batches.values()):
                self.scheduler.withdraw(batch, 0, 1 << 62)
                self.release(batch, list(batch.undone))
            if self.state.words.batches:
                self.state.words.drop_all(each)
        for prefix in self.state.drop(path, counted=counted):
            self.actions += [Erase(Table.LOG, prefix), Erase(Table.ARGS, prefix)]
        if kept:
            self.actions += [Discard(name) for name in checkpoints.unnamed(self.state, kept)]
