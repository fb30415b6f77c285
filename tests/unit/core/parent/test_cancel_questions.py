"""Questions of a parent whether calls could be canceled."""

from __future__ import annotations

from resilient_scoop.core.parent.cancel_questions import CancelQuestions
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire


def answer(call: int, *, cancelled: bool) -> wire.CancelAnswer:
    return wire.CancelAnswer(ROOT, call, 0, cancelled=cancelled)


def test_each_question_gets_its_own_answer() -> None:
    questions = CancelQuestions(ROOT, wire.Attempt(1, 1))
    frames = [questions.ask(call, 0) for call in range(3)]

    questions.hear(answer(2, cancelled=True))
    questions.hear(answer(0, cancelled=False))

    assert [questions.is_answered(call, 0) for call in range(3)] == [True, False, True]
    assert questions.to_ask_again() == [frames[1]]
    assert [questions.end(call, 0) for call in range(3)] == [False, None, True]
    assert questions.to_ask_again() == []
    assert not questions.is_answered(2, 0)


def test_a_late_answer_is_not_taken_for_that_of_the_next_question() -> None:
    questions = CancelQuestions(ROOT, wire.Attempt(1, 1))
    questions.ask(0, 0)
    assert questions.end(0, 0) is None

    questions.hear(answer(0, cancelled=True))
    assert not questions.is_answered(0, 0)

    questions.ask(0, 0)
    questions.hear(answer(0, cancelled=False))
    questions.hear(answer(0, cancelled=True))
    assert questions.end(0, 0) is False
