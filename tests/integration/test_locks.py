"""A lock that is held during a `map` works as usual: other tasks wait, and the holder continues."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

HELD_OVER_A_MAP = """
    import fcntl, multiprocessing, queue, threading, time
    from resilient_scoop import futures

    class Flock:
        def __enter__(self):
            self.file = open("lock", "w")
            fcntl.flock(self.file, fcntl.LOCK_EX)
        def __exit__(self, *_):
            self.file.close()

    class Place:
        queue = queue.Queue(1)
        def __enter__(self):
            self.queue.put(1)
        def __exit__(self, *_):
            self.queue.get()

    LOCKS = {
        "Lock": threading.Lock(), "RLock": threading.RLock(), "Semaphore": threading.Semaphore(1),
        "Condition": threading.Condition(), "multiprocessing": multiprocessing.Lock(), "queue": Place(),
    }
    inside, broken = [], []

    def leaf(x):
        time.sleep(0.02)
        return x

    def parent(kind, x):
        with LOCKS.get(kind) or Flock():
            broken.extend(inside)
            inside.append(x)
            got = sum(futures.map(leaf, range(x, x + 3)))
            if kind == "RLock":
                with LOCKS[kind]:
                    got += sum(futures.map(leaf, [0, 0]))
            inside.clear()
        return got if not broken else f"{x} found {broken} inside"

    def threaded(x):
        thread = threading.Thread(target=time.sleep, args=(0.6,))
        thread.start()
        thread.join()
        return x

    if __name__ == "__main__":
        for kind in (*LOCKS, "flock"):
            print(kind, [each.result() for each in [futures.submit(parent, kind, x) for x in range(3)]])
        mixed = [futures.submit(parent, "Lock", 1), futures.submit(threaded, 7)]
        mixed.append(futures.options(idempotent=False).submit(parent, "Lock", 2))
        print([each.result() for each in mixed])
    """


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_that_request_a_lock_wait_while_its_holder_continues(
    place: Place, workers: int
) -> None:
    script = place.write(HELD_OVER_A_MAP).name
    done = place.rscoop("run", "-q", "-n", str(workers), script, timeout_s=90.0)

    kinds = "Lock", "RLock", "Semaphore", "Condition", "multiprocessing", "queue", "flock"
    assert done.expect().splitlines() == [
        *(f"{kind} [3, 6, 9]" for kind in kinds),
        "[6, 7, 9]",
    ], str(done)
    assert "died" not in done.err, str(done)


def test_a_worker_blocked_by_locks_is_restarted_and_no_item_is_blamed(place: Place) -> None:
    """Each task holds the lock that the other one requests: in plain Python they run one after another."""
    script = place.write(
        """
        import threading, time
        from resilient_scoop import futures
        A, B = threading.Lock(), threading.Lock()
        def leaf(x):
            time.sleep(0.2)
            return x
        def first():
            with A:
                total = sum(futures.map(leaf, range(4)))
                with B:
                    return total
        def second():
            with B, A:
                return sum(futures.map(leaf, range(3)))
        if __name__ == "__main__":
            print([each.result() for each in [futures.submit(f) for f in (first, second)]])
        """
    ).name
    done = place.rscoop("run", "-q", "-n", "1", script, timeout_s=90.0)

    assert done.expect() == "[6, 3]\n"
    assert "w1 is restarted, because its tasks wait for each other's locks" in done.err


OF_A_TASK = """
    import contextlib, fcntl, multiprocessing, os, struct, threading, time
    from resilient_scoop import futures

    @contextlib.contextmanager
    def lockf():
        with open("lockf", "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            with open("lockf", "a") as again:
                fcntl.lockf(again, fcntl.LOCK_EX)  # a process does not wait for itself
            yield

    FILE = open("shared", "a")

    @contextlib.contextmanager
    def shared_file():
        lock = struct.pack("hhllhh", fcntl.F_WRLCK, 0, 0, 0, 0, 0)
        assert len(fcntl.fcntl(FILE, fcntl.F_SETLKW, lock)) == len(lock)
        try:
            yield
        finally:
            fcntl.lockf(FILE, fcntl.LOCK_UN)

    TRIED = threading.Lock()

    @contextlib.contextmanager
    def polled():
        while not TRIED.acquire(False):
            time.sleep(0.05)
        try:
            yield
        finally:
            TRIED.release()

    @contextlib.contextmanager
    def made():
        while True:
            with contextlib.suppress(FileExistsError):
                os.close(os.open("made", os.O_CREAT | os.O_EXCL))
                break
            time.sleep(0.02)
        try:
            yield
        finally:
            os.unlink("made")

    class Local(threading.local):
        def __init__(self):
            self.names = []

    RLOCK, LOCAL, PLAIN = multiprocessing.RLock(), Local(), threading.local()
    PLAIN.depth = 0
    inside, broken = [], []

    def leaf(x):
        time.sleep(0.02)
        return x + len(LOCAL.names) + PLAIN.depth

    def parent(kind, x):
        LOCAL.names.append(x)
        PLAIN.depth += 1
        with RLOCK if kind == "RLock" else globals()[kind]():
            broken.extend(inside)
            inside.append(x)
            try:
                got = sum(futures.map(leaf, range(x, x + 3)))
                if kind == "RLock":
                    with RLOCK:
                        got += sum(futures.map(leaf, [0, 0]))
            finally:
                inside.clear()
        PLAIN.depth -= 1
        found = LOCAL.names.pop(), LOCAL.names, PLAIN.depth
        return got if found == (x, [], 0) and not broken else f"{x} found {broken}, {found}"

    def in_once(x):
        def inner():
            with LOCK:
                return sum(futures.map(leaf, range(x, x + 3)))
        return futures.once(inner)

    LOCK = threading.Lock()

    if __name__ == "__main__":
        for kind in ("lockf", "shared_file", "polled", "made", "RLock"):
            print(kind, [each.result() for each in [futures.submit(parent, kind, x) for x in range(3)]])
        print("once", [each.result() for each in [futures.submit(in_once, x) for x in range(3)]])
    """


@pytest.mark.parametrize("workers", [1, 2])
def test_each_task_has_its_own_locks_of_the_process_and_thread_local_data(
    place: Place, workers: int
) -> None:
    script = place.write(OF_A_TASK).name
    done = place.rscoop("run", "-q", "-n", str(workers), script, timeout_s=90.0)

    kinds = "lockf", "shared_file", "polled", "made", "RLock", "once"
    assert done.expect().splitlines() == [f"{kind} [3, 6, 9]" for kind in kinds], str(done)
    assert not done.err, str(done)


def test_a_database_locked_during_a_map_does_not_hang_the_run(place: Place) -> None:
    """SQLite pauses in C, where no task can yield, and gives up after 5 s."""
    script = place.write(
        """
        import sqlite3
        from resilient_scoop import futures
        def insert(n):
            base = sqlite3.connect("base", isolation_level="IMMEDIATE")
            with base:
                base.execute("insert into numbers values(?)", (n,))
                return sum(futures.map(abs, range(n, n + 3)))
        def group(n):
            return sum(futures.map(insert, range(n)))
        if __name__ == "__main__":
            with sqlite3.connect("base") as base:
                base.execute("create table if not exists numbers(n)")
            print(list(futures.map(group, [2, 3])))
            print(base.execute("select count(*), sum(n) from numbers").fetchone())
        """
    ).name
    done = place.rscoop("run", "-q", "-n", "1", script, timeout_s=90.0)

    assert done.expect() == "[9, 18]\n(5, 4)\n", str(done)
    assert "w1 is restarted, because its tasks wait for each other's locks" in done.err
