"""`python -m tests.sim SEED [--trace]` replays one seed; `FIRST COUNT` runs many and measures.

With `--hosts`, the hosts of the world fail; with `--grid`, there are other hosts, which join and
leave.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter

from tests.sim.world import World


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def replay(seed: int, *, trace: bool, troubled: bool, grid: bool) -> None:
    """Run one seed and print its result."""
    world = World(seed, say=say if trace else None, troubled=troubled, grid=grid)
    say(f"{world.climate}\n{world.steps}")
    world.run()
    say(f"seed {seed}: {world.now:.2f} s, {world.events} events, trace {world.trace:08x}")
    say(str(dict(world.faults)))


def many(first: int, count: int, *, troubled: bool, grid: bool) -> None:
    """Run many seeds and print the figures."""
    began, events, seconds, broken = time.monotonic(), 0, 0.0, 0
    faults: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed, troubled=troubled, grid=grid)
        try:
            world.run()
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            broken += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            say(f"seed {seed}: {error!r:.300} ({where.name}, line {where.lineno})")
        events += world.events
        seconds += world.now
        faults += world.faults
    took_s = time.monotonic() - began
    say(f"{count} seeds, {broken} broken, {sum(faults.values())} faults, {events} events")
    say(
        f"in {took_s:.1f} s: {count / took_s:.0f} seeds/s, {events / took_s:.0f} events/s, "
        f"{seconds / took_s:.0f} virtual s/s"
    )
    say(str(dict(faults)))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    if len(numbers) == 2:
        many(*numbers, troubled="--hosts" in sys.argv, grid="--grid" in sys.argv)
    else:
        replay(
            numbers[0],
            trace="--trace" in sys.argv,
            troubled="--hosts" in sys.argv,
            grid="--grid" in sys.argv,
        )
