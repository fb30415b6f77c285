"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a parent that waits takes its
streams with it, so that what it draws does not depend on what else its worker runs (SAME-ANSWER).
NumPy's stream is touched only where the process has imported it. NumPy itself imports it on first use,
which is in the middle of an item: `_Late` seeds it then, with that item's number.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import random
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_NUMPY = "numpy.random"


class Streams(NamedTuple):
    """The state of the global streams; `numpy` is None where that was not imported yet."""

    number: int  # what they were seeded with
    python: Any
    numpy: Any


class _Current:
    """What the streams were seeded with last, for one that appears later."""

    number = 0
    watched = False


class _Late(importlib.abc.MetaPathFinder):
    """Sees NumPy's stream being imported, once, and has it seeded then."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with a loader that seeds it; None for all other modules."""
        if fullname != _NUMPY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _SeedingLoader(spec.loader)
        return spec


class _SeedingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _seed_numpy(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # resources, source: as the module's own loader has them


def seed(number: int) -> None:
    """Seed the global streams."""
    _Current.number = number
    random.seed(number)
    module = sys.modules.get(_NUMPY)
    if module is not None:
        _seed_numpy(module)
    elif not _Current.watched:
        _Current.watched = True
        sys.meta_path.insert(0, _Late())


def save() -> Streams:
    """Return the state of the global streams."""
    module = sys.modules.get(_NUMPY)
    state = None if module is None else module.get_state(legacy=False)
    return Streams(_Current.number, random.getstate(), state)


def restore(streams: Streams) -> None:
    """Put back what `save` returned."""
    _Current.number = streams.number
    random.setstate(streams.python)
    module = sys.modules.get(_NUMPY)
    if module is None:
        return
    if streams.numpy is None:
        _seed_numpy(module)  # another item imported it meanwhile
    else:
        module.set_state(streams.numpy)


def stream(number: int) -> random.Random:
    """Return a stream of its own."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography


def _seed_numpy(module: Any) -> None:
    module.seed(_Current.number & 0xFFFFFFFF)
