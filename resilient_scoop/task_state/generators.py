"""Random generators that a program keeps in its modules, made to belong to the running task.

`RNG = numpy.random.default_rng(42)` at the top of a script is one object per worker: what a task
drew from it would depend on what its worker ran before. So at the start of every task each such
generator is seeded from its state after import and from the task's path. Two generators with
different seeds stay different, and the run's seed is not used: for that, leave out the seed
(`task_state.unseeded`).

It finds instances of `random.Random`, `numpy.random.RandomState` and `numpy.random.Generator` in
the globals of the user's modules, in containers, instances, classes, closures and default values
there, and in a callable that is pickled by value. It does not find generators that a task makes
later; `--audit` names these.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.hashing import blake2b
from resilient_scoop.values.hidden_state import bytes_of_stream
from resilient_scoop.values.user_modules import is_users, loaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DEPTH_MAX: Final = 5
_VISITS_MAX: Final = 20_000
_ITEMS_MAX: Final = 256
"""Largest searched container: a longer list is data."""
_PLAIN: Final = (
    str, bytes, int, float, complex, bool, type(None), types.ModuleType, types.BuiltinFunctionType,
)  # fmt: skip


class TrackedGenerator:
    """One generator and the state from which its seeds are made."""

    __slots__ = ("_base", "_key", "_numpy", "generator")

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self._numpy = not isinstance(generator, random.Random)
        self._base = self.save()
        self._key = blake2b(bytes_of_stream(self._base), digest_size=32).digest()

    def seed(self, path: bytes) -> None:
        """Seed it for the start of the task at a path."""
        number = blake2b(path, key=self._key, digest_size=32).digest()
        if not self._numpy:
            random.Random.seed(self.generator, int.from_bytes(number[:16], "little"))
            return
        bits = _bits_of(self.generator)
        state = bits.state
        if state["bit_generator"] in ("PCG64", "PCG64DXSM"):
            where, step = (
                int.from_bytes(number[:16], "little"),
                int.from_bytes(number[16:], "little"),
            )
            state["state"] = {"state": where, "inc": step | 1}
            state["has_uint32"] = state["uinteger"] = 0
            bits.state = state
        else:
            self.restore(_fresh_state(self.generator, bits, number))

    def rest(self) -> None:
        """Restore its state after import."""
        self.restore(self._base)

    def save(self) -> Any:
        """Return its state."""
        if not self._numpy:
            return self.generator.getstate()
        if hasattr(self.generator, "get_state"):
            return self.generator.get_state(legacy=False)
        return _bits_of(self.generator).state

    def restore(self, state: Any) -> None:
        """Restore its state."""
        if not self._numpy:
            self.generator.setstate(state)
        elif hasattr(self.generator, "set_state"):
            self.generator.set_state(state)
        else:
            _bits_of(self.generator).state = state


def _bits_of(generator: Any) -> Any:
    bits = getattr(generator, "bit_generator", None)
    return generator._bit_generator if bits is None else bits  # noqa: SLF001 - RandomState has no other


def _fresh_state(generator: Any, bits: Any, number: bytes) -> Any:
    """Return the state of such a generator with this seed."""
    made = type(bits)(int.from_bytes(number, "little")).state
    if hasattr(generator, "get_state"):
        made |= {"has_gauss": 0, "gauss": 0.0}
    return made


class _KnownGenerators:
    """The generators of the user's modules in this process."""

    kept: dict[int, TrackedGenerator] = {}  # noqa: RUF012 - by identity, which `kept` keeps alive
    on = False
    sought: int = 0  # number of modules at the last search


def follow(*, on: bool) -> None:
    """Start to look for generators, or, for a run of an earlier version, leave them alone."""
    _KnownGenerators.on = on
    _KnownGenerators.kept, _KnownGenerators.sought = {}, 0


def look(modules: Iterable[types.ModuleType] | None = None) -> list[TrackedGenerator]:
    """Search modules for generators, by default all of the user's; return new ones."""
    if not _KnownGenerators.on:
        return []
    wanted = [module for _, module in loaded() if is_users(module)] if modules is None else modules
    new = [
        TrackedGenerator(each)
        for each in _found([vars(module) for module in wanted])
        if id(each) not in _KnownGenerators.kept
    ]
    _KnownGenerators.kept.update((id(each.generator), each) for each in new)
    return new


def look_again() -> None:
    """Search all of the user's modules, if there are more modules than at the last search."""
    if _KnownGenerators.on and len(sys.modules) != _KnownGenerators.sought:
        _KnownGenerators.sought = len(sys.modules)
        look()


def are_known() -> bool:
    """Return whether the user's modules hold any generators."""
    return bool(_KnownGenerators.kept)


def within(carried: list[Any]) -> list[TrackedGenerator]:
    """Return the generators that are pickled by value with a callable."""
    if not _KnownGenerators.on:
        return []
    return [
        TrackedGenerator(each) for each in _found(carried) if id(each) not in _KnownGenerators.kept
    ]


def seed(path: str, more: Iterable[TrackedGenerator] = ()) -> None:
    """Seed all generators for the task at a path."""
    if _KnownGenerators.kept or more:
        mark = path.encode()
        for each in (*_KnownGenerators.kept.values(), *more):
            each.seed(mark)


def rest() -> None:
    """Restore all generators to their state after import, to be compared with the script's."""
    for each in _KnownGenerators.kept.values():
        each.rest()


def save() -> list[Any]:
    """Return the states of the generators of the user's modules."""
    return (
        [(each, each.save()) for each in _KnownGenerators.kept.values()]
        if _KnownGenerators.kept
        else []
    )


def restore(states: list[Any]) -> None:
    """Restore what `save` returned."""
    for each, state in states:
        each.restore(state)


def _kinds() -> tuple[type, ...]:
    numpy: Any = sys.modules.get("numpy.random")
    return (
        (random.Random,) if numpy is None else (random.Random, numpy.RandomState, numpy.Generator)
    )


def _found(roots: list[Any]) -> list[Any]:
    """Return the generators reachable from roots, each once."""
    found: dict[int, Any] = {}
    kinds, seen = _kinds(), set()
    streams = _global_streams()
    level, visits = list(roots), 0
    for _ in range(_DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, _PLAIN) or id(value) in seen:
                continue
            visits += 1
            if visits > _VISITS_MAX:
                return list(found.values())
            seen.add(id(value))
            if isinstance(value, kinds):
                if not isinstance(value, random.SystemRandom) and id(value) not in streams:
                    found[id(value)] = value
            else:
                below += _parts(value)
        level = below
    return list(found.values())


def _global_streams() -> set[int]:
    numpy: Any = sys.modules.get("numpy.random.mtrand")
    own = {id(random.seed.__self__)} if hasattr(random.seed, "__self__") else set()
    return own if numpy is None else own | {id(numpy._rand)}  # noqa: SLF001 - the global stream


def _parts(value: Any) -> Iterator[Any]:
    """Yield what a value refers to."""
    if isinstance(value, dict):
        if len(value) <= _ITEMS_MAX or "__name__" in value:
            yield from list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        if len(value) <= _ITEMS_MAX:
            yield from value
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, type):
        if is_users(sys.modules.get(value.__module__)):
            yield dict(vars(value))
    else:
        yield from _instance_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()
    module = sys.modules.get(function.__module__ or "")
    if module is None or vars(module) is not function.__globals__:
        # It was sent by value, with its globals.
        names = function.__code__.co_names
        yield from (function.__globals__[each] for each in names if each in function.__globals__)


def _instance_parts(value: Any) -> Iterator[Any]:
    cls = type(value)
    if cls.__module__ == "builtins" or not is_users(sys.modules.get(cls.__module__)):
        return
    yield from list(getattr(value, "__dict__", {}).values())
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(value, name, None)
