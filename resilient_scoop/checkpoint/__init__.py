"""Checkpoints: a restarted parent continues from its last checkpoint, and replays only the rest.

    with checkpoint.durable(pop=make_population, gen=0) as s:
        while s.gen < 1000:
            s.pop = evolve(s.pop)
            s.gen += 1
            s.commit()

A commit says: entering the block with this state is equivalent to continuing here. On a restart the
block is entered with the last committed state, `random`, `numpy.random` and the streams of
`futures.rng` are restored, and only what followed is replayed. Which commits were written
(`every_s` skips most of them) makes no difference to the results.

Without a block: `state = checkpoint.restore(default)` before the loop, `checkpoint.save(state)` in
it. Both forms work in the script and in any task that makes calls.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from resilient_scoop.checkpoint._block import Block, current_block
from resilient_scoop.checkpoint._state import State, Value, initialize, is_taken, value
from resilient_scoop.errors import UsageError

__all__ = ["State", "Value", "durable", "restore", "save", "value"]

T = TypeVar("T")
EverySeconds = float | Literal["auto"] | None
Unsavable = Literal["raise", "warn"]


class durable:  # noqa: N801 - used like a function
    """A block whose state outlives the process: a context manager that returns the state.

    The keywords are its attributes and their initial values. Functions, lambdas, bound methods,
    partials and classes are called without arguments to make the value, and only if there is no
    checkpoint; to use such an object itself as the value, wrap it:
    `durable(loss=checkpoint.value(fn))`. Other callable objects are values. More attributes may be
    set at any time; all are saved.

    `name` distinguishes the blocks of one parent. Blocks may be nested: the innermost one commits.
    `on_unsavable="warn"` lets the run continue without a checkpoint that cannot be saved.

    Raises (on entering):
        UsageError: a block of this name is open in this parent, or a name cannot be an attribute.
        CheckpointsLostError: there are checkpoints, and none can be used.
    """

    def __init__(
        self, name: str = "main", *, on_unsavable: Unsavable = "raise", **initial: Any
    ) -> None:
        for attribute in initial:
            if is_taken(attribute):
                raise UsageError(f"durable({attribute}=…): this name is taken; choose another one")
        self._block = Block(name, on_unsavable)
        self._initial = initial

    def __enter__(self) -> State:
        state: State | None = self._block.enter()
        begun = False
        try:
            if state is None:
                state = State()
            for attribute, initial in self._initial.items():
                if attribute not in vars(state):
                    setattr(state, attribute, initialize(initial, attribute))
            begun = True
        finally:
            if not begun:
                self._block.leave()
        object.__setattr__(state, "_rscoop_block", self._block)
        return state

    def __exit__(self, *exc: object) -> None:
        self._block.leave()


def restore(default: T | Any = None, *, name: str = "main", on_unsavable: Unsavable = "raise") -> T:
    """Return the state that was last saved under this name; if there is none, the default.

    A function as default is called without arguments, as in `durable`. The block lasts until its
    parent ends.

    Raises: as `durable` on entering.
    """
    block = Block(name, on_unsavable)
    state: T | None = block.enter(kept=True)
    return initialize(default, "default") if state is None else state


def save(state: Any, *, name: str = "main", every_s: EverySeconds = None) -> None:
    """Save a state, to be returned by `restore`. See `State.commit`."""
    block = current_block(name)
    if block is not None:
        block.commit(state, every_s)
