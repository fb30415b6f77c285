"""A slice whose main thread and deputy alternate at any step, for the tests of returned items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilient_scoop.core.worker.worker import Work


def begin_next(work: Work) -> Iterator[int | None]:
    """Begin an item as the main thread of a worker does, stopping wherever another thread may act.

    The last yielded value is the item; None if there is none. See `Executor._slice`.
    """
    index = work.next
    yield -1
    work.next = index + 1
    yield -1
    if index >= work.stop:
        yield -2  # waits for the lock
        if index >= work.stop:
            work.next = index
            yield None
            return
    yield index


class Racing(Work):
    """A slice whose main thread takes some steps whenever the deputy reads or changes it."""

    def __init__(self, work: Work, steps: int) -> None:
        self.others = False
        super().__init__(
            work.attempt, work.task, work.next, work.stop, work.left, work.depth, work.first
        )
        self.steps = steps
        self.begun: list[int] = []
        self.main = begin_next(self)
        self.blocked = False
        self.ended = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("next", "stop"):
            self._let_others()
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "stop":
            self._let_others()

    def _let_others(self) -> None:
        if self.others:
            self.others = False
            self.take_steps(self.steps, locked=True)
            self.others = True

    def take_steps(self, steps: int, *, locked: bool = False) -> None:
        """Let the main thread take some steps; it takes none while it waits for the deputy's lock."""
        for _ in range(steps):
            if self.ended or (self.blocked and locked):
                return
            at = next(self.main)
            self.blocked = at == -2
            if at is None:
                self.ended = True
            elif at >= 0:
                self.begun.append(at)
                self.main = begin_next(self)
