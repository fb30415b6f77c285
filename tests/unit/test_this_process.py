"""The attributes of the package: the role of the process, and names that are loaded on first use."""

from __future__ import annotations

import pytest

import resilient_scoop
from resilient_scoop import executor, pool, session, this_process


def test_the_package_shows_the_present_role_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (resilient_scoop.IS_RUNNING, resilient_scoop.SIZE) == (False, 0)
    monkeypatch.setattr(this_process, "IS_RUNNING", True)
    monkeypatch.setattr(this_process, "SIZE", 8)
    assert (resilient_scoop.IS_RUNNING, resilient_scoop.SIZE) == (True, 8)


def test_all_public_names_are_listed_and_can_be_read() -> None:
    assert this_process.NAMES < set(resilient_scoop.__all__) <= set(dir(resilient_scoop))
    for name in resilient_scoop.__all__:
        getattr(resilient_scoop, name)


def test_classes_that_are_loaded_on_first_use_are_the_classes_of_their_modules() -> None:
    assert resilient_scoop.Executor is executor.Executor
    assert resilient_scoop.Pool is pool.Pool
    assert resilient_scoop.Session is session.Session


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'VALID'"):
        resilient_scoop.VALID  # noqa: B018
