"""A parent as a pure machine: it numbers its calls, replays its history, and records new answers.

A parent that starts again runs its function from the top. Its history comes in pages, in the order
of commits. While more may arrive, calls are not sent; a page's outcome settles the items that it
fits, and items that no page settles are sent after the last page (the broker recognizes items that
already run). So a replay costs no round trip per call.

`Parent` is composed of parts that do not know each other, and connects them:

  history    pages, and observations that are told again (`core.parent.history`, P2)
  calls      the parent's own calls, and what settles them (`core.parent.calls`, P1 and P4)
  outgoing   what waits to be sent (`core.parent.outgoing`, P3)
  judge      what is said or refused where a replay differs (`core.parent.judge`)
  durable    open blocks and their checkpoints (`core.parent.durable`)
  once       answers that are told when they are durable (`core.parent.once`)
  given_up   calls whose results are not read (`core.parent.given_up`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilient_scoop import ids
from resilient_scoop.core.parent import once
from resilient_scoop.core.parent.awaited import AWAITED_BYTES, digest_of
from resilient_scoop.core.parent.by_content import ByContent
from resilient_scoop.core.parent.calls import ParentCalls
from resilient_scoop.core.parent.cancel_questions import CancelQuestions
from resilient_scoop.core.parent.durable import Durable, OpenBlock
from resilient_scoop.core.parent.given_up import GivenUp
from resilient_scoop.core.parent.held import with_fresh
from resilient_scoop.core.parent.history import (
    HistoryRecord,
    ParentHistory,
    Question,
    rewind_mark,
)
from resilient_scoop.core.parent.judge import Judge, Policy
from resilient_scoop.core.parent.moved import frames_of
from resilient_scoop.core.parent.once import Begun, Label, Once
from resilient_scoop.core.parent.outgoing import Outgoing
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from resilient_scoop.core.parent.call import Call, ReusedOutcome

FAR: Final = 1024
"""After this number of calls beyond the history, and as many again, no moved results are searched."""


class Parent:
    """One attempt of one parent."""

    __slots__ = (
        "attempt", "calls", "cancels", "durable", "given_up", "history", "judge", "once", "outgoing",
        "path",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        attempt: wire.Attempt,
        replaying: bool = False,  # noqa: FBT001, FBT002 - pages of the history are still to come
        policy: Policy | None = None,
        tell_user: Callable[[str], None] = print,
        name_of: Callable[[bytes], str] = bytes.hex,
    ) -> None:
        self.path = path
        self.attempt = attempt
        self.history = ParentHistory(replaying=replaying)
        self.judge = Judge(path, policy or Policy(), tell_user, name_of)
        self.calls = ParentCalls(self.judge, ByContent() if path == ids.SHARED else None)
        self.once = Once()
        self.outgoing = Outgoing(path, attempt, self.once)
        self.durable = Durable()
        self.given_up = GivenUp()
        self.cancels = CancelQuestions(path, attempt)

    def begin(self, fn: bytes, fingerprint: bytes) -> Call:
        """Open the next call."""
        if self.given_up.named:
            self.end_given_up()
        return self._opened(self.calls.begin(fn, fingerprint))

    def begin_found(self, fn: bytes, fingerprint: bytes, digests: bytes) -> Call:
        """Open a call that a replay finds by its content (`core.parent.by_content`)."""
        if self.given_up.named:
            self.end_given_up()
        return self._opened(self.calls.begin_found(fn, fingerprint, digests))

    def _opened(self, call: Call) -> Call:
        if self.durable.dropped and call.number in self.durable.dropped:
            self.judge.report_missing(call)
        history = self.history
        if history.replaying or call.number < history.known_calls:
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

        `files`: size in bytes by place in `args`, for arguments that are files.
        """
        calls = self.calls
        size = sum(map(len, args))
        part = calls.add(call, digests, args, size, last=last, files=files)
        if call.args is None:
            self._send(call, part, args, size)
            if last and call.moved:
                self.judge.report_moved(call)
        else:
            self._add_replayed(call, part, args)
        if last and not call.left:
            calls.close_if_settled(call)

    def _add_replayed(self, call: Call, part: wire.Part, args: list[bytes]) -> None:
        """Add items that an earlier attempt may have called."""
        assert call.args is not None, "P4"
        calls = self.calls
        call.args.update(enumerate(args, part.start))
        calls.held.hold(part, args)
        for outcome in calls.ahead.pop(call.number, ()):
            self._settle(call, outcome, recovering=True)
        if not self.history.replaying:
            self.judge.judge(calls.open, calls.sought)
            self._release(call.number)

    def _release(self, number: int) -> None:
        """Send the held items of a call that nothing has settled."""
        call = self.calls.open.get(number)
        for part, args in self.calls.held.take(number):
            if call is None:  # it has no items (left): this sends its end
                self.outgoing.queue(part, args, sum(map(len, args)))
                continue
            for piece, piece_args in with_fresh(part, args, call.fresh):
                self._send(call, piece, piece_args, sum(map(len, piece_args)))
        if call is not None and call.moved and call.last:
            self.judge.report_moved(call)

    def _send(self, call: Call, part: wire.Part, args: list[bytes], args_bytes: int) -> None:
        """Send items, with the results of those that have one at another place (V4)."""
        calls = self.calls
        if calls.moved.diverged:
            self.judge.mind_moved(call, part, calls.ahead)
        self.outgoing.queue(part, args, args_bytes)
        if calls.moved.runs:
            self._bring_moved(call, part)

    def _bring_moved(self, call: Call, part: wire.Part) -> None:
        moved = self.calls.moved
        if call.number > 2 * self.history.known_calls + FAR:
            moved.clear()
            return
        moved.note_ahead(self.calls.ahead)
        found = moved.found(call, part)
        self.outgoing.bring(frames_of(self.path, found))
        call.moved += sum(len(each.values) for each in found)

    def outcomes(self, outcomes: wire.Outcomes) -> None:
        """Settle items by outcomes, live or from the history."""
        calls, history = self.calls, self.history
        recovering = history.replaying or history.catching_up
        for outcome in outcomes.items:
            call = calls.open.get(outcome.call)
            if call is None:
                if outcome.call < 0:
                    calls.moved.note(outcome)
                elif calls.is_ahead(outcome.call):
                    calls.keep(outcome)
            elif call.abandoned:
                calls.drop(call, outcome.start, outcome.start + len(outcome.values))
            else:
                self._settle(call, outcome, recovering=recovering)
        if self.judge.doubted and not history.replaying:
            self.judge.judge(calls.open, calls.sought)

    def _settle(self, call: Call, outcome: wire.Outcome, *, recovering: bool) -> None:
        doubts = self.calls.settle(call, outcome, recovering=recovering)
        if doubts:
            self._refresh(call, doubts)

    def _refresh(self, call: Call, doubts: Sequence[ReusedOutcome]) -> None:
        """Compute items again whose journaled outcomes belong to other calls."""
        self.judge.doubt(call, doubts)
        if self.judge.policy.strict or call.args is None:
            return
        replaying, held = self.history.replaying, self.calls.held
        for doubt in doubts:
            for start, stop in call.call_again(doubt.low, doubt.high):  # never sent twice
                # Held items are sent in their state at that time.
                for a, b in () if replaying else held.others(call.number, start, stop):
                    digests = bytes(ids.digests_of(call.digests, a, b))
                    last = call.last and b == call.count
                    part = wire.Part(call.number, a, b - a, call.fn, digests, last, fresh=True)
                    args = [call.args[index] for index in range(a, b)]
                    self._send(call, part, args, sum(map(len, args)))

    @property
    def queued(self) -> int:
        """How many items wait to be sent."""
        given_up, more = self.given_up, 0
        if given_up.to_tell and not self.history.replaying:
            more = len(given_up.to_tell)
        return self.outgoing.count + len(given_up.named) + more

    def frames(self) -> list[bytes]:
        """Return what is to be sent, in order, once."""
        if self.given_up.named:
            self.end_given_up()
        frames = self.outgoing.take()
        if self.given_up.to_tell and not self.history.replaying:  # U3
            calls = self.given_up.take_to_tell()
            frames.append(wire.encode(wire.Abandon(self.path, self.attempt, calls)))
        return frames

    def end_given_up(self) -> None:
        """End the calls that finalizers have named (U2)."""
        calls, named = self.calls, self.given_up.named
        while named:
            call, abandoned = named.popleft()
            if calls.open.get(call.number) is not call:
                continue  # it is settled
            if not call.last:
                self.add(call, b"", [], last=True)
            if abandoned and call.left:
                calls.abandon(call)
                self.judge.forget(call.number)
                self.given_up.to_tell.append(call.number)

    def abandoned(self, message: wire.Abandoned) -> None:
        """The broker reports items that it will not compute; calls of this attempt are unaffected (U1)."""
        call = self.calls.open.get(message.call)
        if call is not None and call.abandoned:
            for low, high in message.spans:
                self.calls.drop(call, low, high)

    def page_wanted(self, *, early: bool = False) -> bytes | None:
        """Return the request for the next page, if it is due.

        `early`: the parent does not wait for it yet; half of the last page must be used up first.
        """
        history = self.history
        if not history.is_page_due(len(self.calls.ahead), early=early):
            return None
        no = history.ask()
        first = 0 if history.replaying else self.calls.first_waited()
        return wire.encode(wire.HistoryWanted(self.path, self.attempt, history.after, first, no))

    def page(self, head: wire.History, records: list[HistoryRecord]) -> None:
        """Handle a page, unless another one was requested since (after a broken connection)."""
        history = self.history
        if not history.begin_page(head):
            return
        self.durable.page(head)
        for record in records:
            if isinstance(record, wire.Outcomes):
                self.outcomes(record)
            elif history.replaying and isinstance(record, wire.Checkpoint):
                self.durable.take(record)
            elif history.replaying and isinstance(record, wire.Observed):
                history.add(record.observations)
        history.ahead = len(self.calls.ahead) + len(history.recorded)
        if head.last:
            if history.replaying:
                self.judge.judge(self.calls.open, self.calls.sought)
            history.end_page()
            for number in self.calls.held.calls():
                self._release(number)  # items that the history did not settle are sent
            self._end_look()

    def _end_look(self) -> None:
        """Handle the end of the history: read it once more, or refuse what was not found (D8)."""
        if self.history.catching_up:
            return
        sought = self.calls.sought
        for number in sorted(sought):
            call = self.calls.open.get(number)
            if call is not None and call.left:
                index = next(iter(call.left))[0]
                self.judge.refuse_future(number, index, self.judge.name_of(call.fn))
        sought.clear()

    def reconnect(self) -> None:
        """Handle a new broker: the last messages of the old one may be lost."""
        self.history.reconnect()
        again = self.once.to_ask_again()
        if again:
            asks = wire.Observed(self.path, self.attempt, again, asks=True)
            self.outgoing.repeat([wire.encode(asks)])
        self.given_up.to_tell = self.calls.abandoned()
        cancels = self.cancels.to_ask_again()
        if cancels:
            self.outgoing.repeat(cancels)

    def sever(self) -> None:
        """Cut the parent off: it gets no more answers, and nothing more is recorded."""
        self.history.cut()
        self.calls.ahead.clear()
        self.calls.held.clear()

    def ask_cancel(self, call: int, index: int) -> None:
        """Ask to cancel an item; the answer arrives in `cancels`. The caller waits for it, and ends it."""
        self.outgoing.put(self.cancels.ask(call, index))  # the call itself is sent first

    def recall(self, question: Question) -> bytes | None:
        """Return the recorded answer for this point, or None if there is none.

        Call it only when `history.needs_page()` is false.
        """
        return self._recall(question)

    def _recall(self, question: Question) -> bytes | None:
        history = self.history
        if history.is_to_ask_again:
            return self._ask_again(question)
        rests_on_others = self._rests_on_others(question)
        answer = None if rests_on_others else history.use(question, self.calls.next)
        if answer is not None or history.replaying or not history.recorded:
            return answer  # while it is replaying, the caller pages to the end first; see `differs`
        if history.rewind():
            return self._recall(question)
        if rests_on_others:
            return self._answer_of_others(question)
        self.judge.report_other_answer(history.recorded[0], question.whole, self.calls.next)
        self._get_new_answers()
        return None

    def _rests_on_others(self, question: Question) -> bool:
        """Return whether the recorded answer fits, but rests on calls that are others now (P2b)."""
        if not self.history.recorded or self.differs(question):
            return False
        first = self.history.recorded[0]
        if not first.rests_on:
            return False
        awaited = list(question.rests_on(first.answer))
        now = digest_of(awaited)
        if now in (b"", first.rests_on):
            return False
        is_code = first.rests_on[:AWAITED_BYTES] == now[:AWAITED_BYTES]
        return not (is_code and self.judge.reuses_code_of({call for call, _ in awaited}))

    def _answer_of_others(self, _question: Question) -> bytes | None:
        """Return None: the caller gets a new answer, and gives it to `answer_anew` (P2b)."""
        return None

    def _ask_again(self, question: Question) -> bytes | None:
        """Leave the answer after which the script failed; return what a later attempt got, if one (P2a)."""
        if self.history.replaying:
            return None  # the caller pages to the end first
        if self.history.rewind():
            return self._recall(question)
        self.judge.report_asked_again(question.whole, self.calls.next)
        self._get_new_answers()
        return None

    def _get_new_answers(self) -> None:
        """End the use of the history, with a mark for later attempts (P2)."""
        first = self.history.recorded[0]
        self.history.give_up()
        self.observe(*rewind_mark(first))

    def differs(self, question: Question) -> bool:
        """Return whether the next recorded observation is no answer to a question asked here."""
        return self.history.differs(question, self.calls.next)

    def observe(self, kind: str, answer: bytes, rests_on: bytes = b"") -> None:
        """Record an answer to the parent."""
        self.outgoing.tell(self.history.new(kind, self.calls.next, answer, rests_on))

    def answer_anew(self, question: Question, answer: bytes) -> None:
        """Record a new answer, unless it repeats the recorded one that rests on other calls (P2b)."""
        if self.history.recorded:
            first = self.history.recorded[0]
            if first.answer == answer:
                self.history.use(question, self.calls.next)
                return
            self.judge.report_other_calls(question.whole, self.calls.next)
            self._get_new_answers()
        self.observe(question.whole, answer, digest_of(question.rests_on(answer)))

    def begin_once(self, depth: int) -> Begun:
        """Return the start of a function inside `depth` others."""
        return once.begin(depth, self.calls.next, self.history.next_observation)

    def is_once_known(self, begun: Begun) -> bool:
        """Return whether its answer has arrived, or the history is at its end without it."""
        history = self.history
        return not history.replaying or once.find(history.recorded, begun) is not None

    def recall_once(self, begun: Begun, label: Label) -> bytes | None:
        """Return the recorded answer, and skip everything that led to it (ON2); None: run the function."""
        found = once.find(self.history.recorded, begun)
        if self.once.watch is not None:
            self.once.watch(begun, found is not None)
        if found is None:
            return None
        self.jump(found.at_call, found.no + 1, ())
        then, answer = once.unpack(found.answer)
        if not label.may_be(then):
            self.judge.other_once(then.name, label.name, begun.call)  # ON5
        return answer

    def end_once(self, begun: Begun, label: Label, answer: bytes) -> bytes:
        """Record a function's answer; return it for use after `Once.is_durable` holds (ON4)."""
        recorded = self.history.recorded
        if recorded:
            first = recorded[0]
            if once.is_unnamed(first, begun, self.calls.next):
                self.jump(first.at_call, first.no + 1, ())
                return first.answer
            self.recall(Question(begun.whole))  # it made fewer calls than before, which is reported
        here = (self.calls.next, self.history.next_observation)
        did_nothing = (begun.call, begun.observation) == here
        self.once.wanted = self.history.next_observation
        self.observe(begun.kind if did_nothing else begun.whole, once.pack(label, answer))
        return answer

    def enter_block(self, name: str) -> OpenBlock:
        """Open a block here (D1)."""
        return self.durable.enter(name, self.calls.next, self.history.next_observation)

    def has_generations(self, block: OpenBlock) -> bool:
        """Return whether all generations of a block are here that the log holds."""
        return not self.history.replaying or self.durable.has_newest(block)

    def continue_from(self, block: OpenBlock, record: wire.Checkpoint) -> None:
        """Continue from a generation: everything before it is over (D4)."""
        self.durable.continue_from(block, record)
        self.jump(record.calls, record.observations, record.pending)

    def save(
        self,
        block: OpenBlock,
        payload: bytes,
        pending: list[int],
        streams: tuple[int, int],
        code: bytes,
    ) -> int:
        """Put a checkpoint after everything that the parent has done (D3); return its generation.

        `streams` are the script's positions in its output and its input, in bytes.
        """
        assert not self.history.replaying, "a checkpoint is made after the history"
        gen = self.durable.begin_generation(block)
        record = wire.Checkpoint(
            self.path, self.attempt, *block.key, gen, block.base, block.entry,
            block.entry_observation, self.calls.next, self.history.next_observation, payload,
            pending, block.outer, dict(self.durable.openings), streams[0], code, streams[1],
            self.calls.readable(block.entry),
        )  # fmt: skip
        self.outgoing.put(wire.encode(record))
        return gen

    def verify(self, block: OpenBlock) -> None:
        """Report that the last generation has been loaded back."""
        self.durable.verified(block)
        verified = wire.Verified(self.path, self.attempt, *block.key, block.gen)
        self.outgoing.put(wire.encode(verified))

    def revive(
        self, number: int, fn: bytes, fingerprint: bytes, index: int, digest: bytes, *,
        name: str = "",
    ) -> Call:  # fmt: skip
        """Wait again for an item of a call that was made before the checkpoint.

        Raises:
            StrangeFutureError: this attempt has made another call under this number (D8).
        """
        calls, history = self.calls, self.history
        made = calls.made_here(number, index)
        if made is not None:
            same = fingerprint == made.fingerprint or name == self.judge.name_of(made.fn)
            if not same or digest != ids.digests_of(made.digests, index, index + 1):
                self.judge.refuse_future(number, index, name or self.judge.name_of(fn))
            return made
        call = calls.revive(number, fn, fingerprint, index, digest)
        recovering = history.replaying or history.catching_up or calls.held.has(number)
        for outcome in calls.ahead.get(number, ()):
            self._settle(call, outcome, recovering=recovering)
        if call.left and number < self.durable.open[-1].entry:
            history.read_again()  # D7
        return call

    def jump(self, calls: int, observations: int, pending: Collection[int]) -> None:
        """Continue from where a checkpoint was made; what came before is settled or `pending`."""
        self.calls.skip_to(calls, pending)
        self.history.skip_to(observations)
