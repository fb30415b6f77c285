"""A module counts as loaded once its import has ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from resilient_scoop.adapters.loaded import loaded


def test_loaded_returns_none_for_a_module_during_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text(
        "from resilient_scoop.adapters.loaded import loaded\nseen = loaded(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    half = __import__("half")
    assert half.seen is None
    assert loaded("half") is half
    del sys.modules["half"]


def test_loaded_returns_none_for_a_module_that_is_not_imported() -> None:
    assert loaded("no_such_module") is None


def test_loaded_returns_objects_that_a_program_has_put_into_sys_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in = object()
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    assert loaded("stand_in") is stand_in
