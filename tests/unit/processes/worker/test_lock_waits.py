"""Which code on the stack belongs to the task itself, so that it may yield."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.processes.worker import lock_waits


@pytest.mark.parametrize("name", [lock_waits._EXECUTOR, *lock_waits._LOCKS])
def test_each_file_that_is_searched_on_the_stack_exists(name: str) -> None:
    assert Path(name).is_file()


def test_the_folder_that_calls_user_code_without_a_turn_exists() -> None:
    assert Path(lock_waits._FUTURES).is_dir()
