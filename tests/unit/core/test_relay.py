"""An agent keeps messages of its processes, and sends those of ended processes (RL1 to RL6)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from resilient_scoop.core import relay
from resilient_scoop.core.link import Link
from resilient_scoop.core.relay import (
    _NEXT,
    PATIENCE_S,
    PATIENCE_S_MAX,
    SETTLE_S,
    WINDOW_BYTES,
    Line,
    LineEvent,
    LineState,
    Relay,
    RelayConfig,
)
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire

RUN = b"run of a"
W1, W2 = PeerId(b"Walice.1."), PeerId(b"Walice.2.")
ATTEMPT = wire.Attempt(1, 5)
DIGEST = b"d" * 32
HELLO = wire.Hello("worker", "alice", "w1", 7)
CALLS = wire.Calls("0.0.1", ATTEMPT, [])
CONST = wire.Const("k", DIGEST, b"value")


def outcome(
    start: int = 0, value: bytes = b"v", task: wire.Attempt | None = ATTEMPT
) -> wire.Outcomes:
    return wire.Outcomes("0", [wire.Outcome(0, start, b"f", DIGEST, [value], task=task)])


def progress(done: int) -> wire.Progress:
    return wire.Progress("0", ATTEMPT, 0, 9, b"f", DIGEST, done, 10)


class Files:
    """Files in memory; a full disk accepts none, and a damaged one returns none."""

    def __init__(self) -> None:
        self.files: dict[int, list[bytes]] = {}
        self.is_full = self.is_damaged = False
        self.last = 0

    def write(self, frames: Sequence[bytes]) -> int | None:
        if self.is_full:
            return None
        self.last += 1
        self.files[self.last] = list(frames)
        return self.last

    def read(self, number: int) -> list[bytes] | None:
        return None if self.is_damaged else self.files[number]

    def remove(self, number: int) -> None:
        del self.files[number]


class Host:
    """An agent's relay, a worker of it, and the broker's end of their link."""

    def __init__(self, memory: int = 1 << 20, disk: int = 1 << 20) -> None:
        self.files = Files()
        self.relay = Relay(RUN, "alice", RelayConfig(memory, disk), self.files)
        self.relay.meet(1)
        self.relay.open(W1)
        self.now = 100.0
        self.worker = Link(RUN, 1)
        self.broker = Link(RUN, 1)

    def says(self, *messages: wire.Up) -> list[bytes]:
        """Let the worker send a bundle, which the broker may not get."""
        message = self.worker.pack([wire.encode(each) for each in messages])
        self.relay.up(W1, message)
        self.relay.check()
        return message

    def acknowledges(self, no: int, epoch: int = 1) -> bool:
        """Let the broker acknowledge; return whether the worker gets this."""
        passes = self.relay.down(W1, wire.Header(RUN, wire.BEAT, epoch, 0, no))
        self.relay.check()
        return passes

    def ends(self) -> None:
        self.relay.ended(W1, "w1", self.now)
        self.settles()

    def settles(self) -> None:
        self.now += SETTLE_S
        assert self.relay.take_done(self.now) == []
        self.relay.check()

    def due(self, seconds: float = 0.0) -> list[list[wire.Up]]:
        """Return what is sent after some time, bundle by bundle, if the broker knows of the end."""
        self.now += seconds
        found = self.relay.due(self.now, {W1})
        self.relay.check()
        assert all(peer == W1 for peer, _ in found)
        self.numbers = [wire.unpack_header(frames[0]).seq for _, frames in found]
        return [[wire.decode_up(frame) for frame in frames[1:]] for _, frames in found]

    def is_full(self) -> bool:
        return self.relay.is_full

    def done(self) -> list[PeerId]:
        found = self.relay.take_done(self.now)
        self.relay.check()
        return found


@pytest.mark.parametrize(
    ("state", "happening"),
    list(itertools.product(LineState, LineEvent)),
    ids=lambda each: each.name,
)
def test_a_line_changes_state_only_as_its_table_says(
    state: LineState, happening: LineEvent
) -> None:
    line = Line(W1, "w1", state)
    after = _NEXT[state].get(happening)
    if after is None:
        with pytest.raises(AssertionError, match="w1 is"):
            line.enter(happening)
        assert line.state is state
    else:
        line.enter(happening)
        assert line.state is after


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    lines = [line.split() for line in (relay.__doc__ or "").splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["state"]]
    rows = {words[0]: words[1:] for words in lines if words and words[0] in LineState.__members__}
    table = {
        LineState[state]: {
            LineEvent[h]: LineState[after]
            for h, after in zip(head, row, strict=True)
            if after != "-"
        }
        for state, row in rows.items()
    }
    assert table == _NEXT


def test_copies_are_dropped_when_they_are_acknowledged() -> None:
    host = Host()
    for start in range(3):
        host.says(outcome(start))
    assert host.acknowledges(2), "the worker lives"
    assert [copy.no for copy in host.relay.lines[W1].copies] == [3]
    host.acknowledges(3)
    assert host.relay.memory_bytes == 0


def test_an_acknowledgement_of_another_broker_drops_nothing() -> None:
    host = Host()
    host.says(outcome())
    host.acknowledges(1, epoch=2)
    assert len(host.relay.lines[W1].copies) == 1


def test_heartbeats_and_repetitions_are_not_kept() -> None:
    host = Host()
    first = host.says(outcome())
    host.relay.up(W1, first)
    host.relay.up(W1, host.worker.beat())
    assert [copy.no for copy in host.relay.lines[W1].copies] == [1]


def test_bytes_that_are_not_a_message_are_not_kept() -> None:
    host = Host()
    for frames in ([], [b""], [b"garbage", b"more"]):
        host.relay.up(W1, frames)
    host.relay.up(W2, host.worker.pack([b"of nobody"]))
    assert host.relay.memory_bytes == 0


def test_copies_that_exceed_the_memory_are_in_files_which_are_removed_with_them() -> None:
    host = Host(memory=0)
    host.says(outcome(0))
    host.says(outcome(1))
    assert len(host.files.files) == 2
    host.acknowledges(1)
    assert list(host.files.files) == [2]
    host.acknowledges(2)
    assert host.files.files == {}
    assert host.relay.disk_bytes == 0


@pytest.mark.parametrize("disk", [0, 1 << 20], ids=["limit", "disk full"])
def test_a_message_without_space_is_not_kept_nor_any_after_it(disk: int) -> None:
    host = Host(memory=150, disk=disk)
    host.files.is_full = True
    host.says(outcome(0))
    assert not host.is_full()
    host.says(outcome(1, bytes(200)))
    assert host.is_full()
    host.says(outcome(2))
    assert [copy.no for copy in host.relay.lines[W1].copies] == [1], "RL1: no gap"

    # When everything is acknowledged, keeping begins again
    host.acknowledges(3)
    assert not host.is_full()
    host.says(outcome(3))
    assert [copy.no for copy in host.relay.lines[W1].copies] == [4]


def test_kept_messages_are_dropped_when_their_worker_greets_a_new_broker() -> None:
    host = Host()
    host.says(outcome(0))
    host.says(outcome(1))
    host.worker = Link(RUN, 2)
    host.says(HELLO, outcome(0), outcome(1))
    line = host.relay.lines[W1]
    assert (line.epoch, [copy.no for copy in line.copies]) == (2, [1])


def test_the_end_of_a_worker_without_unacknowledged_messages_may_be_reported_at_once() -> None:
    host = Host()
    host.says(outcome())
    host.acknowledges(1)
    host.relay.ended(W1, "w1", host.now)
    assert host.done() == [], "its last messages may be on their way"
    host.now += SETTLE_S
    assert host.done() == [W1]
    assert host.relay.lines == {}


def test_a_message_that_arrives_after_the_end_of_its_worker_is_kept() -> None:
    host = Host()
    host.relay.ended(W1, "w1", host.now)
    host.says(outcome())
    host.settles()
    assert len(host.relay.lines[W1].copies) == 1


def test_messages_to_an_ended_worker_are_dropped() -> None:
    host = Host()
    host.says(outcome())
    host.ends()
    assert not host.acknowledges(0)


def test_all_messages_but_calls_are_sent_again_until_they_are_acknowledged() -> None:
    host = Host()
    host.says(HELLO, CALLS)
    host.says(CALLS, outcome(), progress(1), CONST)
    host.ends()
    assert host.due() == [], "the worker has sent it itself"
    assert host.due(PATIENCE_S) == [[HELLO], [outcome(), progress(1), CONST]]
    assert host.numbers == [1, 2]
    assert host.done() == []
    assert host.due(PATIENCE_S) == []
    assert len(host.due(PATIENCE_S)) == 2, "the second time after twice the time"
    host.acknowledges(2)
    assert host.done() == [W1]


def test_nothing_is_sent_before_the_broker_knows_of_the_end() -> None:
    host = Host()
    host.says(outcome())
    host.ends()
    host.now += 100.0
    assert host.relay.due(host.now, set()) == []
    assert host.relay.deadline(set()) == float("inf")
    assert len(host.due()) == 1


def test_repetitions_become_rare_and_are_sent_soon_when_the_broker_is_back() -> None:
    host = Host()
    host.says(outcome())
    host.ends()
    sent = sum(len(host.due(0.25)) for _ in range(400))
    assert 100.0 / PATIENCE_S_MAX <= sent <= 100.0 / PATIENCE_S_MAX + 5
    host.relay.hurry()
    assert len(host.due()) == 1


def test_a_request_of_the_broker_is_answered_at_once() -> None:
    host = Host()
    host.says(outcome(0))
    host.says(outcome(1))
    host.ends()
    host.relay.down(W1, wire.Header(RUN, wire.RESEND, 1, 0, 1))
    assert host.due() == [[outcome(1)]]
    assert host.numbers == [2]


def test_few_large_bundles_are_on_their_way_at_a_time() -> None:
    host = Host(memory=1 << 30)
    large = bytes(WINDOW_BYTES // 2 + 1)
    for start in range(3):
        host.says(outcome(start, large))
    host.ends()
    assert len(host.due(PATIENCE_S)) == 1
    host.acknowledges(1)
    assert len(host.due()) == 1
    host.acknowledges(2)
    assert host.due() == [[outcome(2, large)]]


def test_a_new_broker_gets_a_hello_that_announces_the_results() -> None:
    host = Host()
    host.says(HELLO, progress(1))
    host.says(CALLS, outcome(3), progress(2))
    host.says(outcome(4))
    host.ends()
    host.relay.meet(2)
    hello = wire.Hello(
        "worker", "alice", "w1", 0,
        [wire.Held(ATTEMPT, "0", 0, b"f", [(3, 4), (4, 5)], DIGEST * 2)],
    )  # fmt: skip
    assert host.due() == [[hello, progress(2)], [outcome(3)], [outcome(4)]]
    assert host.numbers == [1, 2, 3]
    host.acknowledges(3, epoch=1)
    assert host.done() == [], "that was the earlier broker"
    host.acknowledges(3, epoch=2)
    assert host.done() == [W1]


def test_a_third_broker_gets_the_same_if_the_second_acknowledged_nothing() -> None:
    host = Host()
    host.says(HELLO, progress(1), CONST)
    host.says(outcome(3))
    host.ends()
    host.relay.meet(2)
    second = host.due()
    host.relay.meet(3)
    assert host.due() == second


def test_copies_that_a_second_broker_acknowledged_are_not_sent_to_a_third() -> None:
    host = Host()
    host.says(HELLO, CONST)
    host.says(outcome(3))
    host.says(outcome(4))
    host.ends()
    host.relay.meet(2)
    host.due()
    host.acknowledges(2, epoch=2)
    host.relay.meet(3)
    ((hello,), *rest) = host.due()
    assert isinstance(hello, wire.Hello)
    assert [each.spans for each in hello.held] == [[(4, 5)]]
    assert rest == [[outcome(4)]]


def test_outcomes_that_the_worker_only_found_are_not_sent_to_a_new_broker() -> None:
    host = Host()
    host.says(outcome(3, task=None))
    host.ends()
    host.relay.meet(2)
    assert host.due() == []
    assert host.done() == [W1]


def test_a_damaged_file_is_counted_and_its_bundle_is_sent_empty() -> None:
    host = Host(memory=0)
    host.says(HELLO)
    host.says(outcome())
    host.ends()
    host.files.is_damaged = True
    assert host.due(PATIENCE_S) == [[], []]
    assert host.relay.torn == 2
    host.acknowledges(2)
    assert host.done() == [W1]
    assert host.files.files == {}


def test_copies_that_the_broker_does_not_want_are_dropped() -> None:
    host = Host(memory=0)
    host.says(outcome())
    host.relay.give_up(W1)
    assert host.files.files, "the worker lives"
    host.ends()
    host.relay.give_up(W1)
    assert host.files.files == {}
    assert host.done() == [W1]
    host.relay.give_up(W1)


def test_the_relay_has_deadlines_for_the_last_messages_and_for_its_time_limit() -> None:
    host = Host()
    host.says(outcome())
    assert host.relay.deadline({W1}) == float("inf")
    host.relay.ended(W1, "w1", host.now)
    assert host.relay.deadline({W1}) == host.now + SETTLE_S
    host.settles()
    assert host.relay.deadline({W1}) == host.now + PATIENCE_S


@pytest.mark.parametrize("now", [0.4619939924035619, 0.1, 1e9 / 3])
def test_a_message_that_is_due_is_sent_at_its_deadline(now: float) -> None:
    """Sums and differences of times are rounded differently."""
    host = Host()
    host.now = now
    host.says(outcome())
    host.ends()
    host.due(PATIENCE_S)
    for _ in range(20):
        host.now = host.relay.deadline({W1})
        assert len(host.due()) == 1


@pytest.mark.parametrize("broken", ["memory", "limit", "gap", "acknowledged"])
def test_a_broken_invariant_is_noticed(broken: str) -> None:
    host = Host()
    host.says(outcome(0))
    host.says(outcome(1))
    line = host.relay.lines[W1]
    if broken == "memory":
        host.relay.memory_bytes += 1
    elif broken == "limit":
        host.relay.config = RelayConfig(1, 1)
    elif broken == "gap":
        line.copies.popleft()
        line.last += 1
        host.relay.memory_bytes = line.copies[0].size
    else:
        line.acked = 1
    with pytest.raises(AssertionError, match="RL"):
        host.relay.check()
