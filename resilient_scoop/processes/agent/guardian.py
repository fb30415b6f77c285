"""The process that a place starts on a host: starts an agent, supervises it, cleans up after it.

    python -m resilient_scoop.processes.entry host RUN TAG              start an agent
    python -m resilient_scoop.processes.entry host RUN TAG --find       name the live agents of this tag
    python -m resilient_scoop.processes.entry host RUN TAG --stop S     end them, within S seconds

To start, it reads one line from standard input, the ticket. Later lines `stop SECONDS` end the agent in
order, a line `ticket TICKET` replaces its ticket; the end of the input means that the launcher is gone,
which the agent outlives. Lines on standard
output that begin with `rscoop-host: ` are for the place, in JSON.

When the agent and all its processes have ended, a line "over" names the agent, so that the broker
need not wait for the heartbeat timeout.

If an agent of this run is alive on the host (its launcher died), it gets the new ticket, and this
process acts as its guardian until it ends. An agent that is killed leaves nothing behind: this
process ends what its tasks had started, and removes its folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop.adapters import free_space
from resilient_scoop.core.endings import STOPPED
from resilient_scoop.errors import PlaceRefusedError, UsageError
from resilient_scoop.hosts.probe import FREE_BYTES_MIN
from resilient_scoop.processes import leftovers, starting
from resilient_scoop.processes.agent.remote import CONTROL, tell
from resilient_scoop.processes.failures import how
from resilient_scoop.processes.starting import ChildSettings
from resilient_scoop.runs.folder import check_owner
from resilient_scoop.transport.sockets import release, socket_path
from resilient_scoop.transport.tickets import Ticket, read_ticket

if TYPE_CHECKING:
    import subprocess

_ENTRY: Final = "resilient_scoop.processes.entry"
_FOLDER: Final = "RSCOOP_HOST_DIR"
_TICKET_S: Final = 60.0
"""How long the ticket may take to arrive."""
_LEFT_S: Final = 2.0
_LOCK_S: Final = 20.0
"""How long a guardian before may take to remove its folder, which may hold gigabytes."""
_LOOK_S: Final = 0.1
_HAND_OVER_S: Final = 30.0
_RENEW: Final = b"ticket "
_OF_HOST: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|MAIL|PWD|LD_\w+|VIRTUAL_ENV.*|CONDA_.*|XDG_.*|LANG|LC_.*|TZ"
    r"|HOSTTYPE|MACHTYPE|OSTYPE|LOADEDMODULES|MODULE\w*|_LMFILES_|PYENV_.*"
)
"""Variables that belong to a host, and not to a run."""


def main() -> int:
    """Run this process; return its exit status."""
    run_key, tag, *rest = sys.argv[2:]
    match rest:
        case ["--find"]:
            sys.stdout.write(json.dumps({"pids": _agents(run_key, tag)}) + "\n")
            return 0
        case ["--stop", grace_s]:
            return _stop(run_key, tag, float(grace_s))
        case _:
            return _start(run_key, tag)


def _agents(run_key: str, tag: str) -> list[int]:
    """Return the live agents of a tag on this host."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if _ENTRY in words and words[words.index(_ENTRY) + 1 :][:3] == [
                "remote-agent", run_key, tag,
            ]:  # fmt: skip
                found.append(int(folder.name))
    return found


def _is_let_in(agent: int) -> bool:
    """Return whether an agent is enrolled in its run; before that it ignores signals, and has no work."""
    return Path(f"/proc/{agent}/cwd/sock", CONTROL).exists()


def _stop(run_key: str, tag: str, grace_s: float) -> int:
    """End the agents of a tag: normally, then by kill."""
    pids = _agents(run_key, tag)
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _LEFT_S)):
        fds = []
        for pid in pids:
            with suppress(ProcessLookupError):
                fds.append(os.pidfd_open(pid))
                os.kill(pid, number if _is_let_in(pid) else signal.SIGKILL)
        until = time.monotonic() + wait_s
        for fd in fds:
            select.select([fd], [], [], max(0.0, until - time.monotonic()))
            os.close(fd)
        pids = _agents(run_key, tag)
        if not pids:
            return 0
    return 1


def _start(run_key: str, tag: str) -> int:
    tell(state="starting")
    try:
        return _serve(_read_ticket(run_key), tag)
    except PlaceRefusedError as error:
        tell(state="refused", why=str(error))
        return STOPPED


def _serve(ticket: Ticket, tag: str) -> int:
    """Start an agent, or adopt the existing one, until it ends; return the exit status."""
    host = ticket.host or os.uname().nodename
    until = time.monotonic() + _LOCK_S
    while True:
        folder = _make_folder(ticket.run_key, host)
        lock = _lock(folder)
        agent = _living(ticket.run_key, folder)
        if agent is not None:  # its guardian may have been killed, which released the lock
            return _stand_in(folder, ticket, host, agent)
        if lock is not None:
            return _Guardian(folder, lock, ticket, tag, host).serve()
        if time.monotonic() > until:
            raise PlaceRefusedError(
                f"another process holds {folder / 'lock'}: see which: fuser {folder / 'lock'}"
            )
        time.sleep(_LOOK_S)  # wait for a guardian that removes the folder


def _lock(folder: Path) -> int | None:
    """Take the lock of a folder; None if another guardian has it, or has just removed the folder."""
    path = folder / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    os.close(lock)
    return None


class _Living(NamedTuple):
    """An agent that is already running."""

    pid: int
    pidfd: int


def _living(run_key: str, folder: Path) -> _Living | None:
    """Return the live agent of a folder, if there is one."""
    for pid in _everybody(run_key):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            pidfd = os.pidfd_open(pid)
            if _is_of(pid, folder):
                return _Living(pid, pidfd)
            os.close(pidfd)
    return None


def _read_line() -> bytes:
    """Return one line of standard input, read no further than its end."""
    line = b""
    until = time.monotonic() + _TICKET_S
    while not line.endswith(b"\n"):
        if not select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
            raise PlaceRefusedError("no ticket arrived on standard input")
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


def _read_ticket(run_key: str) -> Ticket:
    try:
        ticket = read_ticket(_read_line())
    except msgspec.MsgspecError as error:
        raise PlaceRefusedError(f"what arrived on standard input is no ticket: {error}") from error
    if ticket.run_key != run_key:
        raise PlaceRefusedError(f"the ticket is for run {ticket.run_key}, not {run_key}")
    return ticket


def _make_folder(run_key: str, host: str) -> Path:
    """Return the folder of this host's part of the run, on a local disk.

    Raises:
        PlaceRefusedError: there is no place for it.
    """
    named = os.environ.get(_FOLDER)
    bases = [named] if named else [os.environ.get("TMPDIR"), "/var/tmp", tempfile.gettempdir()]  # noqa: S108 - the names are drawn, the folder is 0700
    why = []
    for base in filter(None, bases):
        folder = Path(base) / f"rscoop-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_owner(folder)
            inner = folder / f"{run_key}.{host}"
            inner.mkdir(mode=0o700, exist_ok=True)
            check_owner(inner)
            free = free_space.free_bytes(str(inner))
        except (OSError, UsageError) as error:
            why.append(f"{base}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        if free >= FREE_BYTES_MIN:
            (inner / "logs").mkdir(mode=0o700, exist_ok=True)
            return inner
        why.append(f"{base}: {free >> 20} MB free")
        with suppress(OSError):
            inner.rmdir()
    raise PlaceRefusedError(
        f"{os.uname().nodename} has no folder for its part of the run ({'; '.join(why)}): free some "
        f"space, or name one: export {_FOLDER}=/some/local/folder (in --prolog)"
    )


def _stand_in(folder: Path, ticket: Ticket, host: str, agent: _Living) -> int:
    """Give the ticket to the running agent, and stay until it ends."""
    _hand_over(folder, msgspec.json.encode(ticket))
    tell(state="running", host=host, pid=agent.pid, since="before")
    streams = [0, agent.pidfd]
    while True:
        ready, _, _ = select.select(streams, [], [])
        if agent.pidfd in ready:
            tell(state="ended", why="")
            return 0
        line = _read_line()
        if not line:
            streams = [agent.pidfd]
        elif line.startswith(_RENEW):
            _hand_over(folder, line.removeprefix(_RENEW))
        elif line.startswith(b"stop"):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(agent.pidfd, signal.SIGTERM)


def _hand_over(folder: Path, ticket: bytes) -> None:
    """Give a ticket to the agent, which enrolls with it if it needs to."""
    with suppress(OSError), ExitStack() as undo:
        path = socket_path(str(folder / "sock"), CONTROL)
        undo.callback(release, path)
        control = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        control.settimeout(_HAND_OVER_S)
        control.connect(path)
        control.send(ticket)
        control.recv(16)


def _everybody(run_key: str) -> list[int]:
    """Return all agents of a run on this host, of any tag."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if _ENTRY in words and words[words.index(_ENTRY) + 1 :][:2] == [
                "remote-agent",
                run_key,
            ]:
                found.append(int(folder.name))
    return found


def _is_of(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


class _Guardian:
    """Supervises one agent."""

    def __init__(self, folder: Path, lock: int, ticket: Ticket, tag: str, host: str) -> None:
        self.folder = folder
        self.lock = lock
        self.ticket = ticket
        self.tag = tag
        self.host = host
        self.incarnation = b"a" + os.urandom(8)  # of the agent

    def serve(self) -> int:
        """Start the agent and wait for its end; return the exit status."""
        settings = self._settings()
        leftovers.adopt()
        # of an earlier start
        leftovers.end_all(lambda: leftovers.of_run(self.ticket.run_key, self.host))
        theirs, ours = os.pipe()
        tickets, writing = os.pipe()
        os.set_inheritable(ours, False)  # noqa: FBT003 - the system call takes it so
        os.set_inheritable(writing, False)  # noqa: FBT003 - the system call takes it so
        settings = msgspec.structs.replace(settings, control_fd=theirs, ticket_fd=tickets)
        self._surround()
        shutil.rmtree(self.folder / "sock", ignore_errors=True)  # of an agent that was killed
        (self.folder / "sock").mkdir(mode=0o700)
        agent = starting.start("remote-agent", settings, cwd=str(self.folder))
        os.close(theirs)
        os.close(tickets)
        with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor
            pipe.write(msgspec.json.encode(self.ticket))
        code = self._watch(agent, ours)
        leftovers.end_all(lambda: leftovers.below(set()))
        tell(state="over", agent=self.incarnation.hex(), died=code not in (0, STOPPED))
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # that of other runs stays
        if code < 0:
            tell(state="ended", why=f"the agent of {self.host} died ({how(code)})")
            return 1
        if code != STOPPED:
            tell(state="ended", why="")
        return code

    def _watch(self, agent: subprocess.Popen[bytes], control: int) -> int:
        """Pass on lines of the place until the agent ends; return its exit status."""
        pidfd = os.pidfd_open(agent.pid)
        streams = [0, pidfd]
        while True:
            ready, _, _ = select.select(streams, [], [])
            if pidfd in ready:
                return agent.wait()
            line = _read_line()
            if not line:
                os.close(control)  # the launcher is gone
                streams = [pidfd]
            elif line.startswith(_RENEW):
                _hand_over(self.folder, line.removeprefix(_RENEW))
            elif not _is_let_in(agent.pid):
                agent.kill()  # it executes nothing, and reads no commands
            else:
                with suppress(BrokenPipeError):
                    os.write(control, line)

    def _settings(self) -> ChildSettings:
        """Return the settings of the agent and its workers, as they are on this host."""
        extra = self.ticket.extra
        try:
            settings = msgspec.convert(extra["settings"], ChildSettings)
        except (KeyError, msgspec.ValidationError) as error:
            raise PlaceRefusedError(
                f"the ticket does not fit this version of resilient_scoop on {self.host}: {error}"
            ) from error
        workers, most = extra.get("workers"), extra.get("workers_max")
        if workers is None:
            cores = len(os.sched_getaffinity(0))
            workers = cores if most is None else min(cores, int(most))
        return msgspec.structs.replace(
            settings, run_dir=str(self.folder), node=self.host, name=self.tag,
            incarnation=self.incarnation,
            options=msgspec.structs.replace(settings.options, workers=workers),
        )  # fmt: skip

    def _surround(self) -> None:
        """Take over the environment of the run, except variables that belong to a host."""
        for name, value in self.ticket.extra.get("environ", {}).items():
            if not _OF_HOST.fullmatch(name):
                os.environ[name] = value
        if "umask" in self.ticket.extra:
            os.umask(int(self.ticket.extra["umask"]))
