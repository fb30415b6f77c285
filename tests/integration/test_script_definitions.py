"""The definitions of a script are the same in the script, in its workers, and under `python`."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def test_the_script_is_main_in_the_origin_and_imported_once_per_worker(place: Place) -> None:
    done = place.run("""
        import os, sys
        from resilient_scoop import futures
        fd = os.open("imported", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{__name__} {os.getpid()}\\n".encode())
        os.close(fd)
        def where(_):
            import __main__
            return __name__, __main__ is sys.modules[__name__], os.getpid()
        if __name__ == "__main__":
            found = list(futures.map(where, range(40)))
            assert {same for _, same, _ in found} == {True}
            assert os.getpid() not in {pid for _, _, pid in found}
            print(sorted({name for name, _, _ in found}))
    """)
    assert done.expect() == "['__main__']\n"
    lines = [line.split() for line in (place.folder / "imported").read_text().splitlines()]
    assert [name for name, _ in lines] == ["__main__"] * 3
    assert len({pid for _, pid in lines}) == 3


def test_script_definitions_are_identical_in_script_and_workers(place: Place) -> None:
    done = place.run("""
        import enum, dataclasses, typing, collections
        from resilient_scoop import futures
        class Plain:
            def __init__(self, n): self.n = n
            class Inner: pass
        class Color(enum.Enum):
            RED = 1
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
            y: int = 2
        class Pair(typing.NamedTuple):
            a: int
        Old = collections.namedtuple("Old", "b")
        class Oops(Exception):
            def __init__(self, code, detail): super().__init__(f"{code}: {detail}"); self.code = code
        def make(kind):
            return {"plain": Plain(3), "inner": Plain.Inner(), "color": Color.RED,
                    "point": Point(1), "pair": Pair(1), "old": Old(5), "type": Plain}[kind]
        def check(thing):
            import __main__
            return type(thing) in (Plain, Plain.Inner, Color, Point, Pair, Old, type)
        def fail(_): raise Oops(7, "seven")
        if __name__ == "__main__":
            kinds = ["plain", "inner", "color", "point", "pair", "old", "type"]
            plain, inner, color, point, pair, old, kind = got = list(futures.map(make, kinds))
            assert type(plain) is Plain and type(inner) is Plain.Inner and plain.n == 3
            assert color is Color.RED and point == Point(1) and type(pair) is Pair
            assert type(old) is Old and kind is Plain
            assert all(futures.map(check, got))
            try:
                futures.submit(fail, 1).result()
            except Oops as error:
                assert error.code == 7 and str(error) == "7: seven"
                print("same")
    """)
    assert done.expect() == "same\n"


def test_every_kind_of_callable_can_be_sent(place: Place) -> None:
    done = place.run("""
        import functools, math, operator
        from resilient_scoop import futures
        class Scale:
            def __init__(self, by): self.by = by
            def __call__(self, x): return x * self.by
            def times(self, x): return x * self.by
            @classmethod
            def make(cls, x): return cls(x).by
            @staticmethod
            def twice(x): return 2 * x
        def add(a, b, c=0): return a + b + c
        def factorial(n): return 1 if n < 2 else n * factorial(n - 1)
        def main():
            offset = 10
            def closure(x): return x + offset
            def local_recursion(n): return 0 if n == 0 else 1 + local_recursion(n - 1)
            class Local:
                def __init__(self, v): self.v = v
                def get(self): return self.v
            def make_local(v): return Local(v)
            def get_local(thing): return thing.get()
            m = lambda f, *its: list(futures.map(f, *its))
            print(m(lambda x: x * x, [1, 2, 3]), m(closure, [1]), m(local_recursion, [4]))
            print(m(functools.partial(add, 1, c=5), [2]), m(Scale(3), [2]), m(Scale(3).times, [5]))
            print(m(Scale.make, [4]), m(Scale.twice, [4]), m(math.sqrt, [9.0]), m(len, ["abc"]))
            print(m(operator.add, [1], [2]), m("a-b".split, ["-"]), m(factorial, [5]), m(int, ["7"]))
            print(m(operator.attrgetter("by"), [Scale(8)]), m(pow, [2, 3], [5, 2]))
            made = m(make_local, [1, 2])
            print([thing.get() for thing in made], m(get_local, [Local(9)]), type(made[0]).__name__)
            print(futures.submit(add, 1, b=2, c=3).result(), futures.submit(add, b=1, a=1).result())
        if __name__ == "__main__":
            main()
    """)
    assert done.expect().splitlines() == [
        "[1, 4, 9] [11] [4]",
        "[8] [6] [15]",
        "[4] [8] [3.0] [3]",
        "[3] [['a', 'b']] [120] [7]",
        "[8] [32, 9]",
        "[1, 2] [9] Local",
        "6 2",
    ]


def test_definitions_under_the_guard_are_pickled_by_value(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def call(f, x): return f(x)
        if __name__ == "__main__":
            def double(x): return 2 * x
            class Local:
                def __init__(self, v): self.v = v
                def get(self): return self.v
            print(list(futures.map(double, [1, 2])), futures.submit(call, double, 4).result())
            print(futures.submit(call, Local.get, Local(5)).result())
            setting = 7
            print(futures.submit(lambda x: x + setting, 1).result())
    """)
    assert done.expect() == "[2, 4] 8\n5\n8\n"


def test_deap_classes_and_toolboxes_are_sent(place: Place) -> None:
    pytest.importorskip("deap")
    done = place.run("""
        import random, pickle
        from deap import algorithms, base, creator, tools
        from resilient_scoop import futures
        creator.create("FitnessMax", base.Fitness, weights=(1.0,))
        creator.create("Individual", list, fitness=creator.FitnessMax, strategy=None)
        def evaluate(ind):
            assert type(ind) is creator.Individual, type(ind)
            return (sum(ind),)
        def child(ind):
            made = creator.Individual(reversed(ind)); made.fitness.values = (9,); return made
        toolbox = base.Toolbox()
        toolbox.register("bit", random.randint, 0, 1)
        toolbox.register("individual", tools.initRepeat, creator.Individual, toolbox.bit, 20)
        toolbox.register("population", tools.initRepeat, list, toolbox.individual)
        toolbox.register("evaluate", evaluate)
        toolbox.register("mate", tools.cxTwoPoint)
        toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
        toolbox.register("select", tools.selTournament, tournsize=3)
        toolbox.register("map", futures.map)
        assert pickle.loads(pickle.dumps(futures.map)) is futures.map
        assert pickle.loads(pickle.dumps(futures.submit)) is futures.submit
        def island(seed):
            random.seed(seed)
            pop = toolbox.population(n=4)
            return sum(f[0] for f in toolbox.map(toolbox.evaluate, pop))
        if __name__ == "__main__":
            random.seed(1)
            pop = toolbox.population(n=10)
            pop, log = algorithms.eaSimple(pop, toolbox, 0.5, 0.2, 3, verbose=False)
            assert type(pop[0]) is creator.Individual and pop[0].fitness.valid
            got = list(futures.map(child, pop))
            assert type(got[0]) is creator.Individual and got[0].fitness.values == (9.0,)
            assert list(toolbox.map(island, [1, 2])) == [island(1), island(2)]
            print("evolved", len(log))
    """)
    assert done.expect() == "evolved 4\n"
