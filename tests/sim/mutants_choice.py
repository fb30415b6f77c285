"""Planted bugs in the choice of what a worker runs next (`core.worker.choice`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from resilient_scoop.core.worker import choice
from resilient_scoop.core.worker.choice import Next
from resilient_scoop.core.worker.work import Work
from tests.sim.planting import Mutant, Patch
from tests.sim.troubles import Trouble

_CAREFUL = {"hosts": Trouble(freed=0.9), "until": 10.0, "nodes": 1, "workers": 2}
_IGNORES_STOP = {"hosts": Trouble(ignores_stop=0.9), "rates": {"stop": 1.0}, "until": 10.0}
_CALM = {"rates": {}, "until": 0.0, "points": {}, "nodes": 1, "workers": 1}
_NESTED = (("map", "fan", [[2, 3, "leaf"]] * 4), ("map", "leaf", [1, 2, 3]))


def _slices_before_parents() -> Sequence[Patch]:
    def bug(*, stopping: bool, ready: bool, slices: bool) -> Next:
        if stopping:
            return Next.END
        if slices:
            return Next.BEGIN
        return Next.RESUME if ready else Next.WAIT

    return [(choice, "next_step", bug)]


def _begun_after_a_stop() -> Sequence[Patch]:
    step = choice.next_step

    def bug(*, stopping: bool, ready: bool, slices: bool) -> Next:
        return step(stopping=False, ready=ready, slices=slices)

    return [(choice, "next_step", bug)]


def _ready_parents_wait() -> Sequence[Patch]:
    step = choice.next_step

    def bug(*, stopping: bool, ready: bool, slices: bool) -> Next:
        found = step(stopping=stopping, ready=ready, slices=slices)
        return Next.WAIT if found is Next.RESUME and not slices else found

    return [(choice, "next_step", bug)]


def _the_shallowest_first() -> Sequence[Patch]:
    def bug(path: str, *, yields: bool = False) -> tuple[bool, int]:
        return yields, path.count(".")

    return [(choice, "turn_of", bug)]


def _ranks_ignored() -> Sequence[Patch]:
    def bug(
        opened: list[Work], queue: deque[Work], may_begin: Callable[[Work], bool] | None = None
    ) -> Work | None:
        return opened.pop() if opened else queue.pop() if queue else None

    return [(choice, "take_slice", bug)]


def _nothing_is_barred() -> Sequence[Patch]:
    return [(choice, "bar", lambda *_, **__: None)]


CHOICE_MUTANTS = (
    Mutant("slices go before parents", _slices_before_parents, _NESTED),
    Mutant("slices begin after a stop", _begun_after_a_stop, None, _IGNORES_STOP),
    Mutant("ready parents wait", _ready_parents_wait, _NESTED, _CALM),
    Mutant("the shallowest parent goes first", _the_shallowest_first),
    Mutant("ranks of slices are ignored", _ranks_ignored),
    Mutant("nothing is barred in a careful worker", _nothing_is_barred, None, _CAREFUL),
)
