"""A parent's questions whether its calls can be canceled.

A question is open until its answer arrives, or its asker ends it: because the item has its outcome, or
because the answer was taken.

  CQ1  A new broker is asked all open questions again. What is answered is not asked again.
  CQ2  An answer without an open question changes nothing: a broker that was asked twice answers twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.wire.attempt import Attempt


class CancelQuestions:
    """The questions of one parent, by batch number and index of the item."""

    __slots__ = ("_answers", "_open", "attempt", "path")

    def __init__(self, path: str, attempt: Attempt) -> None:
        self.path = path
        self.attempt = attempt
        self._open: dict[tuple[int, int], bytes] = {}
        self._answers: dict[tuple[int, int], bool] = {}

    def ask(self, call: int, index: int) -> bytes:
        """Open a question; return its frame."""
        frame = wire.encode(wire.Cancel(self.path, self.attempt, call, index))
        self._answers.pop((call, index), None)
        self._open[call, index] = frame
        return frame

    def hear(self, answer: wire.CancelAnswer) -> None:
        """Record an answer (CQ2)."""
        place = answer.call, answer.index
        if self._open.pop(place, None) is not None:
            self._answers[place] = answer.cancelled

    def is_answered(self, call: int, index: int) -> bool:
        """Return whether the answer is there."""
        return (call, index) in self._answers

    def end(self, call: int, index: int) -> bool | None:
        """End a question; return whether the item was canceled, None without an answer."""
        self._open.pop((call, index), None)
        return self._answers.pop((call, index), None)

    def to_ask_again(self) -> list[bytes]:
        """Return the frames for a new broker (CQ1)."""
        return list(self._open.values())
