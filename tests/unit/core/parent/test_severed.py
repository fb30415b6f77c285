"""A parent that was cut off from the run by Ctrl-C."""

from __future__ import annotations

from resilient_scoop.core.parent.history import Question
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.parent.severed import sever
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import is_cancelled

FN, FINGERPRINT, DIGEST = b"f" * 16, b"p" * 16, b"d" * 16


def parent_with_a_call(*, replaying: bool) -> Parent:
    parent = Parent("0", wire.Attempt(1, 1), replaying=replaying)
    call = parent.begin(FN, FINGERPRINT)
    parent.add(call, DIGEST * 3, [b"a", b"b", b"c"], last=True)
    return parent


def test_items_without_an_outcome_are_canceled_and_others_keep_theirs() -> None:
    parent = parent_with_a_call(replaying=False)
    call = parent.calls.open[0]
    outcome = wire.Outcome(0, 1, FINGERPRINT, DIGEST, [b"value"])
    parent.outcomes(wire.Outcomes("0", [outcome]))
    sever(parent)
    assert not call.left
    found = [call.find(index) for index in range(3)]
    values = [chunk.values[index - chunk.start] for index, chunk in enumerate(found) if chunk]
    assert [is_cancelled(value) for value in values] == [True, False, True]
    assert values[1] == b"value"


def test_a_replaying_parent_that_is_severed_is_at_the_end_of_its_history() -> None:
    parent = parent_with_a_call(replaying=True)
    head = wire.History("0", parent.attempt, 1, last=False, calls=9)
    parent.page_wanted()
    parent.page(head, [wire.Observed("0", parent.attempt, [wire.Observation(0, "done", 1, b"1")])])
    sever(parent)
    assert not parent.history.replaying
    assert not parent.history.retelling
    assert not parent.history.needs_page()
    assert parent.recall(Question("done")) is None
    assert parent.frames() == []


def test_calls_that_come_later_are_canceled_and_not_sent() -> None:
    parent = parent_with_a_call(replaying=False)
    sever(parent)
    call = parent.begin(FN, FINGERPRINT)
    parent.add(call, DIGEST, [b"late"], last=True)
    sever(parent)
    assert not call.left
    assert parent.frames() == []
