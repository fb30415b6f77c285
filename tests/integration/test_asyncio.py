"""Awaited futures: in the script and in tasks, with `asyncio.wrap_future` and with an executor."""

from __future__ import annotations

import pytest

from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Place, ledger

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

PROGRAM = """
import asyncio, time
from resilient_scoop import Executor, futures
def double(x):
    time.sleep(0.1)
    return x * 2
def fails(x): raise KeyError(x)
async def wrapped(xs):
    calls = [asyncio.wrap_future(futures.submit(double, x)) for x in xs]
    first = await calls[0]
    return first, await asyncio.gather(*calls)
async def by_executor(xs):
    loop = asyncio.get_running_loop()
    with Executor() as executor:
        return await asyncio.gather(*[loop.run_in_executor(executor, double, x) for x in xs])
async def as_they_come(xs):
    calls = [asyncio.wrap_future(futures.submit(double, x)) for x in xs]
    return sorted([await each for each in asyncio.as_completed(calls)])
async def failing():
    try:
        await asyncio.wrap_future(futures.submit(fails, 7))
    except KeyError as error:
        return repr(error)
async def chained(x):
    for _ in range(3):
        x = await asyncio.wrap_future(futures.submit(double, x))
    return x
async def everything():
    chains = asyncio.gather(*[chained(x) for x in (1, 2, 3)])
    return (await wrapped([1, 2]), await by_executor([3, 4]), await as_they_come([5, 6]),
            await failing(), await chains)
def task(): return asyncio.run(everything())
if __name__ == "__main__":
    print(asyncio.run(everything()))
    print(futures.submit(task).result())
    print(futures.submit(double, 50).result())
"""
SAME = "((2, [2, 4]), [6, 8], [10, 12], 'KeyError(7)', [8, 16, 24])\n"


def test_calls_are_awaited_in_the_script_and_in_tasks(place: Place) -> None:
    assert place.run(PROGRAM).expect() == SAME + SAME + "100\n"


def test_a_strict_run_awaits_the_calls_of_its_tasks(place: Place) -> None:
    place.write("""
        import asyncio
        from resilient_scoop import futures
        def double(x): return x * 2
        async def ask(): return [await asyncio.wrap_future(futures.submit(double, x)) for x in (1, 2)]
        def task(): return asyncio.run(ask())
        if __name__ == "__main__":
            print(futures.submit(task).result())
    """)
    done = place.rscoop("run", "-q", "-n", "2", "--strict", "script.py")
    assert done.expect() == "[2, 4]\n"


def test_the_loop_runs_while_calls_are_computed(place: Place) -> None:
    done = place.run("""
        import asyncio, time
        from resilient_scoop import futures
        def slow(x):
            time.sleep(1)
            return x
        async def main():
            ticks = 0
            call = asyncio.wrap_future(futures.submit(slow, 3))
            while not call.done():
                await asyncio.sleep(0.02)
                ticks += 1
            print(await call, ticks > 10)
        if __name__ == "__main__":
            asyncio.run(main())
    """)
    assert done.expect() == "3 True\n"


def test_a_canceled_await_cancels_a_call_that_has_not_begun(place: Place) -> None:
    done = place.run("""
        import asyncio, time
        from resilient_scoop import futures
        def slow(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            time.sleep(1)
        async def main():
            calls = [asyncio.wrap_future(futures.submit(slow, x)) for x in range(6)]
            await asyncio.sleep(0.5)
            for call in calls[2:]: call.cancel()
            found = await asyncio.gather(*calls, return_exceptions=True)
            print([type(each).__name__ for each in found])
        if __name__ == "__main__":
            asyncio.run(main())
    """)
    assert done.expect() == str(["NoneType"] * 2 + ["CancelledError"] * 4) + "\n"
    assert len(ledger(place)) < 6


def test_a_resume_finds_awaited_calls_after_everything_was_killed(place: Place) -> None:
    script = """
        import asyncio, os, random, time
        from resilient_scoop import futures
        def work(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            while x == 5 and not os.path.exists("go"): time.sleep(0.02)
            return x * 2
        async def one(x):
            await asyncio.sleep(random.SystemRandom().random() / 10)  # the order of calls varies
            return await asyncio.wrap_future(futures.submit(work, x))
        async def main():
            print(sum(await asyncio.gather(*[one(x) for x in range(4)])), flush=True)
            waiting = asyncio.create_task(one(5))
            while not os.path.exists("ledger") or "5" not in open("ledger").read().split():
                await asyncio.sleep(0.02)
            open("seen", "w").close()
            print(await waiting)
        if __name__ == "__main__":
            asyncio.run(main())
    """
    killed_at(place, script, "seen")
    (place.folder / "go").touch()
    assert resumed(place).expect().splitlines()[-1] == "10"
    assert [ledger(place).count(str(x)) for x in range(4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("waits_s", [0, 0.5])
def test_a_strict_run_refuses_coroutines_of_the_script_with_or_without_a_result(
    place: Place, waits_s: float
) -> None:
    path = place.write(f"""
        import asyncio, time
        from resilient_scoop import futures
        async def main():
            call = futures.submit(abs, -1)
            time.sleep({waits_s})
            return await asyncio.wrap_future(call)
        if __name__ == "__main__":
            print(asyncio.run(main()))
    """)
    done = place.rscoop("run", "-q", "-n", "1", "--strict", path.name)
    assert done.code == 1
    assert "UsageError: futures were used in an asyncio loop: with --strict" in done.err
    place.assert_nothing_left()
