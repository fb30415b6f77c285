"""`--audit`: find what a parent does that would differ in a replay.

A parent must make the same calls when it runs again. What it reads from clocks, random sources,
files and the network outside of `futures.once` is not journaled; with `--audit`, each line of user
code that does so is reported once. Two mechanisms of the interpreter are used:

- audit hooks (PEP 578) see opened files, sockets, processes and changes to folders
- clocks, UUIDs and `urandom` raise no audit events; the profiler sees them as calls of C functions

A finding names the innermost line of user code: what a library does is reported at the line that
called it. For tasks that make no calls, only two things are reported: random numbers from the
operating system, and changes in modules (`processes.audit_of_tasks`). Nothing is reported about
functions in `futures.once`, imports, and the runtime itself. Findings of an item before its first
call are kept, and are reported when the call makes it a parent.

Findings are appended to a file in the run's logs, one JSON line each: the launcher shows them, and
`rscoop status` reads them later.
"""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.processes.audit_of_tasks import Shared
from resilient_scoop.processes.here import Process
from resilient_scoop.runs.audit_findings import (
    CHANCE,
    CLOCK,
    PROCESS,
    SHARED,
    SOCKET,
    UUID,
    WRITE,
    Finding,
    name_of,
)
from resilient_scoop.task_state import unseeded
from resilient_scoop.values.user_modules import is_users_file

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.connection import Connection, Context

_PACKAGE: Final = str(Path(__file__).resolve().parents[1]) + os.sep
_SILENT: Final = (
    "importlib",
    "logging",
    "threading",
    "queue",
    "warnings",
    "traceback",
    "linecache",
)
"""Libraries whose use of clocks and files does not affect what a parent does."""
_NOW: Final = frozenset({"now", "utcnow", "today"})
_EVENTS: Final = {
    **dict.fromkeys(
        ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"),
        WRITE,
    ),
    **dict.fromkeys(
        ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"),
        SOCKET,
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn",
         "os.spawn", "pty.spawn"),
        PROCESS,
    ),
}  # fmt: skip


def _watched() -> dict[Any, tuple[str, str]]:
    """Return the C functions to watch, each with its kind and name."""
    names = (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
        "process_time", "process_time_ns", "clock_gettime", "clock_gettime_ns", "localtime", "gmtime",
        "ctime",
    )  # fmt: skip
    found = {getattr(time, name): (CLOCK, f"time.{name}") for name in names}
    found[os.urandom] = (CHANCE, "os.urandom")
    found[os.getrandom] = (CHANCE, "os.getrandom")
    import uuid

    makes = getattr(uuid, "_generate_time_safe", None)
    if makes is not None:
        found[makes] = (UUID, "uuid.uuid1")
    return found


class Audit:
    """Watches this process."""

    def __init__(self, session: Connection) -> None:
        self.session = session
        settings = session.settings
        host = settings.node if settings.is_remote else ""
        self.file = Path(settings.run_dir) / "logs" / name_of(host)
        self.watched = _watched()
        # the profile function in Python, above the one in C
        self.seed: CodeType = unseeded.ORIGINAL.__code__
        self.seen: set[tuple[str, int, str]] = set()
        self.early: list[Finding] = []  # of an item that has made no call yet
        self.early_of: Context | None = None
        self.busy = False
        self.shared = Shared()

    def start(self) -> None:
        """Start watching, until the end of the process."""
        make = Process.make_parent
        if make is not None:

            def make_and_tell() -> Parent:
                parent = make()
                self._became_parent()
                return parent

            Process.make_parent = make_and_tell
        Process.audit = self
        inspect.unwrap(sys.addaudithook)(self._audit)
        sys.setprofile(self._profile)

    def item_begins(self) -> None:
        """Record the contents of the user's modules."""
        self.busy = True
        self.shared.look()
        self.busy = False

    def item_ended(self, function: Any, context: Context) -> None:
        """Report what an item has changed in the user's modules."""
        if context.parked:
            return  # other items ran in between
        self.busy = True
        names = self.shared.changed()
        self.busy = False
        code = getattr(inspect.unwrap(function), "__code__", None)
        if not names or code is None:
            return
        key = (code.co_filename, code.co_firstlineno, SHARED)
        if key not in self.seen:
            self.seen.add(key)
            text = linecache.getline(key[0], key[1]).strip()
            finding = Finding(
                SHARED, ", ".join(names), key[0], key[1], code.co_name, text, context.path
            )
            self._write([finding])

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            known = self.watched.get(arg)
            if known is not None:
                self._see(frame, *known)
            elif arg.__name__ in _NOW and _is_date(of := arg.__self__):
                self._see(frame, CLOCK, f"{of.__name__}.{arg.__name__}")
        elif event == "call" and frame.f_code is self.seed and frame.f_locals.get("a") is None:
            self._see(frame, CHANCE, "random.seed")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if _writes(*args[:3]):
                self._see(sys._getframe(1), WRITE, "open")  # noqa: SLF001 - the caller is wanted
        elif event in _EVENTS:
            self._see(sys._getframe(1), _EVENTS[event], event)  # noqa: SLF001 - who calls is what matters

    def _see(self, frame: FrameType | None, kind: str, call: str) -> None:
        """Record an event with the line of user code that caused it, if there is one."""
        if self.busy or Process.importing is not None:
            return
        self.busy = True
        try:
            place = _user_frame(frame, call)
            if place is None:
                return
            at, call, kind = *place, UUID if place[1].startswith("uuid.") else kind
            key = (at.f_code.co_filename, at.f_lineno, kind)
            if key in self.seen or _in_once(at):
                return
            self._note(key, at, kind, call)
        finally:
            self.busy = False

    def _note(self, key: tuple[str, int, str], at: FrameType, kind: str, call: str) -> None:
        context = self.session.context
        text = linecache.getline(key[0], key[1], at.f_globals).strip()
        finding = Finding(kind, call, key[0], key[1], at.f_code.co_name, text, context.path)
        if context.parent is not None or (kind == CHANCE and context.work is not None):
            self.seen.add(key)
            self._write([finding])
        elif context.work is not None:
            if self.early_of is not context:
                self.early, self.early_of = [], context
            if all((each.file, each.line, each.kind) != key for each in self.early):
                self.early.append(finding)

    def _became_parent(self) -> None:
        """Report what the running item did before its first call, which makes it a parent."""
        if self.early_of is not self.session.context:
            return
        new = [each for each in self.early if (each.file, each.line, each.kind) not in self.seen]
        self.seen.update((each.file, each.line, each.kind) for each in new)
        self.early = []
        self._write(new)

    def _write(self, findings: list[Finding]) -> None:
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in findings)
        was, self.busy = self.busy, True
        try:
            fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, lines)  # in one write: other processes append, too
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise  # otherwise the finding is not reported, but the run continues
        finally:
            self.busy = was


def _is_date(of: object) -> bool:
    return isinstance(of, type) and issubclass(of, date)


def _writes(path: object, mode: object, flags: object) -> bool:
    """Return whether a file is opened for writing."""
    if isinstance(path, int) or path in (os.devnull, b"/dev/null"):
        return False
    if isinstance(mode, str):
        return any(each in mode for each in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _user_frame(frame: FrameType | None, call: str) -> tuple[FrameType, str] | None:
    """Return the innermost frame of user code and what it called; None if user code is not involved."""
    while frame is not None:
        file, module = frame.f_code.co_filename, frame.f_globals.get("__name__") or ""
        if file.startswith(_PACKAGE) or module.partition(".")[0] in _SILENT:
            return None
        if file.startswith("<frozen importlib"):
            return None
        if is_users_file(file):
            return frame, call
        call = f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back
    return None


def _in_once(frame: FrameType | None) -> bool:
    """Return whether a frame runs within `futures.once`."""
    while frame is not None:
        code = frame.f_code
        if code.co_qualname == "once.<locals>.live" and code.co_filename.startswith(_PACKAGE):
            return True
        frame = frame.f_back
    return False
