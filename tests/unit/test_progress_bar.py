"""The progress bar of a session."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from resilient_scoop.progress_bar import ProgressBar


class FakeBar:
    """A bar like that of tqdm."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.total = self.n = 0
        self.drawn: list[tuple[int, int]] = []
        self.is_closed = False
        made.append(self)

    def refresh(self) -> None:
        self.drawn.append((self.n, self.total))

    def close(self) -> None:
        self.is_closed = True


made: list[FakeBar] = []


@pytest.fixture
def tqdm(monkeypatch: pytest.MonkeyPatch) -> list[FakeBar]:
    package, auto = ModuleType("tqdm"), ModuleType("tqdm.auto")
    auto.tqdm = FakeBar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", package)
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    made.clear()
    return made


def test_the_last_counts_are_drawn_when_the_bar_is_closed(tqdm: list[FakeBar]) -> None:
    counts = [(0, 0)]
    bar = ProgressBar("trial", lambda: counts[0])
    counts[0] = (3, 4)

    bar.close()

    (drawn,) = tqdm
    assert drawn.settings["desc"] == "trial"
    assert drawn.drawn[-1] == (3, 4)
    assert drawn.is_closed


def test_a_session_without_calls_draws_nothing(tqdm: list[FakeBar]) -> None:
    ProgressBar("trial", lambda: (0, 0)).close()

    assert tqdm == []


def test_rich_draws_the_bar_without_tqdm(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)

    ProgressBar("trial", lambda: (3, 4)).close()

    out, err = capfd.readouterr()
    assert out == ""
    assert "trial" in err
    assert "3/4" in err
