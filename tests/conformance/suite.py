"""CPython's own tests of executors, as they are installed beside an interpreter.

Debian has them in `libpython3.N-testsuite`; an interpreter that was built from source has them in its
own library. Up to Python 3.12 they are one module, later a package.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any, Final

NAME: Final = "test.test_concurrent_futures"
_PARTS: Final = (
    "executor", "util", "test_as_completed", "test_deadlock", "test_future", "test_init",
    "test_process_pool", "test_shutdown", "test_thread_pool", "test_wait",
)  # fmt: skip


def folder() -> Path | None:
    """Return the folder of the package `test` that has the tests for this version of Python."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = [
        Path(os.__file__).parent,
        Path(f"/usr/lib/{version}"),
        Path(f"/usr/local/lib/{version}"),
    ]
    for library in libraries:
        found = library / "test"
        if (found / "test_concurrent_futures.py").is_file():
            return found
        if (found / "test_concurrent_futures" / "executor.py").is_file():
            return found
    return None


def make_importable() -> None:
    """Have `import test` find the tests, here and in the workers, which get `sys.path`."""
    tests = folder()
    assert tests is not None, "tests/conformance/conftest.py has looked"
    if tests.parent == Path(os.__file__).parent:
        return
    into = Path(tempfile.mkdtemp(prefix="rscoop-conformance-"))
    atexit.register(shutil.rmtree, into)
    (into / "test").symlink_to(tests)
    sys.path.insert(0, str(into))
    for name in [name for name in sys.modules if name == "test" or name.startswith("test.")]:
        del sys.modules[name]


class Suite:
    """The classes and functions of all its modules, by name."""

    def __init__(self) -> None:
        make_importable()
        whole = importlib.import_module(NAME)
        self.modules: list[types.ModuleType] = [whole]
        if hasattr(whole, "__path__"):
            self.modules = [importlib.import_module(f"{NAME}.{part}") for part in _PARTS]

    def __getattr__(self, name: str) -> Any:
        for module in self.modules:
            if name in vars(module):
                return getattr(module, name)
        raise AttributeError(name)

    def home(self, name: str) -> types.ModuleType:
        """Return the module in which a class is defined."""
        found: types.ModuleType = sys.modules[getattr(self, name).__module__]
        return found
