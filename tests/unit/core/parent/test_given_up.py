"""Calls that a parent gives up: it ends them, tells the broker, and waits for running items."""

from __future__ import annotations

from resilient_scoop.core.parent.call import Call
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests, outcomes

EVERYTHING = (0, 1 << 62)
NOW = wire.Attempt(2, 1)


def parent(**more: object) -> Parent:
    return Parent(ROOT, NOW, tell_user=lambda _: None, **more)  # type: ignore[arg-type]


def call(of: Parent, count: int, *, last: bool = True) -> Call:
    made = of.begin(FN, FN)
    of.add(made, digests(*range(count)), [b"arg"] * count, last=last)
    return made


def heard(of: Parent) -> list[wire.Up]:
    return [wire.decode_up(frame) for frame in of.frames()]


def test_a_finalizer_only_records_its_call() -> None:
    of = parent()
    made = call(of, 4, last=False)
    of.frames()

    of.given_up.name(made, abandoned=True)

    assert of.queued
    assert not made.abandoned
    messages = heard(of)
    ended = next(m for m in messages if isinstance(m, wire.Calls))
    assert [(p.start, p.count, p.last) for p in ended.parts] == [(4, 0, True)]
    assert messages[-1] == wire.Abandon(ROOT, NOW, [0])
    assert heard(of) == []


def test_started_items_are_awaited_and_their_values_are_dropped() -> None:
    of = parent()
    made = call(of, 4)
    of.given_up.name(made, abandoned=True)
    of.frames()

    of.abandoned(wire.Abandoned(ROOT, 0, [(2, 4)]))
    of.outcomes(outcomes(0, 0, 1))

    assert list(made.left) == [(1, 2)]
    assert made.chunks == []
    assert of.calls.open == {0: made}
    of.abandoned(wire.Abandoned(ROOT, 0, [EVERYTHING]))
    assert of.calls.open == {}
    assert of.calls.under_way.in_messages == 0


def test_a_call_that_is_wanted_ignores_that_another_attempt_gave_it_up() -> None:
    of = parent()
    made = call(of, 4)
    of.abandoned(wire.Abandoned(ROOT, 0, [EVERYTHING]))
    assert list(made.left) == [(0, 4)]


def test_a_replay_makes_no_calls_for_given_up_maps_and_tells_the_broker_afterwards() -> None:
    of = parent(replaying=True)
    made = call(of, 4)
    of.given_up.name(made, abandoned=True)
    assert heard(of) == []

    of.page_wanted()
    of.page(wire.History(ROOT, NOW, 9, last=True, calls=1, no=1), [outcomes(0, 0, 2)])

    assert heard(of) == [wire.Abandon(ROOT, NOW, [0])]
    assert list(made.left) == [(2, 4)]


def test_a_new_broker_is_told_of_all_unfinished_calls_that_were_given_up() -> None:
    of = parent()
    for _ in range(2):
        of.given_up.name(call(of, 2), abandoned=True)
    of.frames()
    of.abandoned(wire.Abandoned(ROOT, 0, [EVERYTHING]))

    of.reconnect()

    assert heard(of)[-1] == wire.Abandon(ROOT, NOW, [1])
