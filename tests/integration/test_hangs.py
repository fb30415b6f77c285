"""No run hangs or leaves processes: it ends with a clear message, or reports what it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

BODY = """
def square(x): return x * x
if __name__ == "__main__":
    print(sum(futures.map(square, range(10))), flush=True)
    if not os.path.exists("well"): {end}
    print("end")
"""
SCRIPT_ENDS = {
    "os.kill(os.getpid(), 9)": "the script's process was ended 5 times (killed by SIGKILL)",
    "os.kill(os.getpid(), 11)": "the script ended its own process 3 times (killed by SIGSEGV)",
}


@pytest.mark.parametrize("end", SCRIPT_ENDS)
def test_a_script_that_dies_at_the_same_point_stops_the_run_and_can_be_resumed(
    place: Place, end: str
) -> None:
    done = place.run("import os\nfrom resilient_scoop import futures\n" + BODY.format(end=end))
    assert done.expect(70) == "285\n"
    assert SCRIPT_ENDS[end] in done.err
    assert "made no progress in between: the run stops, and nothing is lost" in done.err
    assert "`rscoop resume" in done.err
    (place.folder / "well").touch()
    assert place.rscoop("resume", "-q", "last").expect() == "end\n"


def test_a_script_that_dies_often_but_makes_progress_is_started_again(place: Place) -> None:
    done = place.run("""
        import os
        from resilient_scoop import futures
        if __name__ == "__main__":
            for step in range(7):
                list(futures.map(abs, range(3)))
                try: os.close(os.open(f"died-{step}", os.O_CREAT | os.O_EXCL))
                except FileExistsError: continue
                os.kill(os.getpid(), 11)
            print("end")
    """)
    assert done.expect() == "end\n"


def test_workers_that_die_while_they_import_stop_the_run_and_it_can_be_resumed(
    place: Place,
) -> None:
    place.write("import os\nif not os.path.exists('well'): os.kill(os.getpid(), 9)\n", "fatal.py")
    done = place.run(
        "import os, sys\nfrom resilient_scoop import futures, IS_ORIGIN\n"
        "if not IS_ORIGIN: import fatal\n" + BODY.format(end="pass")
    )
    done.expect(70)
    assert "cannot start: it ended 5 times during its start (killed by SIGKILL)" in done.err
    (place.folder / "well").touch()
    assert place.rscoop("resume", "-q", "last").expect() == "285\nend\n"


def test_a_function_whose_loading_kills_the_worker_is_blamed(place: Place) -> None:
    place.write(
        "import os, resilient_scoop\n"
        "if not resilient_scoop.IS_ORIGIN: os._exit(3)\n"
        "def f(x): return x\n",
        "fatal.py",
    )
    done = place.run("""
        from resilient_scoop import futures
        if __name__ == "__main__":
            import fatal
            print(type(futures.submit(fatal.f, 1).exception()).__name__)
    """)
    assert done.expect() == "WorkerCrashedError\n"


SLOW = """
import time
from resilient_scoop import futures
def work(x): time.sleep(x / 10); return x
if __name__ == "__main__":
    print(sum(futures.map(work, [1] * 60 + [30])))
"""


def pids(place: Place, role: str) -> list[int]:
    return [pid for pid, words in place.processes().items() if f"entry {role}" in words]


def test_a_stopped_worker_and_a_stopped_script_are_reported_and_shown(place: Place) -> None:
    place.write(SLOW)
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until(lambda: len(pids(place, "worker")) == 2, 20.0)
    time.sleep(1.0)
    worker, origin = pids(place, "worker")[0], pids(place, "origin")[0]
    for pid in (worker, origin):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4.5)
    status = place.rscoop("status", "last").expect()
    why = place.rscoop("why", "last", "0").expect()
    for text in (status, why):
        assert f"(process {worker}) is stopped; " in text
        assert f"kill -CONT {worker}" in text
        assert f"the script's process (process {origin}) is stopped" in text
    for pid in (worker, origin):
        os.kill(pid, signal.SIGCONT)
    done = finish(process)
    assert done.expect() == "90\n"
    for pid in (worker, origin):
        assert f"(process {pid}) is stopped: nothing is lost" in done.err
        assert f"(process {pid}) runs again" in done.err
    place.assert_nothing_left()


STARTS = """
import os, subprocess, sys, time
from resilient_scoop import futures
def starts(k):
    if os.path.exists("well"): return k
    sleep = ["sleep", os.environ["NAP"]]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, process_group=0)
    subprocess.Popen(sleep, start_new_session=True)
    subprocess.Popen(sleep, start_new_session=True, env={"PATH": os.environ["PATH"]})
    if os.fork() == 0:  # a daemon
        os.setsid()
        if os.fork() == 0: os.execvp("sleep", sleep)
        os._exit(0)
    open(f"started-{os.getpid()}", "w").close()
    time.sleep(100)
if __name__ == "__main__":
    print(sum(futures.map(starts, range(2))))
"""


def napping(nap: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if (folder / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", nap.encode()]:
                found.append(int(folder.name))
    return found


def naps(nap: str) -> int:
    return len(napping(nap))


def started(place: Place, nap: str) -> subprocess.Popen[str]:
    place.write(STARTS)
    place.environ["NAP"] = nap
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until(lambda: len(list(place.folder.glob("started-*"))) == 2, 20.0)
    wait_until(lambda: naps(nap) == 10, 5.0, lambda: str(naps(nap)))
    return process


def test_a_killed_launcher_leaves_nothing_that_tasks_have_started(place: Place) -> None:
    nap = str(100_000 + os.getpid())
    process = started(place, nap)
    process.kill()
    process.communicate(timeout=10)
    wait_until(lambda: naps(nap) == 0, 3.0, lambda: str(naps(nap)))
    wait_until(lambda: not place.processes(), 3.0, lambda: str(place.processes()))


def test_a_killed_worker_or_agent_and_a_stopped_run_leave_nothing_that_tasks_have_started(
    place: Place,
) -> None:
    nap = str(500_000 + os.getpid())
    process = started(place, nap)
    for victim, path in (("worker", "started-*"), ("agent", "started-*")):
        for each in place.folder.glob(path):
            each.unlink()
        for pid in pids(place, victim):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(list(place.folder.glob("started-*"))) == 2, 20.0)
        # A process with its own session and environment is recognized only by its adoption.
        wait_until(lambda: naps(nap) <= 12, 5.0, lambda: str(naps(nap)))
    process.send_signal(signal.SIGINT)
    finish(process)
    wait_until(lambda: naps(nap) == 0, 3.0, lambda: str(naps(nap)))
    place.assert_nothing_left()


def test_processes_left_by_a_kill_of_everything_are_ended_by_the_resume(place: Place) -> None:
    nap = str(900_000 + os.getpid())
    process = started(place, nap)
    ours = [pid for pid, words in place.processes().items() if "resilient_scoop" in words]
    ours.sort(
        key=lambda pid: pid not in pids(place, "agent")
    )  # none ends a process that another one has started
    for end in (signal.SIGSTOP, signal.SIGKILL):
        for pid in ours:
            with suppress(ProcessLookupError):  # it died with its parent
                os.kill(pid, end)
    process.communicate(timeout=10)
    assert naps(nap) == 10
    (place.folder / "well").touch()
    done = place.rscoop("resume", "-q", "last")
    assert done.expect() == "1\n"
    for pid in napping(nap):  # these two have their own environment and session
        assert b"RSCOOP" not in Path(f"/proc/{pid}/environ").read_bytes()
        os.kill(pid, signal.SIGKILL)
    assert "processes that tasks of this run had started before it was killed" in done.err
    place.assert_nothing_left()
