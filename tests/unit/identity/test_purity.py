"""The purity check accepts only code that is proven to be pure."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import functools
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from resilient_scoop.identity.purity import args_plain, draws_nothing

FACTOR = 3
WEIGHTS = (1, (2.0, "a"))
DATA = [1, 2, 3]


class User:
    pass


def scaled(x: Any) -> Any:
    return x * FACTOR + WEIGHTS[0]


def calls_another(x: Any) -> Any:
    return scaled(x) + math.sin(x) ** abs(x)


def loops(xs: Any) -> Any:
    total = 0.0
    for i, x in enumerate(xs):
        if x > 0 and i not in (3, 4):
            total += math.sqrt(x)
    while total > 100:
        total -= 1
    return -total, [x + 1 for x in xs], dict.fromkeys(xs, 1), sum(x for x in xs), f"{total:.2f}"


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def handles_errors(x: Any) -> Any:
    try:
        return 1 / x
    except ZeroDivisionError as error:
        raise ValueError(f"bad {x!r}") from error


def sorts(xs: Any, *more: Any, reverse: bool = False) -> Any:
    return sorted(xs, key=lambda x: -x, reverse=reverse), ["a", "b"], max(*more)


def shifted(by: int) -> Callable[[int], int]:
    return lambda x: x + by


def draws(_x: Any) -> Any:
    return random.random()


def draws_by_default(_x: Any, stream: Any = random) -> Any:
    return stream.random()


def draws_in_a_callee(x: Any) -> Any:
    return scaled(x) + draws(x)


def draws_in_a_lambda(x: Any) -> Any:
    return sorted(x, key=lambda _: random.random())


def yields(x: Any) -> Iterator[Any]:
    yield x


async def suspends(_x: Any) -> Any:
    await asyncio.sleep(0)


def imports(_x: Any) -> Any:
    import random as hidden

    return hidden


def escapes(x: Any) -> Any:
    return x.__class__.__base__.__subclasses__()


def escapes_by_format(x: Any) -> Any:
    return "{0.__class__}".format(x)  # noqa: UP030, UP032


def sets_a_global(x: Any) -> None:
    global FACTOR  # noqa: PLW0603
    FACTOR = x


def opens(x: Any) -> Any:
    return open(x)  # noqa: PTH123


def sleeps(x: Any) -> None:
    time.sleep(x)


def of_arrays(x: Any) -> Any:
    grid = np.linspace(0.0, 1.0, 5)
    return float(np.sum(np.exp(-x * grid) ** 2)), (grid * x).mean(), np.maximum(grid, x).tolist()


def draws_with_numpy(x: Any) -> Any:
    return x + np.random.random()  # noqa: NPY002


def reads_memory_as_it_is(x: Any) -> Any:
    return np.exp(x, where=x > 0)


def makes_memory_as_it_is(x: Any) -> Any:
    return np.empty(3) + x


def loads_a_file(x: Any) -> Any:
    return np.load(x)


def reads_the_clock(x: Any) -> Any:
    return time.monotonic() + x


def makes_a_user_object(_x: Any) -> Any:
    return User()


def reads_a_global_list(_x: Any) -> Any:
    return DATA[0] + 1


TABLE: dict[str, Any] = {"a": 1.5, "b": (2, 3)}
NESTED = [[1], [2]]


def reads_tables(x: Any) -> Any:
    total = TABLE["a"] * x
    for key, value in TABLE.items():
        total += x if key == "b" else value
    return total, TABLE.get("c", 0)


def reads_lists(x: Any) -> Any:
    return sum(x * each for each in DATA), sorted(DATA), DATA[1:], [x, *DATA]


def reads_a_table_in_a_callee(x: Any) -> Any:
    total = scaled(x)
    total += looks_up(x)
    return total


def looks_up(x: Any) -> Any:
    return TABLE["b"][1] if x in TABLE else len(TABLE)


def reads_nested(x: Any) -> Any:
    return NESTED[x]


def appends(x: Any) -> Any:
    DATA.append(x)
    return len(DATA)


def appends_by_map(xs: Any) -> Any:
    return list(map(DATA.append, xs))


def stores(x: Any) -> Any:
    TABLE[x] = x
    return TABLE


def remembers(x: Any, known: dict[Any, Any] = {}) -> Any:  # noqa: B006 - on purpose
    known[x] = known.get(x, 0) + 1
    return known[x]


def adds_in_place(xs: Any) -> Any:
    held = DATA
    held += xs
    return len(held)


def merges_in_place(x: Any) -> Any:
    held = TABLE
    held |= x
    return len(held)


def has_it_changed(x: Any) -> Any:
    return changes(DATA, x)


def changes(held: Any, x: Any) -> Any:
    held.insert(0, x)
    return held


def deletes(x: Any) -> Any:
    del TABLE[x]


def evaluates(x: Any) -> Any:
    return eval(x)


def unknown_name(_x: Any) -> Any:
    return not_defined_anywhere  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class Params:
    """Names that no version of numpy has: with 1.26 there is a `np.rate`."""

    gain: float
    steps: int = 3
    sizes: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Fixed:
    gain: float
    within: Params | None = None


@dataclasses.dataclass
class WithMethod:
    gain: float

    def doubled(self) -> float:
        return self.gain * random.random()


@dataclasses.dataclass
class WithProperty:
    gain: float

    @property
    def drawn(self) -> float:
        return random.random()


@dataclasses.dataclass
class WithHook:
    gain: float

    def __getattr__(self, name: str) -> float:
        return random.random()


@dataclasses.dataclass
class WithEquality:
    gain: float

    def __eq__(self, other: object) -> bool:
        return random.random() < 0.5

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Derived(Params):
    more: int = 0


def reads_a_record(p: Any) -> Any:
    return p.gain * p.steps + sum(p.sizes)


def reads_nested_records(p: Any) -> Any:
    return p.within.gain if p.within else p.gain


def writes_a_record(p: Any) -> Any:
    p.gain = 2
    return p.gain


def writes_a_file(x: Any) -> Any:
    return x.tofile("f")


def counted(x: Any) -> Any:
    return x


counted.calls = []  # type: ignore[attr-defined]


def reads_what_a_function_carries(x: Any) -> Any:
    return len(counted.calls) + x  # type: ignore[attr-defined]


partly = functools.partial(scaled)
partly.calls = []  # type: ignore[attr-defined]


def reads_what_a_partial_carries(x: Any) -> Any:
    return len(partly.calls) + x  # type: ignore[attr-defined]


def reads_a_frame(x: Any) -> Any:
    return (i for i in x).gi_frame  # type: ignore[attr-defined]


def reads_the_class(x: Any) -> Any:
    return x.__class__


PURE = [
    reads_a_record, reads_nested_records,
    scaled, calls_another, loops, fibonacci, handles_errors, sorts, shifted(2), len, math.sin,
    functools.partial(scaled), functools.partial(sorts, (1,)), lambda x: x + 1, sleeps, time.sleep,
    of_arrays, reads_a_global_list, reads_tables, reads_lists,
    reads_a_table_in_a_callee, changes,
]  # fmt: skip
UNSURE = [
    writes_a_record, writes_a_file, reads_what_a_function_carries, reads_what_a_partial_carries,
    reads_a_frame, reads_the_class,
    draws_with_numpy, reads_memory_as_it_is, makes_memory_as_it_is, loads_a_file,
    draws, draws_by_default, draws_in_a_callee, draws_in_a_lambda, yields, suspends, imports,
    escapes, escapes_by_format, sets_a_global, opens, reads_the_clock, time.monotonic, makes_a_user_object,
    reads_nested, appends, appends_by_map, stores, remembers, adds_in_place, merges_in_place,
    has_it_changed, deletes, evaluates, unknown_name, random.random, print, eval, User, [].append, 5,
    functools.partial(draws, 1), functools.partial(scaled, User()),
]  # fmt: skip


@pytest.mark.parametrize("function", PURE, ids=[f"{n}" for n in range(len(PURE))])
def test_arithmetic_loops_and_pure_callees_are_proven(function: Any) -> None:
    assert draws_nothing(function)


@pytest.mark.parametrize("function", UNSURE, ids=[f"{n}" for n in range(len(UNSURE))])
def test_functions_that_might_draw_or_run_unknown_code_are_not_pure(function: Any) -> None:
    assert not draws_nothing(function)


def test_a_shadowed_builtin_is_not_taken_for_the_builtin() -> None:
    scope: dict[str, Any] = {"abs": draws}
    exec("def f(x):\n    return abs(x)", scope)
    assert not draws_nothing(scope["f"])


def test_a_patched_math_function_is_not_taken_for_the_original(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math, "sin", draws)
    assert not draws_nothing(calls_another)


def test_a_patched_numpy_function_is_not_taken_for_the_original(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert draws_nothing(of_arrays)
    monkeypatch.setattr(np, "exp", draws)
    assert not draws_nothing(of_arrays)


def test_replaced_builtins_of_a_function_are_noticed() -> None:
    scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "abs": draws}}
    exec("def f(x):\n    return abs(x)", scope)
    assert not draws_nothing(scope["f"])


@pytest.mark.parametrize(
    "obj",
    [
        1,
        2.0,
        "a",
        b"",
        None,
        True,
        1j,
        (),
        (1, ["a", (None,)]),
        {"a": [1]},
        {1, 2},
        np.arange(3.0),
        np.float64(2.5),
        [np.int64(3)],
        Params(1.0),
        [Params(1.0, sizes=[2])],
        Fixed(0.5, Params(2.0)),
    ],
)
def test_scalars_and_sequences_of_them_are_plain(obj: object) -> None:
    assert args_plain(obj)


def test_an_instance_of_a_dataclass_stays_plain_when_it_was_pickled() -> None:
    fresh = dataclasses.make_dataclass("Fresh", ["gain"])(1.0)
    fresh.__reduce_ex__(2)
    assert "__slotnames__" in vars(type(fresh))
    assert args_plain(fresh)


@pytest.mark.parametrize(
    "obj",
    [
        np.array([User()]),
        np.array(["a"]),
        {1: User()},
        {"a": {User()}},
        [User()],
        User,
        len,
        bytearray(),
        (1,) * 5000,
        Params(User()),  # type: ignore[arg-type]
        Fixed(0.5, User()),  # type: ignore[arg-type]
        WithMethod(1.0),
        WithProperty(1.0),
        WithHook(1.0),
        WithEquality(1.0),
        Derived(1.0),
    ],
)
def test_arguments_of_other_types_are_not_plain(obj: object) -> None:
    assert not args_plain(obj)


def test_an_instance_of_a_subclass_of_a_scalar_is_not_plain() -> None:
    assert not args_plain(type("Own", (int,), {})(3))


def test_code_of_the_user_that_was_made_by_exec_is_not_taken_for_what_dataclass_makes() -> None:
    scope: dict[str, Any] = {"random": random}
    exec("def __getattr__(self, name): return random.random()", scope)
    cls = dataclasses.make_dataclass("Made", [("gain", float)])
    assert args_plain(cls(1.0))
    cls.__getattr__ = scope["__getattr__"]  # type: ignore[attr-defined]
    assert not args_plain(cls(1.0))


def test_a_record_with_extra_attributes_is_checked_completely() -> None:
    record: Any = Params(1.0)
    record.extra = User()
    assert not args_plain(record)


def test_a_record_whose_class_was_changed_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Params, "steps", property(lambda _: random.random()))
    assert not args_plain(Params.__new__(Params))


def test_a_list_that_holds_itself_is_not_plain() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert not args_plain(loop)
