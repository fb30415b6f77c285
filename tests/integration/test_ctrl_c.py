"""Ctrl-C in a script: KeyboardInterrupt as in Python, clean-up, and no trace of it in a resume."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real

HEAD = """
    import atexit, signal, sys, time
    from resilient_scoop import checkpoint, futures

    def work(x):
        time.sleep(0.02)
        with open("ledger", "a") as file:
            file.write(f"{x}\\n")
        return x * x

    def begun():
        open("begun", "w").close()
"""
WAITING = """
    def main():
        atexit.register(print, "exit handler")
        print("start")
        total = 0
        try:
            for value in futures.map(work, range(150)):
                total += value
        except KeyboardInterrupt:
            print("caught; so far", total > 0)
            late = futures.submit(work, 1000)
            print(late.done(), late.cancelled(), late.cancel(), futures.wait([late]).not_done)
            try:
                list(futures.map(work, [1001]))
            except Exception as error:
                print(type(error).__name__)
            time.sleep(1)
            print("said before the end")
            sys.exit(3)
        finally:
            print("finally")
        print("sum", total)

    if __name__ == "__main__":
        main()
"""


def interrupted(place: Place, text: str, *args: str) -> str:
    """Start a script, interrupt it when it has begun, and return what it printed."""
    place.write(text)
    process = place.start("run", "-q", "-n", "2", "script.py", *args)
    wait_until(lambda: (place.folder / "begun").exists() or len(ledger(place)) > 20, 20.0)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    done = finish(process)
    assert time.monotonic() - began < 10
    assert "Traceback" not in done.err
    place.assert_nothing_left()
    return done.expect(130)


def test_an_interrupted_script_cleans_up_and_a_resume_does_not_replay_the_clean_up(
    place: Place,
) -> None:
    assert interrupted(place, HEAD + WAITING).splitlines() == [
        "start", "caught; so far True", "True True True set()", "CancelledError",
        "said before the end", "finally", "exit handler",
    ]  # fmt: skip
    assert place.status()["state"] == "stopped"
    assert place.rscoop("logs", "last").expect() == "start\n"

    resumed = place.rscoop("resume", "-q", "last")
    total = sum(x * x for x in range(150))
    assert resumed.expect() == f"finally\nsum {total}\nexit handler\n"
    assert sorted(set(ledger(place)), key=int) == [str(x) for x in range(150)]
    assert "replay:" not in resumed.err
    assert place.rscoop("replay", "last").code == 0


@pytest.mark.parametrize(
    ("how", "output"),
    [
        ("while True: pass", "caught"),
        ("time.sleep(60)", "caught"),
        ("while True: futures.submit(work, 1)", "caught"),
        ("while not stop: time.sleep(0.01)", "flag"),
    ],
)
def test_a_script_gets_the_interrupt_at_any_point(place: Place, how: str, output: str) -> None:
    text = f"""
    if __name__ == "__main__":
        print(futures.submit(abs, -1).result(), end=" ")
        stop = []
        if "stop" in {how!r}:
            signal.signal(signal.SIGINT, lambda *_: stop.append(1))
        with checkpoint.durable(n=0) as s:
            s.n = 1
            begun()
            try:
                if not sys.argv[1:]:
                    {how}
                print("flag")
            except KeyboardInterrupt:
                print("caught")
            s.n = 2
            s.commit()  # it is not kept
        print(s.n, input() if "stop" in {how!r} else "")
    """.replace("input()", "len(sys.stdin.read())")
    assert interrupted(place, HEAD + text) == f"1 {output}\n2 " + ("0\n" if "stop" in how else "\n")
    assert place.rscoop("logs", "last").expect() == "1 "


def test_a_script_that_does_not_end_after_ctrl_c_is_killed(place: Place) -> None:
    out = interrupted(
        place,
        HEAD
        + """
    if __name__ == "__main__":
        begun()
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("and again")
    """,
    )
    assert out == "and again\n"


def test_a_script_that_interrupts_itself_behaves_as_in_python(place: Place) -> None:
    done = place.run("""
        import os, signal
        from resilient_scoop import futures

        def task(x):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                return x

        if __name__ == "__main__":
            for send in (signal.raise_signal, lambda number: os.kill(os.getpid(), number)):
                try:
                    send(signal.SIGINT)
                except KeyboardInterrupt:
                    print("caught", list(futures.map(task, range(3))))
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            raise KeyboardInterrupt
    """)
    assert done.expect(130) == "caught [0, 1, 2]\n" * 2
    assert done.err.count("Traceback") == 1


ALARMS = """
    import random, signal, sys, time
    from resilient_scoop import futures

    class Alarm(Exception):
        pass

    def ring(number, frame):
        print(".", end="")  # which takes the same lock as the wait
        raise Alarm

    def work(x):
        time.sleep(0.001)
        return x * x

    def ringing(seed, alarms):
        signal.signal(signal.SIGALRM, ring)
        draw, rang, done, open_futures = random.Random(seed), 0, 0, []
        while rang < alarms:
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0001, 0.003))
                if draw.random() < 0.5 and len(open_futures) < 30:
                    open_futures.append(futures.submit(work, 7))
                elif open_futures:
                    assert open_futures[0].result() == 49
                    del open_futures[0]
                else:
                    assert sum(futures.map(work, range(4))) == 14
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                rang += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert [future.result() for future in open_futures] == [49] * len(open_futures)
        return rang, sum(futures.map(work, range(50)))

    if __name__ == "__main__":
        found = [ringing(seed, 200) for seed in range(3)]
        print()
        print(found)
        print([futures.submit(ringing, seed, 50).result() for seed in range(3)])
"""


def test_alarms_whose_handlers_raise_leave_the_state_correct(place: Place) -> None:
    done = place.run(ALARMS, timeout_s=60.0)
    assert done.expect().split("\n")[1:-1] == [f"{[(n, 40425)] * 3}" for n in (200, 50)]
    assert done.out.split("\n")[0] == "." * 600
