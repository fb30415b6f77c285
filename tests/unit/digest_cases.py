"""Argument values whose digests must be the same in every process; as a script, it prints them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import importlib.util
import pathlib
import random
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.identity.digest import digest
from resilient_scoop.payload import payload

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]


class Color(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a = 1
        self.b = {"x", "y", "z"}


@dataclasses.dataclass
class Point:
    x: float
    tags: frozenset[str] = frozenset({"p", "q", "r"})

    def move(self, by: float) -> float:
        return self.x + by


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.peers: list[Node] = []


class Words(set[str]):
    pass


def ring() -> Node:
    first, second = Node("a"), Node("b")
    first.peers, second.peers = [second, first], [first]
    return first


def own_list() -> list[Any]:
    items: list[Any] = [1, {"b", "a"}]
    items.append(items)
    return items


def shifted(by: object) -> Callable[[Any], Any]:
    return lambda x: (x, by)


def plain_cases() -> dict[str, object]:
    stream = random.Random(7)
    stream.random()
    return {
        "set": set(WORDS),
        "frozenset": frozenset(WORDS),
        "nested sets": {frozenset(WORDS[:3]), frozenset(WORDS[3:])},
        "set subclass": Words(WORDS),
        "set in a dict": {"a": [set(WORDS)], "b": 1},
        "counter": collections.Counter(WORDS),
        "ordered": collections.OrderedDict(a=1, b=2),
        "default": collections.defaultdict(set, {"a": {"x", "y"}}),
        "deque": collections.deque(WORDS, 9),
        "enum": Color.RED,
        "slots": Slotted(),
        "dataclass": Point(1.0),
        "lambda": lambda x: x + 1,
        "closure": shifted(frozenset(WORDS)),
        "partial": functools.partial(shifted, {"b", "a", "c"}),
        "method": Point(2.0).move,
        "builtin": [len, "".join, random.random, random.randint],
        "class": [Point, int, Color],
        "module": random,
        "date": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
        "decimal": decimal.Decimal("1.10"),
        "path": pathlib.PurePosixPath("/a/b"),
        "uuid": uuid.UUID(int=5),
        "stream": stream,
        "ring": ring(),
        "own list": own_list(),
        "error": ValueError("v", {"a", "b"}),
        "bytes like set opcodes": [b"\x8f\x91", 143, 145],
        "surrogate": {"\ud800"},
    }


def numpy_cases() -> dict[str, object]:
    import numpy as np

    grid = np.arange(24.0).reshape(4, 6)
    records = np.zeros(3, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
    return {
        "array": grid,
        "strided": grid[::2, ::3],
        "transposed": grid.T,
        "empty": np.zeros((0, 3)),
        "zero dim": np.array(3),
        "ints": np.arange(5, dtype="i4"),
        "times": np.array(["2024-01-01"], dtype="M8[D]"),
        "texts": np.array(["a", "bc"]),
        "records": records,
        "objects": np.array([1, "a", frozenset(WORDS)], dtype=object),
        "scalar": np.float64(1.5),
        "generator": np.random.default_rng(5),
        "legacy": np.random.RandomState(5),
        "global": np.random.rand,
    }


def deap_cases() -> dict[str, object]:
    from deap import base, creator, gp

    creator.create("DigestMax", base.Fitness, weights=(1.0,))
    creator.create("DigestIndividual", list, fitness=creator.DigestMax)
    one = creator.DigestIndividual(range(30))
    rated = creator.DigestIndividual(range(30))
    rated.fitness.values = (3.0,)
    pset = gp.PrimitiveSet("DIGEST", 1)
    pset.addPrimitive(max, 2)
    pset.addEphemeralConstant("digest_rand", functools.partial(random.randint, 3, 3))
    constant = pset.mapping["digest_rand"]()
    tree = gp.PrimitiveTree([pset.mapping["max"], pset.mapping["ARG0"], constant])
    toolbox = base.Toolbox()
    toolbox.register("bit", random.randint, 0, 1)
    toolbox.register("shift", shifted, 3)
    return {"individual": one, "rated": rated, "tree": tree, "toolbox": toolbox}


def cases() -> dict[str, object]:
    """Return every case that the installed packages allow."""
    found = plain_cases()
    if importlib.util.find_spec("numpy"):
        found |= numpy_cases()
    if importlib.util.find_spec("deap"):
        found |= deap_cases()
    return found


def digest_of(obj: object) -> bytes:
    """Return the digest of `obj`, with the payload with which it would be sent."""
    try:
        data = payload.dumps_large(obj, None)
    except PicklingFailedError:
        data = b"D"
    return digest(obj, data)


def main() -> None:
    """Print a line per case; arguments name a module of further cases."""
    found = cases()
    for argument in sys.argv[1:]:
        found |= {str(i): case for i, case in enumerate(eval(pathlib.Path(argument).read_text()))}
    for name, case in found.items():
        sys.stdout.write(f"{name}={digest_of(case).hex()}\n")
    lock = threading.Lock()
    assert digest_of(lock) != digest_of(lock)


if __name__ == "__main__":
    main()
