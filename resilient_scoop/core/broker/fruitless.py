"""Deaths of the script's process without progress of the run.

Z1  A death counts if the script itself was running, or if nothing else was. If the script waited while
others computed, it did not cause its death.
Z2  Any progress since the last death (a result, a call, output, input, an answer) resets the count.
Z3  After `crashes_max` deaths the run stops, after `KILLS_MAX` where it was always SIGKILL, which
may come from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilient_scoop import ids

if TYPE_CHECKING:
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.wire.messages import ProcessLost

KILLS_MAX: Final = 5
_SIGKILL: Final = -9


class Fruitless:
    """The deaths without progress in between, in one epoch of the broker."""

    def __init__(self, state: DurableState, crashes_max: int) -> None:
        self.deaths: list[ProcessLost] = []
        self._crashes_max = crashes_max
        self._state = state
        self._best = self._mark()

    def died(self, lost: ProcessLost, *, others_compute: bool) -> None:
        """Count a death of the script's process."""
        mark = self._mark()
        if any(now > best for now, best in zip(mark, self._best, strict=True)):
            self.deaths.clear()
        self._best = tuple(map(max, mark, self._best))
        if lost.on_cpu is not None or not others_compute:
            self.deaths.append(lost)

    @property
    def is_over(self) -> bool:
        """Whether the script must not be started again."""
        killed = all(lost.exit == _SIGKILL for lost in self.deaths)
        return len(self.deaths) >= (KILLS_MAX if killed else self._crashes_max)

    @property
    def verdict(self) -> str:
        """The reason why the run stops; empty if it does not."""
        return "the script dies repeatedly" if self.deaths and self.is_over else ""

    def _mark(self) -> tuple[int, ...]:
        """Return counters that grow with any progress (Z2)."""
        state = self._state
        root = state.parent(ids.ROOT)
        observations = root.next_observation
        return state.items_done, state.items_known, state.output_bytes, state.inputs, observations
