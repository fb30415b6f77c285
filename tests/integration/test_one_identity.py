"""What a script defines is one thing for tasks, the files and processes that they make, and `python`."""

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
    told = "[36, 64] [36, 64]\n"
    module = "('__main__', '__main__', 'Model.Layer')\n"
    assert place.run(text, "save").expect() == module + told
    assert python(place, "script.py", "load") == told
    assert python(place, "script.py", "save") == module + told
    assert place.rscoop("run", "-q", "-n", "1", "script.py", "load").expect() == told


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
