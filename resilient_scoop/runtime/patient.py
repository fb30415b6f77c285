"""A worker's output, which goes to its log: a full disk holds a task up, and does not fail it."""

from __future__ import annotations

import io
import sys
import time
from typing import TYPE_CHECKING, Final

from resilient_scoop.runtime.room import NO_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S: Final = 0.25


class Patient(io.FileIO):
    """A descriptor that stays open, and is written to when there is space, or until `is_over()`."""

    def __init__(self, fd: int, is_over: Callable[[], bool]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._is_over = is_over

    def write(self, data: object, /) -> int:
        """Write as much as there is space for, waiting for some."""
        while True:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
            if self._is_over():
                return memoryview(data).nbytes  # type: ignore[arg-type]
            time.sleep(_LOOK_S)


def be_patient(is_over: Callable[[], bool]) -> None:
    """Have this process' standard streams wait for space on the disk."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        new = io.TextIOWrapper(
            io.BufferedWriter(Patient(fd, is_over)), encoding=old.encoding, errors=old.errors,
            line_buffering=old.line_buffering, write_through=old.write_through,
        )  # fmt: skip
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
