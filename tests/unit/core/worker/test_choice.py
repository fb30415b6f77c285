"""The choice of what a worker runs next (WC1 to WC4), for every combination of facts."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import asdict, dataclass

import pytest

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.worker.choice import (
    BARRED_S,
    Next,
    bar,
    give_back_upper,
    next_step,
    take_slice,
    turn_of,
)
from resilient_scoop.core.worker.work import Work
from resilient_scoop.wire import messages as wire
from tests.unit.core.worker.test_worker import Desk


@dataclass
class Parked:
    yields: bool = False


def work(no: int, rank: int, parent: str = "0") -> Work:
    task = wire.Task(no, parent, 0, 0, b"f", b"", [b"a"])
    attempt = wire.Attempt(1, no)
    return Work(attempt, task, 0, 1, Intervals([(0, 1)]), 0, rank=(0, rank, 0))


@pytest.mark.parametrize("facts", list(itertools.product((False, True), repeat=3)), ids=str)
def test_a_stop_is_handled_before_parents_and_parents_before_slices(
    facts: tuple[bool, bool, bool],
) -> None:
    stopping, ready, slices = facts
    step = next_step(stopping=stopping, ready=ready, slices=slices)
    if stopping:
        assert step is Next.END
    elif ready:
        assert step is Next.RESUME
    else:
        assert step is (Next.BEGIN if slices else Next.WAIT)


def test_the_deepest_parent_runs_first_and_one_that_waits_for_a_lock_last() -> None:
    turns = {
        "0": turn_of("0"),
        "0.1[2].0": turn_of("0.1[2].0"),
        "lock": turn_of("0.1[2].0.1", yields=True),
    }
    assert sorted(turns, key=lambda each: turns[each]) == ["0.1[2].0", "0", "lock"]


def test_no_slice_is_chosen_if_none_exists() -> None:
    assert take_slice([], deque()) is None


def test_the_open_slice_of_the_lowest_rank_is_chosen_and_of_equal_ones_the_latest() -> None:
    first, second, queued = work(1, 5), work(2, 5), work(3, 5)
    opened, queue = [first, second], deque([queued])
    assert take_slice(opened, queue) is second
    assert take_slice(opened, queue) is first
    assert take_slice(opened, queue) is queued
    assert (opened, list(queue)) == ([], [])


def test_a_queued_slice_of_lower_rank_goes_before_open_ones() -> None:
    opened, queue = [work(1, 5)], deque([work(2, 4), work(3, 5)])
    taken = take_slice(opened, queue)
    assert taken is not None
    assert taken.attempt.no == 2
    assert [len(opened), len(queue)] == [1, 1]


def test_every_slice_may_begin_while_no_task_waits_for_a_lock() -> None:
    assert bar({"0.0[0]": Parked()}, locks=0, careful=False, idle_s=0.0) is None
    assert bar({}, locks=0, careful=True, idle_s=0.0) is None


ROOTS, BELOW, ELSEWHERE = work(1, 1, ids.ROOT), work(2, 2, "0.0[0].0[3]"), work(3, 3, "0.0[1]")


@dataclass
class Barred:
    """Slices that are barred because tasks wait for locks, with the time since the last start."""

    locks: int = 0
    careful: bool = False
    idle_s: float = 0.0


@pytest.mark.parametrize(
    ("barred", "allowed"),
    [
        (Barred(locks=1), [BELOW, ELSEWHERE]),
        (Barred(careful=True), [BELOW]),
        (Barred(locks=1, careful=True), [BELOW]),
        (Barred(careful=True, idle_s=BARRED_S + 0.1), [BELOW, ELSEWHERE]),
    ],
    ids=str,
)
def test_a_task_that_waits_for_a_lock_bars_slices(barred: Barred, allowed: list[Work]) -> None:
    parked = {"0.0[0]": Parked(), "0.0[0].0[3].0[9].0[1]": Parked(yields=True)}
    may_begin = bar(parked, **asdict(barred))
    assert may_begin is not None
    assert [each for each in (ROOTS, BELOW, ELSEWHERE) if may_begin(each)] == allowed
    queue = deque([ROOTS, ELSEWHERE, BELOW])
    assert take_slice([], queue, may_begin) is (ELSEWHERE if ELSEWHERE in allowed else BELOW)
    assert ROOTS in queue


def test_nothing_is_chosen_while_all_slices_are_barred() -> None:
    queue = deque([ROOTS])
    assert take_slice([], queue, lambda _work: False) is None
    assert list(queue) == [ROOTS]


def test_barred_calls_of_the_script_are_given_back_and_those_of_tasks_stay() -> None:
    desk = Desk()
    opened, queued = desk.grant(0, 3), desk.grant(3, 6, no=2)
    desk.worker.queue.remove(opened)
    opened.next = 1
    below = work(3, 0, parent="0.0[7].0")
    slices = [opened, below]

    give_back_upper(desk.worker, slices)

    returned = [wire.Returned(opened.attempt, 1), wire.Returned(queued.attempt, 3)]
    assert desk.messages() == returned
    assert slices == [below]
