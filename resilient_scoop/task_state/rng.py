"""The global random streams, `random` and `numpy.random`, made to belong to the running future.

Every item starts with streams seeded from (run seed, its path), and a waiting parent keeps its
streams, so that its draws do not depend on what else its worker runs (SAME-ANSWER). NumPy's stream
is touched only if the process has imported it. NumPy imports it on first use, which may be in the
middle of an item: then `watch_imports` seeds it with that item's number.

A run keeps the rules with which it began (`follow`): otherwise a resume would mix results of
different rules.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import random
import sys
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from resilient_scoop.task_state import unseeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from types import ModuleType

_NUMPY = "numpy.random"
_seed_python = random.seed
_WORD: Final = 0xFFFFFFFF
_NUMPYS: Final = 0x9E3779B9
"""Added to the seed: `random` is the same kind of generator, and an equal seed would give equal numbers."""
_WORDS: Final = 624

RULES: Final = 2
"""Version of the rules. 1: NumPy's streams are seeded with 32 bits, which collide for two in 77,000
items; generators without a seed use the system; those in modules are left alone; `once` draws from
the caller's streams. 2: as documented."""


class _Follow:
    rules = RULES


def follow(rules: int) -> None:
    """Use the rules of the run."""
    _Follow.rules = rules


def is_old() -> bool:
    """Return whether the run uses the first rules."""
    return _Follow.rules < RULES


class Streams(NamedTuple):
    """The state of the global streams; `numpy` is None if it was not imported yet."""

    python: Any
    numpy: Any


class _Late:
    """Seeds NumPy's stream when it is imported."""

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
        spec.loader = cast("Loader", _SeedingLoader(spec.loader, self.number_here))
        return spec


class _SeedingLoader:
    """Not derived from `importlib.abc`, whose import takes 5 ms in each process."""

    def __init__(self, loader: Loader, number_here: Callable[[], int]) -> None:
        self._loader = loader
        self._number_here = number_here

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        unseeded.numpy_is_here()
        _seed_numpy(module, self._number_here())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # resources, source: from the module's own loader


def watch_imports(number_here: Callable[[], int]) -> None:
    """Seed NumPy's stream when it is imported, with the result of `number_here` at that time."""
    _watchers[:] = [_Late(number_here)]
    sys.meta_path.insert(0, _watchers[0])


_watchers: list[_Late] = []


def _numpy() -> Any:
    """Return the module of NumPy's stream; None before its import is done."""
    module = sys.modules.get(_NUMPY)
    return module if hasattr(module, "set_state") else None


def seed(number: int) -> None:
    """Seed the global streams."""
    _seed_python(number)
    module = _numpy()
    if module is not None:
        _seed_numpy(module, number)


def save() -> Streams:
    """Return the state of the global streams."""
    module = _numpy()
    state = None if module is None else module.get_state(legacy=False)
    return Streams(random.getstate(), state)


def restore(streams: Streams) -> None:
    """Restore what `save` returned."""
    random.setstate(streams.python)
    module = _numpy()
    if module is None:
        return
    if streams.numpy is not None:
        module.set_state(streams.numpy)
    elif _watchers:
        _seed_numpy(module, _watchers[0].number_here())  # another item imported it in between


def bring_back(streams: Streams) -> None:
    """Do the same as `restore`, in a process that may not have imported NumPy."""
    if streams.numpy is not None:
        importlib.import_module(_NUMPY)
    restore(streams)


def stream(number: int) -> random.Random:
    """Return a separate stream."""
    return random.Random(number)  # noqa: S311 - simulation, not cryptography


def numpy_stream(number: int | None = None) -> Any:
    """Return a separate NumPy generator.

    Raises:
        ModuleNotFoundError: NumPy is not installed.
    """
    module = importlib.import_module(_NUMPY)
    return numpy_class()(module.PCG64(number))


@functools.cache
def numpy_class() -> Any:
    """Return the class of numpy streams: NumPy's own generators do not support weak references."""
    module: Any = importlib.import_module(_NUMPY)
    return type("Generator", (module.Generator,), {"__module__": module.Generator.__module__})


def numpy_is_used() -> bool:
    """Return whether this process has imported NumPy's generators."""
    return _NUMPY in sys.modules


def state_of(each: Any) -> Any:
    """Return the state of a stream of either kind."""
    return each.getstate() if isinstance(each, random.Random) else each.bit_generator.state


def put_state(each: Any, state: Any) -> None:
    """Restore the state of a stream of either kind."""
    if isinstance(each, random.Random):
        each.setstate(state)
    else:
        each.bit_generator.state = state


def empty_stream(state: Any) -> Any:
    """Return a new stream of the kind of a state."""
    return numpy_stream(0) if isinstance(state, dict) else stream(0)


class StreamBook:
    """The streams that one future has obtained: by name, or by number.

    A named stream is the same each time. Of the others, only those still in use are tracked.
    """

    __slots__ = ("_again", "_behind", "_named", "_numbered", "_saved", "count", "first")

    def __init__(self) -> None:
        self.count = 0  # how many streams without a name were obtained
        self._named: dict[str, Any] = {}
        self._numbered: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._saved: dict[str, Any] = {}  # states of streams that were not obtained again yet
        self.first: int | None = None  # `count` at the first step (`step`)
        self._again: deque[tuple[int, Any]] = deque()  # numbers to be obtained again, with states
        self._behind = 0  # the next number after those

    def obtain(self, name: str | None, seed: Callable[[str], int], *, numpy: bool = False) -> Any:
        """Return a stream; `seed` returns the seed for a suffix of the future's path."""
        make = numpy_stream if numpy else stream
        if name is None:
            mark, state = self._again.popleft() if self._again else (self.count, None)
            made = self._numbered[mark] = make(seed(f"#{mark}"))
            if state is not None:
                put_state(made, state)
            self.count = mark + 1 if self._again else max(mark + 1, self._behind)
            return made
        name = f"{name}\0numpy" if numpy else name  # one name may have one stream of each kind
        found = self._named.get(name)
        if found is None:
            found = self._named[name] = make(seed(f"#{name}"))
            if name in self._saved:
                put_state(found, self._saved.pop(name))
        return found

    def mark_of(self, obj: Any) -> str | int | None:
        """Return the name or number under which a stream was obtained, if it is one of these."""
        marks: list[tuple[str | int, Any]] = [*self._named.items()]
        marks += self._numbered.items()
        return next((mark for mark, each in marks if each is obj), None)

    def younger(self, count: int) -> list[tuple[int, Any]]:
        """Return the streams without a name from a number on that are still in use."""
        return [(mark, each) for mark, each in sorted(self._numbered.items()) if mark >= count]

    def save(self) -> tuple[int, dict[str, Any], dict[int, Any]]:
        """Return the state of all streams."""
        named = self._saved | {name: state_of(each) for name, each in self._named.items()}
        numbered = {mark: state_of(each) for mark, each in sorted(self._numbered.items())}
        return self.count, named, numbered

    def restore(self, saved: tuple[int, dict[str, Any], dict[int, Any]]) -> None:
        """Restore all streams, including those that are obtained later."""
        self.count, self._saved, numbered = saved[0], dict(saved[1]), saved[2]
        for name, each in self._named.items():
            if name in self._saved:
                put_state(each, self._saved.pop(name))
        for mark, each in self._numbered.items():
            if mark in numbered:
                put_state(each, numbered[mark])

    # A task that saved a payload runs again from the top, and obtains its streams again: those
    # obtained once, before its loop, must continue; those obtained in its steps must be new ones.

    def step(self) -> bool:
        """Record that the task saves a payload; return whether its streams can be distinguished by now.

        At its first step, streams from before the loop and from the step cannot be distinguished.
        """
        first, self.first = self.first, self.count if self.first is None else self.first
        return first is not None or not self.count

    def save_steps(self) -> tuple[int, int, dict[str, Any], dict[int, Any]]:
        """Return what `continue_from` restores."""
        return (self.first or 0, *self.save())

    def continue_from(self, saved: tuple[int, int, dict[str, Any], dict[int, Any]]) -> None:
        """Restore the streams at a step: those obtained by now, and later ones."""
        first, count, named, numbered = saved
        obtained, self.first = self.count, first
        self.restore((self.count, named, numbered))
        kept = range(first) if count == first else sorted(mark for mark in numbered if mark < first)
        self._again.extend((mark, numbered.get(mark)) for mark in list(kept)[obtained:])
        self._behind = count
        if not self._again:
            self.count = max(self.count, count)

    def find(self, mark: str | int) -> Any:
        """Return the stream that was obtained under a mark, if it is still in use."""
        return self._named.get(mark) if isinstance(mark, str) else self._numbered.get(mark)

    def adopt(self, mark: str | int, obj: Any) -> None:
        """Register a stream under a mark."""
        if isinstance(mark, str):
            self._named[mark] = obj
            self._saved.pop(mark, None)
        else:
            self._numbered[mark] = obj


def _seed_numpy(module: Any, number: int) -> None:
    low, high = number & _WORD, number >> 32
    module.seed(low)
    if is_old():
        return
    other = high ^ _NUMPYS
    if _Wide.bits is not module.mtrand._rand._bit_generator:  # noqa: SLF001 - the global stream's
        _Wide.prepare(module)
    if _Wide.mix is None or other == low:
        module.seed((low, high, _NUMPYS))
    else:
        _Wide.mix(other)


class _Wide:
    """Seeds NumPy's stream with 64 bits, in a third of the time that NumPy takes for more than 32.

    The generator (MT19937) is linear: the state that is the XOR of two states gives the XOR of two streams,
    each seeded with one half. `np.random.seed` takes 1 µs for a number, and 7 µs for a sequence.
    """

    bits: Any = None
    mix: Callable[[int], None] | None = None

    @classmethod
    def prepare(cls, module: Any) -> None:
        """Find the words of the stream's state in memory, at the address from NumPy."""
        import ctypes

        import numpy as np

        cls.bits, cls.mix = module.mtrand._rand._bit_generator, None  # noqa: SLF001 - NumPy has no public way
        second = module.RandomState(1)
        words = []
        for bits in (cls.bits, second._bit_generator):  # noqa: SLF001 - NumPy has no public way
            if type(bits) is not module.MT19937:
                return
            memory: Any = (ctypes.c_uint32 * _WORDS).from_address(bits.ctypes.state_address)
            words.append(np.frombuffer(memory, dtype=np.uint32))
            if not np.array_equal(words[-1], bits.state["state"]["key"]):
                return  # another version has another layout
        mine, its = words
        seed, xor = second.seed, np.bitwise_xor

        def mix(number: int) -> None:
            seed(number)
            xor(mine, its, out=mine)

        cls.mix = mix
