"""Limits of the system: each gives a clear message, nothing hangs or is left, and a resume finishes.

Root may do anything, so the tests of root run the commands without root's capabilities, or as a
user that does not exist; other users run them directly.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.integration.runs import RSCOOP, Done, Place

pytestmark = pytest.mark.real

IS_ROOT: Final = os.geteuid() == 0
_CAPABILITIES: Final = (0, 1, 2, 3)  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
_PR_CAPBSET_DROP: Final = 24
SCRIPT: Final = """
import os
from resilient_scoop import futures
def square(x): return x * x
if __name__ == "__main__":
    print(sum(futures.map(square, range(100))))
    if os.path.exists("again"): raise SystemExit(5)
"""
ANSWER: Final = f"{sum(x * x for x in range(100))}\n"


def bound_by_modes() -> None:
    """Make file modes apply to this process, also if it runs as root."""
    if IS_ROOT:
        for capability in _CAPABILITIES:
            ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def rscoop(
    place: Place, *args: str, before: Callable[[], None], prefix: tuple[str, ...] = ()
) -> Done:
    """Run `rscoop ARGS` after a call of `before` in its process; it may take 30 s."""
    done = subprocess.run(
        [*prefix, *RSCOOP, *args], cwd=place.folder, env=place.env(), capture_output=True,
        text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, preexec_fn=before,
    )  # fmt: skip
    place.assert_nothing_left()
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_state_folder_without_permissions_is_named_and_another_is_recommended(
    place: Place, mode: int
) -> None:
    place.write(SCRIPT)
    place.state.mkdir(mode)
    done = rscoop(place, "run", "-q", "-n", "1", "script.py", before=bound_by_modes)
    place.state.chmod(0o700)
    assert done.code == 2
    assert f"runs can't be kept in {place.state}" in done.err
    assert "ermission denied; choose another folder with --state-dir" in done.err
    assert place.runs() == []


@pytest.mark.parametrize(
    ("where", "mode"),
    [(".", 0o500), (".", 0o000), ("journal", 0o500), ("journal/data.mdb", 0o400),
     ("journal/data.mdb", 0o000), ("..", 0o000), ("logs", 0o500), ("lock", 0o000)],
)  # fmt: skip
def test_a_run_without_permissions_is_not_reported_as_damaged_and_continues_when_they_are_back(
    place: Place, where: str, mode: int
) -> None:
    (place.folder / "again").touch()
    place.run(SCRIPT).expect(5)
    (place.folder / "again").unlink()
    path = place.runs()[0] / where
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        found = [
            rscoop(place, *words, before=bound_by_modes)
            for words in (
                ("runs",), ("status", "last"), ("logs", "last"), ("gc",),
                ("journal", "verify", "last"), ("resume", "-q", "last"),
            )
        ]  # fmt: skip
    finally:
        path.chmod(before)
    resumed = found[-1]
    if resumed.code:  # because `logs` may be irrelevant
        assert "ermission denied" in resumed.err
        assert "damaged" not in resumed.err
        assert resumed.code in (2, 74, 75)
        rscoop(place, "resume", "-q", "last", before=bound_by_modes).expect(0)
    assert place.rscoop("logs", "last").expect() == ANSWER


def tasks_of(uid: int) -> int:
    """Return how many processes and threads a user has."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == uid:
                count += len(list((folder / "task").iterdir()))
        except OSError:
            continue  # it has just ended
    return count


@pytest.mark.parametrize("more", [2, 3, 5, 8, 12])
def test_a_limit_of_processes_stops_the_run_with_a_clear_message(place: Place, more: int) -> None:
    uid = 100_000 + os.getpid() % 50_000 if IS_ROOT else os.geteuid()
    prefix: tuple[str, ...] = ()
    if IS_ROOT:
        right = "-all,+dac_read_search"  # the interpreter may be in root's home
        prefix = (
            "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
            f"--inh-caps={right}", f"--ambient-caps={right}",
        )  # fmt: skip
        place.state.mkdir()
        for path in (place.folder, place.state):
            os.chown(path, uid, uid)
    place.write(SCRIPT)

    def limit() -> None:
        most = tasks_of(uid) + more
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))

    began = time.monotonic()
    done = rscoop(place, "run", "-q", "-n", "2", "script.py", before=limit, prefix=prefix)
    assert time.monotonic() - began < 25
    assert "ulimit -u" in done.err, done.err
    assert "rscoop resume" in done.err, done.err
    assert done.err.count("\n") < 15, done.err
    assert done.code == 75, done.err
    resumed = rscoop(place, "resume", "-q", "last", before=lambda: None, prefix=prefix)
    assert resumed.expect() == ANSWER


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        (resource.RLIMIT_AS, 60_000_000),
        (resource.RLIMIT_AS, 115_000_000),
        (resource.RLIMIT_NOFILE, 10),
        (resource.RLIMIT_NOFILE, 12),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NOFILE, 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_FSIZE, 20_000),
    ],
)
def test_a_reached_limit_is_named_and_a_resume_without_it_finishes(
    place: Place, kind: int, amount: int
) -> None:
    place.write(SCRIPT)
    done = rscoop(
        place, "run", "-q", "-n", "2", "script.py",
        before=lambda: resource.setrlimit(kind, (amount, amount)),
    )  # fmt: skip
    if done.code == 0:  # enough on this system
        assert done.out == ANSWER
        return
    assert done.code in (74, 75), done.err
    assert "ulimit -" in done.err, done.err
    if place.runs():
        resumed = rscoop(place, "resume", "-q", "last", before=lambda: None)
        assert resumed.expect() == ANSWER


@pytest.mark.parametrize("mebibytes", [400, 600, 800])
def test_a_run_needs_little_address_space(place: Place, mebibytes: int) -> None:
    place.write(SCRIPT)
    amount = mebibytes << 20
    done = rscoop(
        place, "run", "-n", "2", "script.py",
        before=lambda: resource.setrlimit(resource.RLIMIT_AS, (amount, amount)),
    )  # fmt: skip
    assert (done.code, done.out) == (0, ANSWER), done.err
    assert "crash" not in done.err


FULL_DISK: Final = """
mount -t tmpfs -o size=6m,mode=700 none "$RSCOOP_STATE_DIR" || exit 90
"$@" 2>errors &
until grep -q "no space left" errors; do kill -0 $! || break; sleep 0.1; done
mount -o remount,size=300m "$RSCOOP_STATE_DIR" || exit 91
wait $!
"""
FULL_SHM: Final = """
mount -t tmpfs -o size=16k none /dev/shm || exit 90
cat /dev/zero 2>/dev/null > /dev/shm/full
exec "$@"
"""


def in_own_mounts(place: Place, shell: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems, with the command for a run as its arguments."""
    apart = ["unshare", "-m"] if IS_ROOT else ["unshare", "-rm"]
    return subprocess.run(
        [*apart, "bash", "-c", shell, "-", *RSCOOP, "run", "-q", "-n", "2", "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_run_on_a_full_disk_continues_by_itself_when_there_is_space(place: Place) -> None:
    place.state.mkdir(0o700)
    place.write("""
        from resilient_scoop import futures
        def work(x): return bytes([x]) * 600_000
        if __name__ == "__main__":
            print(sum(map(len, futures.map(work, range(60)))))
    """)
    done = in_own_mounts(place, FULL_DISK)
    errors = (place.folder / "errors").read_text()
    assert (done.returncode, done.stdout) == (0, "36000000\n"), errors + done.stderr
    assert "no space left for the journal" in errors
    assert "there is room for the journal again" in errors


def test_a_full_shared_memory_does_not_matter(place: Place) -> None:
    assert shutil.which("unshare"), "util-linux has it"
    place.write(SCRIPT)
    done = in_own_mounts(place, FULL_SHM)
    assert (done.returncode, done.stdout) == (0, ANSWER), done.stderr
