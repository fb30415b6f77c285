"""The definitions of a script are the same for tasks, their files and processes, and `python`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def python(place: Place, *args: str) -> str:
    """Return what plain Python prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *args], cwd=place.folder, env=place.env(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_that_tasks_pickle_are_read_by_every_program_of_the_script(place: Place) -> None:
    pytest.importorskip("joblib")
    text = """
        import copyreg, enum, pickle, shelve, sys
        import joblib
        from resilient_scoop import futures
        class Color(enum.Enum):
            RED = 1
        class Model:
            class Layer: pass
            def __init__(self, n): self.n, self.layer, self.color = n, Model.Layer(), Color.RED
            def predict(self, x): return self.n * x
        def square(x): return x * x
        def save(n):
            model = Model(n)
            with open(f"model{n}.pkl", "wb") as file: pickle.dump((model, square, Model), file)
            joblib.dump(model, f"model{n}.joblib")
            with shelve.open(f"model{n}.shelf") as shelf: shelf["it"] = model
            return Model.__module__, square.__module__, type(model).Layer.__qualname__
        def load(n):
            with open(f"model{n}.pkl", "rb") as file: model, function, cls = pickle.load(file)
            with shelve.open(f"model{n}.shelf") as shelf: shelved = shelf["it"]
            again = joblib.load(f"model{n}.joblib")
            assert type(model) is type(again) is type(shelved) is cls is Model
            assert model.color is Color.RED and type(model.layer) is Model.Layer
            return function(model.predict(2))
        if __name__ == "__main__":
            if sys.argv[1] == "save": print(*set(futures.map(save, [3, 4])))
            print(list(futures.map(load, [3, 4])), [load(3), load(4)])
    """
    output = "[36, 64] [36, 64]\n"
    module = "('__main__', '__main__', 'Model.Layer')\n"
    assert place.run(text, "save").expect() == module + output
    assert python(place, "script.py", "load") == output
    assert python(place, "script.py", "save") == module + output
    assert place.rscoop("run", "-q", "-n", "1", "script.py", "load").expect() == output


POOLS = """
    import concurrent.futures as cf, multiprocessing as mp, sys, warnings
    from resilient_scoop import futures
    warnings.simplefilter("ignore")
    class Point:
        def __init__(self, x): self.x = x
        def __eq__(self, other): return type(other) is Point and other.x == self.x
    def move(point): return Point(point.x + 1)
    def nested(point): return list(futures.map(move, [point] * 2))
    def fails(point): raise LookupError(point.x)
    def pool(kind):
        context = mp.get_context(kind)
        with cf.ProcessPoolExecutor(1, mp_context=context) as executor:
            moved = executor.submit(move, Point(1)).result(20)
            inner = executor.submit(nested, Point(5)).result(20)
            try: executor.submit(fails, Point(3)).result(20)
            except LookupError as error: failed = str(error)
        with context.Pool(1) as processes:
            mapped = processes.map(move, [Point(7)])
        try: import joblib
        except ImportError: pass
        else: assert joblib.Parallel(n_jobs=2)(joblib.delayed(move)(p) for p in mapped) == [Point(9)]
        assert (moved, inner, mapped) == (Point(2), [Point(6)] * 2, [Point(8)])
        return kind, failed
    if __name__ == "__main__":
        print(list(futures.map(pool, ["spawn", "forkserver"])))
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_pools_in_tasks_find_functions_and_classes_of_the_script(
    place: Place, *, as_module: bool
) -> None:
    place.write("", "pkg/__init__.py")
    place.write(POOLS, "pkg/pools.py")
    target = ["-m", "pkg.pools"] if as_module else ["pkg/pools.py"]
    done = place.rscoop("run", "-q", "-n", "2", *target)
    assert done.expect() == "[('spawn', '3'), ('forkserver', '3')]\n"
    place.assert_nothing_left()


LOCAL = """
    import abc, dataclasses, enum, os, signal, sys, typing
    from resilient_scoop import futures
    def make():
        class Made:
            def __init__(self, x): self.x = x
        return Made
    Made = make()
    def from_import(x): return Made(x)
    def from_task(x):
        class Own(Exception):
            pass
        class Other(Own):
            def __init__(self, x): super().__init__(x); self.kind = Own
        if x < 0: raise Other(x)
        inner = list(futures.map(lambda y: Other(y), range(x)))
        assert all(type(each) is Other and isinstance(each, Own) for each in inner)
        return inner[-1]
    def main():
        class Shape(abc.ABC):
            made = 0
            @abc.abstractmethod
            def area(self): ...
        @dataclasses.dataclass(order=True)
        class Square(Shape):
            side: int
            def area(self): return self.side ** 2
        class Color(enum.Enum):
            RED = 1
            BLUE = 2
        class Pair(typing.NamedTuple):
            shape: Square
            color: Color
        class TooBig(ValueError):
            def __init__(self, shape): super().__init__(f"{shape}"); self.shape = shape
        def paint(n):
            square = Square(n)
            if n > 3: raise TooBig(square)
            return Pair(square, Color(n % 2 + 1))
        def check(pair):
            return (isinstance(pair, Pair) and isinstance(pair.shape, Shape) and pair.color in Color
                    and type(pair.shape) is Square and pair.shape == Square(pair.shape.side))
        pairs = list(futures.map(paint, range(4)))
        assert all(type(p) is Pair and type(p.shape) is Square for p in pairs)
        print([p.color is Color.BLUE for p in pairs], max(p.shape for p in pairs).area())
        assert all(futures.map(check, pairs)) and check(pairs[0])
        try: futures.submit(paint, 9).result()
        except TooBig as error: print("too big:", error, error.shape == Square(9))
        assert all(isinstance(each, Made) for each in futures.map(from_import, range(4)))
        Second = make()
        def both(i): return Made(i), Second(i), isinstance(Made(i), Second)
        for one, two, mixed in futures.map(both, range(2)):
            print(type(one) is Made, type(two) is Second, isinstance(one, Second), mixed)
        def count(_): return Square.made
        for Square.made in (3, 4):
            print(set(futures.map(count, range(6))), futures.submit(Square, 2).result().area())
        own = list(futures.map(from_task, [1, 2]))
        try: futures.submit(from_task, -1).result()
        except Exception as error: print(type(error).__qualname__, isinstance(error, error.kind))
        print([each.args for each in own], isinstance(own[0], own[0].kind), Square.made)
        if "kill" in sys.argv and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        again = futures.submit(paint, 1).result()
        print(type(again) is Pair, pairs.index(again))
    if __name__ == "__main__":
        main()
"""


def test_a_class_made_in_a_function_is_one_class_in_each_process(place: Place) -> None:
    place.write(LOCAL)
    # Without `rscoop` there is only one class, so its output is the expected one.
    output = python(place, "script.py")
    assert "too big" in output
    assert place.run(LOCAL).expect() == output
    assert place.run(LOCAL, "kill").expect() == output


EDITED = """
    import importlib, os, shutil, signal, sys
    import helper
    from resilient_scoop import futures
    VERSION = "old"
    def versions(_):
        from package import late
        return VERSION, helper.VERSION, late.VERSION
    def rewritten(version):
        # What the program writes itself is what it has written, each time.
        with open("own_module.py", "w") as file: file.write(f"VERSION = {version}  # {'x' * version}")
        importlib.invalidate_caches()
        module = sys.modules.get("own_module")
        return (importlib.reload(module) if module else importlib.import_module("own_module")).VERSION
    def die(name):
        if not os.path.exists(name):
            open(name, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return versions(0)
    def fail(_): raise ValueError("from the old code")
    if __name__ == "__main__":
        print(*set(futures.map(versions, range(8))), VERSION, helper.VERSION)
        for name in () if "edited" in sys.argv else ("script.py", "helper.py"):
            with open(name) as file: text = file.read()
            with open(name, "w") as file: file.write("# edited\\n" * 3 + text.replace('"old"', '"new"'))
            shutil.rmtree("package", ignore_errors=True)
        print(futures.submit(die, "w").result(), *set(futures.map(versions, range(8))))
        die("o")
        print(VERSION, helper.VERSION, [rewritten(n) for n in range(3)])
        futures.submit(fail, 0).result()
"""


def test_a_script_edited_while_it_runs_keeps_its_code_during_the_launch(place: Place) -> None:
    for name in ("helper.py", "package/__init__.py", "package/late.py"):
        place.write('VERSION = "old"\n', name)
    done = place.run(EDITED)
    old = "('old', 'old', 'old')"
    assert done.expect(1) == f"{old} old old\n{old} {old}\nold old [0, 1, 2]\n"
    assert 'def fail(_): raise ValueError("from the old code")' in done.err
    for name in ("package/__init__.py", "package/late.py"):
        place.write('VERSION = "later"\n', name)
    again = place.rscoop("run", "-q", "script.py", "edited")
    assert again.out.count("('new', 'new', 'later')") == 3
