"""Python's collector of cycles, held back while a process imports its modules.

What imports make stays to the end. To look through it again and again takes a tenth of the time that a
process needs to start, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing inside, and do not look again at what was made there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
