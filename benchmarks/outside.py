"""Starts what is measured, as its peer requires, and measures what is visible only from outside.

Every measurement is a process tree in its own session; all of it is killed if it takes too long,
and nothing is left of it when the next begins.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.grids import MODULES, WORKERS
from benchmarks.measures import Measured

HERE: Final = Path(__file__).resolve().parent
TIMEOUT_S: Final = 240.0
_POLL_S: Final = 0.05
_MARK: Final = "RSCOOP_BENCH"
_numbers = itertools.count()
_MAPS, _ITEMS = 20, 10_000


class MeasureError(Exception):
    """A measurement gave no figures; the text says what its process wrote last."""


def new_mark() -> str:
    """Return a mark that no other measurement has, so that no other measurement is killed."""
    return f"{_MARK}={os.getpid()}.{next(_numbers)}"


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of one measurement."""

    folder: Path  # on a real disk
    peer_python: str  # an interpreter that has the peers
    part: float = 1.0
    wait_s: float = 0.0  # how long to wait for a quiet machine, at most
    mark: str = ""  # is in the environment of its processes

    @property
    def state(self) -> Path:
        """The folder of our runs."""
        return self.folder / "state"

    @property
    def errors(self) -> Path:
        """What the last measurement wrote to its standard error."""
        return self.folder / "stderr"

    def python(self, peer: str) -> str:
        """Return the interpreter that runs a peer."""
        return sys.executable if peer == "ours" else self.peer_python

    def command(self, peer: str, script: str, *words: str) -> list[str]:
        """Return the command that runs one of our scripts under a peer."""
        start = [self.python(peer)]
        if peer == "ours":
            start += ["-m", "resilient_scoop", "run", "-q", "-n", str(WORKERS)]
        elif peer == "scoop":
            start += ["-m", "scoop", "-n", str(WORKERS)]
        return [*start, str(HERE / script), *words]

    def environ(self) -> dict[str, str]:
        """Return the environment of what is measured."""
        peers = str(Path(self.peer_python).parent)  # Parsl looks for its programs there
        return os.environ | {
            "PYTHONPATH": str(HERE.parent),
            "RSCOOP_STATE_DIR": str(self.state),
            "PATH": f"{peers}:{os.environ['PATH']}",
            _MARK: self.mark.partition("=")[2],
        }

    def has(self, peer: str) -> bool:
        """Return whether a peer is installed."""
        module = MODULES.get(peer)
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        done = module is None or subprocess.run([self.python(peer), "-c", code], check=False)
        return done is True or done.returncode == 0


@contextmanager
def started(
    bench: Bench, command: list[str], *, keep: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Start a measurement; on exit, end its processes, and remove its runs unless `keep`."""
    with bench.errors.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=bench.folder, env=bench.environ(), stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    timer = threading.Timer(TIMEOUT_S, kill_family, [bench])
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        kill_family(bench)
        process.communicate()
        if not keep:
            _clear(bench)


def _clear(bench: Bench) -> None:
    """Remove our runs, except those of a measurement that failed: their logs say why."""
    if sys.exc_info()[0] is None:
        shutil.rmtree(bench.state, ignore_errors=True)
    elif bench.state.exists():
        bench.state.rename(Path(tempfile.mkdtemp(prefix="failed-", dir=bench.folder)) / "state")


def family(bench: Bench) -> list[psutil.Process]:
    """Return all live processes of the present measurement.

    They are recognized by a variable in their environment, because some daemons leave their
    parents, and by their parents, because others overwrite their environment.
    """
    found: set[psutil.Process] = set()
    mark = bench.mark.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                process = psutil.Process(int(entry.name))
                found |= {process, *process.children()}
        except (OSError, psutil.NoSuchProcess):
            continue  # it ended, or is another user's
    return list(found)


def kill_family(bench: Bench) -> None:
    """Kill all processes of a measurement, also those that are being started."""
    while found := family(bench):
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=1)


def notes(bench: Bench) -> list[str]:
    """Return the messages of one of our runs; without kills there should be none."""
    return [line for line in bench.errors.read_text().splitlines() if line.startswith("rscoop:")]


def line_of(process: subprocess.Popen[str], mark: str) -> str:
    """Return the text after `mark` on the line that begins with it."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        if line.startswith(mark):
            return line.removeprefix(mark).strip()
        seen.append(line)
    raise MeasureError(f"ended with {process.wait()} before {mark}: {''.join(seen[-3:])!r}")


def take(bench: Bench, peer: str, case: str) -> Measured:
    """Take one measurement of one peer, in separate processes."""
    if case == "first":
        return first(bench, peer)
    if case == "resume":
        return resume(bench)
    words = [peer, case, str(bench.part), str(bench.folder)]
    with started(bench, bench.command(peer, "inside.py", *words)) as process:
        if case == "idle":
            line_of(process, "IDLE")
            time.sleep(1)
            return memory(bench)
        if case == "million" and peer == "ours":
            return million(bench, process)
        measured: Measured = json.loads(line_of(process, "FIGURES"))
        process.wait()
        return measured


def first(bench: Bench, peer: str) -> Measured:
    """Return the time from the command to the line with the first result."""
    command = bench.command(peer, "first.py", peer)
    began = time.monotonic()
    with started(bench, command) as process:
        line_of(process, "FIRST")
        return {"took_s": time.monotonic() - began}


def memory(bench: Bench) -> Measured:
    """Return the memory of all processes: private (USS), and with their part of shared memory (PSS)."""
    infos = [process.memory_full_info() for process in family(bench)]
    if not any(info.uss for info in infos):
        raise MeasureError("had ended when it should have been idle")
    return {
        "uss_mb": sum(info.uss for info in infos) / 1e6,
        "pss_mb": sum(info.pss for info in infos) / 1e6,
        "processes": float(len(infos)),
    }


def million(bench: Bench, process: subprocess.Popen[str]) -> Measured:
    """Return the figures of the million map, and the peak memory of broker and origin."""
    peaks: dict[str, float] = {}
    watcher = threading.Thread(target=_watch_peaks, args=[bench, process, peaks])
    watcher.start()
    measured: Measured = json.loads(line_of(process, "FIGURES"))
    process.wait()
    watcher.join()
    return measured | {f"{role}_mb": peak for role, peak in peaks.items()}


def _watch_peaks(bench: Bench, process: subprocess.Popen[str], peaks: dict[str, float]) -> None:
    """Record the peak memory; a restarted broker, or a child of it, counts as a broker too."""
    while process.poll() is None:
        for found in family(bench):
            role = _role(found)
            if role:
                peaks[role] = max(peaks.get(role, 0.0), _peak_mb(found.pid))
        time.sleep(_POLL_S * 3)


def _role(process: psutil.Process) -> str:
    """Return `broker` or `origin` if the process is one."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    is_ours = "resilient_scoop.processes.entry" in words
    return next((word for word in words if is_ours and word in {"broker", "origin"}), "")


def _peak_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 / 1e6 if found else 0.0


def resume(bench: Bench) -> Measured:
    """Kill a run with 200,000 journaled items, resume it, return the time to its first new item."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    items = str(max(1, int(_ITEMS * bench.part)))
    command = bench.command("ours", "long.py", str(folder), str(_MAPS), items)
    with started(bench, command, keep=True) as run:
        _await(folder / "journaled", run)
    (folder / "go").touch()
    began = time.monotonic()
    with started(bench, [sys.executable, "-m", "resilient_scoop", "resume", "-q", "last"]) as run:
        _await(folder / "stamps", run)
        run.wait()
    stamps = (folder / "stamps").read_text().split()
    shutil.rmtree(folder)
    return {"took_s": float(stamps[0]) - began}


def _await(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not path.exists():
        if process.poll() is not None and not path.exists():
            raise MeasureError(f"ended with {process.returncode} before {path.name} was there")
        if time.monotonic() > until:
            raise MeasureError(f"{path.name} was not there after {TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S / 5)
