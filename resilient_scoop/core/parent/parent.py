"""A parent as a pure machine: it numbers its calls, replays what it was told, and records what it is told.

A parent that starts again runs its function from the top. Its history comes in pages, in the order
of commits. While more may come, calls are not sent; a page's outcome settles the items it fits, and
what no page settles is sent when the last page is there (items that are already under way are
recognized by the broker). So a replay costs no round trip per call.

  P1  An item is settled once, by an outcome whose fingerprint and digest are its own (NO-WRONG). One
      that does not fit makes the item `fresh`: it is sent again, to be computed again, and said,
      unless a later record settles it: then an earlier resume has said it.
  P2  Observations are numbered without gap; those of the history are used up in their order before a
      new one is made. One that does not fit its place ends the use of the history, and is said; the
      mark that is left ("rewind") lets a later replay of the same code go on behind it.
  P3  An observation leaves in the same bundle as whatever the parent does next, in front of it.
  P4  Arguments are kept until their item is settled wherever a stale outcome may still come: for
      calls that an earlier attempt may have made.

`reuse` and `recompute` say what to do with outcomes of functions whose code has changed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import ReferenceType

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent import unwanted
from resilient_scoop.core.parent.call import (
    Asked,
    Call,
    Chunk,
    Doubt,
    Policy,
    Watch,
    cut_out,
    with_fresh,
)
from resilient_scoop.core.parent.divergence import (
    judge,
    mind_moved,
    rewind_mark,
    rewound,
    say_moved,
    told_otherwise,
)
from resilient_scoop.core.parent.durable import Durable, end_look
from resilient_scoop.core.parent.moved import Moved, frames_of
from resilient_scoop.core.parent.once import Once
from resilient_scoop.core.parent.under_way import UnderWay
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.errors import ReplayDivergedError

__all__ = ["Call", "Chunk", "Parent", "Policy"]

_WIDTH = ids.DIGEST_BYTES
PART_ITEMS = 4096
PART_BYTES = 1 << 19
FAR = 1024  # calls behind the history, and as many again: nothing is looked for there any more
Told = wire.Outcomes | wire.Observed | wire.Checkpoint


@dataclass(slots=True)
class Parent:
    """One attempt at one parent."""

    path: str
    attempt: wire.Attempt
    replaying: bool = False  # pages of the history are still to come
    policy: Policy = field(default_factory=Policy)
    say: Callable[[str], None] = print
    name_of: Callable[[bytes], str] = bytes.hex  # function id -> name
    next_call: int = 0
    calls: dict[int, Call] = field(default_factory=dict)
    arrivals: int = 0
    under_way: UnderWay = field(default_factory=UnderWay)
    recovered: int = 0  # items settled from the history
    settled: int = 0  # items settled, those included
    after: int = 0
    catching_up: bool = False  # live, but the broker is new: outcomes may be missing
    page_asked: bool = False
    pages_asked: int = 0
    ahead: int = 0  # how much of what the parent has yet to do was known with the last page
    known_calls: int = 0
    output_known: int = 0
    next_observation: int = 0
    cancelled: bool | None = None  # the answer to `ask_cancel`
    refusal: ReplayDivergedError | None = None  # of a strict replay; it stands
    _asked: wire.Cancel | None = None  # not answered
    durable: Durable = field(default_factory=Durable)
    unwanted: deque[unwanted.Unwanted] = field(default_factory=deque)  # to be let go of
    abandoned: list[int] = field(default_factory=list)  # calls: the broker is not told yet
    watches: list[ReferenceType[Watch]] = field(default_factory=list)  # hear of outcomes
    once: Once = field(default_factory=Once)
    moved: Moved = field(default_factory=Moved)
    _recorded: deque[wire.Observation] = field(default_factory=deque)
    _told: list[wire.Observation] = field(default_factory=list)
    _stash: dict[int, list[wire.Outcome]] = field(default_factory=dict)
    _held: dict[int, list[Asked]] = field(default_factory=dict)
    discarded_s: float = 0.0  # what the outcomes took that nothing in the replay fits
    _doubted: set[int] = field(default_factory=set)  # calls that have items which nothing fits yet
    said: set[tuple[str, str]] = field(default_factory=set)  # differences, by function
    _parts: list[wire.Part] = field(default_factory=list)
    _args: list[bytes] = field(default_factory=list)
    _found: list[bytes] = field(default_factory=list)  # results for what is queued, as frames
    _args_bytes: int = 0
    _frames: list[bytes] = field(default_factory=list)

    # --- calls --------------------------------------------------------------------------------

    def begin(self, fn: bytes, fingerprint: bytes) -> Call:
        """Open the next call."""
        unwanted.let_go(self)
        call = Call(self.next_call, fn, fingerprint)
        self.next_call += 1
        self.calls[call.number] = call
        if call.number in self.durable.dropped:
            self.durable.lack(self, call)
        if self.replaying or call.number < self.known_calls:
            call.args = {}
        return call

    def add(
        self,
        call: Call,
        digests: bytes,
        args: list[bytes],
        *,
        last: bool,
        files: dict[int, int] | None = None,
    ) -> None:
        """Add items to a call; they are sent unless the history settles them.

        `files`: of those (by place in `args`) whose argument is a file, its size in bytes.
        """
        start, count = call.count, len(args)
        self.under_way.add(call, args, files)
        call.count += count
        call.last = last
        call.digests += digests
        call.left.add(start, start + count)
        part = wire.Part(call.number, start, count, call.fn, digests, last)
        if call.args is None:
            self._send(call, part, args)
            if call.moved and last:
                say_moved(self, call)
            self.close_if_settled(call)
            return
        call.args.update(zip(range(start, start + count), args, strict=True))
        self._held.setdefault(call.number, []).append((part, args))
        for outcome in self._stash.pop(call.number, ()):
            self._settle(call, outcome)
        if not self.replaying:
            self._judge()
            self._release(call.number)
        self.close_if_settled(call)

    def _release(self, number: int) -> None:
        """Send what was held of a call and nothing has settled."""
        call = self.calls.get(number)
        for part, args in self._held.pop(number, ()):
            if call is None:  # it has no items (left): this tells its end
                self._queue(part, args)
                continue
            for piece, piece_args in with_fresh(part, args, call.fresh):
                self._send(call, piece, piece_args)
        if call is not None and call.moved and call.last:
            say_moved(self, call)

    def close_if_settled(self, call: Call) -> None:
        """Keep nothing of a call that is settled; whoever waits for it holds it."""
        if call.last and not call.left:
            self.calls.pop(call.number, None)

    def _queue(self, part: wire.Part, args: list[bytes]) -> None:
        self._parts.append(part)
        self._args += args
        self._args_bytes += sum(map(len, args))
        if len(self._args) >= PART_ITEMS or self._args_bytes >= PART_BYTES:
            self._seal()

    def _seal(self) -> None:
        """Turn what is queued into frames, observations in front (P3)."""
        if self._told:
            self._frames.append(self.once.seal(self, self._told))
            self._told = []
        if self._parts:
            self._frames.append(wire.encode(wire.Calls(self.path, self.attempt, self._parts)))
            self._frames.append(wire.encode(wire.Args(self._args)))
            self._parts, self._args, self._args_bytes = [], [], 0
            self._frames += self._found
            self._found = []

    @property
    def queued(self) -> int:
        """How many items wait to be sent."""
        given_up = len(self.unwanted) + (0 if self.replaying else len(self.abandoned))
        return len(self._args) + len(self._parts) + len(self._frames) + given_up

    @property
    def has_told(self) -> bool:
        """Whether observations wait to be sent."""
        return bool(self._told)

    def frames(self) -> list[bytes]:
        """Return what is to be sent, in order, once."""
        unwanted.let_go(self)
        self._seal()
        frames, self._frames = self._frames + unwanted.frames(self), []
        return frames

    # --- outcomes -----------------------------------------------------------------------------

    def add_watch(self, watch: Watch) -> None:
        """Have a watch hear of outcomes from now on, as long as somebody holds it."""
        # A new list: another thread may be going through the old one.
        living = [each for each in self.watches if each() is not None]
        self.watches = [*living, ReferenceType(watch)]

    def outcomes(self, outcomes: wire.Outcomes) -> None:
        """Take in outcomes, live or from the history."""
        for outcome in outcomes.items:
            call = self.calls.get(outcome.call)
            if outcome.call < 0:
                self.moved.note(outcome)
            elif call is not None and call.abandoned:
                unwanted.drop(self, call, outcome.start, outcome.start + len(outcome.values))
            elif call is not None:
                self._settle(call, outcome)
            elif outcome.call >= self.next_call:
                self._stash.setdefault(outcome.call, []).append(outcome)
        if self._doubted and not self.replaying:
            self._judge()

    def _settle(self, call: Call, outcome: wire.Outcome) -> None:
        start, stop = outcome.start, outcome.start + len(outcome.values)
        if stop > call.count and not call.last:
            # Items not made yet (a lazy map): keep the outcome until they are.
            self._stash.setdefault(call.number, []).append(outcome)
        elif stop > call.count:
            self.moved.note(outcome)  # the call has fewer items than it had
        then, now = outcome.fingerprint, call.fingerprint
        same = then == now or self.policy.reuses(then, now, self.name_of(call.fn))
        for low, high in call.left.overlap(start, min(stop, call.count)):
            theirs = outcome.digests[(low - start) * _WIDTH : (high - start) * _WIDTH]
            if same and theirs == call.digests[low * _WIDTH : high * _WIDTH]:
                self._put(call, outcome, low, high)
            else:
                self._settle_each(call, outcome, low, high, same=same)

    def _settle_each(
        self, call: Call, outcome: wire.Outcome, low: int, high: int, *, same: bool
    ) -> None:
        """As `_settle` where some items differ (P1)."""
        fitting = Intervals()
        for index in range(low, high) if same else ():
            at = index - outcome.start
            theirs = outcome.digests[at * _WIDTH : (at + 1) * _WIDTH]
            if theirs == call.digests[index * _WIDTH : (index + 1) * _WIDTH]:
                fitting.add(index, index + 1)
        self.moved.note(outcome)
        self.moved.diverged = True
        # What depends on function and arguments only is not lost: it is found when it is asked for.
        took_s = 0.0 if outcome.pure else max(0.0, outcome.spent_s) / len(outcome.values)
        what = "its arguments differ" if same else "its code differs"
        for start, stop in fitting.gaps(low, high):
            self._refresh(call, Doubt(start, stop, what, outcome.once, took_s))
        for start, stop in fitting:
            self._put(call, outcome, start, stop)

    def _refresh(self, call: Call, doubt: Doubt) -> None:
        """Have items computed again whose journaled outcomes are other calls'."""
        call.doubts += (doubt,)
        self._doubted.add(call.number)
        if self.policy.strict or call.args is None:
            return
        for start, stop in call.ask_anew(doubt.low, doubt.high):  # never asked for twice
            for a, b in self._not_held(call, start, stop):
                digests = bytes(call.digests[a * _WIDTH : b * _WIDTH])
                last = call.last and b == call.count
                part = wire.Part(call.number, a, b - a, call.fn, digests, last, fresh=True)
                self._send(call, part, [call.args[index] for index in range(a, b)])

    def _not_held(self, call: Call, low: int, high: int) -> list[tuple[int, int]]:
        """Return which items have been sent; those that are held are sent as they are by then."""
        if self.replaying:
            return []
        held = self._held.get(call.number, ())
        return Intervals((part.start, part.start + part.count) for part, _ in held).gaps(low, high)

    def _send(self, call: Call, part: wire.Part, args: list[bytes]) -> None:
        """Ask for items, and bring the results of those that have one at another place (V4)."""
        if self.moved.diverged:
            mind_moved(self, call, part)
        self._queue(part, args)
        if self.moved.runs and call.number > 2 * self.known_calls + FAR:
            self.moved.clear()
        if self.moved.runs:
            self.moved.note_ahead(self._stash)
            found = self.moved.found(call, part)
            self._found += frames_of(self.path, found)
            call.moved += sum(len(each.values) for each in found)

    def _judge(self) -> None:
        """Say, or refuse, what nothing in the history fits."""
        judge(self, self._doubted)

    def _put(self, call: Call, outcome: wire.Outcome, low: int, high: int) -> None:
        self.arrivals += 1
        self.settled += high - low
        call.put(chunk := Chunk.of(outcome, low, high, self.arrivals))
        if chunk.has_files:
            self.durable.unread[call.number] = call
        for reference in self.watches:
            watch = reference()
            if watch is not None:
                watch.hear(call.number)
        call.left.discard(low, high)
        self.under_way.end(call, low, high)
        if self.replaying or self.catching_up or call.number in self._held:
            self.recovered += high - low
            self._unhold(call.number, low, high)
        if call.args is not None:
            for index in range(low, high):
                call.args.pop(index, None)
        self.close_if_settled(call)

    def _unhold(self, number: int, low: int, high: int) -> None:
        """Take settled items out of what waits for the end of the history."""
        if kept := cut_out(self._held.pop(number, ()), low, high):
            self._held[number] = kept

    # --- history ------------------------------------------------------------------------------

    def page_wanted(self, *, early: bool = False) -> bytes | None:
        """Return the frame that asks for the next page, if one is to be asked for now.

        `early`: nobody waits for it yet; half of the page before is to be used up first.
        """
        known = len(self._stash) + len(self._recorded)
        due = not early or (self.replaying and 2 * known <= self.ahead)
        if self.page_asked or not (self.replaying or self.catching_up) or not due:
            return None
        self.page_asked, self.pages_asked = True, self.pages_asked + 1
        waited = [number for number, call in self.calls.items() if call.left]
        first = 0 if self.replaying else min(waited, default=self.next_call)
        no = self.pages_asked
        return wire.encode(wire.HistoryWanted(self.path, self.attempt, self.after, first, no))

    def page(self, head: wire.History, records: list[Told]) -> None:
        """Take in a page, unless another one was asked for meanwhile (behind a cut)."""
        if head.no != self.pages_asked:
            return
        self.page_asked = False
        self.after = head.upto
        self.known_calls = max(self.known_calls, head.calls)
        self.output_known = max(self.output_known, head.output_bytes)
        self.durable.page(head)
        for record in records:
            if isinstance(record, wire.Outcomes):
                self.outcomes(record)
            elif self.replaying and isinstance(record, wire.Checkpoint):
                self.durable.take(record)
            elif self.replaying and isinstance(record, wire.Observed):
                known = self._recorded[-1].no + 1 if self._recorded else self.next_observation
                self._recorded += [each for each in record.observations if each.no >= known]
        self.ahead = len(self._stash) + len(self._recorded)
        if head.last:
            self.catching_up = False
            if self.replaying:
                self._go_live()
            end_look(self)

    def _go_live(self) -> None:
        """The history is at its end: ask for what it did not settle."""
        self._judge()
        self.replaying = False
        for number in sorted(self._held):
            self._release(number)

    def reconnect(self) -> None:
        """The broker is a new one: what it sent last may be lost."""
        self.page_asked = False
        if not self.replaying:
            self.catching_up, self.after = True, 0
        self._frames += self.once.ask_again(self)
        self.abandoned = unwanted.to_tell_again(self)
        if self._asked is not None:
            self._frames.append(wire.encode(self._asked))

    # --- cancellation -------------------------------------------------------------------------

    def ask_cancel(self, call: int, index: int) -> None:
        """Ask to have an item cancelled; the answer comes as `cancelled`. Who asks, waits for it."""
        self.cancelled = None
        self._asked = wire.Cancel(self.path, self.attempt, call, index)
        self._seal()  # the call itself goes in front
        self._frames.append(wire.encode(self._asked))

    def cancel_answered(self, answer: wire.CancelAnswer) -> None:
        """Take in an answer; one that nobody waits for changes nothing."""
        asked = self._asked
        if asked is not None and (asked.call, asked.index) == (answer.call, answer.index):
            self._asked, self.cancelled = None, answer.cancelled

    # --- observations -------------------------------------------------------------------------

    def needs_page(self) -> bool:
        """Tell whether the next observation may be on a page that is not here."""
        return self.replaying and not self._recorded

    @property
    def retelling(self) -> bool:
        """Whether the parent is still told what an earlier attempt was told."""
        return self.replaying or bool(self._recorded)

    def recall(self, kind: str) -> bytes | None:
        """Return the recorded answer for this point, or None if there is none to keep to.

        Call it only when `needs_page` is false.
        """
        if not self._recorded:
            return None
        first = self._recorded[0]
        if (first.kind, first.at_call) == (kind, self.next_call):
            self._recorded.popleft()
            self.next_observation = first.no + 1
            return first.answer
        if self.replaying:
            return None  # the caller pages to the end first; see `diverged`
        return self._diverge(first, kind)

    def diverged(self, kind: str) -> bool:
        """Tell whether the next recorded observation is of another place than this one."""
        first = self._recorded[0] if self._recorded else None
        return first is not None and (first.kind, first.at_call) != (kind, self.next_call)

    def _diverge(self, first: wire.Observation, kind: str) -> bytes | None:
        if rewound(self._recorded, first):
            return self.recall(kind)
        end = self._recorded[-1].no + 1
        told_otherwise(self, first, kind)
        self._recorded.clear()
        self.next_observation = end
        self.observe(*rewind_mark(first))
        return None

    def observe(self, kind: str, answer: bytes) -> None:
        """Record what the parent is told."""
        told = wire.Observation(self.next_observation, kind, self.next_call, answer)
        self.next_observation += 1
        self._told.append(told)
