"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a parent that waits takes its
streams with it, so that what it draws does not depend on what else its worker runs (SAME-ANSWER).
NumPy's stream is touched only where the process has imported NumPy; an import in the middle of an item
is seeded by `late`.
"""

from __future__ import annotations

import random
import sys
from typing import Any


def seed(number: int) -> None:
    """Seed the global streams."""
    random.seed(number)
    module = sys.modules.get("numpy.random")
    if module is not None:
        module.seed(number & 0xFFFFFFFF)


def save() -> tuple[Any, Any]:
    """Return the state of the global streams."""
    module = sys.modules.get("numpy.random")
    return random.getstate(), None if module is None else module.get_state(legacy=False)


def restore(state: tuple[Any, Any]) -> None:
    """Put back what `save` returned."""
    random.setstate(state[0])
    module = sys.modules.get("numpy.random")
    if module is not None and state[1] is not None:
        module.set_state(state[1])


def stream(number: int) -> random.Random:
    """Return a stream of its own."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography
