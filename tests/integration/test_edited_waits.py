"""A recorded answer to a wait counts only for that wait: an edited script may wait for other futures."""

from __future__ import annotations

import pytest

from tests.integration.killed import kill_all, killed_at, resumed
from tests.integration.runs import Place, wait_until

pytestmark = pytest.mark.real

SCRIPT = """
    import os, time
    from resilient_scoop import futures
    def nap(x):
        time.sleep(x / 10)
        return x * x
    def hold():
        futures.submit(nap, 0).result()  # what was recorded before it is in the journal
        if not os.path.exists("go"):
            open("held", "w").close()
            time.sleep(60)
    if __name__ == "__main__":
        fs = [futures.submit(nap, x) for x in (3, 0, 1)]
        {line}
        hold()
        print(sum(f.result() for f in fs))
"""
LATE = "\n        except TimeoutError: print('late')"
EDITS = {
    "more futures": (
        "print(*map(len, futures.wait(fs[:2])))",
        "print(*map(len, futures.wait(fs)))",
        "3 0",
    ),
    "other futures": (
        "print(*map(len, futures.wait(fs[:2])))",
        "print(*map(len, futures.wait(fs[2:], return_when='FIRST_COMPLETED')))",
        "1 0",
    ),
    "other futures as they are completed": (
        "print([f.result() for f in futures.as_completed(fs[:1])])",
        "print([f.result() for f in futures.as_completed(fs[1:2])])",
        "[0]",
    ),
    "the first or all": (
        "print(len(futures.wait(fs, return_when='FIRST_COMPLETED').done) in (1, 2))",
        "print(len(futures.wait(fs, return_when='FIRST_EXCEPTION').done))",
        "3",
    ),
    "no time limit for several": (
        "print(len(futures.wait(fs, timeout=0).done) < 3)",
        "print(len(futures.wait(fs).done))",
        "3",
    ),
    "another future with a time limit": (
        f"try: fs[0].result(timeout=0){LATE}",
        "time.sleep(1); print(fs[1].result(timeout=0))",
        "0",
    ),
    "another future that is asked": (
        "print(fs[0].done())",
        "time.sleep(1); print(fs[1].done())",
        "True",
    ),
    "another future that is canceled": (
        "gs = [futures.submit(nap, 3) for _ in range(8)]; print(gs[7].cancel())",
        "gs = [futures.submit(nap, 3) for _ in range(8)]; time.sleep(1); print(gs[0].cancel())",
        "False",
    ),
    "no time limit as they come": (
        f"try: list(futures.map_as_completed(nap, [3], timeout=0)){LATE}",
        "print(list(futures.map_as_completed(nap, [3])))",
        "[9]",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_wait_that_was_edited_gets_its_own_answer(place: Place, name: str) -> None:
    before, after, answer = EDITS[name]
    killed_at(place, SCRIPT.replace("{line}", before), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", after))

    done = resumed(place)

    assert done.expect().splitlines() == [answer, "10"]
    assert place.rscoop("replay", "last").expect()


def test_a_strict_run_refuses_an_answer_to_another_wait(place: Place) -> None:
    before, after, _ = EDITS["more futures"]
    killed_at(place, SCRIPT.replace("{line}", before), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", after))

    done = place.rscoop("resume", "last", "--strict")

    assert done.code == 70
    assert "`settled`" in done.err


def test_an_edit_that_waits_with_a_time_limit_keeps_the_recorded_answer(place: Place) -> None:
    killed_at(place, SCRIPT.replace("{line}", EDITS["more futures"][0]), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", "print(*map(len, futures.wait(fs[:2], timeout=9)))"))

    done = resumed(place)

    assert done.expect().splitlines() == ["10"]
    assert " answer " not in done.err


CALLS = """
    import os, time
    from resilient_scoop import futures
    def nap(x):
        time.sleep(x)
        return x
    def count(answers):
        try:
            return sum(1 for _ in answers)
        except TimeoutError:
            return "late"
    def is_over(ask):
        return any(ask() for _ in range(40) if time.sleep(0.025) is None)
    def hold():
        futures.submit(abs, 0).result()  # what was recorded before it is in the journal
        if not os.path.exists("go"):
            open("held", "w").close()
            time.sleep(60)
    if __name__ == "__main__":
        X = 4
        {ask}
        print(futures.once(time.time_ns), file=open("drawn", "a"))
        hold()
        print("end", f.result())
"""
LATE_CALL = "f = futures.submit(nap, X)\n        "
ASKS = {
    "result": LATE_CALL + "print(count([f.result(timeout=1)] for _ in '1'))",
    "exception": LATE_CALL + "print(count([f.exception(timeout=1)] for _ in '1'))",
    "done": LATE_CALL + "print(int(is_over(f.done)) or 'late')",
    "running": LATE_CALL + "print(int(is_over(lambda: not f.running())) or 'late')",
    "wait": LATE_CALL + "print(len(futures.wait([f], timeout=1).done) or 'late')",
    "wait for the first": (
        LATE_CALL + "print(len(futures.wait([f], 1, 'FIRST_COMPLETED').done) or 'late')"
    ),
    "as_completed": LATE_CALL + "print(count(futures.as_completed([f], timeout=1)))",
    "map": ("f = futures.submit(abs, 0)\n        print(count(futures.map(nap, [X], timeout=1)))"),
    "map_as_completed": (
        "f = futures.submit(abs, 0)\n        "
        "print(count(futures.map_as_completed(nap, [X], timeout=1)))"
    ),
}


def after_edit(place: Place, text: str, old: str, new: str, *options: str) -> tuple[str, str]:
    """Kill a run of a script after its answer is recorded, edit the script, and resume the run.

    Returns what the resume printed beyond the lines of the run, and its messages.
    """
    killed_at(place, text, "held")
    (place.folder / "go").touch()
    assert old in text
    place.write(text.replace(old, new))
    done = place.rscoop("resume", "last", *options)
    assert place.rscoop("replay", "last").expect()
    return done.expect(), done.err


def drawn(place: Place) -> list[str]:
    """Return what `once` gave each attempt."""
    return (place.folder / "drawn").read_text().split()


@pytest.mark.parametrize("name", ASKS)
def test_a_call_that_was_edited_is_in_time(place: Place, name: str) -> None:
    text = CALLS.replace("{ask}", ASKS[name])

    out, err = after_edit(place, text, "X = 4", "X = 0")

    assert out.splitlines()[-2:] == ["1", "end 0"]
    assert "was edited, and the answer is another one" in err


@pytest.mark.parametrize("name", ["result", "done", "wait", "as_completed", "map"])
def test_a_call_that_was_edited_is_late(place: Place, name: str) -> None:
    text = CALLS.replace("{ask}", ASKS[name]).replace("X = 4", "X = 0")

    out, err = after_edit(place, text, "X = 0", "X = 4")

    assert out.splitlines()[0] == "late"
    assert "was edited, and the answer is another one" in err


def test_a_function_that_was_edited_is_in_time(place: Place) -> None:
    text = CALLS.replace("{ask}", ASKS["wait"])

    out, _ = after_edit(place, text, "time.sleep(x)", "time.sleep(0)", "--recompute-changed")

    assert out.splitlines()[-2:] == ["1", "end 4"]


def test_an_edited_call_that_is_late_again_keeps_all_later_answers(place: Place) -> None:
    text = CALLS.replace("{ask}", ASKS["result"])

    out, err = after_edit(place, text, "X = 4", "X = 3")

    assert out == "end 3\n"
    assert "gets new answers" not in err
    assert len(set(drawn(place))) == 1


def test_results_of_an_edited_function_that_are_kept_keep_its_answers(place: Place) -> None:
    text = CALLS.replace("{ask}", ASKS["result"]).replace("X = 4", "X = 2").replace(
        "hold()\n        print", "f.result(); hold()\n        print"
    )  # fmt: skip

    out, err = after_edit(place, text, "time.sleep(x)", "time.sleep(0)", "--reuse-changed=nap")

    assert out == "end 2\n"
    assert "gets new answers" not in err


def test_a_strict_run_refuses_another_answer_of_an_edited_call(place: Place) -> None:
    text = CALLS.replace("{ask}", ASKS["done"])
    killed_at(place, text, "held")
    (place.folder / "go").touch()
    place.write(text.replace("X = 4", "X = 0"))

    done = place.rscoop("resume", "last", "--strict")

    assert done.code == 70
    assert "what it waits for was edited" in done.err


LIMITED = """
    import os, sys, time
    from resilient_scoop import futures, shared
    def nap(x):
        time.sleep(x)
        return x
    LIMIT = 0.5
    if __name__ == "__main__":
        print(futures.submit(nap, 0).result())
        f = futures.submit(nap, 2)
        {wait}
        print("more", sum(futures.map(nap, [0, 0])))
        hold = futures.submit(nap, 0).result()
        if not os.path.exists("go"):
            open("held", "w").close()
            time.sleep(60)
        {wait}
        print("end")
"""
WAITS = {
    "result": "print(f.result(timeout=LIMIT))",
    "as_completed": "print([g.result() for g in futures.as_completed([f], timeout=LIMIT)])",
    "map": "print(list(futures.map(nap, [2, 2], timeout=LIMIT)))",
    "map_as_completed": "print(list(futures.map_as_completed(nap, [2, 2], timeout=LIMIT)))",
    "some of several": (
        "late = futures.wait([f, futures.submit(nap, 0)], timeout=LIMIT)[1]\n"
        "        if late: sys.exit('too slow')\n"
        "        print('all')"
    ),
    "no exception": (
        "ends = futures.wait([f, futures.submit(nap, 0)], LIMIT, 'FIRST_EXCEPTION')\n"
        "        assert not ends.not_done; print('all')"
    ),
    "an exit": f"try: print(f.result(timeout=LIMIT)){LATE.replace('print', 'sys.exit')}",
    "an exit without cleanup": (
        "if not futures.wait([f], LIMIT).done: sys.stdout.flush(); os._exit(1)\n"
        "        print('done')"
    ),
    "a constant": (
        "nobody = shared.getConst('unset', timeout=LIMIT)\n"
        "        assert nobody or LIMIT > 1; print(nobody)"
    ),
    "asked": "time.sleep(2 * LIMIT); assert f.done(); print('done')",
}
SHORT = ("asked", "a constant")
"""Here the script always waits for so long."""


@pytest.mark.parametrize("wait", WAITS)
def test_a_script_that_failed_after_a_time_limit_waits_again(place: Place, wait: str) -> None:
    # Given a script that fails because a limit was over
    text = LIMITED.replace("{wait}", WAITS[wait])
    path = place.write(text)
    failed = place.rscoop("run", "-q", "-n", "2", path.name)
    assert failed.code == 1
    assert failed.out == "0\n"

    # When it gets more time, and all is killed after the wait
    place.write(text.replace("LIMIT = 0.5", "LIMIT = 2" if wait in SHORT else "LIMIT = 20"))
    process = place.start("resume", "last")
    wait_until(lambda: (place.folder / "held").exists() or process.poll() is not None)
    kill_all(place)
    out, err = process.communicate()

    # Then it has waited again, and the next resume repeats what it got
    assert "it waits again" in err
    assert out.splitlines()[-1] == "more 0"
    (place.folder / "go").touch()
    done = resumed(place)
    assert done.expect().splitlines()[-1] == "end"
    assert "it waits again" not in done.err
    assert " answer" not in done.err
    assert place.rscoop("replay", "last").expect()


def test_a_copy_of_a_run_that_failed_after_a_time_limit_waits_again(place: Place) -> None:
    text = LIMITED.replace("{wait}", WAITS["result"])
    path = place.write(text)
    assert place.rscoop("run", "-q", "-n", "2", path.name).code == 1
    place.rscoop("fork", "last", "--name", "copy").expect()
    place.write(text.replace("LIMIT = 0.5", "LIMIT = 20"))
    (place.folder / "go").touch()

    done = place.rscoop("resume", "copy")

    assert done.expect().splitlines()[-1] == "end"
    assert "it waits again" in done.err


def test_a_script_that_fails_for_another_reason_keeps_its_answers(place: Place) -> None:
    text = """
        import time
        from resilient_scoop import futures
        def nap(x):
            time.sleep(x)
            return x
        if __name__ == "__main__":
            f = futures.submit(nap, 1)
            print(f.done())
            print(futures.submit(nap, 0).result())
            time.sleep(1)
            raise ValueError("wrong")
    """
    path = place.write(text)
    assert place.rscoop("run", "-q", "-n", "2", path.name).code == 1
    place.write(text.replace('raise ValueError("wrong")', "print(f.done())"))

    done = resumed(place)

    assert done.expect() == "True\n"
    assert "it waits again" not in done.err


def test_a_task_that_failed_after_a_time_limit_waits_again_when_it_is_retried(place: Place) -> None:
    path = place.write("""
        import os, time
        from resilient_scoop import futures
        def nap(x):
            time.sleep(x)
            return x
        def late(x):
            return futures.submit(nap, x).result(timeout=9 if os.path.exists("more") else 0)
        if __name__ == "__main__":
            print(futures.submit(late, 1).exception() or "in time")
    """)
    assert "no result after 0 s" in place.rscoop("run", "-q", "-n", "2", path.name).expect()
    (place.folder / "more").touch()

    done = place.rscoop("resume", "last", "--retry-failed")

    assert done.expect() == "in time\n"
