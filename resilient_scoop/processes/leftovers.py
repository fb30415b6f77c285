"""What tasks and the script have started and left behind: found, and ended (NO-LEFTOVERS).

A worker that is killed takes along what its tasks had started, since they run again. A run that is
stopped, or whose launcher is killed, takes along everything. At its end in order a run leaves, as
plain Python does, what the program has put into a session or process group of its own; what is in a
worker's own process group ends with the worker. Where launcher and agent were killed at once, the resume
ends what is left.

They are found by their session; by a mark in the environment they inherited (who makes the
environment of a child anew loses it); and, since agent and launcher are subreapers, as children that
these have adopted.
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


def mark_of(run_id: str, agent: bytes) -> str:
    """Return how the marks of an agent's processes begin; the rest is the process' incarnation."""
    return f"{run_id}.{agent.hex()}."


def adopt() -> None:
    """Have the kernel make orphans among our descendants our children."""
    import ctypes

    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _processes() -> Iterable[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            stat = (folder / "stat").read_text("utf-8", "replace").rpartition(") ")[2].split()
            yield int(folder.name), stat


def of_session(session: int, mark: str) -> set[int]:
    """Return the processes that are in a session, or bear a mark that begins so."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = set()
    for pid, stat in _processes():
        if stat[_STATE] in "ZX" or pid == os.getpid():
            continue
        if int(stat[_SESSION]) == session or _bears(pid, wanted):
            found.add(pid)
    return found


def of_run(run_id: str) -> set[int]:
    """Return what was started in earlier launches of a run, but for those that started this process."""
    found = of_session(-1, f"{run_id}.")
    parents = {pid: int(stat[_PARENT]) for pid, stat in _processes()}
    above = os.getpid()
    while above in parents:
        found.discard(above)
        above = parents.pop(above)
    return found


def below(spared: Collection[int]) -> set[int]:
    """Return all processes below this one, but for those that are spared and what is below them."""
    kids: dict[int, list[int]] = {}
    for pid, stat in _processes():
        if stat[_STATE] not in "ZX" and pid not in spared:
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
        return False  # another user's, or gone
    return environ.startswith(wanted) or b"\0" + wanted in environ


def end_all(find: Callable[[], set[int]]) -> int:
    """Kill what is found until nothing is: they may start others meanwhile. Return how many were."""
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


def bury(spared: Collection[int]) -> None:
    """Take note of adopted children that have ended; `spared` are others' to wait for."""
    me = os.getpid()
    try:
        children = Path(f"/proc/{me}/task/{me}/children").read_text("ascii").split()
    except OSError:
        return  # a kernel without it: they are buried when we end
    for child in children:
        if int(child) not in spared:
            with suppress(ChildProcessError):
                os.waitpid(int(child), os.WNOHANG)
