"""A parent that is replayed against its journal only, to find differences and the end of its history.

It is the machine of `core.parent.parent` itself; its owner reads the journal and gives it the pages of the
history. What is added is a comparison, made at the moment at which the parent does something:

  RP1  A call is compared with what the journal says was asked under its number: function, count,
      arguments. One above all journaled numbers lies beyond the end of the history.
  RP2  An observation that is asked for where none was recorded is a difference if the journal has
      later calls (it would have been journaled with the next of them), else the history's end.
  RP3  Nothing is computed and no new answer is given: at the end of the history the parent stops.
  RP4  A call below others that the journal knows, and unknown itself, was lost and left out by a repair:
      the history of a parent that is not done ends there, and one that is done has no whole history.
  RP5  The end is where the attempt that ended has recorded it, not where an attempt of other code ended.

The first difference, or the end, goes to `halt`, which must not return.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.batch import Batch, Piece
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.core.parent.once import KIND, Begun
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.counts import counted
from resilient_scoop.errors import InvariantError, ReplayDivergedError
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.checkpoints import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.core.parent.history import HistoryRecord, Question


class End(msgspec.Struct, frozen=True):
    """Why a replay stops. `expected` is empty where it is no difference."""

    what: str  # "history", or what differs: call, arguments, code, observation, output, input, end
    expected: str
    found: str
    call: int = -1
    item: int = -1  # of the first one that differs
    piece: Piece | None = None  # where the journal has that item's arguments
    arg: bytes | None = None  # what it is now, pickled

    @property
    def differs(self) -> bool:
        """Whether the replay did not do what the journal says."""
        return self.what != "history"


@dataclass(slots=True)
class RecordedCalls(LogVisitor):
    """The recorded calls of one parent, and the checkpoints that cover erased ones: a fold of its log."""

    path: str
    defines: dict[bytes, wire.Define]
    calls: dict[int, Batch] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)  # of calls whose last item is known
    abandoned: dict[int, Intervals] = field(default_factory=dict)  # items that were not read
    seq: int = 0  # of the record that is being added
    upto: int = 0
    checkpoints: list[Mark] = field(default_factory=list)
    covered: int = 0  # the number above every call that a checkpoint covers
    dropped: Intervals = field(default_factory=Intervals)  # calls that were trimmed
    trimmed_by: list[tuple[str, int]] = field(default_factory=list)

    def take(self, seq: int, record: wire.Logged) -> None:
        """Add a record; one that is not about calls or their end changes nothing."""
        self.seq = seq
        self.visit(record)

    def asked(self, _parent: str, part: wire.Part, offset: int) -> None:
        """Remember items of a call."""
        self.dropped.discard(part.call, part.call + 1)  # it was called again
        batch = self.calls.get(part.call)
        if batch is None:
            batch = self.calls[part.call] = Batch(part.call)
        stop = part.start + part.count
        if part.call in self.abandoned:
            self.abandoned[part.call].discard(part.start, stop)
        if part.count:
            batch.put(Piece(part.start, stop, part.fn, part.digests, self.seq, offset))

    def cut_off(self, _parent: str, call: int, stop: int) -> None:
        """Remember where a call ends."""
        self.calls[call].cut_away(stop, 1 << 62)
        self.sizes[call] = stop

    def saved(self, record: wire.Checkpoint) -> None:
        """Remember a checkpoint."""
        self.checkpoints.append(Mark(record.name, record.opening, record.gen))
        self.covered = max(self.covered, record.calls)

    def given_up(self, record: wire.Abandoned) -> None:
        """Remember which items were not read."""
        for low, high in record.spans:
            self.abandoned.setdefault(record.call, Intervals()).add(low, high)

    def trimmed(self, record: wire.Trimmed) -> None:
        """Forget calls whose records may be half erased."""
        self.dropped = Intervals(record.calls)
        self.trimmed_by = list(record.blocks)
        for number in [each for each in self.calls if each in self.dropped]:
            del self.calls[number]
            self.sizes.pop(number, None)

    @property
    def next_call(self) -> int:
        """The number above every call that is known."""
        gone = self.dropped.stops[-1] if self.dropped else 0
        return max(max(self.calls, default=-1) + 1, gone, self.covered)

    def name(self, fn: bytes) -> str:
        """Return a function's name, for display."""
        define = self.defines.get(fn)
        return fn.hex() if define is None else define.options.name or define.name

    def fingerprint(self, fn: bytes) -> bytes:
        """Return a function's fingerprint; an unknown id stands for itself."""
        define = self.defines.get(fn)
        return fn if define is None else define.fingerprint

    def describe(self, number: int) -> str:
        """Return the recorded call of a number, for display."""
        if number not in self.calls:
            return "what a checkpoint covers"
        pieces = self.calls[number].pieces
        name = short(self.name(pieces[0].fn)) if pieces else "nothing"
        size = self.sizes.get(number)
        known = pieces[-1].stop if pieces else 0
        return (
            f"{name}, {counted(size, 'item')}"
            if size is not None
            else f"{name}, {counted(known, 'item')} or more"
        )


class Replayed(Parent):
    """One parent, replayed."""

    def __init__(
        self,
        attempt: wire.Attempt,
        asked: RecordedCalls,
        reuse: Iterable[str],
        halt: Callable[[End], NoReturn],
        name_of: Callable[[bytes], str],
    ) -> None:
        super().__init__(
            asked.path, attempt, replaying=True,
            policy=Policy(strict=True, reuse=tuple(reuse)), name_of=name_of,
        )  # fmt: skip
        self.asked = asked
        self.halt = halt
        self.observed_count = 0
        self.once.watch = self._watch_once
        self.history.known_calls = asked.next_call  # an earlier attempt made them (P4)
        self.ended = False  # the journal has the parent's end: it may do no more than is there
        self.last_call = asked.next_call  # above all calls, and observations, before that end
        self.last_observation = 1 << 62

    def end_at(self, calls: int, observations: int) -> None:
        """Note the journaled end: after this number of calls and observations; -1: all (RP5)."""
        self.ended = True
        if calls >= 0:
            self.last_call, self.last_observation = calls, observations

    def begin(self, fn: bytes, fingerprint: bytes) -> Call:
        """Open the next call, unless a checkpoint covers it."""
        number = self.calls.next
        try:
            return super().begin(fn, fingerprint)
        except ReplayDivergedError as error:
            self._differ("call", error.expected, short(self.judge.name_of(fn)), number)

    def add(
        self,
        call: Call,
        digests: bytes,
        args: list[bytes],
        *,
        last: bool,
        files: dict[int, int] | None = None,
    ) -> None:
        """Add items to a call, once they are found to be those of the journal."""
        batch = self.asked.calls.get(call.number)
        if batch is None or (self.ended and call.number >= self.last_call):
            self._look_for(call)
        else:
            self._compare(call, batch, digests, args, last=last)
        try:
            super().add(call, digests, args, last=last, files=files)
        except ReplayDivergedError as error:
            self._differ("code", error.expected, error.found, call.number)

    def _look_for(self, call: Call) -> None:
        """Halt at a call that the journal does not know, unless it lies beyond the end (RP1, RP4)."""
        found = f"call {self._at(call.number)} of {short(self.judge.name_of(call.fn))}"
        is_missing = call.number < self.last_call
        if self.ended:
            expected = (
                "a call that a repair of the journal left out" if is_missing else "no such call"
            )
            self._differ("call", expected, found, call.number)
        if is_missing:
            so = "which a repair of the journal left out: what follows cannot be compared"
            self.halt(End("history", "", f"makes {found}, {so}", call.number))

    def _compare(
        self, call: Call, batch: Batch, digests: bytes, args: list[bytes], *, last: bool
    ) -> None:
        number, stop = call.number, call.count + len(args)
        size, name = self.asked.sizes.get(number), short(self.judge.name_of(call.fn))
        if batch.pieces and short(self.asked.name(batch.pieces[0].fn)) != name:
            self._differ(
                "call", self.asked.describe(number), f"{name}, {counted(stop, 'item')}", number
            )
        for index in () if self._same(batch, call, stop, digests) else range(call.count, stop):
            piece = batch.piece_at(index)
            if piece is not None:
                at = index - call.count
                self._compare_item(
                    call, piece, index, ids.digests_of(digests, at, at + 1), args[at]
                )
        too_many = size is not None and stop > size
        if too_many or (last and size is not None and stop < size):
            more = "" if last else " or more"
            self._differ(
                "call",
                self.asked.describe(number),
                f"{name}, {counted(stop, 'item')}{more}",
                number,
            )

    def _same(self, batch: Batch, call: Call, stop: int, digests: bytes) -> bool:
        """Return at once if all items are those of the journal, which is the usual case."""
        piece = batch.piece_at(call.count)
        if piece is None or piece.stop < stop or piece.fn != call.fn:
            return False
        at = call.count - piece.start
        return ids.digests_of(piece.digests, at, at + stop - call.count) == digests

    def _compare_item(
        self, call: Call, piece: Piece, index: int, digest: bytes, arg: bytes
    ) -> None:
        at = index - piece.start
        then, now = self.asked.fingerprint(piece.fn), call.fingerprint
        if then != now and not self.judge.policy.reuses(then, now, self.judge.name_of(call.fn)):
            name = short(self.judge.name_of(call.fn))
            self._differ("code", f"{name} as it was", f"{name} with other code", call.number, index)
        if ids.digests_of(piece.digests, at, at + 1) != digest:
            self.halt(
                End("arguments", "the argument that was journaled", "another", call.number, index,
                    piece, arg)
            )  # fmt: skip

    def page(self, head: wire.History, records: list[HistoryRecord]) -> None:
        """Handle a page."""
        try:
            super().page(head, records)
        except ReplayDivergedError as error:
            self._differ("code", error.expected, f"{error.found} ({error.path})")

    def recall(self, question: Question) -> bytes | None:
        """Return the recorded answer at this point; without one, the replay ends here (RP2, RP5)."""
        asks = f"`{question.whole}` before call {self.calls.next}"
        if self.ended and self.history.next_observation >= self.last_observation:
            self._differ("observation", "no answer here", asks)
        try:
            answer = super().recall(question)
        except ReplayDivergedError as error:
            self._differ("observation", error.expected, f"{error.found} at call {self.calls.next}")
        if answer is None and not self.history.replaying:
            if self.ended or self.calls.next < self.asked.next_call:
                self._differ("observation", "no answer here", asks)
            self.halt(
                End("history", "", f"asks for {asks}, which has no answer yet", self.calls.next)
            )
        self.observed_count += answer is not None
        return answer

    def _answer_of_others(self, _question: Question) -> bytes | None:
        """Return the recorded answer: a resume got it again for the calls of now (RP3)."""
        return self.history.use(_question, self.calls.next)

    def _watch_once(self, begun: Begun, is_recorded: bool) -> None:  # noqa: FBT001 - a hook
        """Halt at a `once` that has no answer: it ended in the middle of its function, or differs."""
        self.observed_count += is_recorded
        asks = f"`{KIND}` before call {begun.call}"
        has_once = any(each.kind.split(" ")[0] == KIND for each in self.history.recorded)
        if not is_recorded and (self.ended or has_once):
            self._differ("observation", "no answer here", asks)
        if not is_recorded:
            self.halt(
                End("history", "", f"asks for {asks}, whose function has not ended", begun.call)
            )

    def observe(self, kind: str, answer: bytes, rests_on: bytes = b"") -> None:
        """Refuse to record anything (RP3)."""
        del rests_on
        if kind != "rewind":
            raise InvariantError(f"RP3 a replay was told `{kind}` {answer!r}")

    def forget_given_up(self) -> None:
        """Drop calls that are not read: whether they end does not matter here (RP3)."""
        self.end_given_up()
        for number in self.given_up.take_to_tell():
            self.calls.open.pop(number, None)

    def is_drained(self) -> bool:
        """Return whether all calls are at their end; items that were given up have none (RP3)."""
        return not any(
            gap
            for call in self.calls.open.values()
            for low, high in call.left
            for gap in self.asked.abandoned.get(call.number, Intervals()).gaps(low, high)
        )

    def stand_still(self) -> NoReturn:
        """Halt because the parent waits for something that the journal does not have."""
        waits = [number for number, call in self.calls.open.items() if call.left]
        number = min(waits, default=self.calls.next)
        call = self.calls.open.get(number)
        index = call.left.starts[0] if call is not None and call.left else -1
        place = self._at(number) if index < 0 else f"{self._at(number)}[{index}]"
        found = f"waits for {place}, which has no outcome in the journal"
        if self.ended:
            self._differ("end", "an end without that", found, number)
        self.halt(End("history", "", found, number, index))

    def finish(self, found: str, *, failed: bool, journaled: str | None) -> None:
        """Compare the parent's end; `journaled` is how the journal says that it ended."""
        if self.calls.next < self.last_call:
            number = self.calls.next
            expected = f"call {self._at(number)} of {self.asked.describe(number)}"
            self._differ("end", expected, found)
        first = (
            self.history.recorded[0]
            if self.history.recorded and not self.history.replaying
            else None
        )
        if first is not None and first.no < self.last_observation:
            self._differ("end", f"`{first.kind}` at call {first.at_call}", found)
        if journaled is not None and journaled != found:
            self._differ("end", journaled, found)
        if journaled is None and failed:
            self._differ("end", "no error so far", found)

    def _at(self, number: int) -> str:
        return ids.batch_path(self.path, number)

    def _differ(
        self, what: str, expected: str, found: str, call: int = -1, item: int = -1
    ) -> NoReturn:
        self.halt(End(what, expected, found, call, item))


def short(name: str) -> str:
    """Return a function's name without its module."""
    return name.rpartition(":")[2]
