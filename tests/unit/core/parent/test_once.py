"""`once` in the parent machine: skipped if its function had ended, otherwise run again."""

from __future__ import annotations

import pytest

from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.core.parent.once import Label
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import ReplayDivergedError
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, ORIGIN, Bench, digests, sent

ATTEMPT = wire.Attempt(1, 1)


class Life:
    """One attempt of the root, and its messages; the next attempt gets all of them."""

    def __init__(
        self, before: Life | None = None, *, cut: int | None = None, strict: bool = False
    ) -> None:
        self.notes: list[str] = []
        self.parent = Parent(
            ROOT, ATTEMPT, before is not None, Policy(strict=strict), self.notes.append
        )
        self.observed: list[wire.Observation] = []
        if before is not None:
            self.observed = list(before.sent()[:cut])
            calls = max((each.at_call for each in self.observed), default=0)
            head = wire.History(ROOT, ATTEMPT, 9, last=True, calls=calls, no=1)
            assert self.parent.page_wanted() is not None
            self.parent.page(
                head, [wire.Observed(ROOT, ATTEMPT, self.observed)] if self.observed else []
            )

    def sent(self) -> list[wire.Observation]:
        new = [wire.decode_up(frame) for frame in self.parent.frames()]
        for message in new:
            if isinstance(message, wire.Observed):
                self.observed += message.observations
        return self.observed

    def call(self) -> int:
        made = self.parent.begin(FN, FN)
        self.parent.add(made, digests(1), [b"arg"], last=True)
        return made.number

    def once(
        self, value: bytes, *, calls: int = 0, inside: bytes = b"", name: str = "f", code: str = ""
    ) -> bytes:
        """Call `once` with a function that makes calls and calls `once` itself."""
        return self._once(value, calls, inside, Label(name, code), 0)

    def _once(self, value: bytes, calls: int, inside: bytes, label: Label, depth: int) -> bytes:
        begun = self.parent.begin_once(depth)
        assert self.parent.is_once_known(begun)
        answer = self.parent.recall_once(begun, label)
        if answer is not None:
            return answer
        if inside:
            self._once(inside, 0, b"", Label("g"), depth + 1)
        for _ in range(calls):
            self.call()
        return self.parent.end_once(begun, label, value)


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("inside", [b"", b"0inner"])
def test_a_recorded_answer_of_once_is_repeated_and_calls_inside_are_skipped(
    calls: int, inside: bytes
) -> None:
    first = Life()
    assert first.once(b"0a", calls=calls, inside=inside) == b"0a"
    assert first.once(b"0b") == b"0b"
    number = first.call()

    second = Life(first)
    assert second.once(b"0other", calls=calls, inside=inside) == b"0a"
    assert second.once(b"0another") == b"0b"
    assert second.call() == number
    assert second.parent.history.next_observation == first.parent.history.next_observation


def test_a_function_of_once_that_did_not_end_runs_again_with_the_results_of_its_calls() -> None:
    first = Life()
    first.once(b"0outer", calls=1, inside=b"0inner")
    assert [each.kind for each in first.sent()] == ["once/1", "once 0 0"]

    # When the process died before the answer of the outer one was recorded
    second = Life(first, cut=1)

    assert second.once(b"0again", calls=1, inside=b"0changed") == b"0again"
    assert second.sent()[0] == first.sent()[0]
    third = Life(second)
    assert third.once(b"0x", calls=1, inside=b"0y") == b"0again"


def test_an_answer_that_an_older_version_recorded_after_calls_is_found_at_their_end() -> None:
    old = Life()
    old.call()
    old.parent.observe("once", b"0old")

    new = Life(old)
    assert new.once(b"0new", calls=1) == b"0old"
    assert not new.notes


def test_another_function_at_the_same_position_gets_the_recorded_answer_and_a_report() -> None:
    first = Life()
    first.once(b"0a", name="pay")

    second = Life(first)
    assert second.once(b"0b", name="stamp") == b"0a"
    assert "`once(stamp)` takes the place of `once(pay)`" in second.notes[0]
    with pytest.raises(ReplayDivergedError):
        Life(first, strict=True).once(b"0b", name="stamp")


def test_an_edited_function_keeps_the_recorded_answer_and_is_reported_once() -> None:
    first = Life()
    first.once(b"0a", code="12")
    first.once(b"0b", code="12")
    second = Life(first)

    assert [second.once(b"0x", code="34"), second.once(b"0y", code="34")] == [b"0a", b"0b"]
    assert len(second.notes) == 1
    assert "`once(f)` has other code or arguments than before, and keeps" in second.notes[0]

    # Not where the code is the same, or the earlier one is not known
    for code in ("12", ""):
        third = Life(first)
        assert third.once(b"0x", code=code) == b"0a"
        assert not third.notes


def test_an_answer_is_durable_when_this_broker_or_the_next_one_confirms_it() -> None:
    life = Life()
    life.once(b"0a")
    frames = life.parent.frames()
    assert not life.parent.once.is_durable

    # A new broker is asked again
    life.parent.reconnect()
    assert life.parent.frames() == frames

    life.parent.once.take(0)
    assert life.parent.once.to_ask_again() == []


def test_the_broker_confirms_an_answer_after_the_commit_and_logs_it_once() -> None:
    bench = Bench()
    root = bench.begin()
    observed = wire.Observed(ROOT, root, [wire.Observation(0, "once", 0, b"0a")], asks=True)

    for _ in range(2):
        actions = bench.tell(ORIGIN, observed)
        assert sent(actions, ORIGIN, wire.Noted) == [wire.Noted(ROOT, 0)]

    assert len(bench.logged()) == 1
