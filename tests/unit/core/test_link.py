"""Two ends of a link over a connection that loses, repeats and reorders."""

from __future__ import annotations

import random

import pytest

from resilient_scoop.core.link import Link
from resilient_scoop.wire.messages import BEAT, RESEND, unpack_header

RUN = b"8 bytes."


def end() -> Link:
    return Link(RUN, epoch=3)


def give(to: Link, message: list[bytes], now: float = 0.0) -> tuple[bool, list[list[bytes]]]:
    fresh, answers = to.take(unpack_header(message[0]), now)
    to.acked = to.received
    return fresh, answers


def test_messages_in_order_are_accepted_once() -> None:
    here, there = end(), end()
    first, second = here.pack([b"1"]), here.pack([b"2"])

    assert give(there, first) == (True, [])
    assert give(there, second)[0]
    assert not give(there, first)[0]
    assert not give(there, second)[0]


def test_a_gap_is_requested_again_and_filled_in_order() -> None:
    # Given three messages of which the first is lost
    here, there = end(), end()
    here.pack([b"1"])
    second = here.pack([b"2"])
    here.pack([b"3"])

    # When the second arrives, then it is not accepted, and the lost one is requested
    fresh, (asking,) = give(there, second)
    assert not fresh
    assert unpack_header(asking[0]).flags == RESEND

    # And when the other end gets the request, then it sends everything again, in order
    _, again = give(here, asking)
    assert [message[1] for message in again] == [b"1", b"2", b"3"]
    assert [give(there, message)[0] for message in again] == [True, True, True]


def test_the_loss_of_the_last_message_is_noticed_at_the_next_heartbeat() -> None:
    here, there = end(), end()
    here.pack([b"lost"])

    beat = here.beat()
    assert unpack_header(beat[0]).flags == BEAT
    _, answers = give(there, beat)

    assert [unpack_header(answer[0]).flags for answer in answers] == [RESEND]


def test_a_link_does_not_repeat_a_request_at_once() -> None:
    here, there = end(), end()
    here.pack([b"1"])
    later = [here.pack([b"%d" % n]) for n in range(5)]

    asked = [len(give(there, message, now=10.0 + n / 1000)[1]) for n, message in enumerate(later)]

    assert asked == [1, 0, 0, 0, 0]
    assert len(give(there, later[0], now=10.2)[1]) == 1


def test_acknowledged_messages_are_not_kept() -> None:
    here, there = end(), end()
    give(there, here.pack([b"1"]))
    here.pack([b"2"])

    give(here, there.beat())

    assert here.pending() == [[b"2"]]
    assert [message[1] for message in here.again()] == [b"2"]


def test_messages_that_are_not_durable_are_not_acknowledged() -> None:
    # Given a broker's end, which acknowledges only what is durable
    worker, broker = end(), end()
    broker.take(unpack_header(worker.pack([b"1"])[0]), 0.0)

    # When it sends a heartbeat, then the worker still keeps its message
    give(worker, broker.beat())
    assert worker.pending() == [[b"1"]]

    # And after the commit it does not
    broker.acked = broker.received
    give(worker, broker.beat())
    assert worker.pending() == []


def test_a_repeated_message_is_answered_with_the_last_number() -> None:
    here, there = end(), end()
    message = here.pack([b"1"])
    give(there, message)

    _, (answer,) = give(there, message)
    give(here, answer)

    assert here.pending() == []


@pytest.mark.parametrize("seed", range(30))
def test_everything_arrives_once_and_in_order_whatever_the_connection_does(seed: int) -> None:
    rng = random.Random(seed)
    here, there, now = end(), end(), 0.0
    up: list[list[bytes]] = []
    down: list[list[bytes]] = []
    taken: list[bytes] = []
    for step in range(6000):
        now += 0.02
        if step < 300 and len(here.pending()) < 50:
            up.append(here.pack([b"%d" % here.sent]))
        elif step % 20 == 0:
            up.append(here.beat())
            down.append(there.beat())
        calm = step > 2000
        for queue, to in ((up, there), (down, here)):
            for _ in range(min(len(queue), rng.randint(0, 30))):
                message = queue.pop(0 if calm or rng.random() < 0.8 else rng.randrange(len(queue)))
                if calm or rng.random() < 0.8:
                    fresh, answers = give(to, message, now)
                    taken += message[1:] if fresh and to is there else []
                    (down if to is there else up).extend(answers)
                if not calm and rng.random() < 0.1:
                    queue.append(message)

    assert taken == [b"%d" % number for number in range(here.sent)]
    assert here.sent > 50
    assert here.pending() == []
