"""Collects CPython's tests only for `pytest -m conformance`: they change what `import test` finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance import suite


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the tests of this folder unless they are asked for."""
    if not collection_path.name.startswith("test_"):
        return None
    if config.option.markexpr != "conformance":
        return True
    if suite.folder() is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise pytest.UsageError(
            f"Python {version} is here without its tests: apt-get install libpython{version}-testsuite"
        )
    return None
