"""The time limit of a wait: the time in which a replay reads its history does not count."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from resilient_scoop.core.parent.history import Question
from resilient_scoop.futures import _engine


class History:
    """A history of which more pages arrive."""

    replaying = True

    def needs_page(self) -> bool:
        return self.replaying


@pytest.mark.parametrize("recorded", [None, b"1"])
def test_a_limit_begins_when_the_history_is_read(
    monkeypatch: pytest.MonkeyPatch, recorded: bytes | None
) -> None:
    # Given a parent whose history takes 9 s to arrive
    now, history, told = [100.0], History(), []
    parent = SimpleNamespace(
        history=history,
        recall=lambda _question: recorded,
        answer_anew=lambda _question, answer: told.append(answer),
    )
    at: Any = SimpleNamespace(
        parent=parent, session=SimpleNamespace(turn=contextlib.nullcontext), context=None
    )

    def read(_at: object, ready: Any) -> None:
        now[0] += 9.0
        history.replaying = False
        assert ready()

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(_engine, "block", read)
    monkeypatch.setattr(_engine, "_refuse", lambda _refusal: None)
    limit = _engine.Limit(1.0)

    # When it asks something with a limit of 1 s
    answer = _engine.observe(at, Question("result"), lambda: b"%d" % limit.until, limit)

    # Then it gets the recorded answer, or it has 1 s from the end of the history on
    assert answer == (recorded or b"110")
    assert told == ([] if recorded else [b"110"])
