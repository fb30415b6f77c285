"""The scheduler: the queue of ready items, measured durations, slices, take-over.

Ready parents (items with a history) go before leaves, deeper before shallower, then first come
first served; `priority=` overrides. A slice is sized to about `slice_s` of measured work, and never
more than its fair share of what is ready, so that slices shrink towards the end of a batch (guided
self-scheduling, Polychronopoulos and Kuck 1987). While a worker has nothing and nothing is ready,
it is given what others hold and have not started.

More urgent work may be sent to a full worker, where it goes first: at most about as much again
(`_overtaken`). Nothing is queued behind a long item, and what was queued there is taken back
(`_queued_after_long`), so that the first free worker gets the head of the queue.

The life of an item; what is not listed changes nothing:

  unknown  asked for                                        ready
  ready    a worker has room                                leased
           canceled, or an outcome of a worker believed lost  done
           given up                                         unknown
  leased   waits for calls of its own                       parked
           its outcome                                      done
           given back, or its worker is lost                ready
           canceled, or given up                            leased: the worker is asked to give it back
  parked   continues                                        leased
           its outcome                                      done
           given back, or its worker is lost                ready
  done     asked for again                                  ready

  Q1  An item is in `ready` of its batch, or in `left` of exactly one lease, or done.
  Q2  Items that are held back (`core.broker.holdback`) are not handed out, and `Scheduler.ready` does not
      count them.
  Q3  Each batch in `batches` is one of the state's that is not done.
  Q4  Of equally urgent batches at the same depth, the one that was ready first goes first, also when its
      items come back from a worker; items with a history go before all others.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.broker.holdback import Awaited, HoldBack, available
from resilient_scoop.core.broker.leases import Lease, OpenBatch, Peer
from resilient_scoop.core.broker.slices import (
    Entry,
    Estimate,
    Slice,
    fitting,
)
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.messages import Attempt, Options, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from resilient_scoop.config import BrokerConfig
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState

__all__ = ["Scheduler", "Slice"]

_PLAIN = Options()


class Scheduler(msgspec.Struct):
    """The queue and the leases; `epoch` numbers the attempts that it makes."""

    state: DurableState
    config: BrokerConfig
    epoch: int
    workers: dict[bytes, Peer] = {}
    leases: dict[Attempt, Lease] = {}
    batches: dict[Batch, OpenBatch] = {}  # unfinished batches
    estimates: dict[bytes, Estimate] = {}
    ready: int = 0  # number of items that may be assigned
    held: HoldBack = msgspec.field(default_factory=lambda: HoldBack(Awaited()))
    _queue: list[Entry] = []
    _count: int = 0
    _attempts: int = 0
    _hold_s: float = 0.1
    _now: float = 0.0
    _lax: int | None = None  # the least urgent rank that was ever queued
    _ahead_s: float | None = (
        None  # of the leases of an overtaken worker: those that are not overtaken
    )

    def enqueue(self, batch: OpenBatch, spans: Iterable[tuple[int, int]], *, resumes: bool) -> None:
        """Make items ready; with `resumes`, those with a history go first."""
        kids: list[int] = []
        for start, stop in spans:
            if resumes:
                kids += self.state.kids_within(batch.parent.path, batch.call, start, stop)
            if batch.ready:
                self.ready -= available(batch, start, stop)
            batch.ready.add(start, stop)
            self.ready += (
                stop - start if batch.held_back_except is None else available(batch, start, stop)
            )
        for index in kids:
            heapq.heappush(batch.resumed, index)
        if batch.ready and (not batch.queued or kids):
            self._push(batch, resumes=bool(kids))

    def open(self, parent: ParentFacts, facts: Batch) -> OpenBatch:
        """Return the record of an unfinished batch; make it on first use."""
        found = self.batches.get(facts)
        if found is None:
            found = self.batches[facts] = OpenBatch(parent, facts)
        return found

    def find(self, path: str, call: int) -> OpenBatch | None:
        """Return an unfinished batch, by its place."""
        parent = self.state.parents.get(path)
        facts = None if parent is None else parent.batches.get(call)
        return None if parent is None or facts is None else self.open(parent, facts)

    def lease_of(self, path: str) -> Lease | None:
        """Return the lease in which the future at `path` runs."""
        place = ids.parse_item(path)
        if place is None:
            return None
        batch = self.find(*place[:2])
        if batch is None:
            return None
        return next((lease for lease in batch.leases if place[2] in lease.left), None)

    def close(self, batch: OpenBatch) -> None:
        """Drop a batch that is done or gone, without ready or leased items."""
        self.batches.pop(batch.facts, None)

    def enqueue_whole(self, parent: ParentFacts, facts: Batch) -> None:
        """Make all items of a new batch ready."""
        batch = self.batches[facts] = OpenBatch(parent, facts)
        piece = facts.pieces[0]
        batch.asked, count = piece.fn, piece.stop
        self.ready += count
        batch.ready.add(0, count)
        self._push(batch, resumes=False)

    def withdraw(self, batch: OpenBatch, start: int, stop: int) -> None:
        """Make items not ready (canceled, done, or held by a worker after all)."""
        ready = batch.ready
        self.ready -= available(batch, start, stop)
        ready.discard(start, stop)

    def release(self) -> None:
        """Release held-back items until the next check."""
        for batch, more in self.held.release():
            self.ready += more
            if batch.ready and not batch.queued:
                self._push(batch, resumes=bool(batch.resumed))

    def _push(self, batch: OpenBatch, *, resumes: bool) -> None:
        self._count += 1
        batch.queued = True
        batch.place = (
            batch.place or self._count
        )  # items that come back go before later batches (Q4)
        pieces = batch.facts.pieces
        piece = pieces[0] if len(pieces) == 1 else batch.facts.piece_at(batch.ready.starts[0])
        urgency = -self.options(piece.fn).priority if piece is not None else 0
        if self._lax is None or urgency > self._lax:
            self._lax = urgency
        leaf, depth = 0 if resumes else 1, batch.parent.depth
        heapq.heappush(self._queue, Entry(urgency, leaf, -depth, batch.place, self._count, batch))

    def options(self, fn: bytes) -> Options:
        """Return the options of a function; plain ones while its definition is not known."""
        define = self.state.defines.get(fn)
        return _PLAIN if define is None else define.options

    @property
    def last_attempt(self) -> Attempt:
        """The last attempt that was made."""
        return Attempt(self.epoch, self._attempts)

    def next_attempt(self) -> Attempt:
        """Return a new attempt's identity."""
        self._attempts += 1
        return Attempt(self.epoch, self._attempts)

    def choose(self, now: float) -> tuple[Peer, list[Slice]] | None:
        """Return a worker with room and slices for it, leased; None when there is nothing to do."""
        self._hold_s, self._now, self._ahead_s = self._target_s(), now, None
        peer = self._roomiest()
        if peer is None and self.ready:
            peer = self._overtaken()
        if peer is None or not self.ready:
            return None
        share = max(1, -(-self.ready // (2 * len(self.workers))))
        slices: list[Slice] = []
        room_bytes = self.config.grant_bytes_max
        while share > 0 and room_bytes > 0 and self.ready and (not slices or self._has_room(peer)):
            chosen = self._take(peer, share, room_bytes, now)
            if chosen is None:
                break
            slices.append(chosen)
            share -= len(chosen.task.digests) // ids.DIGEST_BYTES
            room_bytes -= sum(map(len, chosen.task.args))
        return (peer, slices) if slices else None

    def _target_s(self) -> float:
        """Return how much work a worker may hold: less as fewer items are ready.

        So all workers finish at about the same time, although a worker's unreported work is unknown
        here.
        """
        slice_s = self.config.slice_s
        if not self._queue or not self.workers:
            return slice_s
        pieces = self._queue[0].batch.facts.pieces
        estimate = self.estimates.get(pieces[0].fn) if pieces else None
        if estimate is None:
            return slice_s
        left_s = estimate.mean_s * self.ready / (2 * len(self.workers))
        return min(slice_s, max(self.config.slice_s_min, left_s))

    def _roomiest(self) -> Peer | None:
        """Return the worker with room that holds the least; of equal ones the one that came first."""
        best, least_s = None, inf
        hold_s, prefetch_s = self._hold_s, self.config.prefetch_s
        for peer in self.workers.values():  # as `_has_room`, but for thousands of workers
            load_s, items = peer.load_s, peer.items
            if load_s >= least_s or peer.stuck or (items > 0 and self._is_long(peer)):
                continue
            if load_s < hold_s + peer.lag_s or (items == 1 and load_s < prefetch_s):
                best, least_s = peer, load_s
                if not load_s:
                    break
        return best

    def _overtaken(self) -> Peer | None:
        """Return a full worker that holds work less urgent than the head of the queue."""
        head = self._head()
        if head is None or self._lax is None or head[0].urgency >= self._lax:
            return None
        urgent = head[0].urgency
        best: Peer | None = None
        for peer in self.workers.values():
            held = [(lease.urgency, lease.busy() * lease.item_s) for lease in peer.leases.values()]
            lax = max((urgency for urgency, _ in held), default=urgent)
            if peer.stuck or self._is_long(peer) or urgent >= lax:
                continue
            ahead_s = sum(load_s for urgency, load_s in held if urgency < lax)
            if ahead_s < (self._hold_s if self._ahead_s is None else self._ahead_s):
                best, self._ahead_s = peer, ahead_s
        return best

    def _is_long(self, peer: Peer) -> bool:
        """Return whether the running item of a worker takes long."""
        return peer.items > 0 and self._now - peer.moved_at > self.config.prefetch_s

    def evict(self, lease: Lease, index: int, tries: int = 0) -> bool:
        """Move a parked item to another worker, if one has room; return whether it will.

        An item that must not be started twice stays.
        """
        if index not in lease.parked:
            return False
        lease.peer.stuck = True
        if not self.options(lease.fn).idempotent or self._roomiest() is None:
            return False
        self._move(lease, index, tries)
        return True

    def move(self, lease: Lease, index: int) -> bool:
        """Make a parked item ready again, for another host; return whether it may be moved."""
        if not self.options(lease.fn).idempotent:
            return False
        _, tries = lease.limits.get(index, (0.0, 0))
        self._move(lease, index, tries)
        return True

    def _move(self, lease: Lease, index: int, tries: int) -> None:
        if tries:
            tried = lease.batch.tried = lease.batch.tried or {}
            tried[index] = tried.get(index, 0) + tries
        self.settle(lease, index, index + 1)
        self.enqueue(lease.batch, [(index, index + 1)], resumes=True)

    def _has_room(self, peer: Peer) -> bool:
        if peer.stuck or self._is_long(peer):
            return False
        if peer.load_s < self._hold_s + peer.lag_s:
            return True
        return peer.items == 1 and peer.load_s < self.config.prefetch_s

    def _take(self, peer: Peer, share: int, room_bytes: int, now: float) -> Slice | None:
        head = self._head()
        if head is None:
            assert not self.ready, "Q1 ready items without a place in the queue"
            return None
        batch = head[0].batch
        chosen = self._slice(batch, head[1], peer, share, room_bytes, now)
        if not batch.ready:
            heapq.heappop(self._queue)
            batch.queued = False
        return chosen

    def _head(self) -> tuple[Entry, int] | None:
        """Return the head of the queue, and which of its items; drop entries without items."""
        while self._queue:
            entry = self._queue[0]
            batch = entry.batch
            if self.held.awaited.holds_back or batch.held_back_except is not None:
                self.ready += self.held.look(batch)
            if batch.held_back_except is not None:
                start = min((i for i in batch.held_back_except if i in batch.ready), default=None)
            elif entry.leaf == 0:
                start = self._first_resumed(batch)
            else:
                start = batch.ready.starts[0] if batch.ready else None
            if start is not None:
                return entry, start
            heapq.heappop(self._queue)
            batch.queued = False
            if batch.ready and batch.held_back_except is None:
                self._push(batch, resumes=False)
        return None

    def _first_resumed(self, batch: OpenBatch) -> int | None:
        while batch.resumed and batch.resumed[0] not in batch.ready:
            heapq.heappop(batch.resumed)
        return batch.resumed[0] if batch.resumed else None

    def _slice(
        self, batch: OpenBatch, start: int, peer: Peer, share: int, room_bytes: int, now: float
    ) -> Slice:
        facts = batch.facts
        piece = facts.pieces[0] if len(facts.pieces) == 1 else facts.piece_at(start)
        assert piece is not None, f"S1 {batch.parent.path}.{batch.call}[{start}]"
        options = self.options(piece.fn)
        item_s, most = self._size(piece.fn, peer)
        kid_items = self.state.kid_items
        kids = kid_items.get((batch.parent.path, batch.call)) if kid_items else None
        replay = kids is not None and start in kids
        if not options.idempotent or replay or batch.held_back_except is not None:
            most = 1
        end = batch.ready.end_of(start)
        stop = min(end, piece.stop, start + min(most, share))
        if kids and not replay:
            # The first item with a history cuts the slice: it is sent alone.
            path, call = batch.parent.path, batch.call
            stop = min(self.state.kids_within(path, call, start + 1, stop), default=stop)
        progress, stop = self.state.progress.cut(batch.parent.path, batch.call, start, stop)
        args: list[bytes] = []
        if piece.args is not None:
            at = start - piece.start
            args = piece.args[at : at + stop - start]
            if len(args) > 1:
                stop = start + fitting(args, room_bytes)
                args = args[: stop - start]
        self.withdraw(batch, start, stop)
        left = Intervals.run(start, stop)
        attempt = self.next_attempt()
        urgency = -options.priority
        lease = self._hold(
            Lease(attempt, batch, left, peer, piece.fn, item_s, now, urgency=urgency)
        )
        crashes = batch.parent.crashes
        tries = len(crashes.get((batch.call, start), ())) if crashes else 0
        if progress is not None:
            tries = max(tries, progress.tries + 1)
        resume = None if progress is None or replay else progress.resume()
        whole = start == piece.start and stop == piece.stop
        task = Task(
            lease.attempt.no, batch.parent.path, batch.call, start, piece.fn,
            piece.digests if whole else facts.digests_of(start, stop), args, replay, tries,
            is_asked=bool(batch.asked),
        )  # fmt: skip
        return Slice(lease, task, piece, options, resume)

    def _size(self, fn: bytes, peer: Peer) -> tuple[float, int]:
        """Return (estimated seconds per item, items per slice)."""
        estimate = self.estimates.get(fn)
        if estimate is None:
            return self.config.slice_s / 2, 1
        item_s = max(estimate.mean_s, 1e-7)
        load_s = peer.load_s if self._ahead_s is None else self._ahead_s
        room_s = self._hold_s - min(max(0.0, load_s - peer.lag_s), self._hold_s)
        fits = int(room_s / item_s)
        return item_s, max(1, min(fits, 16 * estimate.samples, 100_000))

    def lease(
        self,
        attempt: Attempt,
        batch: OpenBatch,
        left: Intervals,
        peer: Peer,
        item_s: float,
        now: float,
    ) -> Lease:
        """Lease items, which are no longer ready, to a worker."""
        piece = batch.facts.piece_at(left.starts[0])
        assert piece is not None, f"S1 {batch.parent.path}.{batch.call}"
        urgency = -self.options(piece.fn).priority
        lease = Lease(attempt, batch, left, peer, piece.fn, item_s, now, urgency=urgency)
        return self._hold(lease)

    def _hold(self, lease: Lease) -> Lease:
        attempt, batch, left, peer = lease.attempt, lease.batch, lease.left, lease.peer
        if not peer.items:
            peer.moved_at = lease.granted_at
        peer.leases[attempt] = self.leases[attempt] = lease
        batch.leases.append(lease)
        if peer.given is not None:
            peer.given.give(lease)
        peer.take(lease, left.count())
        return lease

    def settle(self, lease: Lease, start: int, stop: int) -> None:
        """Remove items from a lease."""
        left = lease.left
        if not lease.parked and left.covers(start, stop):
            lease.peer.ease(lease, stop - start)
            left.discard(start, stop)
            if not left:
                self.end(lease)
            return
        for low, high in left.overlap(start, stop):
            parked = {i for i in lease.parked if low <= i < high} if lease.parked else ()
            lease.parked.difference_update(parked)
            lease.peer.ease(lease, high - low - len(parked))
        lease.left.discard(start, stop)
        if not lease.left:
            self.end(lease)

    def end(self, lease: Lease) -> None:
        """Drop a lease; the caller must handle its remaining items."""
        if self.leases.pop(lease.attempt, None) is not None:
            lease.peer.leases.pop(lease.attempt, None)
            lease.batch.leases.remove(lease)
            if lease.peer.given is not None:
                lease.peer.given.end(lease.attempt)
            if lease.left:
                lease.peer.ease(lease, lease.busy())

    def park(self, lease: Lease, index: int) -> None:
        """Note that an item waits for others and no longer occupies its worker."""
        if index in lease.left and index not in lease.parked:
            lease.parked.add(index)
            lease.peer.ease(lease, 1)

    def callables_in_use(self) -> set[bytes]:
        """Return the callables that open batches and leases name."""
        used = {piece.fn for batch in self.batches for piece in batch.pieces}
        return used.union(lease.fn for lease in self.leases.values())

    def forget_callables(self, gone: Collection[bytes]) -> None:
        """Keep nothing of callables that are dropped; workers are sent them again."""
        for fn in gone:
            self.estimates.pop(fn, None)
        for peer in self.workers.values():
            peer.functions.difference_update(gone)

    def measure(self, fn: bytes, items: int, spent_s: float) -> None:
        """Record how long items of a function took."""
        if items and spent_s >= 0:
            self.estimates.setdefault(fn, Estimate()).add(items, spent_s)

    def take_over(self, now: float) -> Lease | None:
        """Return a lease whose unstarted items should go to the queue or to an idle worker."""
        self._now = now
        if not self.leases:
            return None
        if self.ready or all(peer.items for peer in self.workers.values()):
            return self._queued_after_long()
        best: Lease | None = None
        most = 0.0
        for peer in self.workers.values():
            stuck = peer.items > 1 and now - peer.heard_at > self.config.slice_s
            if peer.items <= 1 or not (stuck or peer.load_s > self.config.slice_s / 4):
                continue
            begun = True  # most likely, the first of them is running
            for lease in peer.leases.values():
                worth = lease.busy() * lease.item_s
                if begun and lease.busy() == 1:
                    worth /= 1e6  # nothing can be taken from it
                begun = begun and not lease.busy()
                if not lease.retracting and worth > most:
                    best, most = lease, worth
        return best

    def _queued_after_long(self) -> Lease | None:
        """Return a lease of a worker that has been executing one item for long, and holds others."""
        for peer in self.workers.values():
            if peer.items > 1 and self._is_long(peer):
                for lease in peer.leases.values():
                    if not lease.retracting and lease.busy():
                        return lease
        return None
