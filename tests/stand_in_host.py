"""A stand-in for the program that a place starts on a host, and for the Python that runs it.

`write_python` writes an executable that answers as Python does to the search for one, and otherwise behaves
as the program `host`: in order, or wrongly in one way (a mode). It keeps the ids of its processes in a
folder, one file per tag, as the real one keeps its agents.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

MODES = (
    "good", "banner", "hang", "refused", "dies before", "dies after", "killed", "late", "twice", "lies",
    "forgets", "mumbles", "deaf", "unbroken",
)  # fmt: skip


def write_python(
    folder: Path, mode: str = "good", version: str | None = "0.1", python: str = "3.11.9"
) -> Path:
    """Write the stand-in; its name has a space, so that quoting is tested too."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "my python"
    found = json.dumps({"path": str(path), "python": python, "rscoop": version})
    path.write_text(
        "#!/bin/sh\n"
        f"""if [ "$1" = -c ]; then printf '\\nrscoop-python: %s\\n' '{found}'; exit; fi\n"""
        f"""exec {sys.executable} -I -S '{__file__}' '{mode}' '{folder}' "$@"\n"""
    )
    path.chmod(0o755)
    return path


def started(folder: Path, tag: str) -> list[int]:
    """Return the ids of all agents that were started under a tag, one a line of its file."""
    file = folder / f"{tag}.agents"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def alive(folder: Path, tag: str) -> list[int]:
    return [pid for pid in started(folder, tag) if _lives(pid)]


def tickets(folder: Path, tag: str) -> list[str]:
    file = folder / f"{tag}.tickets"
    return file.read_text().splitlines() if file.exists() else []


def end_all(folder: Path) -> None:
    for file in folder.glob("*.agents"):
        for pid in alive(folder, file.stem):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _say(**words: object) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"rscoop-host: {json.dumps(words)}\n".encode())


def _find(mode: str, folder: Path, tag: str) -> int:
    if mode == "mumbles":
        sys.stdout.write("what do you mean?\n")
        return 0
    pids = [] if mode == "forgets" else alive(folder, tag)
    sys.stdout.write("Last login: Monday\n" + json.dumps({"pids": pids}) + "\n")
    return 0


def _stop(folder: Path, tag: str) -> int:
    for pid in alive(folder, tag):
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while alive(folder, tag) and time.monotonic() < until:
        time.sleep(0.005)
    return 0


def _make_noise(mode: str) -> None:
    if mode == "banner":
        os.write(1, b"*** Welcome to ws1 ***\nquota: 17 % used")
        os.write(2, b"warning: setlocale failed\n")
    if mode == "unbroken":
        os.write(1, b"x" * 300_000)
    if mode == "lies":
        os.write(
            1, b'rscoop-host: I am fine\nrscoop-host: [1, 2]\nrscoop-host: {"state": "happy"}\n'
        )
        os.write(1, b"rscoop-host: \xff\xfe\n")


def _run(mode: str, folder: Path, tag: str) -> int:
    if mode in ("hang", "deaf"):  # it does not end by itself: `end_all` ends it
        with (folder / "programs.agents").open("a") as file:
            file.write(f"{os.getpid()}\n")
    if mode == "hang":
        time.sleep(600)
    _make_noise(mode)
    _say(state="starting")
    ticket = sys.stdin.readline()
    with (folder / f"{tag}.tickets").open("a") as file:
        file.write(ticket)
    if mode == "refused":
        _say(state="refused", why="Python 3.9 there, 3.11 here; install 3.11 there")
        return 1
    if mode == "dies before":
        os.write(2, b"ImportError: no module named zmq\n")
        return 3
    if mode == "late":
        time.sleep(1.0)
    others = alive(folder, tag)
    pid = others[0] if others else _agent(folder, tag)
    _say(state="running", host="ws1", pid=pid)
    if mode == "twice":
        _say(state="running", host="ws1", pid=pid + 1)
    if mode == "dies after":
        os.kill(pid, signal.SIGKILL)
        return 9
    if mode == "killed":
        os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return _serve(mode, folder, tag)


def _agent(folder: Path, tag: str) -> int:
    """Start a process that continues when the connection ends."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        time.sleep(600)
        os._exit(0)
    with (folder / f"{tag}.agents").open("a") as file:
        file.write(f"{pid}\n")
    return pid


def _serve(mode: str, folder: Path, tag: str) -> int:
    while line := sys.stdin.readline():
        if line.startswith("stop ") and mode != "deaf":
            _stop(folder, tag)
            _say(state="ended", why="asked to")
            return 0
    return 0


def main(mode: str, folder: Path, words: list[str]) -> int:
    assert words[:3] == ["-m", "resilient_scoop.processes.entry", "host"], words
    _, tag, *options = words[3:]
    if options[:1] == ["--find"]:
        return _find(mode, folder, tag)
    if options[:1] == ["--stop"]:
        return _stop(folder, tag)
    return _run(mode, folder, tag)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
