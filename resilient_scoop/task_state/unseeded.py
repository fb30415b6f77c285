"""Generators that are made without a seed get one that depends on the run.

`random.Random()`, `random.seed()`, `numpy.random.default_rng()`, `RandomState()`, `SeedSequence()`
take their seed from the operating system, so a resume could not repeat their numbers. Under
`rscoop` they take it from a stream of the running future, in the order in which it makes them.

Unchanged are `secrets`, `random.SystemRandom` and `os.urandom`; generators of the standard library
itself (names of temporary files must differ between workers); other threads; and forked children,
which would all draw the same numbers.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.values.user_modules import PACKAGE, is_standard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ORIGINAL: Final = random.Random.seed
_BITS: Final = 128


class _Source:
    draw: Callable[[int], int] | None = None  # bits -> number
    pid = 0


def draw_from(draw: Callable[[int], int] | None) -> None:
    """Draw seeds from now on with `draw(bits)`; None undoes it."""
    _Source.draw, _Source.pid = draw, os.getpid()
    seed = ORIGINAL if draw is None else _seed
    random.Random.seed = seed  # type: ignore[method-assign]  # replaced on purpose
    random.seed = seed.__get__(random.seed.__self__)  # type: ignore[attr-defined]  # replaced on purpose
    _watch_numpy()


def numpy_is_here() -> None:
    """Handle that NumPy has been imported."""
    if _Source.draw is not None:
        _watch_numpy()


def _watch_numpy() -> None:
    module: Any = sys.modules.get("numpy.random.bit_generator")
    if module is not None and hasattr(module, "randbits"):
        import secrets

        module.randbits = secrets.randbits if _Source.draw is None else _randbits


def _number(bits: int) -> int | None:
    """Return a seed; None to use the operating system."""
    draw = _Source.draw
    if draw is None or os.getpid() != _Source.pid:
        return None
    return draw(bits) if threading.current_thread() is threading.main_thread() else None


def _randbits(bits: int) -> int:
    number = _number(bits)
    if number is not None:
        return number
    import secrets

    return secrets.randbits(bits)


def _seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    """Replace `random.Random.seed`."""
    if a is None and _is_users(sys._getframe(1)):  # noqa: SLF001 - the caller is wanted
        a = _number(_BITS)
    ORIGINAL(self, a, version)


_seed.__name__ = "seed"
_seed.__qualname__ = "Random.seed"


def _is_users(frame: FrameType | None) -> bool:
    """Return whether code outside of the standard library and this package makes the generator."""
    while frame is not None and frame.f_globals.get("__name__") == "random":
        frame = frame.f_back
    if frame is None:
        return False
    file = frame.f_code.co_filename
    return not (is_standard(file) or file.startswith(PACKAGE))
