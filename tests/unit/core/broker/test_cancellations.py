"""`Future.cancel()` at the broker: the holder of the item decides, so it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from resilient_scoop.core.events import Action, Send
from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import is_cancelled
from tests.unit.bench import (
    AGENT,
    FN,
    ORIGIN,
    PLAIN,
    RISKY,
    W1,
    W2,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
    sent,
)


class Court:
    """A root with a call of several items, all held by the first worker."""

    def __init__(self, items: int = 2, fn: wire.Define = PLAIN) -> None:
        self.bench = Bench()
        self.root = self.bench.begin(W1)
        actions = self.bench.tell(
            ORIGIN, fn, *calls(part(0, 0, items, fn=fn.fn), attempt=self.root)
        )
        self.attempts = {t.start: wire.Attempt(1, t.no) for t in granted(actions, W1)}

    def cancel(self, index: int = 1) -> list[Action]:
        return self.bench.tell(ORIGIN, wire.Cancel(ROOT, self.root, 0, index))

    def give_back(self, index: int = 1) -> list[Action]:
        return self.bench.tell(W1, wire.Returned(self.attempts[index], index))


def answers(actions: Sequence[Action]) -> list[bool]:
    return [each.cancelled for each in sent(actions, ORIGIN, wire.CancelAnswer)]


def cancelled(bench: Bench) -> list[int]:
    """Return which items of the root's call 0 are recorded as cancelled."""
    return [
        outcome.start
        for record in bench.logged()
        if isinstance(record, wire.Outcomes)
        for outcome in record.items
        if is_cancelled(outcome.values[0])
    ]


def test_the_holder_of_an_item_is_asked_once() -> None:
    court = Court()

    actions = court.cancel()

    assert answers(actions) == []
    (retract,) = sent(actions, W1, wire.Retract)
    assert retract == wire.Retract(court.attempts[1], 1)
    assert sent(court.bench.wait(1, vouched=[W1]), W1, wire.Retract) == []


def test_an_unstarted_item_is_canceled_and_never_assigned() -> None:
    # Given a question about an item that its worker holds
    court = Court()
    court.cancel()

    # When the worker gives it back
    actions = court.give_back()

    # Then it is cancelled, the answer is sent after the outcome and both after the record
    assert cancelled(court.bench) == [1]
    frames = [
        wire.decode_down(frame)
        for action in actions
        if isinstance(action, Send) and action.to == ORIGIN
        for frame in action.frames
    ]
    assert [type(frame) for frame in frames] == [wire.Outcomes, wire.CancelAnswer]
    assert answers(actions) == [True]
    assert granted(actions, W1) == []
    assert court.bench.broker.questions.open == {}


def test_a_started_item_cannot_be_canceled() -> None:
    court = Court()
    court.cancel(0)

    begun = wire.Returned(court.attempts[0], 1 << 62, 0)
    actions = court.bench.tell(W1, begun)

    assert answers(actions) == [False]
    assert cancelled(court.bench) == []
    assert court.bench.broker.questions.open == {}


def test_a_waiting_parent_cannot_be_canceled_and_no_worker_is_asked() -> None:
    court = Court()
    court.bench.tell(W1, wire.Parked(court.attempts[0], 0))

    actions = court.cancel(0)

    assert answers(actions) == [False]
    assert sent(actions, W1, wire.Retract) == []


def test_an_outcome_that_arrives_first_answers_the_question() -> None:
    court = Court()
    court.cancel(0)

    actions = court.bench.tell(W1, outcomes(0, 0, 1, task=court.attempts[0]))

    assert answers(actions) == [False]
    assert court.bench.broker.questions.open == {}


def test_a_repeated_question_is_answered_once() -> None:
    # Given a question that cannot be answered yet, and the item's outcome after it
    court = Court()
    court.bench.broker.busy_disk = True
    court.cancel(0)
    court.bench.tell(W1, outcomes(0, 0, 1, task=court.attempts[0]))

    # When it is asked again
    actions = court.cancel(0)
    assert answers(actions) == [False]

    # Then the outcome was the answer
    court.bench.broker.busy_disk = False
    assert answers(court.bench.wait(1, vouched=[W1])) == []
    assert court.bench.broker.questions.open == {}


def test_the_rest_of_a_slice_continues_without_the_item() -> None:
    # Given a slice of several items
    court = Court(1)
    bench = court.bench
    for _ in range(3):
        bench.tell(W1, outcomes(0, 0, 1, task=court.attempts[0]))
    actions = bench.tell(ORIGIN, *calls(part(1, 0, 8), attempt=court.root))
    slices = {task.start: task for task in granted(actions, W1)}
    task = next(task for task in slices.values() if len(task.args) > 2)
    attempt, middle = wire.Attempt(1, task.no), task.start + 1

    # When one in its middle is to be cancelled, and the worker gives back all items from that one
    # on
    bench.tell(ORIGIN, wire.Cancel(ROOT, court.root, 1, middle))
    actions = bench.tell(W1, wire.Returned(attempt, middle))

    # Then only that one is cancelled
    assert answers(actions) == [True]
    batch = bench.broker.state.parents[ROOT].batches[1]
    assert batch.done.overlap(0, 8) == [(middle, middle + 1)]


def test_an_item_is_cancelled_when_its_worker_dies_before_the_answer() -> None:
    court = Court()
    court.cancel()

    actions = court.bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash", court.attempts[0], 0))

    assert answers(actions) == [True]
    assert cancelled(court.bench) == [1]


def test_an_item_is_cancelled_when_the_lease_of_its_silent_worker_ends() -> None:
    court = Court()
    court.cancel()

    actions = court.bench.wait(12)

    assert answers(actions) == [True]


def test_an_item_that_must_not_start_twice_is_cancelled_if_it_has_not_begun() -> None:
    # Given a call that is recorded as about to begin
    court = Court(1, RISKY)
    court.bench.tell(W1, wire.BeginWanted(court.attempts[0], 0))
    assert court.bench.broker.state.parents[ROOT].intents

    # When its worker gives it back because of the cancellation
    court.cancel(0)
    actions = court.give_back(0)

    # Then the record of the intent is dropped
    assert answers(actions) == [True]
    assert court.bench.broker.state.parents[ROOT].intents == {}


def test_an_item_that_may_have_started_is_lost_and_not_cancelled() -> None:
    court = Court(1, RISKY)
    court.bench.tell(W1, wire.BeginWanted(court.attempts[0], 0))
    court.cancel(0)

    actions = court.bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash"))

    assert answers(actions) == [False]
    assert cancelled(court.bench) == []


def test_the_next_holder_of_an_item_is_asked() -> None:
    # Given an item that was given back to an idle worker, while the question is on its way
    court = Court()
    court.bench.arrive(W2)
    court.cancel()
    court.bench.broker.questions.open.clear()  # as if it arrived only now
    actions = court.give_back()
    (task,) = granted(actions, W2)

    # When the question arrives
    actions = court.cancel()

    # Then the new holder is asked, and the answer of the old one changes nothing
    (retract,) = sent(actions, W2, wire.Retract)
    assert retract == wire.Retract(wire.Attempt(1, task.no), 1)
    old = court.bench.tell(W1, wire.Returned(court.attempts[1], 1 << 62, 1))
    assert answers(old) == []


def test_a_new_broker_waits_for_the_workers_before_a_cancellation() -> None:
    # Given a broker that has just started again: a worker may hold items that seem to have no
    # holder
    court = Court()
    bench = court.bench.again()
    held = [wire.Held(a, ROOT, 0, FN, [(i, i + 1)], digests(i)) for i, a in court.attempts.items()]
    bench.arrive(AGENT, incarnations=[W1])
    bench.arrive(ORIGIN, waiting=[wire.Waiting(ROOT, court.root)])

    # When a parent repeats a question that the old broker never answered
    actions = bench.tell(ORIGIN, wire.Cancel(ROOT, court.root, 0, 1))
    assert answers(actions) == []

    # Then the worker is asked as soon as it has arrived
    actions = bench.arrive(W1, held=held)
    assert sent(actions, W1, wire.Retract) == [wire.Retract(court.attempts[1], 1)]


def test_the_question_of_an_ended_parent_is_forgotten() -> None:
    # Given a parent that asks about a child which a second worker holds
    court = Court(1)
    bench, path = court.bench, item_path(ROOT, 0, 0)
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=court.attempts[0]))
    bench.tell(W1, wire.Cancel(path, court.attempts[0], 0, 0))
    assert bench.broker.questions.open

    # When it ends before the answer
    bench.tell(W1, outcomes(0, 0, 1, task=court.attempts[0]))

    # Then the question is dropped
    assert bench.broker.questions.open == {}


def test_the_question_of_a_fenced_parent_is_ignored() -> None:
    court = Court()

    actions = court.bench.tell(ORIGIN, wire.Cancel(ROOT, wire.Attempt(1, 999), 0, 1))

    assert answers(actions) == []
    assert sent(actions, ORIGIN, wire.Drop)
    assert court.bench.broker.questions.open == {}
