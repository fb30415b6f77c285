"""A program that describes a host, sent there on the standard input of its Python.

It needs nothing of ours there, and runs on every Python from 3.6 on, so that a host without our package can
be looked at too. It answers by one line of JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

PREFIX: Final = "rscoop-probe: "
CONNECT_S: Final = 5.0
FREE_BYTES_MIN: Final = 16 << 20
"""An agent keeps its files in the first folder that has so much space."""

_PROGRAM: Final = r"""
import json, os, platform, resource, shutil, socket, subprocess, sys, tempfile, time

def tried(call):
    try:
        return call()
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)

def writable(folder):
    fd, path = tempfile.mkstemp(prefix="rscoop-probe-", dir=folder)
    os.close(fd)
    os.unlink(path)
    return ""

def executable(folder):
    fd, path = tempfile.mkstemp(prefix="rscoop-probe-", dir=folder)
    try:
        os.write(fd, b"#!/bin/sh\nexit 0\n")
        os.fchmod(fd, 0o700)
        os.close(fd)
        subprocess.check_call([path])
        return ""
    finally:
        os.unlink(path)

def place():
    # where an agent would keep its files, as in processes/agent/guardian.py
    named, why = os.environ.get("RSCOOP_HOST_DIR"), []
    for base in [named] if named else [os.environ.get("TMPDIR"), "/var/tmp", tempfile.gettempdir()]:
        there = base
        while there and not os.path.isdir(there):
            there = os.path.dirname(there)
        if not base:
            continue
        failed = tried(lambda: writable(there))
        if not failed and shutil.disk_usage(there).free >= ASKED["free_bytes_min"]:
            return base, shutil.disk_usage(there).free, ""
        why.append("%s: %s" % (base, failed or "no space"))
    return "", 0, "; ".join(why)

def connected(address, port):
    with socket.create_connection((address, port), timeout=ASKED["connect_s"]) as sock:
        sock.sendall(ASKED["nonce"].encode())
        sock.settimeout(ASKED["connect_s"])
        if sock.recv(64) != ASKED["nonce"].encode():
            raise OSError("something else answers there")
    return ""

def versions():
    try:
        from importlib import metadata
    except ImportError:
        return {}
    found = {}
    for name in ASKED["packages"]:
        try:
            found[name] = metadata.version(name)
        except Exception:
            pass
    return found

def rscoop():
    from resilient_scoop._version import __version__
    return __version__

def memory():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

def cores():
    return len(os.sched_getaffinity(0))

def limits(which):
    return [-1 if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(which)]

def own_addresses():
    return sorted(set(each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)))

def number(value):
    return value if isinstance(value, int) else 0

at = time.time()
home, tmp = os.path.expanduser("~"), tempfile.gettempdir()
ours, mine = tried(rscoop), tried(own_addresses)
kept, kept_free, kept_why = place()
answer = {
    "at": at, "python": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable,
    "rscoop": None if ": " in ours else ours, "rscoop_why": ours if ": " in ours else "",
    "packages": versions(), "hostname": socket.gethostname(), "machine": platform.machine(),
    "byte_order": sys.byteorder, "cores": number(tried(cores)), "memory_bytes": number(tried(memory)),
    "home": home, "home_free_bytes": number(tried(lambda: shutil.disk_usage(home).free)),
    "home_why": tried(lambda: writable(home)),
    "tmp": tmp, "tmp_free_bytes": number(tried(lambda: shutil.disk_usage(tmp).free)),
    "tmp_why": tried(lambda: writable(tmp)), "tmp_exec_why": tried(lambda: executable(tmp)),
    "kept": kept, "kept_free_bytes": kept_free, "kept_why": kept_why,
    "files_max": limits(resource.RLIMIT_NOFILE)[0], "processes_max": limits(resource.RLIMIT_NPROC)[0],
    "own_addresses": mine if isinstance(mine, list) else [],
    "routes": dict((address, tried(lambda: connected(address, port))) for address, port in ASKED["routes"]),
}
sys.stdout.write("\nrscoop-probe: " + json.dumps(answer) + "\n")
"""


class ProbeTask(msgspec.Struct, frozen=True):
    """The input of the program."""

    packages: Sequence[str] = ()
    routes: Sequence[tuple[str, int]] = ()  # addresses here to which it connects
    nonce: str = ""
    connect_s: float = msgspec.field(default_factory=lambda: CONNECT_S)
    free_bytes_min: int = FREE_BYTES_MIN


class ProbeAnswer(msgspec.Struct, frozen=True):
    """The findings of the program; a `why` is an error's text, or empty if there is no problem."""

    at: float  # the host's clock, seconds since 1970
    python: str
    executable: str
    rscoop: str | None
    rscoop_why: str
    packages: dict[str, str]
    hostname: str
    machine: str
    byte_order: str
    cores: int
    memory_bytes: int
    home: str
    home_free_bytes: int
    home_why: str
    tmp: str
    tmp_free_bytes: int
    tmp_why: str
    tmp_exec_why: str
    kept: str  # where an agent would keep its files; empty: nowhere
    kept_free_bytes: int
    kept_why: str
    files_max: int  # -1: no limit
    processes_max: int
    own_addresses: list[str]  # of the host's own name, as it resolves it
    routes: dict[str, str]


def program(asked: ProbeTask) -> str:
    """Return the program's text."""
    text = msgspec.json.encode(asked).decode()
    return f"import json\nASKED = json.loads({text!r})\n{_PROGRAM}"


def read_answer(lines: Iterable[str]) -> ProbeAnswer | None:
    """Return the answer among lines of noise; None if there is none."""
    for line in lines:
        _, prefix, text = line.partition(PREFIX)
        if prefix:
            try:
                return msgspec.json.decode(text, type=ProbeAnswer)
            except (msgspec.MsgspecError, UnicodeError):
                continue
    return None
