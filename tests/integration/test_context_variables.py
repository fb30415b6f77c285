"""Context variables that the script sets: results of functions that use them depend on their values."""

from __future__ import annotations

import pytest

from tests.integration.killed import kill_all
from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real

COROUTINES = """
    import asyncio, contextvars, time
    from resilient_scoop import futures
    variable = contextvars.ContextVar("variable", default=0)
    def leaf(x):
        with open("ledger", "a") as file: file.write("started\\n")
        time.sleep(0.2)
        return x, variable.get()
    async def with_value(k):
        variable.set(k)
        return await asyncio.to_thread(lambda: list(futures.map(leaf, range(3))))
    async def main():
        return await asyncio.gather(*[with_value(k) for k in range(3)])
    if __name__ == "__main__":
        print(asyncio.run(main()))
"""
ANSWER = "[[(0, 0), (1, 0), (2, 0)], [(0, 1), (1, 1), (2, 1)], [(0, 2), (1, 2), (2, 2)]]\n"


@pytest.mark.parametrize("started", [2, 4, 7])
def test_equal_calls_of_coroutines_keep_their_results_with_other_values(
    place: Place, started: int
) -> None:
    place.write(COROUTINES)
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until(lambda: len(ledger(place)) >= started, 20.0)
    kill_all(place)
    finish(process)

    place.rscoop("resume", "-q", "last").expect()

    assert place.rscoop("logs", "last").expect() == ANSWER
    place.assert_nothing_left()


SCRIPT = """
    import os
    from contextvars import ContextVar
    from resilient_scoop import futures
    variable = ContextVar("variable", default=0)
    def used(): return variable.get()
    def leaf(x):
        with open("ledger", "a") as file: file.write("started\\n")
        return x, used()
    def other(x): return x
    if __name__ == "__main__":
        variable.set(VALUE)
        print(list(futures.map(leaf, range(3))), list(futures.map(other, range(3))))
        if not os.path.exists("go"): os._exit(9)
"""


@pytest.mark.parametrize(("value", "computed"), [(1, 0), (5, 3)])
def test_a_resume_computes_calls_again_that_used_another_value(
    place: Place, value: int, computed: int
) -> None:
    place.run(SCRIPT.replace("VALUE", "1")).expect(9)
    place.write(SCRIPT.replace("VALUE", str(value)))
    (place.folder / "go").touch()

    place.rscoop("resume", "-q", "last").expect()

    shown = [(x, value) for x in range(3)]
    assert place.rscoop("logs", "last").expect().endswith(f"{shown} [0, 1, 2]\n")
    assert len(ledger(place)) == 3 + computed
    place.assert_nothing_left()
