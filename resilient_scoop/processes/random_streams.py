"""The random streams of the running future, and separate streams for `once` and the like."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from resilient_scoop.ids import seed_of
from resilient_scoop.task_state import (
    generators,
    import_watcher,
    rng,
    unseeded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilient_scoop.processes.connection import Connection, Context

_UNSEEDED: Final = "\0unseeded"
"""Name of the stream that seeds generators without a seed; users cannot use this name."""


def install(rules: int, seed: int, here: Callable[[], Context], *, tasks: bool) -> None:
    """Make the random numbers of this process depend on the run, before user code is imported.

    `here` returns the running future. With `tasks`, the process runs tasks, each of which has its
    own state of the generators in modules.
    """

    def seed_here(mark: str = "") -> int:
        context = here()
        return seed_of(seed, context.path + context.aside + mark)

    rng.follow(rules)
    watcher = import_watcher.Watcher(
        lambda name: seed_of(seed, f"import {name}"), lambda: here().path if tasks else ""
    )
    rng.watch_imports(lambda: seed_here() if watcher.number is None else watcher.number)
    rng.seed(seed_here())
    if rng.is_old():
        return
    generators.follow(on=True)
    watcher.start()

    def draw(bits: int) -> int:
        number = watcher.draw(bits)
        if number is not None:
            return number
        context = here()
        if context.rngs is None:
            context.rngs = rng.StreamBook()
        return int(context.rngs.obtain(_UNSEEDED, seed_here).getrandbits(bits))

    unseeded.draw_from(draw)


@contextmanager
def aside(session: Connection, mark: str) -> Iterator[None]:
    """Run something with separate streams, by a mark that is unique in the future.

    A replay does not run it, and the streams of the future are not advanced.
    """
    if rng.is_old():
        yield
        return
    context = session.context
    generators.look_again()
    streams, held = rng.save(), generators.save()
    book, before = context.rngs, context.aside
    context.rngs, context.aside = None, before + mark
    rng.seed(session.seed_here())
    generators.seed(context.path + context.aside)
    try:
        yield
    finally:
        context.rngs, context.aside = book, before
        rng.restore(streams)
        generators.restore(held)
