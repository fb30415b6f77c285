"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a parent that waits takes its
streams with it, so that what it draws does not depend on what else its worker runs (SAME-ANSWER).
NumPy's stream is touched only where the process has imported it. NumPy itself does so on first use,
which is in the middle of an item: `watch_imports` has it seeded then, with that item's number.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import random
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

_NUMPY = "numpy.random"


class Streams(NamedTuple):
    """The state of the global streams; `numpy` is None where that was not imported yet."""

    python: Any
    numpy: Any


class _Late(importlib.abc.MetaPathFinder):
    """Sees NumPy's stream being imported, and has it seeded then."""

    def __init__(self, number_here: Callable[[], int]) -> None:
        self.number_here = number_here

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with a loader that seeds it; None for all other modules."""
        if fullname != _NUMPY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _SeedingLoader(spec.loader, self.number_here)
        return spec


class _SeedingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, number_here: Callable[[], int]) -> None:
        self._loader = loader
        self._number_here = number_here

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _seed_numpy(module, self._number_here())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # resources, source: as the module's own loader has them


def watch_imports(number_here: Callable[[], int]) -> None:
    """Have NumPy's stream seeded when it is imported, with what `number_here` says then."""
    _watchers[:] = [_Late(number_here)]
    sys.meta_path.insert(0, _watchers[0])


_watchers: list[_Late] = []


def seed(number: int) -> None:
    """Seed the global streams."""
    random.seed(number)
    module = sys.modules.get(_NUMPY)
    if module is not None:
        _seed_numpy(module, number)


def save() -> Streams:
    """Return the state of the global streams."""
    module = sys.modules.get(_NUMPY)
    state = None if module is None else module.get_state(legacy=False)
    return Streams(random.getstate(), state)


def restore(streams: Streams) -> None:
    """Put back what `save` returned."""
    random.setstate(streams.python)
    module = sys.modules.get(_NUMPY)
    if module is None:
        return
    if streams.numpy is not None:
        module.set_state(streams.numpy)
    elif _watchers:
        _seed_numpy(module, _watchers[0].number_here())  # another item imported it meanwhile


def stream(number: int) -> random.Random:
    """Return a stream of its own."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography


def _seed_numpy(module: Any, number: int) -> None:
    module.seed(number & 0xFFFFFFFF)
