"""Real file systems of a few MB that are full for a while: nothing fails, and the run reports it.

The scripts fill the disk themselves; a shell frees space again after some time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Final

import pytest

from tests.integration.runs import RSCOOP, Place

pytestmark = pytest.mark.real

IS_ROOT: Final = os.geteuid() == 0
TMPFS: Final = 'mount -t tmpfs -o size=24m,mode=700 none "$RSCOOP_STATE_DIR" || exit 90'
EXT4: Final = """
truncate -s 32M image && mkfs.ext4 -q -m 0 image || exit 90
mount -o loop image "$RSCOOP_STATE_DIR" || exit 90
chmod 700 "$RSCOOP_STATE_DIR"
"""
WATCH: Final = """
"$@" 2>errors & run=$!
ballast="$RSCOOP_STATE_DIR/ballast"
while kill -0 $run 2>/dev/null; do
    sleep 0.2
    [ -e "$ballast" ] || continue
    sleep 1
    if [ ! -e status ]; then
        until grep -q "no space left" errors; do kill -0 $run || break; sleep 0.1; done
        "${@:1:3}" status last >status; "${@:1:3}" why last 0 >why
        AT_FULL
    fi
    rm "$ballast"
done
wait $run
"""
FILL: Final = """
import os, time
import numpy as np
from resilient_scoop import checkpoint, futures, shared

def fill():
    fd = os.open(os.environ["RSCOOP_STATE_DIR"] + "/ballast", os.O_CREAT | os.O_WRONLY)
    try:
        for size in (1 << 20, 4096):
            try:
                while True: os.write(fd, bytes(size))
            except OSError: pass
    finally: os.close(fd)
"""


def run_on(place: Place, file_system: str, script: str, at_full: str = "") -> str:
    """Run a script on a separate file system; return its output."""
    if file_system == EXT4 and not IS_ROOT:
        pytest.skip("a loop device is for root")
    place.state.mkdir(0o700, exist_ok=True)
    place.write(FILL + script)
    apart = ["unshare", "-m"] if IS_ROOT else ["unshare", "-rm"]
    shell = file_system + WATCH.replace("AT_FULL", at_full or ":")
    done = subprocess.run(
        [*apart, "bash", "-c", shell, "-", *RSCOOP, "run", "-q", "-n", "2", "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == 90:
        pytest.skip(f"no right to mount: {done.stderr}")
    errors = (place.folder / "errors").read_text()
    assert done.returncode == 0, errors + done.stderr
    assert "no space left for" in errors, errors
    assert "; nothing is lost, and the run continues" not in done.stdout
    assert "died" not in errors.replace("the broker died (killed by SIGKILL)", ""), errors
    status = (place.folder / "status").read_text()
    assert "until the disk has space for" in status, status
    assert " free in " in status, status
    assert "the disk is full: " in (place.folder / "why").read_text()
    return done.stdout


EVERYTHING = """
def large(x): return np.full(200_000, x, dtype=float)
def mean(a): return float(a.mean() + shared.getConst("table")[3])
def chatty(x): print("x" * 9000, flush=True); return x
def outer(x): return sum(futures.map(len, [bytes([x]) * 1_200_000] * 2))

if __name__ == "__main__":
    list(futures.map(chatty, range(4)))
    fill(); shared.setConst(table=np.arange(200_000, dtype=float)); print("const")
    fill(); print(list(futures.map(mean, [large(1.0), large(2.0)])))
    fill(); print([float(a[0]) for a in futures.map(large, range(3))])
    fill(); print(len(futures.once(os.urandom, 1_500_000)), futures.submit(abs, -1).result())
    fill(); print(list(futures.map(outer, range(2))))
    fill(); print(sum(futures.map(chatty, range(200))))
    with checkpoint.durable(state=lambda: np.zeros(200_000), gen=0) as s:
        while s.gen < 2:
            s.state += sum(futures.map(abs, range(3)))
            s.gen += 1
            if s.gen == 1: fill()
            s.commit()
    print(s.state.sum())
    fill()
"""
EVERYTHING_OUT = (
    "const\n[4.0, 5.0]\n[0.0, 1.0, 2.0]\n1500000 1\n[2400000, 2400000]\n19900\n1200000.0\n"
)


@pytest.mark.parametrize("file_system", [TMPFS, EXT4], ids=["tmpfs", "ext4"])
def test_every_write_waits_for_space(place: Place, file_system: str) -> None:
    assert run_on(place, file_system, EVERYTHING) == EVERYTHING_OUT


WORDY = """
def wordy(x):
    fill()
    for _ in range(1500): print("a word " * 2000)
    return x

if __name__ == "__main__":
    print(futures.submit(wordy, 1).result())
"""
MORE_SPACE = 'mount -o remount,size=96m "$RSCOOP_STATE_DIR"'


def test_a_task_whose_output_waits_for_space_is_reported(place: Place) -> None:
    assert run_on(place, TMPFS, WORDY, MORE_SPACE) == "1\n"
    # The note is about the task's output, or about the journal, whichever waits first.
    status = (place.folder / "status").read_text()
    waits = r"worker w\d \(process \d+\) waits until the disk has space for"
    assert re.search(waits, status), status


KILL_BROKER = """
import json
import os
from pathlib import Path
mark = b"RSCOOP_STATE_DIR=" + os.environ["RSCOOP_STATE_DIR"].encode()
for folder in Path("/proc").glob("[0-9]*"):
    words = (folder / "cmdline").read_bytes().split(b"\\0")
    if b"broker" in words and mark in (folder / "environ").read_bytes(): os.kill(int(folder.name), 9)
"""
SMALL = """
def small(x): return bytes([x]) * 30_000

if __name__ == "__main__":
    fill()
    print(sum(map(len, futures.map(small, range(90)))))
"""


@pytest.mark.parametrize("file_system", [TMPFS, EXT4], ids=["tmpfs", "ext4"])
def test_a_broker_that_dies_on_a_full_disk_waits_for_space_to_begin(
    place: Place, file_system: str
) -> None:
    place.write(KILL_BROKER, "kill_broker.py")
    broker = f"{sys.executable} kill_broker.py; sleep 2"
    assert run_on(place, file_system, SMALL, broker) == "2700000\n"
    assert "the broker died (killed by SIGKILL)" in (place.folder / "errors").read_text()


STOPPED_AT_FULL = """
def measured(x): return len(x)
if __name__ == "__main__":
    fill()
    print(sum(futures.map(measured, [bytes(300_000)] * 40)))
"""
STOP = """
"$@" 2>errors & run=$!
until grep -q "no space left" errors; do kill -0 $run || exit 91; sleep 0.1; done
sleep 1; kill -INT $run; wait $run; echo $?
cat /dev/zero >"$RSCOOP_STATE_DIR/rest" 2>/dev/null
"${@:1:3}" runs --json; "${@:1:3}" rm last; "${@:1:3}" runs
"""


def test_a_run_that_stops_on_a_full_disk_reports_what_is_kept_and_can_be_removed(
    place: Place,
) -> None:
    place.state.mkdir(0o700, exist_ok=True)
    place.write(FILL + STOPPED_AT_FULL)
    apart = ["unshare", "-m"] if IS_ROOT else ["unshare", "-rm"]
    done = subprocess.run(
        [*apart, "bash", "-c", TMPFS + STOP, "-", *RSCOOP, "run", "-q", "-n", "2", "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == 90:
        pytest.skip(f"no right to mount: {done.stderr}")
    errors = (place.folder / "errors").read_text()
    code, _, rest = done.stdout.partition("\n")
    assert code == "130", errors + done.stderr
    table, end = json.JSONDecoder().raw_decode(rest)
    kept = table["runs"][0]["done"]
    assert f"stopped; {kept} result" in errors, (kept, errors)
    assert rest[end:].lstrip().startswith("removed "), done.stderr
    assert "no runs in" in done.stderr
