"""Logins are repeated after random waits."""

from __future__ import annotations

import random

import pytest

from resilient_scoop.adapters.retrying import patiently


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def is_value_error(error: BaseException) -> bool:
    return isinstance(error, ValueError)


def test_a_call_is_repeated_after_a_temporary_error() -> None:
    call = Flaky(ValueError(), ValueError())
    assert patiently(call, is_value_error, tries=3, wait_max_s=0.01) == "done"
    assert call.calls == 3


def test_the_last_error_is_raised_unchanged() -> None:
    call = Flaky(ValueError("1"), ValueError("2"), ValueError("3"))
    with pytest.raises(ValueError, match="2"):
        patiently(call, is_value_error, tries=2, wait_max_s=0.01)


def test_another_error_is_raised_at_once() -> None:
    call = Flaky(KeyError("x"))
    with pytest.raises(KeyError):
        patiently(call, is_value_error, tries=5, wait_max_s=0.01)
    assert call.calls == 1


def test_the_random_stream_of_the_user_is_not_touched() -> None:
    random.seed(7)
    before = random.getstate()
    patiently(Flaky(ValueError()), is_value_error, tries=2, wait_max_s=0.01)
    assert random.getstate() == before
