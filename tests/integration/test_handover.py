"""Runs that are asked for checkpoints: by signals, a time limit, the command line."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

WIDTH, GENERATIONS = 6, 60
EA = f"""
import time
from resilient_scoop import checkpoint, futures

def work(x):
    time.sleep(0.02)
    with open("ledger", "a") as file: file.write(f"{{x}}\\n")
    return x * x

if __name__ == "__main__":
    with checkpoint.durable(gen=0, total=0) as s:
        while s.gen < {GENERATIONS}:
            at = s.gen * {WIDTH}
            s.total += sum(futures.map(work, range(at, at + {WIDTH})))
            with open("replays", "a") as file: file.write(f"{{s.gen}}\\n")
            s.gen += 1
            s.commit(every_s=1000)
    print("total", s.total)
"""
ANSWER = f"total {sum(x * x for x in range(GENERATIONS * WIDTH))}\n"


def lines(place: Place, name: str) -> list[str]:
    path = place.folder / name
    return path.read_text().split() if path.exists() else []


def begun(place: Place, *args: str, text: str = EA, generations: int = 8) -> subprocess.Popen[str]:
    """Start a script, and wait until it has done some generations."""
    place.write(text)
    process = place.start("run", "-q", "-n", "2", *args, "script.py")
    wait_until(
        lambda: len(lines(place, "replays")) >= generations or process.poll() is not None, 20.0
    )
    return process


def wall_clock(ahead_s: int) -> str:
    """Return a time in the notation of SLURM."""
    return str(int(time.time()) + ahead_s)  # noqa: TID251


def assert_resumes(place: Place) -> None:
    """Check that a resume ends correctly and replays at most one generation."""
    resumed = place.rscoop("resume", "-q", "last")
    assert resumed.expect() == ANSWER
    replays = lines(place, "replays")
    assert len(replays) <= GENERATIONS + 1, f"{len(replays)} of {GENERATIONS}"
    assert len(lines(place, "ledger")) <= (GENERATIONS + 1) * WIDTH
    place.assert_nothing_left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_stops_the_run_after_a_checkpoint(
    place: Place, number: signal.Signals, code: int
) -> None:
    process = begun(place)
    process.send_signal(number)
    # batch systems send their signals to every process that they find
    process.send_signal(signal.SIGUSR1)
    done = finish(process)
    done.expect(code)
    assert f"{number.name}: asking for checkpoints" in done.err
    assert "1 parent asked for a checkpoint" in done.err
    assert re.search(
        r"saved and stopped; \d+ results are kept; to continue: rscoop resume \w+", done.err
    )
    place.assert_nothing_left()
    assert_resumes(place)


def test_a_time_limit_stops_the_run_after_a_checkpoint(place: Place) -> None:
    process = begun(place, "--time-limit", "2s", generations=1000)
    done = finish(process)
    done.expect(75)
    assert "the time limit is near: asking for checkpoints" in done.err
    assert re.search(r"run \w+ (saved and stopped|stopped);", done.err)
    assert place.rscoop("resume", "-q", "--time-limit", "none", "last").expect() == ANSWER


def test_the_batch_systems_time_limit_is_reported_and_kept(place: Place) -> None:
    place.environ["SLURM_JOB_END_TIME"] = wall_clock(10)
    process = begun(place, text=EA.replace("sleep(0.02)", "sleep(0.1)"), generations=1000)
    done = finish(process)
    done.expect(75)
    assert "time limit from SLURM_JOB_END_TIME: saves checkpoints and stops in" in done.err
    assert "saved and stopped" in done.err
    off = place.rscoop("resume", "-q", "--time-limit", "none", "last")
    assert off.expect() == ANSWER
    assert "time limit" not in off.err


def test_the_command_stops_a_detached_run_after_a_checkpoint(place: Place) -> None:
    place.write(EA)
    run = place.rscoop("run", "--detach", "-n", "2", "script.py").expect().strip()
    wait_until(lambda: len(lines(place, "replays")) >= 8, 20.0)
    asked = place.rscoop("checkpoint", run)
    asked.expect()
    assert f"1 of 1 parents saved; it has stopped; to continue: rscoop resume {run}" in asked.err
    assert_resumes(place)
    again = place.rscoop("checkpoint", run)
    again.expect(2)
    assert "is not live" in again.err
    place.rscoop("checkpoint", "nobody").expect(2)


def test_the_command_saves_and_the_run_continues(place: Place) -> None:
    process = begun(place)
    # it saves after these, some time before the command returns
    saved = len(lines(place, "replays"))
    asked = place.rscoop("checkpoint", "--go-on", "last")
    asked.expect()
    assert "1 of 1 parents saved; it continues" in asked.err
    assert process.poll() is None
    second = place.rscoop("checkpoint", "--go-on", "--no-wait", "last")
    second.expect()
    count = len(lines(place, "replays"))
    wait_until(lambda: len(lines(place, "replays")) >= count + 2, 20.0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not place.processes(), 20.0)
    before = len(lines(place, "replays"))
    assert place.rscoop("resume", "-q", "last").expect() == ANSWER
    replayed = len(lines(place, "replays")) - GENERATIONS
    assert replayed <= before - saved + 1


def test_a_request_does_not_kill_a_run_that_has_just_been_started(place: Place) -> None:
    place.write(EA)
    run = place.rscoop("run", "--detach", "-n", "2", "script.py").expect().strip()
    asked = place.rscoop("checkpoint", run)
    asked.expect()
    assert "it has stopped" in asked.err
    assert place.rscoop("resume", "-q", "last").expect() == ANSWER


NESTED = """
import time
from resilient_scoop import checkpoint, futures
def work(x):
    time.sleep(0.02)
    return x
def island(k):
    with checkpoint.durable(gen=0, total=0) as s:
        while s.gen < 50:
            s.total += sum(futures.map(work, range(3)))
            s.gen += 1
            if k == 0:
                with open("replays", "a") as file: file.write("x\\n")
            s.commit(every_s=1000)
    return s.total
if __name__ == "__main__":
    print(list(futures.map(island, range(3))))
"""


def test_nested_parents_save_and_a_killed_worker_s_items_are_awaited(place: Place) -> None:
    process = begun(place, text=NESTED)
    done = place.rscoop("checkpoint", "last")
    done.expect()
    assert re.search(r"([23]) of \1 parents saved", done.err)
    finish(process).expect(75)
    assert place.rscoop("resume", "-q", "last").expect() == f"{[150] * 3}\n"


def test_the_broker_may_die_while_it_waits(place: Place) -> None:
    text = EA.replace("s.gen += 1\n", "s.gen += 1\n            time.sleep(0.5)\n")
    process = begun(place, text=text.replace("gen < 60", "gen < 9"), generations=3)
    process.send_signal(signal.SIGTERM)
    brokers = [pid for pid, words in place.processes().items() if "entry broker" in words]
    for pid in brokers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    done = finish(process)
    done.expect(143)
    assert "the broker died" in done.err
    assert re.search(r"run \w+ (saved and stopped|stopped);", done.err)
    replays = len(lines(place, "replays"))
    place.rscoop("resume", "-q", "last").expect()
    assert len(lines(place, "replays")) <= max(9, replays) + 1
    place.assert_nothing_left()


BLOCKLESS = """
import time
from resilient_scoop import futures
def work(x):
    open("replays", "a").write("x\\n")
    time.sleep(0.05)
    return x
if __name__ == "__main__":
    print(sum(futures.map(work, range(100))))
"""


def test_without_a_block_the_run_stops_at_once(place: Place) -> None:
    process = begun(place, text=BLOCKLESS)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert time.monotonic() - began < 6
    done.expect(143)
    assert "no checkpoint block is open" in done.err
    assert re.search(r"run \w+ stopped; \d+ results are kept", done.err)
    assert place.rscoop("resume", "-q", "last").expect() == "4950\n"


NEVER = """
import time
from resilient_scoop import checkpoint, futures
if __name__ == "__main__":
    with checkpoint.durable(gen=0) as s:
        while True:
            list(futures.map(abs, [-1]))
            time.sleep(0.05)
            with open("replays", "a") as file: file.write("x\\n")
"""


def test_a_parent_that_never_commits_is_awaited_until_the_grace_ends(place: Place) -> None:
    place.environ["SLURM_JOB_END_TIME"] = wall_clock(15)
    process = begun(place, text=NEVER, generations=100_000)
    done = finish(process)
    done.expect(75)
    assert "1 of 1 parent did not commit in time" in done.err
    assert re.search(r"run \w+ stopped;", done.err)
    place.assert_nothing_left()


def test_a_second_sigterm_ends_everything_at_once(place: Place) -> None:
    process = begun(place, text=NEVER)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert "once more to stop at once" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert time.monotonic() - began < 3
    done.expect(143)
    assert "rscoop resume" in done.err
    place.assert_nothing_left()


CHILDREN = """
import os, subprocess, sys, time, multiprocessing
from resilient_scoop import futures

def solve(x):
    open(f"begun-{x}", "w").close()
    seconds = "0.5" if os.path.exists("resumed") else "60"
    subprocess.run(["sleep", seconds], check=True)
    return x

def forked(x):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(20)
    return process.exitcode

if __name__ == "__main__":
    print(*futures.map(forked, [0, 1]), flush=True)
    print(sum(futures.map(solve, [1, 2])))
"""


def test_a_failure_caused_by_a_signal_to_all_is_retried(place: Place) -> None:
    place.write(CHILDREN)
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until(lambda: all((place.folder / f"begun-{x}").exists() for x in (1, 2)), 20.0)
    wait_until(lambda: sum("sleep 60" in w for w in place.processes().values()) == 2, 20.0)
    for pid in place.processes():
        with contextlib.suppress(ProcessLookupError):  # a child that died of the signal before
            os.kill(pid, signal.SIGTERM)
    done = finish(process)
    assert done.expect(143) == "-15 -15\n", "a child of a task is not deaf"
    assert "died" not in done.err
    place.assert_nothing_left()
    (place.folder / "resumed").touch()
    assert place.rscoop("resume", "-q", "last").expect() == "3\n"
