"""Ctrl-C and other signals, runs in the background, and the commands that show runs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real


SLOW = """
import sys, time
from resilient_scoop import futures
def work(x):
    time.sleep(0.05)
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return x * x
if __name__ == "__main__":
    print("start", flush=True)
    print("sum", sum(futures.map(work, range(60))))
"""
ANSWER = f"sum {sum(x * x for x in range(60))}\n"


def started(place: Place, *args: str) -> subprocess.Popen[str]:
    """Start the slow script and wait until some of it is done."""
    place.write(SLOW)
    process = place.start("run", "-q", "-n", "2", *args, "script.py")
    wait_until(lambda: len(ledger(place)) >= 10, say=lambda: f"{process.poll()} {ledger(place)}")
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_the_run_and_a_resume_finishes_it(
    place: Place, number: signal.Signals, code: int
) -> None:
    process = started(place)
    process.send_signal(number)
    began = time.monotonic()
    done = finish(process)
    assert time.monotonic() - began < 6
    assert done.expect(code) == "start\n"
    assert re.search(r"stopped; \d+ results are kept; to continue: rscoop resume \w+", done.err)
    assert "Traceback" not in done.err
    place.assert_nothing_left()
    assert place.status()["state"] == "stopped"

    resumed = place.rscoop("resume", "-q", "last")
    assert resumed.expect() == ANSWER
    assert place.rscoop("logs", "last").expect() == "start\n" + ANSWER
    assert sorted(set(ledger(place)), key=int) == [str(x) for x in range(60)]
    assert len(ledger(place)) <= 62  # items that were running at the stop may have run twice
    place.assert_nothing_left()


def test_a_second_ctrl_c_ends_everything_at_once(place: Place) -> None:
    place.write("""
        import time
        from resilient_scoop import futures
        def work(x):
            open("begun", "w").close()
            time.sleep(100)
        if __name__ == "__main__":
            list(futures.map(work, range(4)))
    """)
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until((place.folder / "begun").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert time.monotonic() - began < 2
    done.expect(130)
    assert "rscoop resume" in done.err
    place.assert_nothing_left()


def test_a_stop_does_not_wait_long_for_a_long_item(place: Place) -> None:
    place.write("""
        import time
        from resilient_scoop import futures
        def work(x):
            open("begun", "w").close()
            time.sleep(100)
        if __name__ == "__main__":
            list(futures.map(work, range(4)))
    """)
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until((place.folder / "begun").exists)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    finish(process).expect(130)
    assert time.monotonic() - began < 8
    place.assert_nothing_left()


def test_a_script_that_computes_alone_is_stopped_as_well(place: Place) -> None:
    place.write("""
        import time
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(futures.submit(abs, -1).result(), flush=True)
            open("begun", "w").close()
            while True: pass
    """)
    process = place.start("run", "-q", "-n", "1", "script.py")
    wait_until((place.folder / "begun").exists)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert finish(process).expect(143) == "1\n"
    assert time.monotonic() - began < 8
    place.assert_nothing_left()


def test_a_detached_run_is_watched_listed_and_finished(place: Place) -> None:
    place.write(SLOW)
    started_at = time.monotonic()
    detached = place.rscoop("run", "--detach", "-n", "2", "--name", "bg", "script.py")
    run = detached.expect().strip()
    assert time.monotonic() - started_at < 3
    assert f"rscoop attach {run}" in detached.err
    report = place.status("bg")
    assert (report["id"], report["state"]) == (run, "running")
    assert report["launcher"]["pid"] in place.processes()
    rows = json.loads(place.rscoop("runs", "--json").expect())["runs"]
    assert rows[0]["id"] == run
    busy = place.rscoop("resume", "last")
    busy.expect(73)
    assert str(report["launcher"]["pid"]) in busy.err
    assert os.uname().nodename in busy.err

    attached = place.rscoop("attach", "-q", "bg")

    assert attached.expect() == "start\n" + ANSWER
    assert place.status()["state"] == "finished"
    place.assert_nothing_left()
    assert place.rscoop("logs", run[:5]).expect() == "start\n" + ANSWER


def test_a_detached_run_is_cancelled_and_resumed(place: Place) -> None:
    place.write(SLOW)
    place.rscoop("run", "--detach", "-n", "2", "script.py").expect()
    wait_until(lambda: len(ledger(place)) > 5)
    cancelled = place.rscoop("cancel", "last")
    cancelled.expect()
    assert "rscoop resume" in cancelled.err
    place.assert_nothing_left()
    attached = place.rscoop("attach", "last")
    assert attached.expect(75) == "start\n"
    assert place.rscoop("resume", "-q", "last").expect() == ANSWER
    place.assert_nothing_left()
    again = place.rscoop("cancel", "last")
    again.expect()
    assert "not live" in again.err


def test_old_runs_are_removed_on_request(place: Place) -> None:
    place.run("print(1)").expect()
    place.run("import sys\nsys.exit(3)").expect(3)
    assert len(place.runs()) == 2
    first, failed = place.runs()
    assert first.name in place.rscoop("gc", "--older-than", "0s", "--dry-run").expect()
    assert place.runs() == [first, failed]
    place.rscoop("gc", "--older-than", "0s").expect()
    assert place.runs() == [failed], "one that could be resumed is kept"
    place.rscoop("gc", "--older-than", "0s", "--all").expect()
    assert place.runs() == []


def terminal(place: Place, *args: str, typed: str = "", timeout_s: float = 20.0) -> str:
    """Run a command on a separate terminal; return every byte that it displayed.

    `typed` is typed as soon as the screen shows a question mark.
    """
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(place.folder)
        import sys

        os.execve(sys.executable, [sys.executable, "-m", "resilient_scoop", *args], place.env())
    seen, until = b"", time.monotonic() + timeout_s
    while time.monotonic() < until:
        if not select.select([screen], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(screen, 1 << 16)
        except OSError:
            break  # the other side is closed
        seen += data
        if typed and b"?" in seen:
            os.write(screen, typed.encode())
            typed = ""
    os.close(screen)
    os.waitpid(pid, 0)
    return seen.decode()


def rendered(screen: str) -> list[str]:
    """Return the lines of a screen after carriage returns and clear-line sequences."""
    lines = []
    for line in screen.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in re.split(r"(\r|\x1b\[2K)", line):
            if part in ("\r", "\x1b[2K"):
                shown = ""
            else:
                shown += part
        lines.append(shown)
    return lines


def test_a_prompt_is_shown_and_the_script_gets_the_answer(place: Place) -> None:
    place.write("""
        import time
        from resilient_scoop import futures
        if __name__ == "__main__":
            name = input("Name? ")
            print("hello", name, list(futures.map(abs, [-1])))
    """)
    screen = terminal(place, "run", "-n", "1", "script.py", typed="Bob\n")
    *lines, last = [line for line in rendered(screen) if line]
    assert lines == ["Name? Bob", "hello Bob [1]"]
    assert re.match(r"rscoop: run \w+ finished in \d+\.\d s: 1 result", last)


def test_a_terminal_shows_the_complete_output_and_one_live_line(place: Place) -> None:
    place.write("""
        import time
        from resilient_scoop import futures
        def work(x): time.sleep(0.03); return x
        if __name__ == "__main__":
            for value in futures.map(work, range(60)):
                if value % 10 == 0: print("value", value)
            print("half a line", end="", flush=True)
            time.sleep(0.5)
            print(" and the rest")
    """)
    screen = terminal(place, "run", "-n", "2", "script.py")
    lines = rendered(screen)
    wanted = [f"value {x}" for x in range(0, 60, 10)] + ["half a line and the rest"]
    *shown, last = [line for line in lines if line]
    assert shown == wanted
    assert " finished in " in last
    assert re.search(r"\ds \| \d+ % \| 0\.0 work \d+/60 \|", screen), "the live line was drawn"
    assert "workers" in screen
    place.assert_nothing_left()
