"""A parent sends messages in the order of its actions, observations first (P3)."""

from __future__ import annotations

from typing import Any

from resilient_scoop.core.parent import outgoing
from resilient_scoop.core.parent.once import Once
from resilient_scoop.core.parent.outgoing import Outgoing
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests

NOW = wire.Attempt(2, 1)


def part(call: int = 0, count: int = 1) -> wire.Part:
    return wire.Part(call, 0, count, FN, digests(*range(count)), last=True)


def observation(no: int) -> wire.Observation:
    return wire.Observation(no, "done", 0, b"a")


def made(once: Once | None = None) -> Outgoing:
    return Outgoing(ROOT, NOW, once or Once())


def sent(of: Outgoing) -> list[Any]:
    return [wire.decode_up(frame) for frame in of.take()]


def test_an_observation_is_sent_before_the_parent_s_next_action() -> None:
    of = made()
    of.tell(observation(0))
    of.queue(part(), [b"arg"], 3)

    first, second, third = sent(of)

    assert first == wire.Observed(ROOT, NOW, [observation(0)])
    assert second == wire.Calls(ROOT, NOW, [part()])
    assert third == wire.Args([b"arg"])


def test_a_frame_is_sent_after_calls_and_observations() -> None:
    of = made()
    of.queue(part(), [b"arg"], 3)
    of.tell(observation(0))
    of.put(wire.encode(wire.Abandon(ROOT, NOW, [9])))

    kinds = [type(message) for message in sent(of)]

    assert kinds == [wire.Observed, wire.Calls, wire.Args, wire.Abandon]


def test_results_are_sent_after_their_items() -> None:
    of = made()
    of.queue(part(), [b"arg"], 3)
    of.bring([wire.encode(wire.Outcomes(ROOT, []))])

    assert [type(message) for message in sent(of)] == [wire.Calls, wire.Args, wire.Outcomes]


def test_taken_items_are_sent_once() -> None:
    of = made()
    of.tell(observation(0))
    of.queue(part(), [b"arg"], 3)
    assert (of.count, of.has_observations) == (2, True)

    of.take()

    assert of.take() == []
    assert (of.count, of.has_observations) == (0, False)


def test_many_items_or_bytes_fill_a_frame() -> None:
    of = made()
    of.queue(part(0), [b"arg"], outgoing.PART_BYTES)
    of.queue(part(1, outgoing.PART_ITEMS), [b""] * outgoing.PART_ITEMS, 0)
    of.queue(part(2), [b"arg"], 3)

    calls = [message for message in sent(of) if isinstance(message, wire.Calls)]

    assert [[each.call for each in message.parts] for message in calls] == [[0], [1], [2]]


def test_the_broker_is_asked_to_confirm_an_answer_of_once() -> None:
    once = Once(wanted=1)
    of = made(once)
    of.tell(observation(0))
    assert [message.asks for message in sent(of)] == [False]

    of.tell(observation(1))
    assert [message.asks for message in sent(of)] == [True]
    assert once.to_ask_again() == [observation(1)]
