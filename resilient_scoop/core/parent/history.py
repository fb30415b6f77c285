"""A parent's history: it arrives in pages, and repeats the answers of an earlier attempt.

A parent that starts again runs its function from the top. Its history comes in the order of commits.
It is `replaying` until the last page is here. A parent that is live reads its history once more
(`catching_up`) when the broker is a new one, since outcomes may have been lost with the old one, and
when a future of a state needs what was dropped (D7). `_NEXT` lists the phases.

  P2  Observations are numbered without gap; those of the history are used up in their order before a
      new one is made. One that does not fit its place ends the use of the history, and is reported; the
      mark that is left ("rewind") lets a later replay of the same code continue after it. It fits if its
      kind, what it is about, and the number of calls before it are those of the question, and if it can
      be an answer to it: a changed script may ask about other futures at the same place.
  P2b An answer with a time limit rests on the calls that were awaited (`rests_on`). If they are others
      now, the parent asks again. If the new answer is the recorded one, the history is still used; else
      its use ends.
  P2a If a script has failed right after an answer that something was not there in time (`in_vain`), a
      later attempt asks again (`again`): with that answer it could only fail again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_scoop.core.parent.awaited import Awaited

HistoryRecord = wire.Outcomes | wire.Observed | wire.Checkpoint
"""The content of a page."""
_REWIND = "rewind"
_CALLBACKS = "callbacks"


class HistoryPhase(Enum):
    """The phases of a parent's history."""

    REPLAYING = auto()  # the history is read for the first time
    REPLAYING_TWICE = auto()  # the same, and it must be read once more
    LIVE = auto()
    CATCHING_UP = auto()  # the parent is live, and the history is read once more
    CATCHING_UP_TWICE = auto()  # the same, and it must be read once more after that
    CUT_OFF = auto()  # the parent gets no more answers


class Turn(Enum):
    """Events that change the phase."""

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
"""A last page needs a request: for a live parent it is an error."""
_REPLAYING: Final = (HistoryPhase.REPLAYING, HistoryPhase.REPLAYING_TWICE)
_CATCHING_UP: Final = (HistoryPhase.CATCHING_UP, HistoryPhase.CATCHING_UP_TWICE)


def any_answer(_answer: bytes) -> bool:
    """Accept each answer of a question's kind."""
    return True


def no_calls(_answer: bytes) -> Awaited:
    """Say that an answer rests on no calls."""
    return ()


class Question(NamedTuple):
    """What a parent asks, whose answer is recorded."""

    kind: str
    of: str = ""  # what it is about, such as a path
    fits: Callable[[bytes], bool] = any_answer  # whether a recorded answer can be one to it
    rests_on: Callable[[bytes], Awaited] = no_calls  # what was awaited for an answer (P2b)

    @property
    def whole(self) -> str:
        """The kind under which its answer is recorded, which says what it is about."""
        return f"{self.kind} {self.of}" if self.of else self.kind


class ParentHistory:
    """How far the history is read, and its unused observations."""

    __slots__ = (
        "after", "again", "ahead", "catching_up", "known_calls", "next_observation", "output_known",
        "page_asked", "pages_asked", "phase", "recorded", "replaying", "vain",
    )  # fmt: skip

    def __init__(self, *, replaying: bool) -> None:
        self.phase = HistoryPhase.REPLAYING if replaying else HistoryPhase.LIVE
        # These follow from the phase; they are read at every call.
        self.replaying = replaying
        self.catching_up = False
        self.after = 0  # the last commit of it that is here
        self.page_asked = False
        self.pages_asked = 0
        self.ahead = 0  # number of known future batches after the last page
        self.known_calls = 0  # made by earlier attempts
        self.output_known = 0
        self.next_observation = 0
        self.recorded: deque[wire.Observation] = deque()  # not used up
        self.again: frozenset[int] = frozenset()  # numbers of answers that are not used again (P2a)
        # Number of the last answer, and of the call after it, if what was asked for was not there.
        self.vain: tuple[int, int] | None = None

    def turn(self, turn: Turn) -> None:
        """Go to the next phase."""
        known = _NEXT[self.phase]
        assert turn in known, f"{self.phase.name} knows no {turn.name}"
        phase = self.phase = known[turn]
        self.replaying, self.catching_up = phase in _REPLAYING, phase in _CATCHING_UP
        if self.catching_up and (phase is HistoryPhase.CATCHING_UP or turn is Turn.RECONNECTED):
            self.after = 0  # read from the beginning

    def is_page_due(self, ahead: int, *, early: bool) -> bool:
        """Return whether a page should be requested now.

        `early`: nothing waits for it yet; half of the last page must be used up first. `ahead`:
        number of batches with known outcomes that the parent has not made yet.
        """
        if self.page_asked or not (self.replaying or self.catching_up):
            return False
        return not early or (self.replaying and 2 * (ahead + len(self.recorded)) <= self.ahead)

    def ask(self) -> int:
        """Request a page; return its number."""
        self.page_asked, self.pages_asked = True, self.pages_asked + 1
        return self.pages_asked

    def begin_page(self, head: wire.History) -> bool:
        """Handle the head of a page; return False if another page was requested since."""
        if head.no != self.pages_asked:
            return False
        self.page_asked = False
        self.after = head.upto
        self.known_calls = max(self.known_calls, head.calls)
        self.output_known = max(self.output_known, head.output_bytes)
        return True

    def add(self, observations: Iterable[wire.Observation]) -> None:
        """Add the observations of a page; a log may hold one twice."""
        known = self.recorded[-1].no + 1 if self.recorded else self.next_observation
        self.recorded += [each for each in observations if each.no >= known]

    def end_page(self) -> None:
        """Record that the last page has arrived."""
        self.turn(Turn.LAST_PAGE)

    def read_again(self) -> None:
        """Read the history once more from its beginning, after the present reading."""
        self.turn(Turn.READ_AGAIN)

    def reconnect(self) -> None:
        """Handle a new broker: the answer to the last request may be lost."""
        self.page_asked = False
        self.turn(Turn.RECONNECTED)

    def cut(self) -> None:
        """Cut the parent off from the run: it gets no more answers."""
        self.page_asked = False
        self.recorded.clear()
        self.turn(Turn.CUT)

    def needs_page(self) -> bool:
        """Return whether the next observation may be on a page that has not arrived."""
        return self.replaying and not self.recorded

    @property
    def retelling(self) -> bool:
        """Whether the parent still gets answers of an earlier attempt."""
        return self.replaying or bool(self.recorded)

    def differs(self, question: Question, at_call: int) -> bool:
        """Return whether the next recorded observation is no answer to a question asked here.

        Older journals do not say what an observation is about (`Question.of`).
        """
        if not self.recorded:
            return False
        first = self.recorded[0]
        is_same = first.at_call == at_call and first.kind in (question.kind, question.whole)
        return not (is_same and question.fits(first.answer))

    def use(self, question: Question, at_call: int) -> bytes | None:
        """Use the next observation if it is an answer to the question; return its answer."""
        if not self.recorded or self.differs(question, at_call):
            return None
        first = self.recorded.popleft()
        self.next_observation = first.no + 1
        self._follow(first.kind)
        return first.answer

    def _follow(self, kind: str) -> None:
        if kind not in (_CALLBACKS, _REWIND):
            self.vain = None

    def in_vain(self, at_call: int) -> None:
        """Note that what the last answer was about was not there in time."""
        self.vain = (self.next_observation - 1, at_call)

    @property
    def is_to_ask_again(self) -> bool:
        """Whether the next recorded answer is not used again (P2a)."""
        return bool(self.recorded) and self.recorded[0].no in self.again

    def new(
        self, kind: str, at_call: int, answer: bytes, rests_on: bytes = b""
    ) -> wire.Observation:
        """Make the next observation."""
        made = wire.Observation(self.next_observation, kind, at_call, answer, rests_on)
        self.next_observation += 1
        self._follow(kind)
        return made

    def skip_to(self, observation: int) -> None:
        """Continue after the observations up to a number."""
        self.next_observation = max(self.next_observation, observation)
        while self.recorded and self.recorded[0].no < self.next_observation:
            self.recorded.popleft()

    def rewind(self) -> bool:
        """Drop observations up to the point where an earlier attempt also got new answers, if any."""
        mark = rewind_mark(self.recorded[0])
        marks = [i for i, each in enumerate(self.recorded) if (each.kind, each.answer) == mark]
        for _ in range(marks[-1] + 1 if marks else 0):
            self.recorded.popleft()
        return bool(marks)

    def give_up(self) -> None:
        """Stop using recorded observations; their numbers are not reused."""
        self.next_observation = self.recorded[-1].no + 1
        self.recorded.clear()


def rewind_mark(first: wire.Observation) -> tuple[str, bytes]:
    """Return kind and answer of the mark that the history was not used after this observation."""
    return _REWIND, str(first.no).encode()
