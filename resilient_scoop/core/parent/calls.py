"""A parent's calls: numbered in order, and settled by outcomes.

P1  An item is settled once, by an outcome whose fingerprint and digest are its own (NO-WRONG). One
that does not fit is doubted: the item is sent again, to be computed again, and this is reported, unless a
later record settles it: then an earlier resume has reported it.
P4  Arguments are kept until their item is settled wherever a stale outcome may still come: for
calls that an earlier attempt may have made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakValueDictionary

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.call import Call, OutcomeChunk, ReusedOutcome, Watch
from resilient_scoop.core.parent.held import HeldItems
from resilient_scoop.core.parent.moved import Moved
from resilient_scoop.core.parent.under_way import UnderWay
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from resilient_scoop.core.parent.by_content import ByContent
    from resilient_scoop.core.parent.judge import Judge

_WIDTH = ids.DIGEST_BYTES


class ParentCalls:
    """The calls of one attempt at a parent."""

    __slots__ = (
        "_judge", "_unread", "ahead", "arrivals", "by_content", "held", "moved", "next", "open",
        "recovered", "settled", "skipped", "sought", "under_way", "watches",
    )  # fmt: skip

    def __init__(self, judge: Judge, by_content: ByContent | None = None) -> None:
        self._judge = judge
        self.next = 0  # the number of the next call
        self.by_content = by_content  # if set, it gives the numbers
        self.open: dict[int, Call] = {}  # calls with items that are not settled, or not made
        self.held = HeldItems()  # items that wait for the end of the history
        self.ahead: dict[
            int, list[wire.Outcome]
        ] = {}  # outcomes of calls or items that are not made yet
        self.moved = Moved()  # outcomes that fit no place
        self.arrivals = 0
        self.settled = 0  # items
        self.recovered = 0  # of these, settled by the history
        self.under_way = UnderWay()
        self.skipped = Intervals()  # calls that this attempt has not made: a checkpoint covers them
        self.sought: set[int] = set()  # calls that only the history can settle (D8)
        self.watches: list[ReferenceType[Watch]] = []  # are notified of outcomes
        # By number: calls with results in files, while anything can still read them (D6).
        self._unread: WeakValueDictionary[int, Call] = WeakValueDictionary()

    def begin(self, fn: bytes, fingerprint: bytes) -> Call:
        """Open the next call."""
        number = self.next
        call = self.open[number] = Call(number, fn, fingerprint)
        self.next = number + 1
        return call

    def begin_found(self, fn: bytes, fingerprint: bytes, digests: bytes) -> Call:
        """Open the call of this content; `digests` are those of all its items."""
        assert self.by_content is not None, "this parent's calls have an order"
        number = self.by_content.number(fingerprint, digests)
        call = self.open[number] = Call(number, fn, fingerprint)
        return call

    def is_ahead(self, number: int) -> bool:
        """Return whether this attempt has not made the call of a number."""
        if self.by_content is not None:
            return not self.by_content.is_made(number)
        return number >= self.next

    def add(
        self,
        call: Call,
        digests: bytes,
        args: list[bytes],
        args_bytes: int,
        *,
        last: bool,
        files: dict[int, int] | None = None,
    ) -> wire.Part:
        """Add items to a call; return the parts to send. `files`: see `Parent.add`."""
        start = call.count
        self.under_way.add(call, len(args), args_bytes, files)
        call.count = stop = start + len(args)
        call.last = last
        call.digests += digests
        call.left.add(start, stop)
        return wire.Part(call.number, start, stop - start, call.fn, digests, last)

    def close_if_settled(self, call: Call) -> None:
        """Drop a settled call; code that waits for it holds a reference."""
        if call.last and not call.left:
            self.open.pop(call.number, None)

    def skip_to(self, number: int, pending: Container[int]) -> None:
        """Continue with a number; what came before is settled or `pending`."""
        if number > self.next:
            self.skipped.add(self.next, number)
            self.next = number
        for each in [n for n in self.ahead if n < self.next and n not in pending]:
            del self.ahead[each]

    def revive(self, number: int, fn: bytes, fingerprint: bytes, index: int, digest: bytes) -> Call:
        """Return a call that was made before a checkpoint and waits again for one of its items."""
        call = self.open.get(number)
        if call is None:
            if number not in self.skipped:
                self.sought.add(number)
            call = self.open[number] = Call(number, fn, fingerprint)
            call.last = True
        missing = index + 1 - call.count
        if missing > 0:
            call.count += missing
            call.digests += bytes(missing * _WIDTH)
        call.digests[index * _WIDTH : (index + 1) * _WIDTH] = digest
        call.left.add(index, index + 1)
        return call

    def made_here(self, number: int, index: int) -> Call | None:
        """Return the call under a number if this attempt has made it, with that item (D8)."""
        call = self.open.get(number)
        if call is None or number in self.skipped or number in self.sought or index >= call.count:
            return None
        return call

    def keep(self, outcome: wire.Outcome) -> None:
        """Keep an outcome of a call, or of items, that is not made yet."""
        self.ahead.setdefault(outcome.call, []).append(outcome)

    def settle(
        self, call: Call, outcome: wire.Outcome, *, recovering: bool
    ) -> Sequence[ReusedOutcome]:
        """Settle the items that an outcome fits; return the items that it does not fit (P1).

        `recovering`: it is the history's, or may be: only then items of the call may be held.
        """
        start, stop = outcome.start, outcome.start + len(outcome.values)
        if stop > call.count:
            if call.last:
                self.moved.note(outcome)  # the call has fewer items than it had
            else:
                self.keep(outcome)  # items not made yet (a lazy map)
            stop = call.count
        same = outcome.fingerprint == call.fingerprint or self._judge.reuses(
            outcome.fingerprint, call
        )
        doubts: list[ReusedOutcome] | None = None
        if same and call.last and call.left.is_run(start, stop) and outcome.digests == call.digests:
            self._put(call, outcome, start, stop, recovering)  # the whole call, as most are
            return ()
        for low, high in call.left.overlap(start, stop):
            theirs = ids.digests_of(outcome.digests, low - start, high - start)
            if same and theirs == ids.digests_of(call.digests, low, high):
                self._put(call, outcome, low, high, recovering)
                continue
            fitting = _fitting(call, outcome, low, high) if same else Intervals()
            doubts = doubts or []
            doubts += _doubts(outcome, fitting.gaps(low, high), same=same)
            for a, b in fitting:
                self._put(call, outcome, a, b, recovering)
        if doubts is None:
            return ()
        self.moved.diverged = True
        self.moved.note(outcome)
        return doubts

    def _put(
        self, call: Call, outcome: wire.Outcome, low: int, high: int, recovering: bool,  # noqa: FBT001 - called once per outcome
    ) -> None:  # fmt: skip
        self.arrivals += 1
        self.settled += high - low
        call.put(chunk := OutcomeChunk.of(outcome, low, high, self.arrivals))
        if chunk.has_files:
            self._unread[call.number] = call
        for reference in self.watches:
            watch = reference()
            if watch is not None:
                watch.hear(call.number)
        call.left.discard(low, high)
        self.under_way.end(call, low, high)
        if recovering:
            self.recovered += high - low
            self.held.settle(call.number, low, high)
        if call.args is not None:
            for index in range(low, high):
                call.args.pop(index, None)
        self.close_if_settled(call)

    def add_watch(self, watch: Watch) -> None:
        """Notify a watch of outcomes from now on, while it is referenced."""
        # A new list: another thread may be going through the old one.
        living = [each for each in self.watches if each() is not None]
        self.watches = [*living, ReferenceType(watch)]

    def abandon(self, call: Call) -> None:
        """Keep only what is left of a call: it is not read."""
        call.abandon()
        self.held.forget(call.number)
        self.ahead.pop(call.number, None)
        self._unread.pop(call.number, None)

    def abandoned(self) -> list[int]:
        """Return the calls that are not read and not over."""
        return [number for number, call in self.open.items() if call.abandoned]

    def drop(self, call: Call, start: int, stop: int) -> None:
        """Drop items of an unread call that are done, or will never be done."""
        for low, high in call.left.overlap(start, stop):
            call.left.discard(low, high)
            self.under_way.end(call, low, high)
        self.close_if_settled(call)

    def first_waited(self) -> int:
        """Return the first call that waits for outcomes, or the next one."""
        waited = [number for number, call in self.open.items() if call.left]
        return min(waited, default=self.next)

    def readable(self, since: int) -> list[int]:
        """Return the calls from a number on of which something may be read from the journal (D6)."""
        calls = self.open.items()
        open_ = {number for number, call in calls if call.count and not call.abandoned}
        return sorted(each for each in open_.union(self._unread) if each >= since)


def _fitting(call: Call, outcome: wire.Outcome, low: int, high: int) -> Intervals:
    """Return which of the items `[low, high)` an outcome fits, one by one."""
    found = Intervals()
    for index in range(low, high):
        at = index - outcome.start
        theirs = ids.digests_of(outcome.digests, at, at + 1)
        if theirs == ids.digests_of(call.digests, index, index + 1):
            found.add(index, index + 1)
    return found


def _doubts(
    outcome: wire.Outcome, spans: list[tuple[int, int]], *, same: bool
) -> list[ReusedOutcome]:
    # What depends on function and arguments only is not lost: it is found when it is asked for.
    took_s = 0.0 if outcome.pure else max(0.0, outcome.spent_s) / len(outcome.values)
    what = "its arguments differ" if same else "its code differs"
    return [ReusedOutcome(low, high, what, outcome.once, took_s) for low, high in spans]
