"""Plants a bug, and lets the simulator search for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tests.sim.programs import Step
from tests.sim.world import Climate, World

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug; `steps` and `weather` make a world that reaches it, if random worlds seldom do."""

    name: str
    patches: Callable[[], Sequence[Patch]]
    steps: tuple[Step, ...] | None = None
    weather: dict[str, Any] = field(default_factory=dict)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Plant a bug while the block runs."""
    with ExitStack() as undo:
        for owner, name, bug in mutant.patches():
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, bug)
        yield


def found_by(mutant: Mutant, seeds: int) -> tuple[int, str] | None:
    """Return the first seed that finds a bug, with the message; None if no seed does."""
    with planted(mutant):
        for seed in range(seeds):
            steps = None if mutant.steps is None else list(mutant.steps)
            try:
                climate = replace(Climate.draw(random.Random(seed)), **mutant.weather)
                World(seed, steps=steps, climate=climate).run()
            except (AssertionError, LookupError, TypeError, msgspec.MsgspecError) as error:
                return seed, str(error) or repr(error)
    return None
