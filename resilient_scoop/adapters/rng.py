"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a parent that waits takes its
streams with it, so that what it draws does not depend on what else its worker runs (SAME-ANSWER).
NumPy's stream is touched only where the process has imported it. NumPy itself does so on first use,
which is in the middle of an item: `watch_imports` has it seeded then, with that item's number.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import random
import sys
import weakref
from collections import deque
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


def bring_back(streams: Streams) -> None:
    """As `restore`, in a process that may not have imported what had a stream of its own."""
    if streams.numpy is not None:
        importlib.import_module(_NUMPY)
    restore(streams)


def stream(number: int) -> random.Random:
    """Return a stream of its own."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography


class StreamBook:
    """The streams that one future has obtained: those with a name, and the others by their number.

    One with a name is the same each time that it is asked for. Of the others only those are kept in
    mind that are still in use.
    """

    __slots__ = ("_again", "_behind", "_named", "_numbered", "_saved", "count", "first")

    def __init__(self) -> None:
        self.count = 0  # how many streams without a name were obtained
        self._named: dict[str, random.Random] = {}
        self._numbered: weakref.WeakValueDictionary[int, random.Random] = (
            weakref.WeakValueDictionary()
        )
        self._saved: dict[str, Any] = {}  # states of streams that were not asked for again yet
        self.first: int | None = None  # `count` at the first step (`step`)
        self._again: deque[tuple[int, Any]] = deque()  # numbers to be obtained again, with states
        self._behind = 0  # the next number behind those

    def obtain(self, name: str | None, seed: Callable[[str], int]) -> random.Random:
        """Return a stream; `seed` gives the seed for what stands behind the future's path."""
        if name is None:
            mark, state = self._again.popleft() if self._again else (self.count, None)
            made = self._numbered[mark] = stream(seed(f"#{mark}"))
            if state is not None:
                made.setstate(state)
            self.count = mark + 1 if self._again else max(mark + 1, self._behind)
            return made
        found = self._named.get(name)
        if found is None:
            found = self._named[name] = stream(seed(f"#{name}"))
            if name in self._saved:
                found.setstate(self._saved.pop(name))
        return found

    def mark_of(self, obj: random.Random) -> str | int | None:
        """Return the name or the number under which a stream was obtained, if it is one of these."""
        marks: list[tuple[str | int, random.Random]] = [*self._named.items()]
        marks += self._numbered.items()
        return next((mark for mark, each in marks if each is obj), None)

    def younger(self, count: int) -> list[tuple[int, random.Random]]:
        """Return the streams without a name from a number on that are still in use."""
        return [(mark, each) for mark, each in sorted(self._numbered.items()) if mark >= count]

    def save(self) -> tuple[int, dict[str, Any], dict[int, Any]]:
        """Return the state of all streams."""
        named = self._saved | {name: each.getstate() for name, each in self._named.items()}
        numbered = {mark: each.getstate() for mark, each in sorted(self._numbered.items())}
        return self.count, named, numbered

    def restore(self, saved: tuple[int, dict[str, Any], dict[int, Any]]) -> None:
        """Put all streams where they were, also those that are asked for later."""
        self.count, self._saved, numbered = saved[0], dict(saved[1]), saved[2]
        for name, each in self._named.items():
            if name in self._saved:
                each.setstate(self._saved.pop(name))
        for mark, each in self._numbered.items():
            if mark in numbered:
                each.setstate(numbered[mark])

    # A leaf that keeps a payload runs again from its top, and obtains its streams again: those that
    # it obtained once, before its loop, are to go on; those of its steps are to be new ones.

    def step(self) -> bool:
        """Note that the leaf keeps a payload; return whether its streams can be told apart by now.

        At its first step, what it obtained before its loop and in that step look alike.
        """
        first, self.first = self.first, self.count if self.first is None else self.first
        return first is not None or not self.count

    def save_steps(self) -> tuple[int, int, dict[str, Any], dict[int, Any]]:
        """Return what `go_on` puts back."""
        return (self.first or 0, *self.save())

    def go_on(self, saved: tuple[int, int, dict[str, Any], dict[int, Any]]) -> None:
        """Put the streams where they were at a step: what was obtained by now, and what will be."""
        first, count, named, numbered = saved
        obtained, self.first = self.count, first
        self.restore((self.count, named, numbered))
        kept = range(first) if count == first else sorted(mark for mark in numbered if mark < first)
        self._again.extend((mark, numbered.get(mark)) for mark in list(kept)[obtained:])
        self._behind = count
        if not self._again:
            self.count = max(self.count, count)

    def find(self, mark: str | int) -> random.Random | None:
        """Return the stream that was obtained under a mark, if it is still in use."""
        return self._named.get(mark) if isinstance(mark, str) else self._numbered.get(mark)

    def adopt(self, mark: str | int, obj: random.Random) -> None:
        """Take a stream for the one that was obtained under a mark."""
        if isinstance(mark, str):
            self._named[mark] = obj
            self._saved.pop(mark, None)
        else:
            self._numbered[mark] = obj


def _seed_numpy(module: Any, number: int) -> None:
    module.seed(number & 0xFFFFFFFF)
