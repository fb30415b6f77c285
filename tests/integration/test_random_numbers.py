"""Random numbers depend on the run's seed and the task's position, however they are drawn."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

HELPER = """
    import random
    import numpy as np
    TABLE = random.random(), np.random.random(), np.random.default_rng().random()
    _OWN = np.random.default_rng(77)
    def draw():
        return _OWN.random()
    """
LATE = """
    import random
    import numpy as np
    RandomState = np.random.RandomState()
    np.random.random(3)
    _OWN = random.Random(5)
    def draw():
        return _OWN.random()
    """
DRAWS = """
    import os, random, sys, time
    import numpy as np
    import helper
    from resilient_scoop import futures

    class Sim:
        def __init__(self, seed):
            self.rng = np.random.default_rng(seed)
        def run(self, x):
            return self.rng.random()

    class Holder:
        stream = random.Random(8)

    SIM, LEGACY, UNSEEDED = Sim(3), np.random.RandomState(5), np.random.default_rng()

    def in_instance(x): return SIM.run(x)
    def legacy(x): return LEGACY.normal()
    def unseeded_at_top(x): return UNSEEDED.random()
    def in_class(x): return Holder.stream.random()
    def unseeded(x):
        seeds = np.random.SeedSequence()
        return random.Random().random(), np.random.RandomState().random(), \\
            np.random.default_rng(seeds).random()
    def in_default(x, rng=np.random.default_rng(9)): return rng.random()
    def helpers(x): return helper.TABLE, helper.draw()
    def late_import(x):
        import late
        return late.draw(), random.random(), np.random.random(), np.random.default_rng().random()
    def parent(x):
        first = in_instance(x), unseeded(x)
        return first, list(futures.map(in_instance, range(3))), in_instance(x), unseeded(x)
    def given(x):
        a, b, c = futures.rng(numpy=True), futures.rng("a", numpy=True), futures.rng("a")
        return a.random(), b.random(), c.random()

    def main():
        rng = np.random.default_rng(1)
        def in_closure(x): return rng.random()
        functions = (
            in_instance, legacy, unseeded_at_top, in_class, unseeded, in_default, helpers, late_import,
            parent, in_closure, Sim(4).run, given,
        )
        for function in functions:
            values = list(futures.map(function, range(4)))
            assert function is helpers or len(set(map(str, values))) == 4, (function, values)
            print(values)
            if function is late_import and len(sys.argv) > 1 and not os.path.exists(sys.argv[1]):
                open(sys.argv[1], "w").close()
                os.kill(os.getpid(), 9)
        print(sum(sum(each) for each in futures.map(unseeded, range(300))))  # in slices
        print(helper.TABLE, random.random(), np.random.default_rng().random(), random.Random().random())

    if __name__ == "__main__":
        main()
    """


def test_no_draw_depends_on_the_workers_or_on_a_death(place: Place) -> None:
    place.write(HELPER, "helper.py")
    place.write(LATE, "late.py")
    script = place.write(DRAWS).name
    outs = [
        place.rscoop("run", "-q", "--seed", "7", "-n", *more).expect()
        for more in (("1", script), ("3", script), ("2", script, "killed"))
    ]

    assert outs[0].count("\n") == 14
    assert outs[1:] == [outs[0]] * 2


def test_draws_in_once_do_not_shift_later_draws(place: Place) -> None:
    """The second life gets the recorded value; all later draws must equal those of the first."""
    done = place.run(
        """
        import os, random
        import numpy as np
        from resilient_scoop import futures
        KEPT = np.random.default_rng(4)
        def drawn():
            return [random.random(), np.random.random(), np.random.default_rng().random(),
                    futures.rng().random(), KEPT.random()]
        if __name__ == "__main__":
            begin, aside, behind = drawn(), futures.once(drawn), drawn()
            assert len({*begin, *aside, *behind}) == 15
            print(aside, behind)
            assert futures.once(drawn) != aside
            if not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), 9)
            print(drawn())
        """,
        "--strict",
    )

    assert len(done.expect().splitlines()) == 2
    assert "replay" not in done.err, str(done)


def test_a_sampler_with_defaults_is_not_computed_again(place: Place) -> None:
    """Its argument is drawn without a seed; with another value a resume would compute the call again."""
    done = place.run(
        """
        import os
        import numpy as np
        from resilient_scoop import futures
        def cost(point):
            with open("ledger", "a") as file:
                file.write("computed\\n")
            return float(sum(point))
        if __name__ == "__main__":
            points = np.random.default_rng().random((5, 2))
            print(sum(futures.map(cost, points.tolist())))
            if not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), 9)
        """
    )

    done.expect()
    assert (place.folder / "ledger").read_text().count("computed") == 5


def test_names_of_temporary_files_differ_between_workers(place: Place) -> None:
    done = place.run(
        """
        import tempfile
        from resilient_scoop import futures
        def name(x):
            return next(tempfile._RandomNameSequence())
        if __name__ == "__main__":
            print(len(set(futures.map(name, range(8)))))
        """
    )
    assert done.expect() == "8\n"
