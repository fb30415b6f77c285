"""Random small programs with closures, rebinding, nested maps and state.

`python -m tests.integration.programs --programs 1000 --seed 1` runs them under `python`, and under
`rscoop run` with 1, 2 and 3 workers, once more with everything killed in the middle and resumed,
and compares what they print. Several programs share a script, to save starts; each has its own
names.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.integration.runs import Place, finish

PER_SCRIPT: Final = 10
HEAD: Final = """
import collections, dataclasses, decimal, enum, functools, importlib, operator, os, sys, time
import other
from resilient_scoop import futures

def pause(x):
    time.sleep(0.002)
    return x
"""
OTHER: Final = "RATE, table = 2, {'a': 1}\ndef scaled(x): return x * RATE\n"


class _Drawn:
    """One program: definitions of its module, and the body of its main function."""

    def __init__(self, rng: random.Random, no: int) -> None:
        self.rng = rng
        self.no = no
        self.top: list[str] = []
        self.body: list[str] = []
        self.functions: list[str] = []
        self.is_closed = False

    def text(self) -> str:
        """Return the program's text."""
        self._definitions()
        makers = [
            self._map, self._map, self._set_global, self._change_list, self._class_attribute,
            self._closure, self._loop, self._nested, self._submit, self._lambda, self._redefine,
            self._default, self._attribute, self._error, self._state, self._two_iterables,
            self._local_class, self._partial, self._decorate, self._objects, self._patch_class,
            self._cached, self._enum, self._generator, self._replace, self._count, self._import,
            self._setting, self._registry, self._again, self._delete, self._by_name, self._method,
        ]  # fmt: skip
        self._closure()
        for _ in range(self.rng.randint(5, 9)):
            self.rng.choice(makers)()
        n = self.no
        head = f"def main_{n}():\n    global G_{n}, M_{n}, f_{n}, g_{n}\n"
        return "\n".join(self.top) + "\n" + head + "\n".join(f"    {line}" for line in self.body)

    def _number(self) -> int:
        return self.rng.randint(-9, 9)

    def _say(self, what: str) -> None:
        self.body.append(f"print({self.no}, {len(self.body)}, {what})")

    def _definitions(self) -> None:
        n, a, b = self.no, self._number(), self._number()
        self.top += [
            f"G_{n}, L_{n}, D_{n} = {a}, [{a}, {b}], {{'a': {a}, 'b': {b}}}",
            f"class C_{n}:\n    rate = {b}\n    def __init__(self, k): self.k = k",
            f"    def run(self, x): return x * self.rate + self.k + G_{n}",
            f"M_{n} = C_{n}({a})",
            f"def f_{n}(x, step={a}): return pause(x) * G_{n} + step + D_{n}['a']",
            f"def g_{n}(x): return f_{n}(x) - sum(L_{n}) + M_{n}.run(x)",
            f"def h_{n}(x, *, by=[{b}]): return x + by[0] + h_{n}.bias\nh_{n}.bias = {a}",
            f"def deep_{n}(x): return sum(futures.map(g_{n}, range(x % 4))) + x",
            f"def fails_{n}(x):\n    if x % 3 == 0: raise ValueError(f'no {{x}} {{G_{n}}}')\n    return x",
        ]
        self.top += [
            f"@dataclasses.dataclass\nclass Data_{n}:\n    k: int = {a}",
            f"    tags: list = dataclasses.field(default_factory=lambda: [{b}])",
            f"    def total(self): return self.k + sum(self.tags) + G_{n}",
            f"class Level_{n}(enum.Enum):\n    LOW = {a}\n    HIGH = 'x'",
            f"    def up(self): return (self.value, G_{n})",
            f"@functools.lru_cache\ndef cached_{n}(x): return x * G_{n} + {b}",
            f"def import_{n}(x):\n    import other\n    return x + other.RATE + other.table['a']",
            f"def by_name_{n}(x): return getattr(other, 'RA' + 'TE') + x",
            f"def third_{n}(x): return str(decimal.Decimal(x) / 7)",
            f"R_{n} = {{}}\ndef register_{n}(function):",
            f"    R_{n}[function.__name__] = function\n    return function",
            f"@register_{n}\ndef first_{n}(x): return x + {a}",
            f"def all_{n}(x): return [(name, each(x)) for name, each in sorted(R_{n}.items())]",
            f"def call_{n}(each): return each.total()",
            f"class Count_{n}:\n    def __init__(self, function): self.function, self.plus = function, {a}",
            "    def __call__(self, x): return self.function(x) + self.plus",
            f"@Count_{n}\ndef counted_{n}(x): return x * G_{n}",
        ]
        self.functions = [f"f_{n}", f"g_{n}", f"h_{n}", f"deep_{n}", f"C_{n}(2).run", f"M_{n}.run"]
        self.functions += [f"import_{n}", f"by_name_{n}", f"counted_{n}", "other.scaled"]

    def _function(self) -> str:
        return self.rng.choice(self.functions)

    def _map(self) -> None:
        self._say(f"list(futures.map({self._function()}, range({self.rng.randint(1, 5)})))")

    def _submit(self) -> None:
        self._say(f"futures.submit({self._function()}, {self._number()}).result()")

    def _set_global(self) -> None:
        self.body.append(f"G_{self.no} = {self._number()}")

    def _change_list(self) -> None:
        n = self.no
        self.body.append(
            self.rng.choice(
                [f"L_{n}.append({self._number()})", f"D_{n}['a'] = {self._number()}",
                 f"M_{n}.k += 1", f"L_{n}[0] = {self._number()}"]
            )
        )  # fmt: skip

    def _class_attribute(self) -> None:
        self.body.append(f"C_{self.no}.rate = {self._number()}")

    def _closure(self) -> None:
        self.body.append(f"k = {self._number()}")
        if not self.is_closed:
            self.is_closed = True
            self.body.append(f"def closed(x): return pause(x) * k + G_{self.no}")
            self.functions += ["closed"]

    def _loop(self) -> None:
        self.body += [
            f"for k in range({self.rng.randint(1, 3)}):",
            f"    print({self.no}, 'loop', k, list(futures.map(closed, [1, 2])))",
        ]

    def _nested(self) -> None:
        self._say(
            f"[each.result() for each in [futures.submit(deep_{self.no}, i) for i in range(4)]]"
        )

    def _lambda(self) -> None:
        self._say(
            f"list(futures.map(lambda x, y={self._number()}: x * y + k + G_{self.no}, [1, 2, 3]))"
        )

    def _redefine(self) -> None:
        n = self.no
        self.body.append(
            f"g_{n} = lambda x, old={self._number()}: f_{n}(x) + old"
            if self.rng.random() < 0.5
            else f"f_{n} = functools.partial(operator.add, {self._number()})"
        )

    def _default(self) -> None:
        self.body.append(f"h_{self.no}.__kwdefaults__['by'][0] = {self._number()}")

    def _attribute(self) -> None:
        self.body.append(f"h_{self.no}.bias = {self._number()}")

    def _error(self) -> None:
        self.body += [
            f"for call in [futures.submit(fails_{self.no}, i) for i in range(4)]:",
            f"    try: print({self.no}, call.result())",
            f"    except ValueError as error: print({self.no}, error)",
        ]

    def _state(self) -> None:
        self.body += [
            "total = 0",
            f"for value in futures.map({self._function()}, range(4)): total = total * 3 + value",
        ]
        self._say("total")

    def _two_iterables(self) -> None:
        self._say("list(futures.map(pow, [2, 3], [3, 2]))")

    def _local_class(self) -> None:
        self.body += [
            "class Local:",
            f"    unit = {self._number()}",
            "    def get(self, x): return x + self.unit",
            "print(list(futures.map(Local().get, [1, 2])))",
            f"Local.unit = {self._number()}",
            "print(list(futures.map(Local().get, [1, 2])))",
            "made = futures.submit(Local).result()",
            "print(isinstance(made, Local), made.unit)",
        ]

    def _partial(self) -> None:
        self._say(f"list(futures.map(functools.partial(max, {self._number()}), range(3)))")

    def _objects(self) -> None:
        n = self.no
        self._say(
            f"list(futures.map(call_{n}, [Data_{n}(), Data_{n}({self._number()}, [1, {self._number()}])]))"
        )

    def _patch_class(self) -> None:
        n, a = self.no, self._number()
        self.body.append(
            self.rng.choice(
                [f"Data_{n}.total = lambda self, by={a}: self.k * by",
                 f"Data_{n}.__init__.__defaults__ = ({a}, *Data_{n}.__init__.__defaults__[1:])",
                 f"Data_{n}.extra = {a}; Data_{n}.total = lambda self: self.extra"]
            )
        )  # fmt: skip
        self._objects()

    def _cached(self) -> None:
        n = self.no
        self.body.append(f"G_{n} = {self._number()}; cached_{n}.cache_clear()")
        self._say(f"list(futures.map(cached_{n}, range(3)))")

    def _enum(self) -> None:
        n = self.no
        self.body.append(f"found = list(futures.map(Level_{n}.up, Level_{n}))")
        self._say("found")
        self._say(
            f"[each is Level_{n}[each.name] for each in futures.map(lambda x: x, list(Level_{n}))]"
        )

    def _generator(self) -> None:
        n = self.no
        self.body += [
            "def growing(times):",
            f"    total = {self._number()}",
            f"    def add(x): return x + total + G_{n}",
            "    for step in range(times):",
            "        total += step",
            "        yield add",
            f"for each in growing({self.rng.randint(1, 3)}): print({n}, list(futures.map(each, [1, 2])))",
        ]

    def _replace(self) -> None:
        n = self.no
        self.body.append(f"M_{n} = C_{n}({self._number()})")
        self._say(f"list(futures.map(lambda x: M_{n}.run(x), range(2)))")

    def _count(self) -> None:
        n = self.no
        self.body.append(f"counted_{n}.plus = {self._number()}")
        self._say(f"list(futures.map(counted_{n}, range(2)))")

    def _import(self) -> None:
        self.body.append(
            self.rng.choice(
                [f"other.RATE = {self._number()}", f"other.table['a'] = {self._number()}",
                 f"other.scaled = lambda x: x - {self._number()}"]
            )
        )  # fmt: skip
        self._say(f"list(futures.map(import_{self.no}, range(2)))")
        self._say("list(futures.map(other.scaled, range(2)))")

    def _by_name(self) -> None:
        self.body.append(f"vars(other).update(RATE={self._number()})")
        self._say(f"list(futures.map(by_name_{self.no}, range(2)))")

    def _setting(self) -> None:
        n, digits = self.no, self.rng.randint(2, 40)
        self.body += [
            f"with decimal.localcontext() as context_{n}:",
            f"    context_{n}.prec = {digits}",
            f"    print({n}, list(futures.map(third_{n}, [1, 2])))",
        ]
        self._say(f"futures.submit(third_{n}, 3).result()")
        self._say(f"list(futures.map(all_{n}, range(2)))")

    def _registry(self) -> None:
        n = self.no
        name = f"more_{n}_{len(self.body)}"
        self.body += [f"@register_{n}", f"def {name}(x, k={self._number()}): return x * k + G_{n}"]
        self._say(f"list(futures.map(all_{n}, range(2)))")
        if self.rng.random() < 0.3:
            self.body.append(f"del R_{n}['{name}']")

    def _again(self) -> None:
        n = self.no
        self.body += [
            "class Again:",
            f"    def go(self, x): return x + {self._number()}",
            "before = Again()",
            "class Again:",
            f"    def go(self, x): return x * {self._number()}",
            f"print({n}, list(futures.map(lambda each: each.go(3), [before, Again()])))",
        ]

    def _delete(self) -> None:
        n = self.no
        self.body += [
            f"C_{n}.unit = {self._number()}",
            f"print({n}, list(futures.map(lambda x: getattr(C_{n}, 'unit', None), [1])))",
            f"del C_{n}.unit",
            f"print({n}, list(futures.map(lambda x: getattr(C_{n}, 'unit', None), [1])))",
        ]

    def _method(self) -> None:
        n = self.no
        self._say(f"list(futures.map(operator.attrgetter('k'), [Data_{n}({self._number()})]))")
        self._say(
            f"list(futures.map(functools.partial(C_{n}.run, C_{n}({self._number()})), range(2)))"
        )

    def _decorate(self) -> None:
        n = self.no
        self.body += [
            "def shifted(function):",
            f"    def inner(x): return function(x) + {self._number()}",
            "    return inner",
            f"f_{n} = shifted(f_{n})",
        ]


def script(seed: int, count: int = PER_SCRIPT) -> str:
    """Return the text of a script with several programs."""
    rng = random.Random(seed)
    parts = [_Drawn(rng, no).text() for no in range(count)]
    calls = "\n".join(f"    main_{no}()" for no in range(count))
    return "\n".join([HEAD, *parts, f'if __name__ == "__main__":\n{calls}\n'])


def differences(place: Place, seed: int, workers: tuple[int, ...] = (1, 2, 3)) -> list[str]:
    """Run a script in all ways; return what differs from `python`."""
    import subprocess
    import sys

    path = place.write(script(seed))
    place.write(OTHER, "other.py")
    plain = subprocess.run(
        [sys.executable, path.name], cwd=place.folder, capture_output=True, text=True, check=False
    )
    if plain.returncode:
        return [f"seed {seed}: python itself fails: {plain.stderr[-300:]}"]
    found = []
    for n in workers:
        done = place.rscoop("run", "-q", "-n", str(n), path.name, timeout_s=120.0)
        if (done.code, done.out) != (plain.returncode, plain.stdout):
            found.append(f"seed {seed}, {n} workers: {_first(plain.stdout, str(done))}")
    killed = _killed_and_resumed(place, path, random.Random(seed).uniform(0.3, 2.0))
    if killed != plain.stdout:
        found.append(f"seed {seed}, killed: {_first(plain.stdout, killed)}")
    return found


def _killed_and_resumed(place: Place, path: Path, after_s: float) -> str:
    import os
    import signal

    process = place.start("run", "-q", "-n", "2", path.name)
    time.sleep(after_s)  # a random moment: whatever is running then is lost
    for pid in place.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    finish(process)
    done = place.rscoop("resume", "-q", "last", timeout_s=120.0)
    if done.code:
        return str(done)
    return place.rscoop("logs", "last").out


def _first(then: str, now: str) -> str:
    pairs = zip(then.splitlines(), now.splitlines(), strict=False)
    found = next((f"{a!r} became {b!r}" for a, b in pairs if a != b), None)
    return found or f"{len(then)} characters became {len(now)}: {now[-600:]}"


def main() -> None:
    """Run programs and print what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    scripts = -(-options.programs // PER_SCRIPT)
    bad = 0
    for number in range(scripts):
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), Path(folder) / "state")
            for text in differences(place, options.seed * 100_000 + number):
                bad += 1
                print(text, flush=True)  # noqa: T201
    print(f"{scripts * PER_SCRIPT} programs in {scripts} scripts: {bad} differences")  # noqa: T201


if __name__ == "__main__":
    main()
