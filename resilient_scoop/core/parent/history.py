"""A parent's history: it comes in pages, and tells again what an earlier attempt was told.

A parent that starts again runs its function from the top. Its history comes in the order of commits.
It is `replaying` until the last page is here. A parent that is live reads its history once more
(`catching_up`) when the broker is a new one, since outcomes may have been lost with the old one, and
when a future of a state needs what was dropped (D7). `_NEXT` lists the phases.

  P2  Observations are numbered without gap; those of the history are used up in their order before a
      new one is made. One that does not fit its place ends the use of the history, and is said; the
      mark that is left ("rewind") lets a later replay of the same code continue behind it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

HistoryRecord = wire.Outcomes | wire.Observed | wire.Checkpoint
"""What a page holds."""
_REWIND = "rewind"


class HistoryPhase(Enum):
    """How a parent stands to its history."""

    REPLAYING = auto()  # it is read for the first time
    REPLAYING_TWICE = auto()  # the same, and it is to be read once more
    LIVE = auto()
    CATCHING_UP = auto()  # live, and it is read once more
    CATCHING_UP_TWICE = auto()  # the same, and once more behind that
    CUT_OFF = auto()  # the parent is told nothing more


class Turn(Enum):
    """What changes it."""

    LAST_PAGE = auto()
    RECONNECTED = auto()  # the broker is a new one
    READ_AGAIN = auto()  # something that was dropped is needed
    CUT = auto()  # the parent was cut off from the run


_NEXT: Final = {
    HistoryPhase.REPLAYING: {
        Turn.LAST_PAGE: HistoryPhase.LIVE,
        Turn.RECONNECTED: HistoryPhase.REPLAYING,
        Turn.READ_AGAIN: HistoryPhase.REPLAYING_TWICE,
        Turn.CUT: HistoryPhase.CUT_OFF,
    },
    HistoryPhase.REPLAYING_TWICE: {
        Turn.LAST_PAGE: HistoryPhase.CATCHING_UP,
        Turn.RECONNECTED: HistoryPhase.REPLAYING_TWICE,
        Turn.READ_AGAIN: HistoryPhase.REPLAYING_TWICE,
        Turn.CUT: HistoryPhase.CUT_OFF,
    },
    HistoryPhase.LIVE: {
        Turn.RECONNECTED: HistoryPhase.CATCHING_UP,
        Turn.READ_AGAIN: HistoryPhase.CATCHING_UP,
        Turn.CUT: HistoryPhase.CUT_OFF,
    },
    HistoryPhase.CATCHING_UP: {
        Turn.LAST_PAGE: HistoryPhase.LIVE,
        Turn.RECONNECTED: HistoryPhase.CATCHING_UP,
        Turn.READ_AGAIN: HistoryPhase.CATCHING_UP_TWICE,
        Turn.CUT: HistoryPhase.CUT_OFF,
    },
    HistoryPhase.CATCHING_UP_TWICE: {
        Turn.LAST_PAGE: HistoryPhase.CATCHING_UP,
        Turn.RECONNECTED: HistoryPhase.CATCHING_UP_TWICE,
        Turn.READ_AGAIN: HistoryPhase.CATCHING_UP_TWICE,
        Turn.CUT: HistoryPhase.CUT_OFF,
    },
    HistoryPhase.CUT_OFF: dict.fromkeys(Turn, HistoryPhase.CUT_OFF),
}
"""A last page is for who has asked for one: for a live parent it is an error."""
_REPLAYING: Final = (HistoryPhase.REPLAYING, HistoryPhase.REPLAYING_TWICE)
_CATCHING_UP: Final = (HistoryPhase.CATCHING_UP, HistoryPhase.CATCHING_UP_TWICE)


class History:
    """How far the history is read, and the observations of it that are not used up."""

    __slots__ = (
        "after", "ahead", "catching_up", "known_calls", "next_observation", "output_known",
        "page_asked", "pages_asked", "phase", "recorded", "replaying",
    )  # fmt: skip

    def __init__(self, *, replaying: bool) -> None:
        self.phase = HistoryPhase.REPLAYING if replaying else HistoryPhase.LIVE
        # These follow from the phase; they are asked for with every call.
        self.replaying = replaying
        self.catching_up = False
        self.after = 0  # the last commit of it that is here
        self.page_asked = False
        self.pages_asked = 0
        self.ahead = 0  # how much of what the parent has yet to do was known with the last page
        self.known_calls = 0  # that earlier attempts have made
        self.output_known = 0
        self.next_observation = 0
        self.recorded: deque[wire.Observation] = deque()  # not used up

    def turn(self, turn: Turn) -> None:
        """Go to the next phase."""
        known = _NEXT[self.phase]
        assert turn in known, f"{self.phase.name} knows no {turn.name}"
        phase = self.phase = known[turn]
        self.replaying, self.catching_up = phase in _REPLAYING, phase in _CATCHING_UP
        if self.catching_up and (phase is HistoryPhase.CATCHING_UP or turn is Turn.RECONNECTED):
            self.after = 0  # read from the beginning

    # --- pages --------------------------------------------------------------------------------

    def is_page_due(self, ahead: int, *, early: bool) -> bool:
        """Return whether a page is to be asked for now.

        `early`: nothing waits for it yet; half of what the last one brought is to be used up first.
        `ahead`: how many calls outcomes are here for that the parent has not made.
        """
        if self.page_asked or not (self.replaying or self.catching_up):
            return False
        return not early or (self.replaying and 2 * (ahead + len(self.recorded)) <= self.ahead)

    def ask(self) -> int:
        """A page is asked for; return its number."""
        self.page_asked, self.pages_asked = True, self.pages_asked + 1
        return self.pages_asked

    def begin_page(self, head: wire.History) -> bool:
        """Take in a page's head; return False if another one was asked for meanwhile (behind a cut)."""
        if head.no != self.pages_asked:
            return False
        self.page_asked = False
        self.after = head.upto
        self.known_calls = max(self.known_calls, head.calls)
        self.output_known = max(self.output_known, head.output_bytes)
        return True

    def add(self, observations: Iterable[wire.Observation]) -> None:
        """Take in observations of a page; a log may hold one twice."""
        known = self.recorded[-1].no + 1 if self.recorded else self.next_observation
        self.recorded += [each for each in observations if each.no >= known]

    def end_page(self) -> None:
        """The last page has been taken in."""
        self.turn(Turn.LAST_PAGE)

    def read_again(self) -> None:
        """Read the history once more from its beginning, when what is read of it now is at its end."""
        self.turn(Turn.READ_AGAIN)

    def reconnect(self) -> None:
        """The broker is a new one: the answer to what was asked last may be lost."""
        self.page_asked = False
        self.turn(Turn.RECONNECTED)

    def cut(self) -> None:
        """The parent was cut off from the run: nothing more is told."""
        self.page_asked = False
        self.recorded.clear()
        self.turn(Turn.CUT)

    # --- observations (P2) --------------------------------------------------------------------

    def needs_page(self) -> bool:
        """Return whether the next observation may be on a page that is not here."""
        return self.replaying and not self.recorded

    @property
    def retelling(self) -> bool:
        """Whether the parent is still told what an earlier attempt was told."""
        return self.replaying or bool(self.recorded)

    def differs(self, kind: str, at_call: int) -> bool:
        """Return whether the next recorded observation is of another place than this one."""
        if not self.recorded:
            return False
        first = self.recorded[0]
        return (first.kind, first.at_call) != (kind, at_call)

    def use(self, kind: str, at_call: int) -> bytes | None:
        """Use up the next observation if it is of this place; return its answer."""
        if not self.recorded or self.differs(kind, at_call):
            return None
        first = self.recorded.popleft()
        self.next_observation = first.no + 1
        return first.answer

    def new(self, kind: str, at_call: int, answer: bytes) -> wire.Observation:
        """Make the next observation."""
        made = wire.Observation(self.next_observation, kind, at_call, answer)
        self.next_observation += 1
        return made

    def skip_to(self, observation: int) -> None:
        """Continue behind what has been told up to a number."""
        self.next_observation = max(self.next_observation, observation)
        while self.recorded and self.recorded[0].no < self.next_observation:
            self.recorded.popleft()

    def rewind(self) -> bool:
        """Drop what was told up to where an earlier attempt, too, was told again, if one was."""
        mark = rewind_mark(self.recorded[0])
        marks = [i for i, each in enumerate(self.recorded) if (each.kind, each.answer) == mark]
        for _ in range(marks[-1] + 1 if marks else 0):
            self.recorded.popleft()
        return bool(marks)

    def give_up(self) -> None:
        """Use no more of what was told before; its numbers are not used again."""
        self.next_observation = self.recorded[-1].no + 1
        self.recorded.clear()


def rewind_mark(first: wire.Observation) -> tuple[str, bytes]:
    """Return kind and answer of the mark that the use of the history ended at this observation."""
    return _REWIND, str(first.no).encode()
