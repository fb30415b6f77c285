"""What a parent reports or refuses when its replay differs (J1 to J3)."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_scoop.core.parent.call import Call, ReusedOutcome
from resilient_scoop.core.parent.judge import Judge, Policy
from resilient_scoop.errors import (
    BegunBeforeError,
    DiscardError,
    ReplayDivergedError,
    StrangeFutureError,
)
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests


class Scene:
    """A judge, and calls that it judges."""

    def __init__(self, **policy: Any) -> None:
        self.notes: list[str] = []
        self.judge = Judge(ROOT, Policy(**policy), self.notes.append, lambda _: "m:f")
        self.calls: dict[int, Call] = {}

    def call(self, count: int = 1) -> Call:
        call = self.calls[len(self.calls)] = Call(len(self.calls), FN, FN)
        call.count, call.last = count, True
        call.left.add(0, count)
        call.digests += digests(*range(count))
        return call

    def doubted(self, *, once: bool = False, took_s: float = 0.0) -> Call:
        call = self.call()
        self.judge.doubt(call, [ReusedOutcome(0, 1, "its arguments differ", once, took_s)])
        return call

    def look(self, sought: set[int] | None = None) -> None:
        self.judge.judge(self.calls, sought or set())


def test_a_difference_is_reported_once_per_function() -> None:
    scene = Scene()
    for _ in range(3):
        scene.doubted()

    scene.look()
    scene.look()

    assert len(scene.notes) == 1
    assert "0.0[0] (f): its arguments differ" in scene.notes[0]


def test_a_doubt_that_a_later_record_has_settled_is_not_reported() -> None:
    scene = Scene()
    scene.doubted().left.discard(0, 1)

    scene.look()

    assert scene.notes == []


def test_a_call_that_only_the_history_can_settle_is_not_judged() -> None:
    scene = Scene()
    scene.doubted()

    scene.look(sought={0})

    assert scene.notes == []


def test_a_strict_replay_refuses_finally() -> None:
    scene = Scene(strict=True)
    scene.doubted()

    with pytest.raises(ReplayDivergedError):
        scene.look()

    assert isinstance(scene.judge.refusal, ReplayDivergedError)
    assert scene.notes == []


def test_no_call_replaces_a_started_call_that_is_not_idempotent() -> None:
    scene = Scene()
    scene.doubted(once=True)

    with pytest.raises(BegunBeforeError):
        scene.look()

    again = Scene(recompute=("m:f",))
    again.doubted(once=True)
    again.look()
    assert again.judge.refusal is None


def test_many_results_are_not_discarded_without_the_consent_of_the_user() -> None:
    scene = Scene(discard_s_max=10.0)
    scene.doubted(took_s=6.0)
    scene.look()
    assert scene.judge.refusal is None

    scene.doubted(took_s=6.0)
    with pytest.raises(DiscardError, match="12 s"):
        scene.look()


def test_a_started_call_is_not_started_again_at_another_position() -> None:
    scene = Scene()
    call = scene.call()
    ahead = wire.Outcome(7, 0, FN, digests(0), [b"Vx"], once=True)
    part = wire.Part(0, 0, 1, FN, digests(0), last=True)

    scene.judge.mind_moved(call, part, {7: [wire.Outcome(7, 0, FN, digests(0), [b"Vx"])]})
    with pytest.raises(BegunBeforeError, match=r"0\.7"):
        scene.judge.mind_moved(call, part, {7: [ahead]})


def test_single_calls_that_keep_their_results_are_reported_once_and_maps_each_time() -> None:
    scene = Scene()
    for count in (1, 1, 4, 4):
        call = scene.call(count)
        call.moved = count
        scene.judge.report_moved(call)

    assert ["1 result" in text for text in scene.notes] == [True, False, False]
    assert all(call.moved == 0 for call in scene.calls.values())


def test_a_missing_checkpoint_is_reported_once_and_refused_in_a_strict_run() -> None:
    scene = Scene()
    scene.judge.report_missing(scene.call())
    scene.judge.report_missing(scene.call())
    assert len(scene.notes) == 1

    with pytest.raises(ReplayDivergedError):
        Scene(strict=True).judge.report_missing(scene.call())


def test_a_different_observation_is_reported_and_refused_in_a_strict_run() -> None:
    first = wire.Observation(0, "done", 3, b"a")
    scene = Scene()
    scene.judge.report_other_answer(first, "poll", 4)
    scene.judge.report_other_answer(first, "done", 3)
    scene.judge.other_once("f", "g", 2)
    assert "`done` at call 3" in scene.notes[0]
    assert "the recorded answer to `done` does not answer" in scene.notes[1]
    assert "`once(g)` takes the place of `once(f)`" in scene.notes[2]

    with pytest.raises(ReplayDivergedError):
        Scene(strict=True).judge.report_other_answer(first, "poll", 4)
    with pytest.raises(ReplayDivergedError):
        Scene(strict=True).judge.other_once("f", "g", 2)


def test_a_future_whose_call_was_replaced_is_refused() -> None:
    scene = Scene()
    with pytest.raises(StrangeFutureError, match=r"0\.2\[1\] \(f\)"):
        scene.judge.refuse_future(2, 1, "f")
    assert isinstance(scene.judge.refusal, StrangeFutureError)
