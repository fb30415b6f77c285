"""State that tasks of one worker could share: constants, and changes in modules."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def test_each_task_gets_a_constant_as_it_was_set(place: Place) -> None:
    done = place.run(
        """
        import numpy as np
        from resilient_scoop import futures, shared
        def use(x):
            seen, table, scale = (shared.getConst(each) for each in ("seen", "table", "scale"))
            assert seen is shared.getConst("seen")
            seen["by"].append(x)
            table += x
            return len(seen["by"]), float(table[0]), scale(2)
        def write(x):
            shared.getConst("large")["array"][0] = x
        if __name__ == "__main__":
            large = {"array": np.zeros(50_000)}
            shared.setConst(seen={"by": []}, table=np.ones(3), scale=lambda x: 3 * x, large=large)
            print({each[0] for each in futures.map(use, range(6))})
            print([each[1:] for each in futures.map(use, range(2))])
            try: list(futures.map(write, range(2)))
            except ValueError as error: print(error)
        """,
        workers=1,
    )

    assert done.expect().splitlines() == [
        "{1}",
        "[(1.0, 6), (2.0, 6)]",
        "assignment destination is read-only",
    ]


def test_an_audit_names_what_tasks_change_and_draw_from_the_system(place: Place) -> None:
    place.write("SEEN = {}\n", "helper.py")
    path = place.write(
        """
        import functools, random, secrets
        import helper
        from resilient_scoop import futures, shared
        COUNT, RNG = 0, random.Random(4)
        class Model:
            made = 0
        @functools.lru_cache
        def cached(x):
            return x
        def counts(x):  # COUNT
            global COUNT
            COUNT += 1
            return COUNT
        def caches(x):  # helper.SEEN, cached
            helper.SEEN[x] = cached(x)
        def makes(x):  # Model.made
            Model.made += 1
        def changes(x):  # getConst('large')
            shared.getConst("large").append(x)
        def system(x):
            return secrets.randbelow(3)  # secrets
        def harmless(x):
            return RNG.random() + len(shared.getConst("large")) * random.Random().random()
        if __name__ == "__main__":
            shared.setConst(large=list(range(40_000)))
            for function in (counts, caches, makes, changes, harmless, system):
                list(futures.map(function, range(3)))
        """
    )
    done = place.rscoop("run", "-q", "-n", "1", "--audit", path.name)
    done.expect()

    text = path.read_text().splitlines()
    findings = [line for line in done.err.splitlines() if "audit:" in line]
    found = {
        text[int(line.split("script.py:")[1].split(",")[0]) - 1].partition("# ")[2]: line
        for line in findings
    }
    assert len(found) == len(findings), str(done)
    for names in ("COUNT", "helper.SEEN, cached", "Model.made", "getConst('large')"):
        named, line = next((mark, each) for mark, each in found.items() if set(names) == set(mark))
        assert all(name in line for name in named.split(", ")), line
        assert "number of workers" in line
    assert "random numbers from the system" in found.pop("secrets")
    assert len(found) == 4, str(done)


def test_proxies_of_a_manager_work_in_tasks(place: Place) -> None:
    done = place.run("""
        import multiprocessing
        from multiprocessing.managers import BaseManager
        from resilient_scoop import futures
        class Counter:
            def __init__(self): self.count = 0
            def add(self, by):
                self.count += by
                return self.count
        class Counters(BaseManager): pass
        Counters.register("Counter", Counter)
        def work(counter, queue, lock, x):
            with lock:
                counter.add(x)
            queue.put(x)
        if __name__ == "__main__":
            with Counters() as counters, multiprocessing.Manager() as manager:
                counter, queue, lock = counters.Counter(), manager.Queue(), manager.Lock()
                calls = [futures.submit(work, counter, queue, lock, x) for x in range(5)]
                futures.wait(calls)
                print([call.result() for call in calls].count(None), counter.add(0))
                print(sorted(queue.get() for _ in range(5)))
    """)
    assert done.expect() == "5 10\n[0, 1, 2, 3, 4]\n"
