"""The checkers accept and refuse histories in which attempts of one parent follow each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken
from tests.sim.saves import Saves
from tests.sim.world import World

KID = "0.0[0]"
BLOCK = ("main", 0)
FIRST, SECOND = b"Wfirst...", b"Wsecond.."


@pytest.mark.parametrize("attempt", [wire.Attempt(2, 3), wire.Attempt(2, 4), wire.Attempt(3, 1)])
def test_the_checker_finds_an_attempt_that_misses_a_confirmed_checkpoint(
    attempt: wire.Attempt,
) -> None:
    checks = World(0).checks
    checks.saved[KID, *BLOCK] = (4, wire.Attempt(2, 3))

    checks.entered(KID, BLOCK, 4, attempt)
    with pytest.raises(Broken, match="NO-LOST"):
        checks.entered(KID, BLOCK, 3, attempt)


@pytest.mark.parametrize("attempt", [wire.Attempt(2, 2), wire.Attempt(1, 9)])
def test_the_checker_allows_a_replaced_attempt_to_know_less(attempt: wire.Attempt) -> None:
    checks = World(0).checks
    checks.saved[KID, *BLOCK] = (4, wire.Attempt(2, 3))

    checks.entered(KID, BLOCK, 0, attempt)


def broker(no: int) -> Any:
    """Return a broker that has waited for all processes and decides on a hand-over."""
    handover = SimpleNamespace(
        members=SimpleNamespace(peers={FIRST: None, SECOND: None}),
        scheduler=SimpleNamespace(state=SimpleNamespace(parents={KID: None})),
        awaited=SimpleNamespace(waiting={KID: 0}, hands_over=True),
        is_whole=True,
        no=no,
    )
    machine = SimpleNamespace(handover=handover, membership=SimpleNamespace(_awaited=None))
    return SimpleNamespace(broker=machine, alive=True, open=True)


def taken_over(first: int, second: int, *, commits: bool) -> Saves:
    """Let a parent save and its worker die; its next holder gets the request `second`."""
    world: Any = SimpleNamespace(broker=broker(second))
    saves = Saves(world)
    saves.asked(FIRST, KID, first)
    saves.made((KID, *BLOCK, 1))
    if commits:
        saves.committed(
            wire.Checkpoint(KID, wire.Attempt(1, 1), *BLOCK, 1, 0, 0, 0, 0, 0, b"state")
        )
    saves.lost(FIRST)
    saves.asked(SECOND, KID, second)
    saves.decided(world.broker.broker.handover)
    return saves


def test_the_checker_allows_one_save_per_request() -> None:
    saves = taken_over(1, 1, commits=True)

    saves.handed_over()

    assert saves.checked == 1


@pytest.mark.parametrize(
    ("second", "commits"), [(1, False), (2, True)], ids=["not durable", "another question"]
)
def test_the_checker_finds_a_parent_that_has_not_saved_since_the_request(
    second: int, *, commits: bool
) -> None:
    saves = taken_over(1, second, commits=commits)

    with pytest.raises(Broken, match="has not saved"):
        saves.handed_over()
