"""Each task has its own process state, whatever else runs on its worker."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

EACH_HAS_ITS_OWN = """
    import asyncio, contextlib, contextvars, decimal, io, os, signal, sys, tempfile, time, warnings
    from resilient_scoop import futures

    decimal.getcontext().prec = 7
    NAME = contextvars.ContextVar("NAME", default="none")
    NAME.set("top")

    def leaf(x):
        time.sleep(0.02)
        return x

    def state():
        umask = os.umask(0o22)
        os.umask(umask)
        third = str(decimal.Decimal(1) / 3)
        return (
            os.path.basename(os.getcwd()) == HERE, os.environ.get("WHO"), type(sys.stdout).__name__,
            len(warnings.filters), signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "/x" in sys.path,
            third, NAME.get(), time.tzname[0], sys.getrecursionlimit(), oct(umask),
        )

    HERE = os.path.basename(os.getcwd())

    def parent(x):
        before = state()
        with (
            tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out,
            warnings.catch_warnings(record=True) as seen, decimal.localcontext() as numbers,
        ):
            os.chdir(folder)
            os.environ.update(WHO=str(x), TZ="ABC")
            time.tzset()
            os.umask(0o77 - x)
            warnings.simplefilter("always")
            numbers.prec = 3 + x
            NAME.set(x)
            sys.path.append("/x")
            signal.signal(signal.SIGUSR1, lambda *_: None)
            sys.setrecursionlimit(2000 + x)
            mine = state()
            list(futures.map(leaf, range(3)))
            print("mine", x)
            warnings.warn(f"warned {x}")
            same = mine == state() and os.getcwd() == folder
            heard = [str(each.message) for each in seen]
            os.chdir("/")
        return before, same, out.getvalue(), heard

    def dirty(x):
        seen = state()
        os.chdir("/")
        os.environ["WHO"] = "dirty"
        decimal.getcontext().prec = 2
        NAME.set("dirty")
        os.umask(0)
        sys.stdout = None
        warnings.simplefilter("ignore")
        signal.alarm(100)
        return seen

    def looping(x):
        async def main():
            await asyncio.sleep(0)
            return asyncio.get_running_loop() is not None, sum(futures.map(leaf, range(x, x + 3)))
        return asyncio.run(main())

    def ringing(x):
        def ring(*_):
            raise TimeoutError(x)
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.3 if x % 2 else 30)
        try:
            return sum(futures.map(slow, range(4)))
        except TimeoutError as error:
            return error.args
        finally:
            signal.alarm(0)

    def slow(x):
        time.sleep(0.2)
        return x

    if __name__ == "__main__":
        found = [each.result() for each in [futures.submit(parent, x) for x in range(4)]]
        print({before == state() for before, *_ in found}, [after for _, *after in found])
        print({seen == state() for seen in futures.map(dirty, range(20))})
        print([each.result() for each in [futures.submit(looping, x) for x in range(4)]])
        print([each.result() for each in [futures.submit(ringing, x) for x in range(4)]])
    """


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_waited_finds_the_process_state_unchanged(place: Place, workers: int) -> None:
    done = place.run(EACH_HAS_ITS_OWN, workers=workers)

    mine = [[True, f"mine {x}\n", [f"warned {x}"]] for x in range(4)]
    assert done.expect().splitlines() == [
        f"{{True}} {mine}",
        "{True}",
        f"{[(True, 3 * x + 3) for x in range(4)]}",
        "[6, (1,), 6, (3,)]",
    ], str(done)


def test_changes_by_an_import_apply_to_all_tasks(place: Place) -> None:
    """The first task on a worker imports the module; the others must see its changes too."""
    place.write(
        """
        import os, warnings
        warnings.filterwarnings("error", message="strange")
        os.environ["READY"] = "yes"
        """,
        "late.py",
    )
    done = place.run(
        """
        import os, warnings
        from resilient_scoop import futures
        def work(x):
            os.environ["MINE"] = str(x)
            import late
            try: warnings.warn("strange")
            except UserWarning: return os.environ["READY"], os.environ["MINE"]
        def after(x):
            return os.environ.get("READY"), os.environ.get("MINE")
        if __name__ == "__main__":
            print(list(futures.map(work, range(3))))
            print(list(futures.map(after, range(2))))
        """,
        workers=1,
    )

    assert done.expect().splitlines() == [
        "[('yes', '0'), ('yes', '1'), ('yes', '2')]",
        "[('yes', None), ('yes', None)]",
    ]


def test_signals_that_a_task_blocks_wait_for_it_and_its_trace_function_is_kept(
    place: Place,
) -> None:
    done = place.run("""
        import os, signal, sys
        from resilient_scoop import futures

        def inner():
            return 1

        def waits(x):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            os.kill(os.getpid(), signal.SIGUSR1)
            heard = signal.sigwait({signal.SIGUSR1}).name
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            seen = []
            sys.settrace(lambda frame, *_: seen.append(1) if frame.f_code.co_name == "inner" else None)
            total = inner() + sum(futures.map(abs, range(x))) + inner()
            sys.settrace(None)
            return heard, len(seen), total

        if __name__ == "__main__":
            print([each.result() for each in [futures.submit(waits, x) for x in range(4)]])
    """)
    signals = [("SIGUSR1", 2, 2 + sum(range(x))) for x in range(4)]
    assert done.expect() == f"{signals}\n"


def test_the_attributes_of_sys_that_belong_to_each_task_are_not_sent_with_a_function(
    place: Place,
) -> None:
    """The output that a task redirects stays redirected while functions run that write to `sys.stdout`."""
    done = place.run(
        """
        import contextlib, io, sys
        from resilient_scoop import futures

        def leaf(x):
            sys.stdout.write("")
            return x, "colorsys" in sys.modules

        def parent(x):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                print("before", x)
                list(futures.map(leaf, range(3)))
                print("after", x)
            return out.getvalue().split()

        if __name__ == "__main__":
            for each in [futures.submit(parent, x) for x in range(3)]:
                print(each.result())
            with contextlib.redirect_stdout(io.StringIO()):
                import colorsys
                found = list(futures.map(leaf, range(2)))
            print(found)
        """,
        workers=1,
    )

    lines = [str(["before", str(x), "after", str(x)]) for x in range(3)]
    assert done.expect().splitlines() == [*lines, "[(0, False), (1, False)]"]
