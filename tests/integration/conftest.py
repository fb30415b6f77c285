"""What the tests of real runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.runs import Place


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    """A folder for scripts, and a state folder for their runs."""
    return Place(tmp_path, state_dir)
