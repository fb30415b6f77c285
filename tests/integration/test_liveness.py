"""A broker or an agent that has become silent: stopped by a signal, or in a loop."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

TASKS = 300
SCRIPT = f"""
import os, time
from resilient_scoop import futures

def work(x):
    time.sleep(0.04)
    with open("ledger", "a") as file: file.write(f"{{x}}\\n")
    return x

if __name__ == "__main__":
    print(sum(futures.map(work, range({TASKS}))))
"""
ANSWER = f"{sum(range(TASKS))}\n"
QUICK = """
import os, sys
if "resilient_scoop" in sys.orig_argv:
    from resilient_scoop.processes.launcher import watchdog
    watchdog.REPORT_S, watchdog.KILL_S, watchdog.LOOK_S = 1.0, 3.0, 0.3

def loop(name):
    def turn(self, *args, _turn=None):
        if os.path.exists(name):
            if not os.path.exists("for-ever"): os.unlink(name)
            while True: pass
        return turns[name](self, *args)
    return turn

os.chdir(os.environ["HERE"]) if "broker" in sys.orig_argv or "agent" in sys.orig_argv else None
turns = {}
if "broker" in sys.orig_argv:
    from resilient_scoop.processes.broker import main as broker
    from resilient_scoop.processes.broker.main import BrokerShell
    broker._QUIET_S = 1
    turns["loop-broker"], BrokerShell._turn = BrokerShell._turn, loop("loop-broker")
if "agent" in sys.orig_argv:
    from resilient_scoop.processes.agent.main import AgentShell
    turns["loop-agent"], AgentShell._turn = AgentShell._turn, loop("loop-agent")
"""


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    """A place whose processes can be made to loop, and count as dead sooner."""
    found = Place(tmp_path, state_dir)
    found.write(QUICK, "site/sitecustomize.py")
    path = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    found.environ.update(PYTHONPATH=os.pathsep.join(filter(None, path)), HERE=str(tmp_path))
    return found


def begun(place: Place, text: str = SCRIPT) -> subprocess.Popen[str]:
    place.write(text)
    process = place.start("run", "-q", "-n", "2", "script.py")
    ledger = place.folder / "ledger"
    wait_until(lambda: ledger.exists() and ledger.read_text().count("\n") > 20, 20.0)
    return process


def pid_of(place: Place, role: str) -> int:
    return next(pid for pid, words in place.processes().items() if f"entry {role}" in words)


def test_a_stopped_broker_is_reported_and_continues_unharmed(place: Place) -> None:
    process = begun(place)
    broker = pid_of(place, "broker")
    os.kill(broker, signal.SIGSTOP)
    time.sleep(6.0)  # twice the time after which a looping process is killed
    os.kill(broker, signal.SIGCONT)
    done = finish(process)
    assert done.expect() == ANSWER
    assert f"the broker (process {broker}) is stopped" in done.err
    assert "the broker reports again" in done.err
    assert "died" not in done.err
    place.assert_nothing_left()


def test_a_run_that_is_stopped_as_a_whole_continues_unharmed(place: Place) -> None:
    process = begun(place)
    everybody = list(place.processes())
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4.0)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    done = finish(process)
    assert (done.expect(), done.err) == (ANSWER, "")
    assert len((place.folder / "ledger").read_text().split()) == TASKS, (
        "no worker was taken for lost"
    )


@pytest.mark.parametrize("role", ["broker", "agent"])
def test_a_process_in_an_endless_loop_is_killed_and_started_again(place: Place, role: str) -> None:
    process = begun(place, SCRIPT.replace("sleep(0.04)", "sleep(0.1)"))
    (place.folder / f"loop-{role}").touch()
    done = finish(process, timeout_s=60.0)
    assert done.expect() == ANSWER
    assert f"the {role} has not reported for 3 s; it is killed and restarted" in done.err
    assert f"the {role} died" in done.err
    place.assert_nothing_left()


def test_a_broker_that_always_loops_is_given_up_and_no_result_is_lost(place: Place) -> None:
    process = begun(place)
    (place.folder / "for-ever").touch()
    (place.folder / "loop-broker").touch()
    done = finish(process, timeout_s=60.0)
    done.expect(70)
    assert "the broker failed 3 times" in done.err
    place.assert_nothing_left()
    (place.folder / "loop-broker").unlink()
    assert place.rscoop("resume", "-q", "last").expect() == ANSWER


FLOOD = """
import time
from resilient_scoop import futures

def work(x):
    return x

if __name__ == "__main__":
    for step in range(60):
        print(f"{step:03}" * 1000, flush=True)
        list(futures.map(work, range(2)))
"""


def _unread(pipe: int) -> int:
    """Return how many bytes wait in a pipe; its capacity is 65,536."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_ends_although_the_reader_of_its_output_does_not_read(
    place: Place, times: int
) -> None:
    place.write(FLOOD)
    process = place.start("run", "-q", "-n", "2", "script.py")
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    wait_until(lambda: _unread(pipe) > 40_000, 20.0)
    time.sleep(1.0)  # it is full by now
    began = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
    process.wait(20.0)
    assert time.monotonic() - began < (16.0 if times == 1 else 8.0)
    out, _ = process.communicate()
    assert process.returncode == 143
    place.assert_nothing_left()
    out += place.rscoop("resume", "-q", "last").expect()
    assert out == "".join(f"{step:03}" * 1000 + "\n" for step in range(60))
