"""The meaning of a call includes classes of its arguments, modules found in other ways, patched libraries.

The oracle is `python script.py`: a run prints the same.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def assert_as_python(place: Place, text: str, least: int) -> None:
    """Run a script under `rscoop` and under `python`, and compare the output."""
    path = place.write(text)
    plain = subprocess.run(
        [sys.executable, path.name], cwd=place.folder, capture_output=True, text=True, check=True
    )
    assert len(plain.stdout.splitlines()) >= least
    assert place.run(text, timeout_s=60.0).expect() == plain.stdout


ARGUMENTS: Final = """
import dataclasses, enum, typing
from resilient_scoop import futures

class Plain:
    rate = 1
    def run(self): return self.rate
class Child(Plain): pass
@dataclasses.dataclass
class Data:
    k: int = 1
    unit: typing.ClassVar[int] = 1
    def run(self): return self.k * self.unit
class Named(typing.NamedTuple):
    k: int = 1
    def run(self): return self.k
class Slots:
    __slots__ = ("a",)
    def run(self): return 1
class Holder:
    def __init__(self, held): self.held = held
    def run(self): return self.held.run()
SCALE = 1
def scaled(): return SCALE
class Calls:
    def __init__(self, function): self.function = function
    def run(self): return self.function()

def call(each): return each.run()
def both(each): return [future.result() for future in [futures.submit(call, each)] * 2]
def told(objects):
    print(list(futures.map(call, objects)), list(futures.map(both, objects)))
    print([futures.submit(call, each).result() for each in objects])

def main():
    global SCALE
    objects = [Plain(), Child(), Data(), Named(), Slots(), Holder(Child()), Calls(scaled)]
    told(objects)
    Plain.rate, Data.unit, SCALE = 5, 4, 8
    Named.run = lambda self: "named"
    Slots.run = lambda self: "slots"
    told(objects)
    print(list(futures.map(call, [*[Named()] * 40, *objects])))  # more classes in a later part
    Plain.rate = 6
    del Holder.run
    told(objects[:2])
    try: print(list(futures.map(call, [Holder(1)])))
    except AttributeError as error: print(error)

if __name__ == "__main__":
    main()
    Made = enum.Enum("Made", "P Q")
    print([each is Made[each.name] for each in futures.map(lambda each: each, Made)])
"""


def test_classes_and_functions_of_arguments_are_as_the_script_has_changed_them(
    place: Place,
) -> None:
    assert_as_python(place, ARGUMENTS, 9)


MODULES: Final = """
import importlib, sys
import settings, pack.config as config
from settings import get
from resilient_scoop import futures

class Lazy:
    def __getattr__(self, name): return getattr(importlib.import_module("late"), name)
lazy = Lazy()
class Holds:
    where = config
    def scale(self): return self.where.scale
def by_lazy(x): return lazy.scaled(x)
def by_import(x):
    import late
    return late.scaled(x) + late.K
def by_from(x):
    from late import K
    from pack import config as inner
    return x + K + inner.scale
def by_name(x): return getattr(config, "sca" + "le") + x
def by_holder(x): return Holds().scale() + x
def passed(module): return module.scale
def by_passing(x): return passed(config) + x
def by_finder(x): return settings.anything, settings.LIMIT, get(), x
def by_alias(x): return config.get(x)
def told():
    for each in (by_lazy, by_import, by_from, by_name, by_holder, by_passing, by_finder, by_alias):
        try: print(each.__name__, list(futures.map(each, range(2))))
        except AttributeError as error: print(each.__name__, error)

if __name__ == "__main__":
    told()
    import late  # a guard's import changes no bytecode
    late.K = 100
    config.scale = 7
    settings._table["anything"] = 5
    settings.LIMIT = 77
    told()
    late.scaled = lambda x: -x
    config.get = settings.get_of
    importlib.reload(settings)
    told()
    del config.get
    told()
"""


def test_modules_are_found_in_every_way_of_importing(place: Place) -> None:
    place.write("K = 2\ndef scaled(x): return x * K\n", "late.py")
    place.write("scale = 1\ndef get(x): return x + scale\n", "pack/config.py")
    place.write(
        """
        LIMIT = 3
        _table = {"anything": "found"}
        def __getattr__(name):
            if name not in _table: raise AttributeError(name)
            return _table[name]
        def get(): return LIMIT * 2
        def get_of(x): return x + LIMIT
    """,
        "settings.py",
    )
    assert_as_python(place, MODULES, 32)


LIBRARIES: Final = """
import builtins, datetime, fractions, functools, json, mimetypes, time
from collections import Counter
import numpy as np
from resilient_scoop import futures

class Encoder(json.JSONEncoder):
    def default(self, o): return type(o).__name__
class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return cls(1999, 1, 1)
def encoded(x): return json.dumps({"x": x})
def now(x): return time.time() if x else datetime.datetime.now().year
def norm(x): return float(np.linalg.norm([x, 0]))
def length(x): return len([x])
def known(x): return mimetypes.types_map.get(".abc"), "xyz" in mimetypes.knownfiles
def fraction(x): return str(fractions.Fraction(x)), str(Counter(x=1).total())
def told(function, values):
    print(list(futures.map(function, values)) == list(map(function, values)), function(values[0]))

if __name__ == "__main__":
    told(norm, [1, 2]); told(length, [1]); told(known, [1])
    json.dumps = functools.partial(json.dumps, cls=Encoder)
    told(encoded, [1, {"a": 2j}])
    time.time = lambda: 42.0
    datetime.datetime = Day
    told(now, [0, 1])
    np.linalg.norm = lambda x: 7
    told(norm, [1, 2])
    mimetypes.types_map[".abc"] = "x/abc"; mimetypes.knownfiles.append("xyz")
    told(known, [1])
    del mimetypes.types_map[".abc"]
    told(known, [1])
    told(fraction, [1, 2])
    fractions.Fraction.__str__ = lambda self: f"<{self.numerator}>"
    Counter.total = lambda self: 77
    told(fraction, [1, 2])
    del Counter.total
    Counter.total = Counter.__len__
    told(fraction, [1])
    builtins.extra = 7
    told(lambda x: extra + x, [1])
    len = lambda x: 55
    told(length, [1])
"""


def test_libraries_are_as_the_script_has_patched_them(place: Place) -> None:
    assert_as_python(place, LIBRARIES, 13)


SETTINGS: Final = """
import decimal, locale, os, pathlib, socket, sys, time, warnings
import numpy as np
from resilient_scoop import futures

def third(x): return str(decimal.Decimal(x) / 3)
def nested(x): return [future.result() for future in [futures.submit(third, x)] * 2]
def divided(x):
    try: return repr(np.float64(x) / np.float64(0)), str(np.array([1 / 3, 2e10]))
    except FloatingPointError as error: return str(error)
def deep(n):
    def below(k): return 0 if k == 0 else 1 + below(k - 1)
    try: return below(n)
    except RecursionError: return "too deep"
def digits(n):
    try: return len(str(10 ** n))
    except ValueError: return "too many"
def warned(x):
    try: warnings.warn("so")
    except UserWarning: return "raised"
def place(x):
    file = pathlib.Path(f"made-{x}-{os.getpid()}"); file.touch()
    return os.path.basename(os.getcwd()), oct(file.stat().st_mode)
def around(x):
    hour = time.strftime("%H", time.localtime(0))
    return hour, socket.getdefaulttimeout(), locale.setlocale(locale.LC_NUMERIC)
def told(function, values):
    print(function.__name__, list(futures.map(function, values)))

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    told(third, [1, 2]); told(divided, [1])
    decimal.getcontext().prec = 50
    told(third, [1, 2]); told(nested, [1, 2])
    with decimal.localcontext() as context:
        context.prec, context.rounding = 5, decimal.ROUND_UP
        told(third, [1, 2]); told(nested, [1, 2])
    told(third, [1, 2])
    np.set_printoptions(precision=3)
    told(divided, [1])
    np.seterr(divide="raise")
    told(divided, [1])
    with np.errstate(divide="ignore"), np.printoptions(precision=1): told(divided, [1])
    told(deep, [10, 3000]); told(digits, [10, 5000])
    sys.setrecursionlimit(20_000); sys.set_int_max_str_digits(0)
    told(deep, [10, 3000]); told(digits, [10, 5000])
    told(warned, [1]); warnings.simplefilter("error"); told(warned, [1])
    os.environ["TZ"] = "Asia/Tokyo"; time.tzset(); socket.setdefaulttimeout(7)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    told(around, [1])
    os.makedirs("inside", exist_ok=True); os.chdir("inside"); os.umask(0o027)
    told(place, [1, 2])
"""


def test_calls_get_the_process_settings_that_the_script_has_changed(
    place: Place,
) -> None:
    assert_as_python(place, SETTINGS, 18)


TAKEN_BEFORE: Final = """
from decimal import getcontext, Decimal
from os import chdir
import os
from resilient_scoop import futures
def third(x): return str(Decimal(x) / 3), os.path.basename(os.getcwd())
if __name__ == "__main__":
    context = getcontext()
    print(list(futures.map(third, [1])))
    context.prec = 7
    chdir("/usr")
    print(list(futures.map(third, [1])))
    context.prec = 9
    print(list(futures.map(third, [1])))
"""


def test_changed_settings_are_noticed_in_functions_that_the_script_took_from_their_modules(
    place: Place,
) -> None:
    assert_as_python(place, TAKEN_BEFORE, 3)


def test_a_resume_notices_an_edited_decimal_context_and_keeps_other_settings(
    place: Place,
) -> None:
    text = """
        import decimal, os, sys
        from resilient_scoop import futures
        def third(x): return str(decimal.Decimal(x) / 3), os.environ.get("MARK"), sys.argv[1:]
        if __name__ == "__main__":
            decimal.getcontext().prec = 4
            os.environ["MARK"] = "1"; sys.argv.append("more")
            print(list(futures.map(third, range(3))))
            sys.exit(3)
    """
    assert "0.3333'" in place.run(text).expect(3)
    place.rscoop("resume", "-q", "last").expect(3)
    place.write(text.replace("prec = 4", "prec = 6").replace("exit(3)", "exit(0)"))
    done = place.rscoop("resume", "-q", "--recompute-changed", "last")
    assert "0.333333'" in place.rscoop("logs", "last").out, str(done)


CLASSES: Final = """
import contextvars, ctypes, functools
import msgspec
import numpy as np
from resilient_scoop import futures

BIAS, mode = 0, contextvars.ContextVar("mode", default="none")
masked = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
@functools.lru_cache(maxsize=None)
def biased(x): return x + BIAS
class Uses:
    @functools.lru_cache
    def biased(self, x): return x * 10 + BIAS
USES = Uses()
def both(x): return biased(x), USES.biased(x)
def told_mode(x): return x, mode.get(), float(masked.sum())
class Pair(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int)]
def call(each): return each.name()

def local(scale):
    class Point(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]
        def norm(self): return (self.x + self.y) * scale
    class Item(msgspec.Struct, frozen=True, kw_only=True):
        k: int
        parts: list = []
        def total(self): return self.k * scale + len(self.parts)
    for _ in range(2):
        print(list(futures.map(lambda each: each.norm(), [Point(1, 2), Point(3, 4)])))
        made = list(futures.map(lambda k: (Point(k, k), Item(k=k), Pair(k)), [1, 2]))
        print([[type(each) for each in row] == [Point, Item, Pair] for row in made], made[0][1])
        print(list(futures.map(lambda each: each.total(), [row[1] for row in made])))
        scale += 1

if __name__ == "__main__":
    print(list(futures.map(both, [1, 2])), list(futures.map(told_mode, [1])))
    BIAS = 100; biased.cache_clear(); Uses.biased.cache_clear(); masked.mask[0] = True
    mode.set("fast")
    print(list(futures.map(both, [1, 2])), list(futures.map(told_mode, [1])))
    local(2)
    class Kind:
        def name(self): return "old"
    old = Kind()
    class Kind:
        def name(self): return "new"
    print(list(futures.map(call, [old, Kind()])))
    print(list(futures.map(call, [Kind()])), list(futures.map(call, [old])))
"""


def test_calls_see_classes_caches_and_context_variables_as_they_were_at_the_call(
    place: Place,
) -> None:
    assert_as_python(place, CLASSES, 10)


REGISTERED: Final = """
import sys
import deco
from resilient_scoop import futures

class Plugin:
    known = {}
    def __init_subclass__(cls, tag=None): Plugin.known[tag or cls.__name__] = cls
class Meta(type):
    made = []
    def __new__(meta, name, bases, space):
        cls = super().__new__(meta, name, bases, space)
        meta.made.append(name)
        return cls
class Base(metaclass=Meta): pass
class A(Plugin, tag="a"): pass
def look(each):
    return type(each).__name__, sorted(Plugin.known), Meta.made, hasattr(each, "go") and each.go()
def score(x): return x
def main():
    print(list(futures.map(look, [A()])))
    class C(Plugin, tag="c"): pass
    class D(Base):
        def go(self): return 1
    print(list(futures.map(look, [A(), C(), D()])), list(futures.map(look, [A()])))
    timed = deco.timed(score)
    print(list(futures.map(timed, [1, 2])))
    deco.K = 5
    print(list(futures.map(timed, [1, 2])))
    sys.exit(3)
if __name__ == "__main__":
    main()
"""


def test_a_class_registers_itself_once(place: Place) -> None:
    place.write(
        """
        import functools
        K = 1
        def timed(function):
            @functools.wraps(function)
            def inner(*args): return function(*args), K
            return inner
    """,
        "deco.py",
    )
    path = place.write(REGISTERED)
    plain = subprocess.run(
        [sys.executable, path.name], cwd=place.folder, capture_output=True, text=True, check=False
    )
    assert place.run(REGISTERED).expect(3) == plain.stdout
    place.rscoop("resume", "-q", "last").expect(3)  # and no difference is found in the class


EXECUTED: Final = """
import operator
from deap import gp
from resilient_scoop import futures

space = {}
exec("K = 3\\ndef made(x): return x * K + helper(x)\\ndef helper(x): return x + K", space)
made = space["made"]
def use(x): return made(x)
def both(): print(list(futures.map(use, range(3))), list(futures.map(made, range(3))))

if __name__ == "__main__":
    both()
    space["K"] = 9
    both()
    own = {"y": 4}
    exec("def added(x): return x + y", own)
    print(list(futures.map(own["added"], [1, 2])))
    own["y"] = 5
    print(list(futures.map(own["added"], [1, 2])))
    primitives = gp.PrimitiveSet("main", 1)
    primitives.addPrimitive(operator.add, 2)
    primitives.addPrimitive(max, 2)
    for text in ("add(ARG0, max(ARG0, 3))", "max(ARG0, 3)"):
        program = gp.compile(text, primitives)
        print(list(futures.map(lambda x: program(x), [1, 5])), list(futures.map(program, [1, 5])))
"""


def test_functions_with_a_namespace_of_their_own_are_sent_with_it(place: Place) -> None:
    assert_as_python(place, EXECUTED, 6)


UNDER_THE_GUARD: Final = """
from resilient_scoop import futures
if __name__ == "__main__":
    import math, collections
    import late, json as codec
    from functools import lru_cache, partial
    N = 3
    @lru_cache
    def fact(n): return 1 if n < 2 else n * fact(n - 1)
    def area(r): return round(math.pi * r ** 2 * N, 3), late.scaled(r), codec.dumps([r])
    Point = collections.namedtuple("Point", "x y")
    def made(i): return Point(i, fact(i))
    def told(): print(list(futures.map(area, range(2))), list(futures.map(made, range(3))))
    told()
    N, late.K = 10, 5
    told()
    codec = math
    print(list(futures.map(lambda x: codec.sqrt(x), [4])))
"""


def test_modules_imported_under_the_guard_are_known_to_its_functions(place: Place) -> None:
    place.write("K = 2\ndef scaled(x): return x * K\n", "late.py")
    assert_as_python(place, UNDER_THE_GUARD, 3)
