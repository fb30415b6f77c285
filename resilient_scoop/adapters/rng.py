"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a parent that waits takes its
streams with it, so that what it draws does not depend on what else its worker runs (SAME-ANSWER).

NumPy's stream is touched only where the process has imported NumPy. An item that imports it first finds
it seeded as if it had been there all along: `watch_imports` sees to that.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import random
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NUMPY: Final = "numpy.random"


def seed(number: int) -> None:
    """Seed the global streams."""
    random.seed(number)
    module = sys.modules.get(_NUMPY)
    if module is not None:
        _seed_numpy(module, number)


def _seed_numpy(module: Any, number: int) -> None:
    module.seed(number & 0xFFFFFFFF)


def save() -> tuple[Any, Any]:
    """Return the state of the global streams."""
    module = sys.modules.get(_NUMPY)
    return random.getstate(), None if module is None else module.get_state(legacy=False)


def restore(state: tuple[Any, Any]) -> None:
    """Put back what `save` returned."""
    random.setstate(state[0])
    module = sys.modules.get(_NUMPY)
    if module is not None and state[1] is not None:
        module.set_state(state[1])


def stream(number: int) -> random.Random:
    """Return a stream of its own."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography


class _Seeding(importlib.abc.Loader):
    """Loads `numpy.random` as ever, then seeds it for the future that is running."""

    def __init__(self, loader: importlib.abc.Loader, seed_now: Callable[[], int]) -> None:
        self._loader = loader
        self._seed_now = seed_now

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _seed_numpy(module, self._seed_now())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `numpy.random` once and hands it to `_Seeding`."""

    def __init__(self, seed_now: Callable[[], int]) -> None:
        self._seed_now = seed_now

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != _NUMPY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Seeding(spec.loader, self._seed_now)
        return spec


def watch_imports(seed_now: Callable[[], int]) -> None:
    """Have NumPy's stream seeded with `seed_now()` if NumPy is imported from now on."""
    if _NUMPY not in sys.modules:
        sys.meta_path.insert(0, _Finder(seed_now))
