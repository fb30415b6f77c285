"""A callable behaves as in the script's process at the moment of the call (SAME-MEANING).

The oracle is `python script.py`: a run prints the same.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

HELPER: Final = """
RATE = 2
TABLE = {"a": 1}
def score(x): return x * RATE + TABLE["a"]
class Net:
    depth = 1
    def run(self, x): return x + self.depth
"""
CHANGES: Final = r"""
import functools, json, os, sys, pathlib
from resilient_scoop import futures
import helper

SCALE, LIMITS, model = 1, [1, 2], helper.Net()

def scaled(x): return x * SCALE
def limited(x): return x + sum(LIMITS)
def through(x): return scaled(x) + limited(x)
def scored(x): return helper.score(x)
def run_net(x): return helper.Net().run(x), model.run(x)
def encoded(x): return json.dumps(x)
def wrapped(x): return x + 1
def again(x): return x + 1
def reads(x): return os.environ.get("RSCOOP_TEST_RATE", "none")
def imports(x):
    import late_module
    return late_module.VALUE + x
class Counter:
    step = 1
    def next(self, x): return x + self.step
class Old:
    def value(self): return "old"
def olds(x): return Old().value()
def tagged(x): return (x, tagged.tag)
tagged.tag = 1
def keyed(x, *, by=[1]): return x * by[0]

def both(name, function, values=range(3)):
    there, here = list(futures.map(function, values)), list(map(function, values))
    print(name, there, "as here" if there == here else f"but here {here}")

def main():
    global SCALE, model
    both("scaled", scaled); SCALE = 5; both("scaled", scaled); both("through", through)
    LIMITS.append(3); both("limited", limited); both("through", through)
    helper.RATE = 7; both("scored", scored); helper.TABLE["a"] = 9; both("scored", scored)
    helper.score = lambda x: -x; both("scored", scored)
    both("net", run_net); helper.Net.depth = 4; both("net", run_net)
    helper.Net.run = lambda self, x: x * 100; both("net", run_net)
    model = helper.Net(); model.depth = 11; both("net", run_net)
    json.dumps = lambda x: f"<{x}>"; both("encoded", encoded)
    both("tagged", tagged); tagged.tag = 2; both("tagged", tagged)
    keyed.__kwdefaults__["by"][0] = 3; both("keyed", keyed)
    keyed.__kwdefaults__["by"] = [4]; both("keyed", keyed)
    both("counter", Counter().next); Counter.step = 10; both("counter", Counter().next)
    os.environ["RSCOOP_TEST_RATE"] = "high"; both("reads", reads)
    del os.environ["RSCOOP_TEST_RATE"]; both("reads", reads)
    pathlib.Path("late").mkdir(exist_ok=True); pathlib.Path("late/late_module.py").write_text("VALUE = 3\n")
    sys.path.insert(0, "late"); both("imports", imports)
    k = 1
    def closure(x): return x * k
    class Local:
        factor = 2
        def times(self, x): return x * self.factor
    def local(x): return Local().times(x) * k
    both("closure", closure); k = 6; both("closure", closure)
    both("local", local); Local.factor = 3; both("local", local)
    for k in range(3): both("closure", closure)

if __name__ == "__main__":
    both("wrapped", wrapped); both("again", again); both("olds", olds)
    wrapped = functools.lru_cache(wrapped); both("wrapped", wrapped)
    def again(x): return x * 1000
    both("again", again)
    class Old:
        def value(self): return "new"
    both("olds", olds)
    main()
"""


def as_python(place: Place, name: str = "script.py") -> str:
    """Return what the script prints without `rscoop`."""
    done = subprocess.run(
        [sys.executable, name], cwd=place.folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_calls_see_what_the_script_has_changed_before_them(place: Place) -> None:
    place.write(HELPER, "helper.py")
    place.write(CHANGES)
    there = as_python(place)
    assert there.count("as here") == len(there.splitlines()) > 30
    assert place.run(CHANGES, timeout_s=60.0).expect() == there


def test_parents_and_their_calls_keep_different_meanings_of_a_name(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        SCALE = 1
        def scaled(x): return x * SCALE
        def parent(n):
            global SCALE
            before = list(futures.map(scaled, range(3)))
            SCALE = n
            return before, list(futures.map(scaled, range(3)))
        if __name__ == "__main__":
            SCALE = 5
            for n, future in [(n, futures.submit(parent, n)) for n in (20, 30, 40)]:
                assert future.result()[1] == [0, n, 2 * n], future.result()
            print(list(futures.map(scaled, range(3))))
    """)
    assert done.expect() == "[0, 5, 10]\n"


def test_calls_see_deleted_globals_and_changed_arguments(place: Place) -> None:
    text = """
        import sys
        from resilient_scoop import futures
        LIMIT = 1
        def limited(x):
            try: return min(x, LIMIT)
            except NameError: return "none"
        def counted(x): return x, len(sys.argv)
        def main():
            global LIMIT
            print(list(futures.map(limited, range(3))), list(futures.map(counted, [1])))
            sys.argv.append("more")
            print(list(futures.map(counted, [1])), list(futures.map(limited, range(3))))
            del LIMIT, sys.argv[1:]
            print(list(futures.map(limited, range(3))), list(futures.map(counted, [1])))
            LIMIT = 0
            print(list(futures.map(limited, range(3))))
        if __name__ == "__main__":
            main()
    """
    place.write(text)
    there = as_python(place)
    assert place.run(text).expect() == there
    assert "none" in there


def test_a_call_does_not_see_globals_left_by_other_tasks(place: Place) -> None:
    done = place.run(
        """
        import math
        import resilient_scoop
        from resilient_scoop import futures
        seen, count, memo = [], 0, {}
        def add(x):
            global count
            seen.append(x); count += 1; memo[x] = 1
            return resilient_scoop.IS_ORIGIN
        def look(x): return len(seen), count, len(memo), math.pi > 3
        if __name__ == "__main__":
            print(set(futures.map(add, range(6))), list(futures.map(look, range(2))))
            math.pi = 3
            print(list(futures.map(look, range(2))))
    """,
        workers=1,
    )
    assert done.expect().splitlines() == [
        "{False} [(0, 0, 0, True), (0, 0, 0, True)]",
        "[(0, 0, 0, False), (0, 0, 0, False)]",
    ]


def test_a_global_that_cannot_be_pickled_is_refused_with_its_name(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        stream = None
        def read(x): return next(stream)
        def plain(x): return x + 1
        if __name__ == "__main__":
            stream = iter(x for x in range(5))
            try:
                futures.submit(read, 1).result()
            except Exception as error:
                print(type(error).__name__, "stream" in str(error), "send list(...) of it" in str(error))
            print(futures.submit(plain, 1).result())
    """)
    assert done.expect() == "MeaningError True True\n2\n"


EDITED: Final = """
import sys
from resilient_scoop import futures
import helper
START = __import__("time").time()
def f(x): return helper.score(x) + (START > 0)
def fresh(x): return x
def main():
    helper.TABLE["a"] = 50
    print(list(futures.map(f, range(3))), list(futures.map(lambda x: helper.score(x), range(2))))
    sys.exit(3)
if __name__ == "__main__":
    main()
"""


def test_edits_are_named_with_old_and_new_and_harmless_ones_are_not(place: Place) -> None:
    place.write(HELPER, "helper.py")
    first = place.run(EDITED).expect(3)

    def resumed(old: str, new: str, *args: str) -> tuple[int, str, str]:
        place.write(HELPER.replace(old, new), "helper.py")
        done = place.rscoop("resume", "-q", *args, "last")
        return done.code, done.out, done.err

    assert resumed("RATE = 2", "RATE = 2  # twice")[:2] == (3, "")
    code, _, errors = resumed("RATE = 2", "RATE = 3")
    assert code == 2
    assert "f (3 results" in errors
    assert "helper.RATE 2 → 3, helper.py:2" in errors
    assert "<lambda> (2 results" in errors
    code, _, errors = resumed("def score(x): return x * RATE", "def score(x): return RATE * x")
    assert code == 2
    assert "helper.score, helper.py:4" in errors
    assert resumed("depth = 1", "depth = 2")[0] == 2  # known to be used by nothing; on request
    assert "Net.depth (helper.py:6: depth = 1 → depth = 2)" in resumed("depth = 1", "depth = 2")[2]
    assert resumed("depth = 1", "depth = 2", "--reuse-changed")[:2] == (3, "")
    code, out, _ = resumed("RATE = 2", "RATE = 3", "--recompute-changed")
    assert code == 3
    assert out != first


def test_code_that_was_edited_in_the_process_of_the_script_needs_no_decision(place: Place) -> None:
    place.write(HELPER, "helper.py")
    place.run(EDITED).expect(3)
    place.write(EDITED.replace("sys.exit(3)", "print('more'); sys.exit(4)"))
    done = place.rscoop("resume", "-q", "last")
    assert done.expect(4) == "more\n"


FEATURES: Final = """
import contextlib, enum, functools

class Sign(enum.Enum):
    PLUS = "+"
    TIMES = "*"
    def on(self, a, b): return a + b if self is Sign.PLUS else a * b

def shifted(by):
    def decorate(function):
        @functools.wraps(function)
        def inner(*args): return function(*args) + by
        return inner
    return decorate

@contextlib.contextmanager
def doubled(value):
    yield value * 2

_hidden = 4
FACTOR = 7
def __getattr__(name):
    if name == "found": return _hidden * 10
    raise AttributeError(name)

def make(n):
    k = n * 25
    def inner(x): return x + k
    return inner
made = make(2)
"""
USING: Final = """
import sys
import features as F
from resilient_scoop import futures

@F.shifted(32)
def f_wrapped(x): return x * 3
def f_with(x):
    with F.doubled(x) as value: return value
def f_enum(x): return [each.on(x, 3) for each in F.Sign]
def f_found(x): return F.found + F.made(x)
def f_inside(x):
    import features as inner
    def local(y): return y * inner.FACTOR
    return local(x)

if __name__ == "__main__":
    for each in (f_wrapped, f_with, f_enum, f_found, f_inside):
        print(list(futures.map(each, range(3))))
    sys.exit(3)
"""


def test_edits_behind_decorators_contexts_enums_and_imports_are_noticed(place: Place) -> None:
    place.write(FEATURES, "features.py")
    place.run(USING).expect(3)

    def resumed(old: str, new: str, text: str = FEATURES, name: str = "features.py") -> str:
        assert old in text
        place.write(text.replace(old, new), name)
        done = place.rscoop("resume", "-q", "last")
        place.write(text, name)
        assert done.code == (2 if "has changed" in done.err else 3), str(done)
        return done.err if done.code == 2 else ""

    assert "f_wrapped (3 results" in resumed("x * 3", "x * 4", USING, "script.py")
    assert "f_wrapped (3 results" in resumed("function(*args) + by", "function(*args) - by")
    assert "f_with (3 results" in resumed("value * 2", "value * 3")
    assert "f_enum (3 results" in resumed('PLUS = "+"', 'PLUS = "-"')
    assert "f_found (3 results" in resumed("_hidden * 10", "_hidden * 11")
    assert "f_inside (3 results" in resumed("FACTOR = 7", "FACTOR = 8")

    harmless = FEATURES.replace("import contextlib, enum, functools", "import time\nimport enum")
    harmless = harmless.replace("import time", "import contextlib, logging\nimport functools, time")
    harmless = harmless.replace("_hidden = 4", "log = logging.getLogger()\n_hidden = 4")
    harmless = harmless.replace("_hidden = 4", "START = time.time()\n_hidden = 4")
    harmless = harmless.replace("k = n * 25", "size = n * 25").replace(
        "return x + k", "return x + size"
    )
    assert resumed(FEATURES, harmless) == ""
    renamed = USING.replace("f_with(x)", "f_with(size: int) -> int").replace(
        "bled(x)", "bled(size)"
    )
    assert resumed(USING, renamed, USING, "script.py") == ""


def test_a_function_that_imports_by_name_is_not_refused_for_futures_of_the_script(
    place: Place,
) -> None:
    done = place.run("""
        import importlib, sys
        from resilient_scoop import futures
        def work(x):
            main = vars(sys.modules["__main__"])
            return importlib.import_module("math").floor(x), main.get("LIMIT"), "calls" in main
        if __name__ == "__main__":
            calls = [futures.submit(work, x) for x in range(2)]
            generator = (each for each in calls)
            LIMIT = 4
            print(sorted(each.result()[0] for each in calls))
            print(list(futures.map(work, range(2))))
    """)
    assert done.expect() == "[0, 1]\n[(0, 4, False), (1, 4, False)]\n"


def test_modules_are_found_on_a_changed_search_path(place: Place) -> None:
    place.write(
        "class Point:\n    def __init__(self, x): self.x = x\ndef work(x): return x + 1\n",
        "late/one.py",
    )
    place.write("class Point:\n    def __init__(self, x): self.x = x\n", "late/two.py")
    done = place.run("""
        import os, sys
        from resilient_scoop import futures
        def look(point):
            return type(point).__module__, point.x
        if __name__ == "__main__":
            sys.path.insert(0, os.path.join(os.path.dirname(__file__), "late"))
            import one, two
            print(list(futures.map(one.work, range(3))))
            print(list(futures.map(look, [two.Point(1), one.Point(2)])))
            print([type(each).__module__ for each in futures.map(two.Point, range(2))])
    """)
    assert done.expect() == "[1, 2, 3]\n[('two', 1), ('one', 2)]\n['two', 'two']\n"


def test_callable_objects_with_the_name_of_a_function_are_sent_with_their_present_state(
    place: Place,
) -> None:
    text = """
        import functools
        from resilient_scoop import futures
        class Cached:
            def __init__(self, f):
                functools.update_wrapper(self, f)
                self.f, self.cache, self.calls = f, {}, 0
            def __call__(self, x):
                self.calls += 1
                return self.cache.get(x, self.f(x))
        @Cached
        def double(x): return x * 2 + OFFSET
        OFFSET = 0
        class Tools:
            triple = Cached(lambda x: x * 3)
        def both(x): return double(x), Tools.triple(x)
        if __name__ == "__main__":
            print(list(futures.map(double, range(3))), list(futures.map(both, range(3))))
            double.cache[1] = Tools.triple.cache[2] = "known"
            print(list(futures.map(double, range(3))), list(futures.map(both, range(3))))
            OFFSET = 5
            print(list(futures.map(double, range(3))), list(futures.map(both, range(3))))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_names_deleted_from_a_module_that_a_function_imports_are_missing_there(
    place: Place,
) -> None:
    place.write("STATE, OTHER = {'k': 1}, 2\n", "plug.py")
    text = """
        from resilient_scoop import futures
        def whole(_):
            import plug
            return getattr(plug, "STATE", None), getattr(plug, "OTHER", None)
        def part(_):
            try: from plug import OTHER
            except ImportError: return "missing"
            return OTHER
        if __name__ == "__main__":
            import plug
            print(list(futures.map(whole, [1])), list(futures.map(part, [1])))
            del plug.STATE
            print(list(futures.map(whole, [1])), list(futures.map(part, [1])))
            del plug.OTHER
            print(list(futures.map(whole, [1])), list(futures.map(part, [1])))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_a_function_reaches_changes_through_what_it_imports_itself(place: Place) -> None:
    """A change in a module that is only used by the imported module counts, too."""
    place.write("POWER = 1\ndef helper(x): return x + POWER\n", "base.py")
    place.write(
        """
        from base import helper
        def quick(x): return helper(x)
        class Model:
            def run(self, x): return helper(x) * 2
        model = Model()
        """,
        "middle.py",
    )
    place.write(
        """
        def __getattr__(name):
            if name == "fast":
                from middle import quick
                return quick
            raise AttributeError(name)
        """,
        "lazy.py",
    )
    text = """
        from resilient_scoop import futures
        import base, middle
        class Holder: pass
        holder = Holder(); holder.module = middle
        def name(x):
            from middle import quick
            return quick(x)
        def module(x):
            import middle as m
            return m.quick(x), getattr(m, "quick")(x)
        def instance(x):
            from middle import model
            return model.run(x)
        def everything(x):
            import middle
            return middle.model.run(x)
        def lazy(x):
            from lazy import fast
            return fast(x)
        def held(x): return holder.module.quick(x)
        def by_name(x): return getattr(middle, "quick")(x)
        ALL = [name, module, instance, everything, lazy, held, by_name]
        if __name__ == "__main__":
            for each in ALL: print(each.__name__, list(futures.map(each, range(3))))
            base.POWER = 10
            for each in ALL: print(each.__name__, list(futures.map(each, range(3))))
            base.helper = lambda x: -x
            for each in ALL: print(each.__name__, list(futures.map(each, range(3))))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_a_module_that_the_script_imports_again_is_what_it_is_there_in_all_workers(
    place: Place,
) -> None:
    place.write("RATE = 1\nclass Model:\n    def run(self, x): return x + RATE\n", "fixed.py")
    text = """
        import importlib, pathlib, sys
        from resilient_scoop import futures
        import fixed
        def model(x):
            import written
            return x * written.K, written.name()
        def of_fixed(x):
            import fixed
            return fixed.Model().run(x)
        def again(number):
            path = pathlib.Path("written.py")
            path.write_text(f"K = {number}\\ndef name(): return 'number {number}'\\n" + "#" * number)
            importlib.invalidate_caches()
        def show():
            for _ in range(3): print(list(futures.map(model, range(4))))
        if __name__ == "__main__":
            again(2); import written; show()
            again(3); importlib.reload(written); show()
            written.K = 7; show()
            importlib.reload(written); show()
            again(4); del sys.modules["written"]; import written; show()
            fixed.RATE = 5; print(list(futures.map(of_fixed, range(3))))
            importlib.reload(fixed); print(list(futures.map(of_fixed, range(3))))
            made = futures.submit(fixed.Model).result()
            print(isinstance(made, fixed.Model), made.run(1))
    """
    place.write(text)
    there = as_python(place)
    assert place.run(text).expect() == there


def test_caches_of_functions_in_containers_do_not_keep_results_from_before_a_change(
    place: Place,
) -> None:
    text = """
        import functools
        from resilient_scoop import futures
        CONFIG = {"k": 2}
        def make(kind):
            @functools.lru_cache
            def scaled(x): return CONFIG["k"] * x + len(kind)
            return scaled
        class Table:
            def __init__(self): self.entries = [make("ccc")]
        MADE, table = {name: make(name) for name in ("a", "bb")}, Table()
        def by_name(name, x): return MADE[name](x), table.entries[0](x)
        def chained(x, steps=tuple(MADE.values())): return functools.reduce(lambda y, f: f(y), steps, x)
        def again():
            for each in (*MADE.values(), *table.entries): each.cache_clear()
            print(list(futures.map(by_name, ["a", "bb"] * 3, range(6))))
            print(list(futures.map(chained, range(3))))
        if __name__ == "__main__":
            for k in (2, 5, 7, 2):
                CONFIG["k"] = k
                again()
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_warnings_of_numpy_about_its_names_are_not_shown_and_not_raised(place: Place) -> None:
    done = place.run(
        """
        import warnings
        import numpy as np
        from resilient_scoop import futures
        def kind(dtype): return dtype.str
        if __name__ == "__main__":
            warnings.simplefilter("error")
            print(list(futures.map(kind, [np.dtype(float)])))
        """
    )
    assert done.expect() == "['<f8']\n"
    assert "FutureWarning" not in done.err


def test_modules_among_the_arguments_are_as_the_script_has_changed_them(place: Place) -> None:
    place.write("Z = 1\ndef z(x): return Z + x\n", "other.py")
    place.write("from other import z\nK = 1\ndef off(x): return z(x)\n", "config.py")
    text = """
        import sys
        from dataclasses import dataclass
        from functools import partial
        from types import ModuleType
        from resilient_scoop import futures
        import config, other
        K = 1
        def run(cfg, x): return x * cfg.K + cfg.off(x)
        def own(module): return module.K
        @dataclass
        class Job:
            cfg: ModuleType
            x: int
        def job(j): return run(j.cfg, j.x)
        if __name__ == "__main__":
            for k in (1, 2, 3):
                config.K = K = k
                other.Z = k * 1000
                print(list(futures.map(run, [config] * 3, range(3))))
                print(list(futures.map(partial(run, config), range(3))))
                print(list(futures.map(job, [Job(config, i) for i in range(3)])))
                print(futures.submit(lambda d: run(d["c"], 5), {"c": config}).result())
                print(futures.submit(own, sys.modules["__main__"]).result())
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_sentinels_are_the_same_objects_in_arguments_results_and_defaults(place: Place) -> None:
    text = """
        import dataclasses, enum
        from resilient_scoop import futures
        MISSING, OTHER = object(), object()
        class Unset: pass
        UNSET = Unset()
        class Algorithm:
            NONE = object()
            def run(self, x=NONE): return "none" if x is self.NONE else x
        class Mark(enum.Enum): EMPTY = object()
        ALL = [MISSING, OTHER, UNSET, Algorithm.NONE, dataclasses.MISSING, Mark.EMPTY]
        def which(x): return [i for i, each in enumerate(ALL) if each is x]
        def deep(d): return which(d["a"][0]) + which(d["b"]), d
        def give(i): return ALL[i] if i < len(ALL) else Unset()
        def default(x, y=MISSING, *, z=UNSET): return y is MISSING, z is UNSET
        def parent(x):
            given = [which(each) for each in futures.map(give, range(3))]
            return which(x), list(futures.map(which, [x, MISSING])), given
        if __name__ == "__main__":
            print(list(futures.map(which, [*ALL, object(), Unset()])))
            found, back = futures.submit(deep, {"a": [MISSING], "b": UNSET}).result()
            print(found, which(back["a"][0]), which(back["b"]))
            print([which(each) for each in futures.map(give, range(7))])
            for args in ((1,), (1, MISSING), (1, None)): print(futures.submit(default, *args).result())
            print(list(futures.map(Algorithm().run, [Algorithm.NONE, 3])))
            print(futures.submit(lambda x, y=MISSING: (x is y, y is MISSING), MISSING).result())
            print(list(futures.map(parent, [UNSET, OTHER, MISSING])))
            def local(x, marker=OTHER): return x is marker, x is OTHER
            print(list(futures.map(local, [OTHER, UNSET])))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_each_item_is_what_a_generator_has_yielded_although_it_uses_the_object_again(
    place: Place,
) -> None:
    text = """
        import numpy as np
        from resilient_scoop import futures
        def total(a): return float(np.sum(a))
        def refilled(size, count=6):
            buffer = np.zeros(size)
            for i in range(count):
                buffer[:] = i
                yield buffer
        def growing():
            values = []
            for i in range(40):
                values.append(i)
                yield values
        class Sweep:
            def __init__(self): self.at, self.point = 0, {"x": 0}
            def __iter__(self): return self
            def __next__(self):
                if self.at == 5: raise StopIteration
                self.at += 1; self.point["x"] = self.at
                return self.point
        def broken():
            values = [0]
            yield values
            values[0] = 1
            yield values
            raise RuntimeError("the source broke")
        def parent(n): return list(futures.map(sum, growing()))[:n], futures.mapReduce(sum, max, growing())
        if __name__ == "__main__":
            print(list(futures.map(total, refilled(3))), list(futures.map(total, refilled(300_000))))
            print(list(futures.map(sum, growing())), list(futures.map(lambda p: p["x"], Sweep())))
            print(list(futures.map(lambda i, v: i * sum(v), range(9), growing())))
            print(sorted(futures.map_as_completed(sum, growing())), futures.submit(parent, 3).result())
            print(list(futures.map(sum, map(lambda v: v, growing()))))
            values = []
            try: values.extend(futures.map(sum, broken()))
            except RuntimeError as error: print(values, error)
            checked = futures.options(idempotent=False)
            print(list(checked.map(sum, growing())))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_an_iterator_of_a_map_ends_at_an_error_with_and_without_rscoop(place: Place) -> None:
    text = """
        from resilient_scoop import futures
        def check(i):
            if i == 2: raise ValueError(i)
            if i == 7: raise StopIteration
            return i
        if __name__ == "__main__":
            values = futures.map(check, [1, 2, 3])
            print(next(values))
            try: next(values)
            except ValueError as error: print("error", error)
            print(list(values))
            try: print(list(futures.map(check, [6, 7, 8])))
            except RuntimeError as error: print(error)
            for wrong in (lambda: futures.map(check), lambda: futures.map(check, 5)):
                try: wrong()
                except TypeError as error: print("refused")
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_weak_references_and_collections_have_the_same_content_as_in_the_script(
    place: Place,
) -> None:
    text = """
        import weakref
        from resilient_scoop import futures
        class Node:
            def __init__(self, v, parent=None):
                self.v, self.above = v, parent and weakref.ref(parent)
            def path(self):
                return [*(self.above().path() if self.above else []), self.v]
        ROOT = Node(1)
        LEAF = Node(2, ROOT)
        ONE, ALL = weakref.ref(ROOT), weakref.WeakSet([ROOT])
        NAMED = weakref.WeakValueDictionary(a=ROOT)
        def look(x):
            named = sorted((name, each.v) for name, each in NAMED.items())
            return x, LEAF.path(), ONE().v, named, sorted(each.v for each in ALL)
        def path(node): return node.path()
        if __name__ == "__main__":
            print(list(futures.map(look, range(2))), list(futures.map(path, [LEAF])))
            ROOT.v = 10
            print(list(futures.map(look, range(2))), list(futures.map(path, [LEAF])))
            more = Node(20, LEAF)
            NAMED["b"] = more
            ALL.add(more)
            ONE = weakref.ref(more)
            print(list(futures.map(look, range(2))), list(futures.map(path, [more])))
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place)


def test_calls_of_coroutines_and_exits_of_tasks_do_the_same_with_and_without_rscoop(
    place: Place,
) -> None:
    text = """
        import asyncio, sys
        from resilient_scoop import futures
        def own_loop(x):
            async def many():
                await asyncio.sleep(0)
                return [x, *[each async for each in some()]]
            async def some():
                yield x + 1
            return asyncio.run(many())
        def leaves(x): sys.exit(x)
        async def main():
            calls = [asyncio.wrap_future(futures.submit(own_loop, x)) for x in (1, 5)]
            found = await asyncio.gather(*calls)
            await asyncio.sleep(0)
            return found, asyncio.current_task() is not None
        if __name__ == "__main__":
            print(asyncio.run(main()))
            calls = [futures.submit(leaves, 3), futures.submit(own_loop, 7)]
            print(repr(calls[0].exception()), calls[1].result())
            try:
                calls[0].result()
            except SystemExit as error:
                print(error.code)
    """
    place.write(text)
    assert place.run(text).expect() == as_python(place) != ""


HIDDEN: Final = """
import multiprocessing, queue, sqlite3, threading
from resilient_scoop import futures
STOP, MADE, GIVEN, Q, S = *(threading.Event() for _ in range(3)), queue.Queue(), queue.SimpleQueue()
M, V, E = multiprocessing.Queue(), multiprocessing.Value("i", 7), multiprocessing.Event()
POOL = queue.Queue(); POOL.put(1); POOL.put(2)
CONFIG = {"database": sqlite3.connect(":memory:"), "rate": 1}
class Server:
    connection = sqlite3.connect(":memory:")
    def __init__(self): self.stop, self.lock = threading.Event(), threading.Lock()
    def state(self, _): return self.stop.is_set()
SERVER, BOX = Server(), {"stop": threading.Event()}
def stop(_): return STOP.is_set()
def q(_): return Q.qsize()
def s(_): return S.qsize()
def m(_): return M.empty()
def v(_): return V.value
def e(_): return E.is_set()
def server(_): return SERVER.stop.is_set()
def box(_): return BOX["stop"].is_set()
def config(_): return CONFIG["rate"]
def default(_, event=GIVEN): return event.is_set()
def leaves(_): MADE.set(); return POOL.get()
def finds(_): return MADE is not None and POOL is not None and Server().state(0)
def told(function):
    try: return function.__name__, *futures.map(function, [0])
    except Exception as error: return function.__name__, type(error).__name__, str(error)
if __name__ == "__main__":
    every = (stop, q, s, m, v, e, server, box, config, default)
    for each in every: assert told(each)[1:] == (each(0),), told(each)
    print(told(leaves), told(finds))
    STOP.set(); Q.put(1); S.put(1); M.put(1); V.value = 8; E.set(); SERVER.stop.set(); BOX["stop"].set()
    CONFIG["rate"] = 2; GIVEN.set()
    while M.empty(): pass
    for each in every: print(*told(each)[:2])
    print(told(q)[2])
    STOP.clear(); Q.get(); V.value = 7; GIVEN.clear()
    print(told(stop), told(q), told(v), told(default))
    M.get()
"""


def test_events_and_queues_that_the_script_has_changed_are_sent_or_refused(place: Place) -> None:
    names = ("q", "s", "m", "v", "e", "server", "box", "config", "default")
    first, *told, why, last = place.run(HIDDEN, workers=1).expect().splitlines()
    assert first == "('leaves', 1) ('finds', False)"  # changes by a task cause no refusal
    refused = [f"{name} MeaningError" for name in names]
    assert told == ["stop True", *refused]
    assert " Q " in why
    assert last == "('stop', False) ('q', 0) ('v', 7) ('default', False)"


REFUSED: Final = """
import builtins, queue, resilient_scoop, threading
from resilient_scoop import futures
CELLS, TABLE, BOX, QUEUE = None, b"", {}, queue.Queue()
if resilient_scoop.IS_ORIGIN:
    def other(x): return x
else:
    def other(x): return -x
def cells(x): return CELLS and x
def table(x): return len(TABLE) + x
def box(x): return len(BOX) + x
def held(x): return QUEUE.qsize() + x
def calls(x): return other(x)
def measured(x): return round(x)
def refused(function):
    try: print(list(futures.map(function, [1])))
    except Exception as error: print(type(error).__name__, error)
if __name__ == "__main__":
    CELLS, TABLE, BOX["lock"] = (x for x in "ab"), bytes(9_000_000), threading.Lock()
    QUEUE.put(1)
    for function in (cells, table, box, held, calls): refused(function)
    own = builtins.round
    builtins.round = lambda x: own(x) + 10
    refused(measured)
"""


def test_a_refusal_names_the_difference_the_reason_and_the_cure_once(place: Place) -> None:
    expected = {
        "cells": "CELLS: CELLS is a generator and cannot be sent: send list(...) of it",
        "table": "TABLE: TABLE is too large to be sent with the function (9.0 MB, at most 8.4 MB): pass it "
        "as an argument, or share it with shared.setConst",
        "box": "BOX: BOX['lock'] is a _thread.lock and cannot be sent: make it inside the function, or "
        "leave it out with __getstate__",
        "held": "QUEUE: QUEUE is a queue.Queue and cannot be sent: send a list of what it holds",
        "calls": "other: other is something else where a worker imports the script: let it be the same in "
        "each process, or pass it as an argument",
    }
    *refused, measured = place.run(REFUSED).expect().splitlines()
    assert refused == [
        f"MeaningError __main__:{name} was not run, because a worker does not have the script's value "
        f"of {text}"
        for name, text in expected.items()
    ]
    assert measured == "[11]"


def test_objects_whose_state_cannot_be_sent_are_refused_after_the_script_has_changed_them(
    place: Place,
) -> None:
    text = """
        import concurrent.futures as cf, hashlib, io, sqlite3
        from resilient_scoop import futures
        from resilient_scoop.errors import MeaningError
        BUFFER, RAW = io.StringIO(), bytearray(b"a")
        VIEW, HASH, LATER = memoryview(RAW), hashlib.sha256(), cf.Future()
        STEPS = (x for x in range(9))
        MEMORY, FILE = sqlite3.connect(":memory:"), sqlite3.connect("some.db")
        MEMORY.execute("create table t (x)")
        def buffer(_): return BUFFER.getvalue()
        def view(_): return bytes(VIEW)
        def digest(_): return HASH.hexdigest()[:4]
        def later(_): return LATER.done()
        def step(_): return next(STEPS)
        def memory(_): return MEMORY.execute("select x from t").fetchall()
        def file(_): return FILE.execute("select x from t").fetchall()
        def outcome(function):
            try:
                return list(futures.map(function, [1]))
            except MeaningError as error:
                return error.labels
        if __name__ == "__main__":
            FILE.execute("create table t (x)")
            FILE.commit()
            every = buffer, view, digest, later, memory, file
            print([outcome(each) for each in every])
            BUFFER.write("b")
            RAW[0] = ord("b")
            HASH.update(b"b")
            LATER.set_result(1)
            next(STEPS)
            MEMORY.execute("insert into t values (1)")
            FILE.execute("insert into t values (1)")
            FILE.commit()
            print([outcome(each) for each in every], outcome(step))
    """
    assert place.run(text).expect() == (
        "[[''], [b'a'], ['e3b0'], [False], [[]], [[]]]\n"
        "[['b'], ['VIEW'], ['HASH'], ['LATER'], ['MEMORY'], [[(1,)]]] ['STEPS']\n"
    )


HOLDING: Final = """
import collections, functools, threading
import numpy
from resilient_scoop import futures

def memo(function):
    cache, order = {}, collections.OrderedDict()
    @functools.wraps(function)
    def cached(x):
        if x not in cache:
            cache[x] = function(x)
        order[x] = True
        order.move_to_end(x)
        cached.calls += 1
        return cache[x]
    cached.calls = 0
    return cached

def counter():
    count = 0
    def step(x):
        nonlocal count
        count += 1
        return x
    return step

class Kept:
    def __init__(self): self.lock, self.known = threading.Lock(), []
    def add(self, x): self.known.append(x); return x

RATE = 1
KEPT = Kept()
step = counter()
SMALL, LARGE, ARRAY = {}, list(range(50_000)), numpy.zeros(20_000)

@memo
def rated(x): return x * RATE
@memo
def twice(x): return x * 2
def default(x, known={}): return known.setdefault(x, x)
def counted(x): counted.calls += 1; return x
counted.calls = 0
class Parts:
    @staticmethod
    def static(x): Parts.static.__dict__.setdefault("known", []).append(x); return x
def large(x): SMALL[x] = x; LARGE.append(x); ARRAY[x] += 1; return LARGE[x]
class Single:
    @classmethod
    def get(cls):
        if not hasattr(cls, "_one"): cls._one = cls()
        return cls._one
def replaces(x):
    global replaces
    replaces = twice
    return 2 * x
def all_of(x):
    Single.get()
    return twice(x), replaces(x), step(x), default(x), counted(x), Parts.static(x), KEPT.add(x), large(x)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_may_change_what_functions_hold(place: Place, workers: int) -> None:
    done = place.run(
        HOLDING
        + """
def first(x): return all_of(x)
def second(x): return all_of(x)
if __name__ == "__main__":
    for function in (first, second, twice, counted, first):
        print(sum(x if isinstance(x, int) else sum(x) for x in futures.map(function, range(20))))
""",
        workers=workers,
    )
    assert done.expect().split() == ["1900", "1900", "380", "190", "1900"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_functions_hold_is_not_that_of_calls_with_other_globals(
    place: Place, workers: int
) -> None:
    done = place.run(
        HOLDING
        + """
GENERATION = 0
def staged(x):
    before = [counted.calls, step(x)]
    replaces(x), Single.get()
    counted(x)
    ARRAY[x] += 1
    futures.submit(abs, x).result()  # others run meanwhile
    return counted.calls > before[0] and GENERATION
if __name__ == "__main__":
    print(sum(futures.map(large, range(20))), set(futures.map(all_of, [0])))
    for RATE in (1, 2, 3, 1):
        print(RATE, sum(futures.map(rated, range(20))))
    for GENERATION in range(1, 4):
        print(set(futures.map(staged, range(6))), list(futures.map(counted, range(3))))
""",
        workers=workers,
    )
    assert done.expect().splitlines() == [
        "190 {(0, 0, 0, 0, 0, 0, 0, 0)}",
        "1 190", "2 380", "3 570", "1 190", "{1} [0, 1, 2]", "{2} [0, 1, 2]", "{3} [0, 1, 2]",
    ]  # fmt: skip


INSIDE_OF_LIBRARIES: Final = """
import configparser, fractions, http.client, json, os, string, tempfile, textwrap
from textwrap import TextWrapper
from resilient_scoop import futures
class Point:
    def __init__(self, x): self.x = x
def encoded(x): return json.dumps(Point(x))
def replaced(x): return string.Template("%x $x").safe_substitute(x=x)
def known(x): return configparser.ConfigParser.BOOLEAN_STATES.get("ja")
def removed(x): return configparser.ConfigParser.BOOLEAN_STATES.get("yes")
def half(x): return fractions.Fraction(1, 3).half()
def level(x): return http.client.HTTPConnection.debuglevel
def mark(x): return TextWrapper.mark, textwrap.fill("a b", 1)
def folder(x):
    made = tempfile.mkdtemp()
    return os.path.basename(tempfile.gettempdir()), os.path.dirname(made) == tempfile.tempdir
def late(x):
    import shlex
    return shlex.shlex.marks
def unchanged(x): return json.JSONDecodeError.__name__
ALL = encoded, replaced, known, removed, half, level, mark, folder, late, unchanged
def show():
    for function in ALL:
        there, here = list(futures.map(function, range(2))), list(map(function, range(2)))
        print(function.__name__, there, "as here" if there == here else f"but here {here}")
if __name__ == "__main__":
    json.JSONEncoder.default = lambda self, value: value.x
    string.Template.delimiter = "%"
    configparser.ConfigParser.BOOLEAN_STATES["ja"] = True
    del configparser.RawConfigParser.BOOLEAN_STATES["yes"]
    setattr(fractions.Fraction, "half", lambda self: self / 2)
    http.client.HTTPConnection.debuglevel += 1
    TextWrapper.mark = ">"
    os.makedirs("mine", exist_ok=True)
    tempfile.tempdir = os.path.abspath("mine")
    import shlex
    shlex.shlex.marks = [1]
    show()
    shlex.shlex.marks.append(2)
    json.JSONEncoder.default = lambda self, value: -value.x
    show()
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_script_sets_inside_of_libraries_counts(place: Place, workers: str) -> None:
    place.write(INSIDE_OF_LIBRARIES)
    plain = subprocess.run(
        [sys.executable, "script.py"], cwd=place.folder, capture_output=True, text=True, check=True
    )
    shown = place.rscoop("run", "-q", "-n", workers, "script.py").expect()
    assert shown == plain.stdout
    assert "but here" not in shown


SET_IN_OTHER_WAYS: Final = """
import json, os
from unittest import mock
from resilient_scoop import futures
RATE = 1
def scaled(x): return x * RATE
def encode(self, value): return scaled(value.x)
class Point:
    def __init__(self, x): self.x = x
def point(x): return json.dumps(Point(x))
def listed(x): return json.dumps([x])
def marked(x): return json.JSONEncoder.mark
def show(function):
    there, here = list(futures.map(function, range(2))), list(map(function, range(2)))
    print(function.__name__, there, "as here" if there == here else f"but here {here}")
def main():
    global RATE
    RATE = 10
    json.JSONEncoder.default = encode
    show(point)
    Encoder = json.JSONEncoder
    Encoder.default = lambda self, value: -scaled(value.x)
    show(point)
    with mock.patch.object(json.JSONEncoder, "encode", lambda self, value: "object"):
        show(listed)
    with mock.patch("json.encoder.JSONEncoder.encode", lambda self, value: "text"):
        show(listed)
    with mock.patch.multiple(json.JSONEncoder, encode=lambda self, value: "multiple"):
        show(listed)
    show(listed)
    type.__setattr__(json.JSONEncoder, "mark", 7)
    show(marked)
    for cls in (json.JSONEncoder, json.JSONDecoder):
        cls.mark = "loop"
    show(marked)
    import late
    show(listed)
if __name__ == "__main__": main()
"""


def test_what_a_script_sets_inside_of_libraries_in_other_ways_counts(place: Place) -> None:
    place.write("import json\njson.JSONEncoder.encode = lambda self, value: 'late'\n", "late.py")
    place.write(SET_IN_OTHER_WAYS)
    shown = place.rscoop("run", "-q", "-n", "2", "script.py").expect()
    assert len(shown.splitlines()) == 9
    assert "but here" not in shown
    assert "['0', '10']" in shown
    assert "['late', 'late']" in shown


def test_what_a_module_sets_inside_of_a_library_when_the_script_imports_it_counts(
    place: Place,
) -> None:
    place.write("import json\njson.JSONEncoder.encode = lambda self, value: 'late'\n", "late.py")
    done = place.run("""
        import json
        from resilient_scoop import futures
        def work(x): return json.dumps([x])
        if __name__ == "__main__":
            print(list(futures.map(work, [1])))
            import late
            print(list(futures.map(work, [1])))
    """)
    assert done.expect() == "['[1]']\n['late']\n"


def test_an_edit_of_a_function_that_is_set_inside_of_a_library_is_noticed(place: Place) -> None:
    text = """
        import json, os
        from resilient_scoop import futures
        def encode(self, value): return len(value) * 2
        def work(x): return json.dumps({x})
        if __name__ == "__main__":
            json.JSONEncoder.default = encode
            print(list(futures.map(work, [1])))
            if not os.path.exists("go"): raise SystemExit(5)
    """
    place.run(text).expect(5)
    (place.folder / "go").touch()
    place.write(text.replace("* 2", "* 3"))
    assert "encode" in place.rscoop("resume", "last").err
    assert place.rscoop("resume", "-q", "last", "--recompute-changed").expect() == "['3']\n"


def test_what_cannot_be_sent_inside_of_a_library_is_refused(place: Place) -> None:
    done = place.run("""
        import json, sqlite3
        from resilient_scoop import futures
        def work(x): return json.dumps(x)
        if __name__ == "__main__":
            json.JSONEncoder.base = sqlite3.connect(":memory:")
            try:
                print(list(futures.map(work, [1])))
            except Exception as error:
                print(type(error).__name__, "JSONEncoder.base" in str(error))
    """)
    assert done.expect() == "MeaningError True\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_may_change_what_only_arguments_bring(place: Place, workers: int) -> None:
    done = place.run(
        """
        import functools
        from resilient_scoop import futures
        RATE = 1
        def memo(function):
            cache = {}
            @functools.wraps(function)
            def cached(x):
                if x not in cache: cache[x] = function(x)
                return cache[x]
            return cached
        @memo
        def rated(x): return x * RATE
        @functools.lru_cache
        def cached(x): return x * RATE
        class Member:
            def __init__(self, x): self.x = x
            def marked(self):
                type(self).last = self.x
                assert cached(self.x) == rated(self.x) == self.kept(self.x)
                return rated(self.x)
            @staticmethod
            @functools.cache
            def kept(x): return x * RATE
            @staticmethod
            def parsed(x): Member.parsed.__dict__[x] = x; return x
        def marks(member): return member.marked()
        def applies(function): return function(3)
        def names(x): return Member(x).marked() + Member.parsed(x) + RATE
        if __name__ == "__main__":
            members = [Member(x) for x in range(6)]
            print(sum(futures.map(marks, members)), list(futures.map(applies, [rated, Member.parsed])))
            for RATE in (1, 2, 1):
                print(sum(futures.map(names, range(6))), sum(futures.map(marks, members)))
        """,
        workers=workers,
    )
    assert done.expect().splitlines() == ["15 [3, 3]", "36 15", "57 30", "36 15"]


@pytest.mark.parametrize("workers", [1, 3])
def test_caches_serve_no_results_of_other_globals(place: Place, workers: int) -> None:
    place.write("from __main__ import rated\n", name="late_module.py")
    done = place.run(
        """
        import functools
        from resilient_scoop import futures
        RATE = 1
        def memo(function):
            cache = {}
            @functools.wraps(function)
            def cached(x):
                if x not in cache: cache[x] = function(x)
                return cache[x]
            return cached
        @memo
        def rated(x): return x * RATE
        class Member:
            def __init__(self, x): self.x = x
            def value(self): return rated(self.x)
        def leaf(x): return rated(x)
        def late(x):
            import late_module
            return late_module.rated(x)
        def parent(n): return sum(futures.map(leaf, range(n))) + rated(n) + Member(n).value()
        def of_member(member): return member.value()
        def main():
            global RATE
            for RATE in (1, 2, 3, 1, 2):
                print(RATE, *(sum(futures.map(each, range(6))) for each in (leaf, parent, late)),
                    sum(futures.map(of_member, [Member(x) for x in range(6)])))
        if __name__ == "__main__":
            main()
        """,
        workers=workers,
    )
    wanted = [f"{rate} {15 * rate} {50 * rate} {15 * rate} {15 * rate}" for rate in (1, 2, 3, 1, 2)]
    assert done.expect().splitlines() == wanted


def test_changes_reach_modules_that_only_tasks_import(place: Place) -> None:
    place.write("RATE = 1\ndef score(x): return x * RATE\n", name="helper.py")
    place.write("import helper\ndef get(x): return helper.score(x)\n", name="late/plain.py")
    place.write(
        "import helper as h\nclass Late:\n  def get(self, x): return h.score(x)\n",
        name="late/named.py",
    )
    place.write(
        "from . import inner\ndef get(x): return inner.helper.score(x)\n", name="late/relative.py"
    )
    place.write("import helper\n", name="late/inner.py")
    place.write("from late import plain\n", name="late/__init__.py")
    done = place.run("""
        from resilient_scoop import futures
        import helper
        def plain(x):
            import late.plain
            return late.plain.get(x)
        def named(x):
            from late.named import Late
            return Late().get(x)
        def relative(x):
            import late.relative as r
            return r.get(x)
        if __name__ == "__main__":
            for helper.RATE in (1, 2, 3):
                print(*(sum(futures.map(each, range(4))) for each in (plain, named, relative)))
    """)
    assert done.expect().splitlines() == ["6 6 6", "12 12 12", "18 18 18"]
