"""`python -m tests.sim SEED [--trace]` replays one seed; `COUNT seeds from SEED` is for measuring."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter

from tests.sim.world import World


def replay(seed: int, *, trace: bool) -> None:
    """Run one seed and say how it went."""
    world = World(seed, say=print if trace else None)
    print(world.climate, *world.steps, sep="\n")
    world.run()
    print(f"seed {seed}: {world.now:.2f} s, {world.events} events, trace {world.trace:08x}")
    print(dict(world.faults))


def many(first: int, count: int) -> None:
    """Run many seeds and print the figures."""
    began, events, seconds = time.monotonic(), 0, 0.0
    faults: Counter[str] = Counter()
    broken = 0
    for seed in range(first, first + count):
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            broken += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"seed {seed}: {str(error)[:300]} ({where.name}:{where.lineno})")
        except Exception as error:
            broken += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"seed {seed}: {error!r} ({where.filename.split('/')[-1]} {where.name}:{where.lineno})")
        events += world.events
        seconds += world.now
        faults += world.faults
    took = time.monotonic() - began
    print(
        f"{count} seeds, {broken} broken, {sum(faults.values())} faults, {events} events in {took:.1f} s: "
        f"{count / took:.0f} seeds/s, {events / took:.0f} events/s, {seconds / took:.0f} virtual s/s"
    )
    print(dict(faults))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    if len(numbers) == 2:
        many(*numbers)
    else:
        replay(numbers[0], trace="--trace" in sys.argv)
