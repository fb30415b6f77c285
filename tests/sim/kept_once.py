"""Checks of `once` in the simulated world: an answer that was given stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from resilient_scoop.core.parent.once import Begun
    from resilient_scoop.wire.messages import Attempt
    from tests.sim.world import World

Place = tuple[str, str]


class KeptOnce:
    """Records which functions have ended, and their answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: dict[Place, bytes] = {}
        self.by: dict[Place, Attempt] = {}  # the attempt that received it first

    def runs(self, path: str, begun: Begun, by: Attempt) -> None:
        """Check a function that runs.

        An attempt that does not know yet that a later one has replaced it may run the function
        again.
        """
        first = self.by.get((path, begun.whole), by)
        is_late = (by.epoch, by.no) < (first.epoch, first.no)
        if (path, begun.whole) in self.answers and self._counts(path) and not is_late:
            raise Broken(
                f"NO-LOST: {path} runs a function again at {begun}, and was told its answer"
            )

    def observed(self, path: str, begun: Begun, answer: bytes, by: Attempt) -> None:
        """Check the answer that a parent receives."""
        self.by.setdefault((path, begun.whole), by)
        if self.answers.setdefault((path, begun.whole), answer) != answer and self._counts(path):
            raise Broken(f"SAME-ANSWER: {path} is told another answer at {begun}")

    def _counts(self, path: str) -> bool:
        """Return whether a check applies: not if the script was changed, or if the attempt is over."""
        return not self.world.edited and not self.world.checks.is_done(path)
