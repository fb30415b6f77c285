"""The garbage collector is paused during imports, and only then."""

from __future__ import annotations

import gc

import pytest

from resilient_scoop.adapters import collector


def test_paused_prevents_collections_inside_and_resumes_them_afterwards() -> None:
    assert gc.isenabled()
    with collector.paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_paused_resumes_collections_after_an_error() -> None:
    with pytest.raises(ImportError), collector.paused():
        raise ImportError
    assert gc.isenabled()


def test_paused_leaves_a_disabled_collector_disabled() -> None:
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_made_inside_are_not_scanned_again() -> None:
    with collector.paused():
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= len(kept)
    gc.unfreeze()
