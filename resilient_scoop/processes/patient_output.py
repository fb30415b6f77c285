"""A worker's output to its log: if the disk is full, the task waits and does not fail."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from resilient_scoop.adapters.free_space import NO_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S: Final = 0.25


def write_patiently(fd: int, data: bytes, is_over: Callable[[], bool]) -> None:
    """Write all of `data` when there is space for it; give up when `is_over()`, because the run ends."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            if is_over():
                return
            time.sleep(_LOOK_S)
