"""Random edits of a program: edits that change a result must change fingerprints, harmless ones must not.

`python -m tests.unit.edits --edits 1000 --seed 1` prints the rates. An edit mutates the syntax tree
of one of the program's modules. A forked child imports the edited program, calls each of its
functions and takes their fingerprints; the same was done with the original program.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from resilient_scoop.identity.meaning import Meaning

PROGRAM: Final = {
    "prog.py": """
import collections, dataclasses, enum, functools, math
import helper_m
import pack_m.deep as deep
from pack_m import shared_rate, Base
from helper_m import *

WEIGHTS = {"a": 3, "b": [1, 2, (3, 4)]}
LIMITS = [10, 20, 30]
PAIR = (2, "xy")
TABLE = {name: index * 7 for index, name in enumerate("abc")}

class Color(enum.Enum):
    RED = 3
    BLUE = 5

@dataclasses.dataclass
class Item:
    size: int = 4
    tags: list = dataclasses.field(default_factory=lambda: [5, 6])
    def total(self):
        return self.size + sum(self.tags)

Point = collections.namedtuple("Point", "x y", defaults=[9])

class Model(Base):
    depth = 2
    class Inner:
        def go(self, x):
            return x * 11
    def __init__(self, start=1):
        self.start = start
    @property
    def width(self):
        return self.depth * 13
    @functools.cached_property
    def slow(self):
        return self.start + 17
    @classmethod
    def build(cls, n):
        return cls(n + 1)
    @staticmethod
    def twice(x):
        return 2 * x
    def run(self, x):
        left = super().run(x) + self.width
        return left + self.slow + Model.Inner().go(x) + self.twice(x)

MODEL = Model(4)
REGISTRY = {}

def register(name):
    def keep(function):
        REGISTRY[name] = function
        return function
    return keep

@register("double")
def double(x):
    return x * 2 + 1

@register("triple")
def triple(x):
    return x * 3 + 2

def scaled(factor):
    offset = factor + 1
    def inner(x):
        return x * factor + offset
    return inner

by_five = scaled(5)
part = functools.partial(helper_m.power, base=3)

@functools.lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@functools.singledispatch
def kind(x):
    return 1
@kind.register
def _(x: int):
    return 2 + x
@kind.register
def _(x: str):
    return 3

def f_data(x):
    total = WEIGHTS["a"] * x + sum(LIMITS)
    for name, value in TABLE.items():
        total += value if name != "b" else -value
    return total + len(PAIR[1]) + PAIR[0] + WEIGHTS["b"][2][1]

def f_class(x):
    built = Model.build(x)
    return built.run(x) + MODEL.run(x), Item().total(), Point(1).y

def f_calls(x):
    result = REGISTRY["double"](x) + by_five(x) + part(x)
    return result + fibonacci(x + 3) + kind(x)

def f_modules(x):
    return helper_m.score(x) + deep.dig(x) + shared_rate + starred(x) + math.floor(2.5)

def f_local(x):
    from helper_m import hidden
    import pack_m.other
    return hidden(x) + pack_m.other.value(x)

def f_flow(x, *, step=2):
    out = []
    for i in range(x + 3):
        if i % step == 0:
            out.append(i * 4)
        elif i > 2:
            try:
                out.append(10 // (i - 3))
            except ZeroDivisionError as error:
                out.append(len(str(error)))
    match x:
        case 0:
            return out
        case 1 | 2:
            return sum(out) - 1
        case other:
            return [other for other in out if other > 3]

def f_enum(x):
    best = max(Color, key=lambda each: each.value)
    squares = {i: i * i for i in range(x)}
    return best.value + Color.RED.value + len(squares)

def f_lambdas(x):
    table = [lambda y: y + 1, lambda y: y * 6]
    return [each(x) for each in table]

def f_dynamic(x):
    return globals()["trip" + "le"](x)
""",
    "helper_m.py": """
FACTOR = 2
_private = [1, 2]
__all__ = ["starred"]

def score(x):
    value = x * FACTOR
    return value + bonus(x) + _private[0]

def bonus(x):
    return 3 if x > 1 else 4

def power(x, base=2):
    return base ** x

def starred(x):
    return x - 5

def hidden(x):
    return x * KEY + more(x)

def more(x):
    return x + 8

KEY = 6
""",
    "pack_m/__init__.py": """
shared_rate = 12

class Base:
    gain = 3
    def run(self, x):
        return x * self.gain + self.extra()
    def extra(self):
        return 1
""",
    "pack_m/deep.py": """
from . import other

def dig(x):
    return other.value(x) * 2 + DEPTH

DEPTH = 7
""",
    "pack_m/other.py": """
def value(x):
    return x + SHIFT

SHIFT = 15
""",
}  # fmt: skip

ROOTS: Final = (
    "f_data", "f_class", "f_calls", "f_modules", "f_local", "f_flow", "f_enum", "f_lambdas", "f_dynamic",
)  # fmt: skip
Seen = dict[str, tuple[str, str]]
"""By function: what its calls gave, and its fingerprint."""


@dataclass
class Rates:
    """The results of the edits."""

    changing: int = 0
    missed: list[str] = field(default_factory=list)
    harmless: int = 0
    refused: list[str] = field(default_factory=list)
    without_effect: int = 0


def look(files: dict[str, str], folder: Path) -> Seen | None:
    """Return the results of an edited program; None if it cannot be imported."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _look(folder, writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    found: Seen | None = json.loads(answer) if answer else None
    return found


def _look(folder: Path, writing: int) -> None:
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    answer = ""
    try:
        program = __import__("prog")
        answer = json.dumps({name: _called(getattr(program, name)) for name in ROOTS})
    finally:
        os.write(writing, answer.encode())
        os._exit(0)


def _called(function: Callable[..., Any]) -> tuple[str, str]:
    mark = Meaning(function, by_position=True).fingerprint.hex()
    found = []
    for x in range(5):
        try:
            found.append(repr(function(x)))
        except Exception as error:  # noqa: BLE001 - an edit may break it
            found.append(f"{type(error).__name__}: {error}")
    return " ".join(found), mark


_OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult)


def _nodes(tree: ast.AST, *kinds: type[ast.AST]) -> list[Any]:
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def change(tree: ast.Module, rng: random.Random) -> str | None:  # noqa: PLR0911 - one kind each
    """Make a change that may matter; describe it."""
    kind = rng.choice(["number", "number", "text", "operator", "compare", "delete", "swap", "add"])
    if kind in ("number", "text"):
        wanted = int if kind == "number" else str
        found = [n for n in _nodes(tree, ast.Constant) if type(n.value) is wanted]
        if not found:
            return None
        node = rng.choice(found)
        before = node.value
        node.value = before + rng.choice([1, 2, -1]) if wanted is int else before + "x"
        return f"{before!r} -> {node.value!r} in line {node.lineno}"
    if kind == "operator":
        found = [n for n in _nodes(tree, ast.BinOp) if isinstance(n.op, _OPERATORS)]
        if not found:
            return None
        node = rng.choice(found)
        node.op = rng.choice([o for o in _OPERATORS if not isinstance(node.op, o)])()
        return f"operator in line {node.lineno}"
    if kind == "compare":
        found = _nodes(tree, ast.Compare)
        if not found:
            return None
        node = rng.choice(found)
        node.ops = [ast.GtE() if isinstance(node.ops[0], ast.Lt | ast.NotEq) else ast.Lt()]
        return f"comparison in line {node.lineno}"
    return _change_body(tree, rng, kind)


def _change_body(tree: ast.Module, rng: random.Random, kind: str) -> str | None:
    bodies = [n.body for n in _nodes(tree, ast.FunctionDef, ast.For, ast.If) if len(n.body) > 1]
    if not bodies:
        return None
    body = rng.choice(bodies)
    at = rng.randrange(len(body) - 1)
    line = body[at].lineno
    if kind == "delete":
        del body[at]
    elif kind == "swap":
        body[at], body[at + 1] = body[at + 1], body[at]
    else:
        body.insert(at, ast.parse("x = x + 1").body[0])
    return f"{kind} a statement in line {line}"


def dress(tree: ast.Module, rng: random.Random) -> str | None:
    """Make a change that does not matter; describe it."""
    kind = rng.choice(["annotate", "document", "rename", "unused", "returns"])
    functions = _nodes(tree, ast.FunctionDef)
    if not functions:
        return None
    node = rng.choice(functions)
    if kind == "annotate" and node.args.args and node.name != "_":
        rng.choice(node.args.args).annotation = ast.parse("'int | float'", mode="eval").body
    elif kind == "returns":
        node.returns = ast.parse("list[int]", mode="eval").body
    elif kind == "document":
        node.body.insert(0, ast.parse("'''Say what it does.'''").body[0])
    elif kind == "rename":
        return _rename(node, rng)
    elif kind == "unused":
        tree.body.append(ast.parse(f"def unused_{rng.randrange(99)}(y): return y").body[0])
    else:
        return None
    return f"{kind} {node.name}"


def _rename(function: ast.FunctionDef, rng: random.Random) -> str | None:
    parameters = {each.arg for each in _nodes(function, ast.arg)}
    stored = {
        each.id for each in _nodes(function, ast.Name) if isinstance(each.ctx, ast.Store)
    } - parameters
    if not stored or _nodes(function, ast.Global, ast.Nonlocal, ast.ClassDef):
        return None
    old = rng.choice(sorted(stored))
    new = f"{old}_renamed"
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name == old:
            node.name = new
    return f"rename {old} of {function.name}"


def edited(rng: random.Random, *, harmless: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield edits without end: their description, and the files."""
    while True:
        name = rng.choice([*PROGRAM, "prog.py", "prog.py"])
        tree = ast.parse(PROGRAM[name])
        what = (dress if harmless else change)(tree, rng)
        if what is not None:
            text = ast.unparse(ast.fix_missing_locations(tree))
            yield f"{name}: {what}", {**PROGRAM, name: text}


def rates(seed: int, count: int) -> Rates:
    """Make a number of edits of each kind that can be imported, and compare the results."""
    found = Rates()
    with tempfile.TemporaryDirectory() as folder:
        plain = {name: ast.unparse(ast.parse(text)) for name, text in PROGRAM.items()}
        base = look(plain, Path(folder) / "base")
        assert base is not None
        for harmless in (False, True):
            made = edited(random.Random(f"{seed} {harmless}"), harmless=harmless)
            for number in range(count):
                what, files = next(made)
                seen = look(files, Path(folder) / f"{harmless}{number}")
                if seen is not None:
                    _judge(found, what, base, seen, harmless=harmless)
    return found


def _judge(found: Rates, what: str, base: Seen, seen: Seen, *, harmless: bool) -> None:
    values = [name for name in ROOTS if base[name][0] != seen[name][0]]
    marks = [name for name in ROOTS if base[name][1] != seen[name][1]]
    if harmless:
        found.harmless += 1
        if "unused" in what:  # `globals()` may look up any function of its module
            marks = [name for name in marks if name != "f_dynamic"]
        if marks:
            found.refused.append(f"{what}: {marks}")
        return
    if not values:
        found.without_effect += 1
        return
    found.changing += 1
    missed = [name for name in values if name not in marks]
    if missed:
        found.missed.append(f"{what}: {missed}")


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = rates(options.seed, options.edits)
    print(  # noqa: T201
        f"{found.changing} edits that change a result: {len(found.missed)} missed; "
        f"{found.without_effect} that change none; {found.harmless} harmless: {len(found.refused)} refused"
    )
    for each in (*found.missed, *found.refused):
        print(" ", each)  # noqa: T201


if __name__ == "__main__":
    main()
