"""Reaches into a host from outside: commands, sockets and processes, by the id of a process in it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_NEW_NETWORK = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def command(pid: int, spaces: tuple[str, ...], argv: list[str], folder: str = "/") -> list[str]:
    """Return the command line that runs `argv` in some namespaces of a process, in a folder."""
    where = [f"--{space}" for space in spaces]
    return ["nsenter", f"--target={pid}", *where, f"--wdns={folder}", "--", *argv]


def in_network(pid: int, work: Callable[[], T]) -> T:
    """Call a function in a thread that is in the network of a process, and return what it returns.

    Sockets that it makes stay in that network, and so do threads that it starts.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            _enter(pid)
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=inside, name=f"in the network of {pid}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _enter(pid: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(fd, _NEW_NETWORK) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), f"/proc/{pid}/ns/net")
    finally:
        os.close(fd)


def network_of(pid: int) -> str:
    """Return the name of a process's network namespace; empty if the process is gone."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""


def members(network: str) -> dict[int, str]:
    """Return the live processes in a network namespace: id -> command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or network_of(int(folder.name)) != network:
            continue
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words:  # otherwise a zombie
                found[int(folder.name)] = words.strip()
    return found


def started_at(pid: int) -> str:
    """Return when a process was started, in ticks since the boot: with the id, it identifies the process.

    Empty if there is no such process.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """Return the letter of a process's state; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""
