"""Sets of futures: the same order in every replay, so that a resume finds every result again."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.killed import kill_all, killed_at, resumed
from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

STEADY = """
    import os, random, time
    from resilient_scoop import futures
    def evaluate(ind):
        with open("ledger", "a") as file:
            file.write(f"{ind}\\n")
        if len(open("ledger").readlines()) > 60 and not os.path.exists("go"):
            open("enough", "w").close()
            time.sleep(30)
        time.sleep(0.002 * (ind[0] % 3))
        return sum(ind)
    def breed(population):
        a, b = random.sample(population, 2)
        return (a[0] + b[1] + random.randrange(1000), a[1] ^ b[0])
    if __name__ == "__main__":
        population = [(n, n * n) for n in range(8)]
        of, pending = {}, set()
        for ind in population:
            future = futures.submit(evaluate, ind)
            of[future] = ind
            pending.add(future)
        trace = []
        for step in range(40):
            done, pending = futures.wait(pending, return_when=futures.FIRST_COMPLETED)
            for future in done:                      # a set
                trace.append(future.number)
                population[future.result() % 8] = of.pop(future)
                born = breed(population)
                future = futures.submit(evaluate, born)
                of[future] = born
                pending |= {future}
        for future in futures.as_completed(pending):  # a set
            trace.append(future.number)
        late = list(of)
        random.shuffle(late)
        again = [future.number for future in futures.as_completed(set(late))]
        print(trace)
        print(again == trace[-len(again):], len(trace) == len(set(trace)), population)
"""


def test_a_steady_state_search_over_sets_keeps_all_of_its_results(place: Place) -> None:
    killed_at(place, STEADY, "enough")
    before = Counter(ledger(place))
    (place.folder / "go").touch()

    done = resumed(place)

    trace, last = done.expect().splitlines()
    assert last.startswith("True True ")
    assert len(trace.split(",")) > 40
    assert "diverge" not in done.err
    assert " asks `" not in done.err
    again = Counter(ledger(place)) - before
    twice = [ind for ind in again if ind in before]
    assert len(twice) <= 8, twice  # items that were executing or had ended in the last 0.1 s
    assert place.rscoop("replay", "last").expect()
    place.assert_nothing_left()


SETS = """
    import os, time
    from resilient_scoop import checkpoint, futures
    def nap(n):
        time.sleep(0.01 * (n % 5))
        return n
    def nest(n):
        done, _ = futures.wait({futures.submit(nap, n + k) for k in range(6)})
        return [f.result() for f in done]
    def stop(name):
        if not os.path.exists("go"):
            open(name, "w").close()
            time.sleep(30)
    if __name__ == "__main__":
        told = []
        mine = {futures.submit(nap, n): n for n in range(20)}
        for f in mine:
            f.add_done_callback(lambda f: told.append(f.number))
        done, rest = futures.wait(frozenset(mine), timeout=0.02)
        first = [mine[f] for f in done], [mine[f] for f in rest]
        with checkpoint.durable(held=set(mine) - done, known=set(done), gen=0) as s:
            while s.gen < 3:
                done, s.held = futures.wait(s.held, return_when=futures.FIRST_COMPLETED)
                s.known |= done
                s.gen += 1
                s.commit()
                if s.gen == 2:
                    stop("two")
        order = [f.result() for f in futures.as_completed(s.known | s.held)]
        known = [f.result() for f in futures.as_completed(set(s.known))]
        print(sorted(order), order[:len(known)] == known)
        print(sorted(futures.submit(nest, 100).result()))
"""


def test_sets_of_futures_work_in_a_checkpointed_state_and_in_tasks(place: Place) -> None:
    killed_at(place, SETS, "two")
    (place.folder / "go").touch()

    done = resumed(place)

    assert done.expect().splitlines() == [
        f"{list(range(20))} True",
        "[100, 101, 102, 103, 104, 105]",
    ]
    assert " asks `" not in done.err
    kill_all(place)


def test_waiting_for_many_futures_takes_linear_time(place: Place) -> None:
    done = place.run("""
        import time
        from resilient_scoop import futures
        def cost(count):
            began = time.perf_counter()
            called = []
            fs = [futures.submit(abs, -n) for n in range(count)]
            for f in fs:
                f.add_done_callback(called.append)
            total = sum(f.result() for f in futures.as_completed(fs))
            fs = [futures.submit(abs, -n) for n in range(count)]
            done, rest = futures.wait(fs)
            assert len(done) == count and not rest
            assert len(called) == count and total == count * (count - 1) // 2
            return time.perf_counter() - began
        if __name__ == "__main__":
            cost(100)
            small, large = cost(1000), cost(8000)
            print(large < 20 * small, small, large)
    """)
    assert done.expect().startswith("True"), str(done)


def test_no_callback_begins_in_the_middle_of_another_one(place: Place) -> None:
    """A callback that waits may hold a lock; callbacks that it adds itself run at once."""
    done = place.run("""
        import threading
        from resilient_scoop import futures
        lock = threading.Lock()
        def main(count):
            told = []
            def call(f):
                with lock:
                    told.append(sum(futures.map(abs, range(f.result() + 1))))
                    chained = futures.submit(abs, -f.result())
                    chained.add_done_callback(lambda f: told.append("chained"))
                    told.append(chained.result())
            fs = [futures.submit(abs, n) for n in range(count)]
            for f in fs:
                f.add_done_callback(call)
            futures.wait(fs)
            return told[1::3].count("chained"), sum(told[::3]), sum(told[2::3])
        if __name__ == "__main__":
            print(main(400))
            print(futures.submit(main, 5).result())
    """)
    assert done.expect().splitlines() == [
        f"({count}, {sum(n * (n + 1) // 2 for n in range(count))}, {sum(range(count))})"
        for count in (400, 5)
    ]
