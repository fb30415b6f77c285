"""Find and end the processes that tasks and the script have started and left (NO-LEFTOVERS).

When a worker is killed, the processes that its tasks had started are ended, because the tasks run
again. When a run is stopped, or its launcher is killed, all such processes are ended. When a run
ends normally, processes in a session or process group of their own stay, as under plain Python;
processes in a worker's process group end with the worker. If launcher and agent were killed at the
same time, the resume ends what is left.

They are found by their session; by a mark in the inherited environment (lost if a child gets a new
environment); and, because agent and launcher are subreapers, as children that these have adopted.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

VARIABLE: Final = "RSCOOP_PROCESS"
_SUBREAPER: Final = 36
_ROUNDS: Final = 20
_STATE, _PARENT, _GROUP, _SESSION = range(4)


def mark_of(run_key: str, agent: bytes, host: str = "") -> str:
    """Return the prefix of the marks of an agent's processes; the rest is the incarnation.

    `run_key`: `RunDir.key`. `host`: the name of another host than the run's.
    """
    return f"{run_key}{host and '@'}{host}.{agent.hex()}."


def adopt() -> None:
    """Make this process the parent of orphans among its descendants."""
    import ctypes

    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _processes() -> Iterable[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            stat = (folder / "stat").read_text("utf-8", "replace").rpartition(") ")[2].split()
            yield int(folder.name), stat


def of_session(session: int, mark: str) -> set[int]:
    """Return the processes that are in a session, or have a mark with this prefix."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = set()
    for pid, stat in _processes():
        if stat[_STATE] in "ZX" or pid == os.getpid():
            continue
        if int(stat[_SESSION]) == session or _bears(pid, wanted):
            found.add(pid)
    return found


def of_run(run_key: str, host: str = "") -> set[int]:
    """Return the processes of earlier launches of a run, except ancestors of this process."""
    found = of_session(-1, f"{run_key}{host and '@'}{host}.")
    parents = {pid: int(stat[_PARENT]) for pid, stat in _processes()}
    above = os.getpid()
    while above in parents:
        found.discard(above)
        above = parents.pop(above)
    return found


def below(kept: Collection[int]) -> set[int]:
    """Return all descendants of this process, except the spared ones and their descendants."""
    kids: dict[int, list[int]] = {}
    for pid, stat in _processes():
        if stat[_STATE] not in "ZX" and pid not in kept:
            kids.setdefault(int(stat[_PARENT]), []).append(pid)
    found, left = set(), [os.getpid()]
    while left:
        mine = kids.get(left.pop(), [])
        found.update(mine)
        left += mine
    return found


def _bears(pid: int, wanted: bytes) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False  # another user's process, or an ended one
    return environ.startswith(wanted) or b"\0" + wanted in environ


def end_all(find: Callable[[], set[int]]) -> int:
    """Kill the found processes until there are none: they may start others. Return how many were killed."""
    ended = set[int]()
    for _ in range(_ROUNDS):
        found = find()
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended |= found
        if not found:
            break
    return len(ended)


def bury(kept: Collection[int]) -> None:
    """Reap adopted children that have ended, except `kept`, which others wait for."""
    me = os.getpid()
    try:
        children = Path(f"/proc/{me}/task/{me}/children").read_text("ascii").split()
    except OSError:
        return  # a kernel without it: they are reaped when this process ends
    for child in children:
        if int(child) not in kept:
            with suppress(ChildProcessError):
                os.waitpid(int(child), os.WNOHANG)
