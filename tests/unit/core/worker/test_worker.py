"""The worker machine: what it holds, owes and receives, with one broker and the next."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_scoop.core.link import Link
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker.worker import Work, Worker
from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, PLAIN, digests
from tests.unit.racing import Racing

RUN = b"8 bytes."


class Desk:
    """A worker with a broker's end of its link beside it."""

    def __init__(self, epoch: int = 1) -> None:
        self.worker = Worker(role="worker", node="n", name="w", pid=1, run=RUN)
        self.meet(epoch)

    def meet(self, epoch: int, *, dropped: list[wire.Attempt] | None = None) -> list[wire.Up]:
        """Let a broker of this epoch appear; return the bundle of the worker's Hello."""
        self.link = Link(RUN, epoch)
        (hello,) = self.hear_raw(self.link.beat())
        self.link.take(wire.unpack_header(hello[0]), 0.0)
        self.hear(wire.Welcome(epoch, 7, 10.0, dropped or []))
        return [wire.decode_up(frame) for frame in hello[1:]]

    def hear_raw(self, message: list[bytes]) -> list[list[bytes]]:
        return self.worker.hear(wire.unpack_header(message[0]), message[1:], 0.0)

    def hear(self, *messages: Any) -> list[list[bytes]]:
        return self.hear_raw(self.link.pack([wire.encode(message) for message in messages]))

    def messages(self, *, acknowledge: bool = False) -> list[wire.Up]:
        """Return what the worker sends now."""
        message = self.worker.flush()
        if message is None:
            return []
        self.link.take(wire.unpack_header(message[0]), 0.0)
        if acknowledge:
            self.link.acked = self.link.received
            self.hear_raw(self.link.beat())
        return [wire.decode_up(frame) for frame in message[1:]]

    def grant(self, start: int = 0, stop: int = 3, *, no: int = 1, call: int = 0) -> Work:
        args = [b"arg%d" % index for index in range(start, stop)]
        task = wire.Task(no, ROOT, call, start, FN, digests(*range(start, stop)), args)
        self.hear(PLAIN, wire.Grant([task]))
        return self.worker.works[wire.Attempt(self.link.epoch, no)]

    def run(self, work: Work, count: int) -> None:
        """Let items end without reporting it."""
        for _ in range(count):
            work.values.append(b"Vvalue%d" % work.next)
            work.next += 1


def test_a_worker_sends_nothing_before_its_welcome() -> None:
    worker = Worker(role="worker", node="n", name="w", pid=1, run=RUN)
    worker.define(PLAIN)

    assert worker.flush() is None


def test_finished_items_of_a_slice_are_sent_in_one_outcome_with_their_digests() -> None:
    desk = Desk()
    work = desk.grant(2, 6)
    desk.run(work, 3)
    work.failed.append(3)

    desk.worker.settle(work, 1.0)
    (message,) = desk.messages()

    assert isinstance(message, wire.Outcomes)
    (outcome,) = message.items
    assert (outcome.start, outcome.values) == (2, [b"Vvalue2", b"Vvalue3", b"Vvalue4"])
    assert (outcome.failed, outcome.digests) == ([1], digests(2, 3, 4))
    assert (outcome.fingerprint, outcome.task) == (FN, wire.Attempt(1, 1))
    assert list(work.left) == [(5, 6)]


def test_retries_are_reported_once() -> None:
    desk = Desk()
    work = desk.grant(0, 3)
    desk.run(work, 2)
    work.again = 3

    desk.worker.settle(work, 1.0)
    desk.worker.settle_one(work, 2, b"Vvalue2", failed=False)
    (message,) = desk.messages()

    assert isinstance(message, wire.Outcomes)
    assert [outcome.again for outcome in message.items] == [3, 0]


def test_a_slice_is_forgotten_when_all_of_it_is_sent() -> None:
    desk = Desk()
    work = desk.grant(0, 2)
    desk.run(work, 2)

    desk.worker.settle(work, 1.0)

    assert desk.worker.works == {}


def test_a_new_broker_gets_owed_results_and_held_items_in_one_bundle() -> None:
    # Given a worker that has sent one outcome without an acknowledgement, and has another one made
    desk = Desk()
    work = desk.grant(0, 4)
    desk.run(work, 1)
    desk.worker.settle(work, 1.0)
    desk.messages()
    desk.run(work, 1)
    desk.worker.settle(work, 1.0)

    # When a new broker begins
    hello, *owed = desk.meet(2)

    # Then it gets both, and the report that the rest is still held
    assert isinstance(hello, wire.Hello)
    assert [(held.attempt, held.spans) for held in hello.held] == [(wire.Attempt(1, 1), [(2, 4)])]
    assert hello.held[0].digests == digests(2, 3)
    starts = [o.start for m in owed if isinstance(m, wire.Outcomes) for o in m.items]
    assert starts == [0, 1]


def test_acknowledged_messages_are_not_repeated() -> None:
    desk = Desk()
    work = desk.grant(0, 2)
    desk.run(work, 1)
    desk.worker.settle(work, 1.0)
    desk.messages(acknowledge=True)

    assert [type(message) for message in desk.meet(2)] == [wire.Hello]


def test_late_messages_of_an_older_broker_are_ignored() -> None:
    desk = Desk()
    old = desk.link
    desk.meet(2)

    late = old.pack([wire.encode(wire.Stop("asked"))])

    assert desk.hear_raw(late) == []
    assert desk.worker.stopping is None


def test_a_slice_that_a_new_broker_refuses_sends_nothing_more() -> None:
    desk = Desk()
    work = desk.grant(0, 4)
    desk.meet(2, dropped=[work.attempt])

    desk.run(work, 1)
    desk.worker.settle(work, 1.0)

    assert desk.messages() == []
    assert work.dropped
    assert desk.worker.works == {}


def test_retracted_items_are_given_back_from_the_first_unstarted_one() -> None:
    # Given a slice with two begun items
    desk = Desk()
    work = desk.grant(0, 5)
    work.next = 2

    # When the rest is requested and given back
    desk.hear(wire.Retract(work.attempt))
    desk.worker.give_back()

    # Then the broker gets the first returned index, and the worker stops there
    assert desk.messages() == [wire.Returned(work.attempt, 2)]
    assert (work.stop, list(work.left)) == (2, [(0, 2)])


def test_a_cancelled_item_that_has_begun_is_reported_as_begun() -> None:
    desk = Desk()
    work = desk.grant(0, 5)
    work.next = 2
    asked = wire.Retract(work.attempt, 1)

    desk.hear(asked)
    desk.worker.give_back()

    assert desk.messages() == [wire.Returned(work.attempt, 1 << 62, 1)]
    assert (work.stop, list(work.left)) == (5, [(0, 5)])


@pytest.mark.parametrize("start", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("before", range(16))
@pytest.mark.parametrize("between", range(4))
def test_no_item_is_both_begun_and_given_back(start: int, before: int, between: int) -> None:
    """The deputy's steps of an answer, and the main thread's between them, in every order."""
    # Given a main thread at some point of its loop, when the deputy asks
    desk = Desk()
    work = desk.grant(0, 4)
    racing = Racing(work, between)
    racing.take_steps(before)
    desk.worker.works[work.attempt] = racing
    desk.hear(wire.Retract(work.attempt, start))

    # When the deputy answers, while the main thread continues as far as it needs no lock
    racing.others = True
    desk.worker.give_back()
    racing.others = False
    racing.take_steps(100)

    # Then returned items never begin, all others do, and the answer to a question is correct
    (answer,) = desk.messages()
    assert isinstance(answer, wire.Returned)
    kept = min(answer.stop, 4)
    assert racing.begun == list(range(kept))
    if start >= 0:
        assert (answer.begun == start) == (start in racing.begun)


def test_work_runs_by_priority_then_ready_parents_then_depth() -> None:
    # Given slices that arrive in the order of their numbers
    desk = Desk()
    urgent = wire.Define(b"urgent", b"urgent", "m:urgent", b"code", wire.Options(priority=1))
    below = item_path(ROOT, 0, 0)
    desk.hear(PLAIN, urgent)

    def grant(no: int, fn: bytes = FN, parent: str = ROOT, *, replay: bool = False) -> None:
        desk.hear(wire.Grant([wire.Task(no, parent, no, 0, fn, digests(0), [b"arg"], replay)]))

    grant(1)
    grant(2, parent=below)
    grant(3, replay=True)
    grant(4, urgent.fn)
    grant(5, urgent.fn)

    # Then they are queued in the order that the broker would choose
    assert [work.attempt.no for work in desk.worker.queue] == [4, 5, 3, 2, 1]


def test_a_slice_is_interrupted_for_a_more_urgent_one() -> None:
    # Given a running slice, and one of its kind after it
    desk = Desk()
    desk.grant(0, 4, no=1)
    desk.grant(4, 8, no=2)
    work = desk.worker.queue.popleft()
    desk.run(work, 2)
    assert not desk.worker.outranked(work)

    # When one of higher priority arrives
    urgent = wire.Define(b"urgent", b"urgent", "m:urgent", b"code", wire.Options(priority=1))
    task = wire.Task(3, ROOT, 9, 0, urgent.fn, digests(0), [b"arg"])
    desk.hear(urgent, wire.Grant([task]))

    # Then the rest waits after the new slice, but before others of its kind
    assert desk.worker.outranked(work)
    assert [(each.attempt.no, each.next) for each in desk.worker.queue] == [(3, 0), (1, 2), (2, 4)]


def test_deeper_work_runs_first() -> None:
    desk = Desk()
    desk.grant(no=1)
    below = item_path(ROOT, 0, 0)
    deep = wire.Task(2, below, 0, 0, FN, digests(0), [b"arg"])
    desk.hear(wire.Grant([deep]))
    desk.grant(no=3)

    assert [work.attempt.no for work in desk.worker.queue] == [2, 1, 3]


def test_work_waits_for_the_definition_of_its_function() -> None:
    desk = Desk()
    task = wire.Task(1, ROOT, 0, 0, FN, digests(0), [b"arg"])
    desk.hear(wire.Grant([task]))
    assert not desk.worker.queue

    desk.hear(PLAIN)
    assert [work.attempt.no for work in desk.worker.queue] == [1]


def test_work_whose_definition_ended_with_the_old_broker_is_not_held() -> None:
    # Given a task that arrived before the definition of its function, which waited for a commit
    desk = Desk()
    desk.hear(wire.Grant([wire.Task(1, ROOT, 0, 0, FN, digests(0), [b"x"])]))

    # When the broker dies before that commit
    hello, *_ = desk.meet(2)

    # Then the new broker has to grant the task again, and it runs once
    assert isinstance(hello, wire.Hello)
    assert hello.held == []
    assert desk.worker.works == {}
    work = desk.grant(0, 1)
    assert list(desk.worker.queue) == [work]


def test_a_function_is_announced_once_by_each_process_that_calls_it() -> None:
    # Given a worker that knows a function from the broker
    desk = Desk()
    desk.hear(PLAIN)

    # When it calls the function itself, then it announces it: the broker may have forgotten it
    desk.worker.define(PLAIN)
    desk.worker.define(PLAIN)
    assert desk.messages() == [PLAIN]


def parent_on(desk: Desk, work: Work) -> Parent:
    path = item_path(ROOT, 0, work.next)
    made = Parent(path, work.attempt)
    desk.worker.parents[path] = made
    work.next += 1
    return made


def test_a_dropped_slice_drops_its_parents() -> None:
    desk = Desk()
    work = desk.grant(0, 1)
    parent = parent_on(desk, work)

    desk.hear(wire.Drop([work.attempt]))

    assert desk.worker.fenced == [parent.path]
    assert desk.worker.parents == {}


def test_the_last_messages_of_a_parent_are_sent_before_its_outcome() -> None:
    # Given a parent that got an answer and then returns
    desk = Desk()
    work = desk.grant(0, 1)
    parent = parent_on(desk, work)
    parent.observe("once", b"drawn")

    # When its outcome is sent
    desk.worker.settle_one(work, 0, b"Vdone", failed=False)

    # Then both are in one message, the observation first
    assert [type(message) for message in desk.messages()] == [wire.Observed, wire.Outcomes]


def test_a_live_parent_catches_up_with_a_new_broker_by_itself() -> None:
    # Given a parent that waits for a call
    desk = Desk()
    work = desk.grant(0, 1)
    parent = parent_on(desk, work)
    call = parent.begin(FN, FN)
    parent.add(call, digests(0), [b"arg"], last=True)
    desk.messages(acknowledge=True)

    # When a new broker begins, then the worker requests what the parent has missed
    bundle = desk.meet(2)
    (wanted,) = [message for message in bundle if isinstance(message, wire.HistoryWanted)]
    assert (wanted.parent, wanted.attempt, wanted.from_call) == (parent.path, work.attempt, 0)

    # And for the next page, as long as there is one
    desk.hear(wire.History(parent.path, work.attempt, 5, last=False, calls=1, no=wanted.no))
    (wanted,) = [m for m in desk.messages() if isinstance(m, wire.HistoryWanted)]
    assert wanted.after == 5


def test_output_is_sent_once_with_its_position() -> None:
    desk = Desk()
    desk.worker.root = wire.Attempt(1, 9)
    desk.worker.written += b"one"
    first = desk.messages()
    desk.worker.written += b"two"

    assert first == [wire.Output(wire.Attempt(1, 9), 0, b"one")]
    assert desk.messages() == [wire.Output(wire.Attempt(1, 9), 3, b"two")]


def test_the_end_of_the_run_is_the_last_message() -> None:
    desk = Desk()
    desk.worker.root = wire.Attempt(1, 9)
    desk.worker.ended = wire.RunEnded(wire.Attempt(1, 9), 0, failed=False)
    desk.worker.written += b"bye"

    assert [type(message) for message in desk.messages()] == [wire.Output, wire.RunEnded]


def test_an_evicted_item_may_have_returned_when_the_eviction_arrives() -> None:
    # Given a parent that was evicted and granted to the same worker again
    desk = Desk()
    work = desk.grant(0, 1, no=1)
    first = parent_on(desk, work)
    second = desk.grant(0, 1, no=2)
    assert desk.worker.fenced == [first.path]
    desk.worker.fenced.clear()
    again = parent_on(desk, second)

    # When the eviction arrives only now
    desk.hear(wire.Evict(work.attempt, 0))

    # Then the new attempt continues
    assert desk.worker.fenced == []
    assert desk.worker.parents == {again.path: again}


@pytest.mark.parametrize("others", [0, 3])
def test_a_later_attempt_replaces_an_earlier_one(others: int) -> None:
    # Given a parent, and a broker that died before it could report that it had dropped this attempt
    desk = Desk()
    work = desk.grant(0, 2)
    parent = parent_on(desk, work)
    desk.worker.parents.update((p.path, p) for p in map(elsewhere, range(others)))

    # When another attempt is granted
    desk.meet(2)
    again = desk.grant(0, 2)

    # Then only the later one is held, so a new broker does not assign the earlier one to this
    # worker
    assert desk.worker.fenced == [parent.path]
    assert parent.path not in desk.worker.parents
    assert len(desk.worker.parents) == others
    assert list(work.left) == [(1, 2)]
    hello = desk.meet(3)[0]
    assert isinstance(hello, wire.Hello)
    assert (again.attempt, [(0, 2)]) in [(each.attempt, each.spans) for each in hello.held]


def elsewhere(call: int) -> Parent:
    path = item_path(ROOT, call + 7, 0)
    return Parent(path, wire.Attempt(1, 90 + call), tell_user=lambda _: None)


def test_each_new_broker_learns_what_the_worker_lacks_until_the_items_are_dropped() -> None:
    # Given a worker that has set items aside, and whose broker has acknowledged that
    desk = Desk()
    work = desk.grant()
    desk.run(work, 1)
    desk.worker.set_aside(work, 1, "no module m")
    assert [each for each in desk.messages(acknowledge=True) if isinstance(each, wire.Unfit)]

    # When a new broker begins, then it gets the report again
    unfit = wire.Unfit(ROOT, 0, FN, "no module m")
    assert unfit in desk.meet(2)
    desk.link.acked = desk.link.received
    desk.hear_raw(desk.link.beat())

    # And when the items are dropped, they are neither reported again nor given back
    desk.hear(wire.Drop([work.attempt]))
    assert unfit not in desk.meet(3)
    desk.worker.hand_back_aside()
    assert not desk.messages()


def test_set_aside_items_are_given_back_at_the_end() -> None:
    desk = Desk()
    work = desk.grant()
    desk.worker.set_aside(work, 1, "no module m")
    desk.worker.hand_back_aside()
    assert wire.Returned(work.attempt, 1) in desk.messages()


def test_a_waiting_item_reports_the_rest_of_its_time_limit_until_it_continues() -> None:
    desk = Desk()
    work = desk.grant(0, 2)

    desk.worker.park(work, 0, until=12.5, now=10.0, tries=1)
    assert desk.messages() == [wire.Parked(work.attempt, 0, True, 2.5, 1)]
    assert desk.worker.limits == {item_path(ROOT, 0, 0): (12.5, 1)}

    desk.worker.unpark(work, 0)
    assert desk.messages() == [wire.Parked(work.attempt, 0, parked=False)]
    assert desk.worker.limits == {}


def test_an_item_of_a_dropped_slice_sends_no_outcome() -> None:
    desk = Desk()
    work = desk.grant(0, 2)
    desk.hear(wire.Drop([work.attempt]))

    desk.worker.settle_one(work, 0, b"Vvalue", failed=False)

    assert desk.messages() == []


def test_a_message_for_an_agent_or_about_an_unknown_attempt_changes_nothing() -> None:
    desk = Desk()
    work = desk.grant(0, 2)

    desk.hear(wire.Kill(b"Wanother.", "timeout"), wire.Evict(wire.Attempt(1, 99), 0))

    assert desk.messages() == []
    assert list(desk.worker.works.values()) == [work]
