"""The folder of one run, and its lock.

    <state dir>/runs/<run-id>/
        run.json     what was started (`RunInfo`); written once, before anything else runs
        journal/     what happened; recovery uses only this; large payloads in journal/blobs/
        payloads/    files of large arguments and results, written by workers
        logs/        logs of workers, agents and the launcher
        sock/        local sockets (`transport.sockets` reaches them even if the path is long), and a mark
                     of the script (`processes.imported_files`)
        input.json   where the script's standard input ends, if known (`runs.stdin_rest`)
        lock         locked (flock) by the run's launcher while it is alive
        shown        how much of the script's output has been displayed
        limit-met    exists if the run stopped because the system refused a resource
        script       copy of a script that can be read only once (a pipe); else absent

Invariants. A folder appears under its final name only when `run.json` is whole and synced, so a run
either exists or does not. It is mode 0700 and refused when another user owns it or may write to it:
it holds pickles.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from resilient_scoop.adapters.synced_files import write_synced
from resilient_scoop.errors import JournalFormatError, RunBusyError, UsageError
from resilient_scoop.hashing import blake2b
from resilient_scoop.runs import json_text
from resilient_scoop.runs.json_text import one_line
from resilient_scoop.runs.surroundings import Surroundings

FORMAT: Final = 1
KEPT_SCRIPT: Final = "script"
_LOCK_BYTES: Final = 512
_BUSY_TRIES: Final = 20
_BUSY_PAUSE_S: Final = 0.01
_KEY_BYTES: Final = 4


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was started, where, and with which versions: enough to start it again."""

    id: str
    uuid: str  # 32 hex digits; part of every key of the journal
    name: str | None = None
    script: str | None = None  # absolute path; or
    module: str | None = None
    argv: list[str] = []  # of the script, without its own name
    cwd: str
    python: str
    python_version: str
    versions: dict[str, str] = {}  # distribution -> version, of what results depend on
    seed: int  # 64 bits
    streams: int = 1  # how random streams are made (`task_state.rng.RULES`); a run keeps to it
    strict: bool = False
    keep_history: bool = False  # records below ended parents are kept
    workers: int
    created_at: float  # seconds since 1970, wall clock
    host: str
    user: str
    forked_from: str | None = None  # the run, and the place in it, from which it was forked
    argv0: str = ""  # the script, as typed by the user
    script_kept: bool = False  # the script can be read only once: `RunDir.kept_script` is its copy
    first: str | None = None  # of a kept script: the folder of its modules
    flags: list[str] = []  # of the interpreter, for script and workers
    stdin_file: str | None = None  # the file that the script's standard input was
    in_process: bool = False  # a session of a program, which opens it again by its name
    around: Surroundings | None = None  # environment, umask, limits; None in runs of version 0.1
    format: int = FORMAT

    @property
    def title(self) -> str:
        """The title of the run, for display: the file name of the script or the name of the module."""
        name = f"-m {self.module}" if self.module else Path(self.script or "?").name
        return one_line(name)

    @property
    def command(self) -> str:
        """The title with the script's arguments, quoted as for a shell, for display."""
        if not self.argv:
            return self.title
        import shlex  # takes a millisecond

        return " ".join([self.title, *map(one_line, map(shlex.quote, self.argv))])


class _Formatted(msgspec.Struct, frozen=True):
    """The readable part of a description of any format."""

    format: int = FORMAT


class LauncherInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The launcher that holds a run, as it wrote itself into the lock file."""

    pid: int
    host: str
    boot: str  # the kernel's boot id: a pid means nothing on another boot
    pid_started: int  # start in clock ticks since that boot: detects a reused pid
    started_at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run, and operations on its whole folder."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, which is the folder's name."""
        return self.path.name

    def key(self, info: RunInfo) -> str:
        """Return the key that identifies this run: its id, and a digest of its random number and folder.

        Runs of different state folders that begin in the same 1/1024 s have the same id. A copy of a run
        that was restored elsewhere has its random number, too.
        """
        place = f"{info.uuid} {os.path.realpath(self.path)}"
        return f"{self.id}-{blake2b(os.fsencode(place), digest_size=_KEY_BYTES).hexdigest()}"

    @property
    def info(self) -> Path:
        """The file that says what was started."""
        return self.path / "run.json"

    @property
    def journal(self) -> Path:
        """Folder of the journal."""
        return self.path / "journal"

    @property
    def blobs(self) -> Path:
        """Folder of large payloads."""
        return self.journal / "blobs"

    @property
    def logs(self) -> Path:
        """Folder of the logs of the processes."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """File that the launcher holds."""
        return self.path / "lock"

    @property
    def kept_script(self) -> Path:
        """Copy of a script that can be read only once."""
        return self.path / KEPT_SCRIPT

    @property
    def limit_met(self) -> Path:
        """File that exists if the run stopped because the system refused a resource."""
        return self.path / "limit-met"

    @property
    def shown_file(self) -> Path:
        """File that holds how much output was displayed (`processes.launcher.shown_output`)."""
        return self.path / "shown"

    @property
    def socket_dir(self) -> Path:
        """Folder of the local sockets."""
        return self.path / "sock"

    def load(self) -> RunInfo:
        """Return what was started.

        Raises:
            JournalFormatError: `run.json` is missing, damaged, or of a newer format. UsageError:
            other users have access to the folder; nothing in it may be unpickled.
        """
        check_owner(self.path)
        try:
            text = self.info.read_bytes()
            self._check_format(json_text.decode(text, _Formatted).format)
            info = json_text.decode(text, RunInfo)
        except PermissionError as error:
            raise UsageError(f"{self.info}: {error.strerror}; see `ls -ld {self.path}`") from error
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JournalFormatError(
                str(self.path),
                f"its run.json is missing or damaged ({error}); restore it from a backup, "
                f"or remove it with `rscoop rm {self.id}`",
            ) from error
        return info

    def _check_format(self, number: int) -> None:
        if number > FORMAT:
            raise JournalFormatError(
                str(self.path),
                f"it has format {number} and this version reads up to {FORMAT}; "
                f"use the version of rscoop that started it",
                number,
            )

    def make_socket_dir(self) -> Path:
        """Create the folder of the sockets, or check that the existing one is ours; return it."""
        folder = self.socket_dir
        folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(folder)
        return folder

    def remove_socket_dir(self) -> None:
        """Remove the folder of the sockets with its content (NO-LEFTOVERS)."""
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def describe_again(self, info: RunInfo) -> None:
        """Replace the description, while this process holds the run: a session has another program now."""
        draft = self.path / f".run.{os.getpid()}"
        write_synced(draft, json_text.encode(info))
        draft.rename(self.info)

    @contextmanager
    def hold(self) -> Iterator[int]:
        """Lock the run as its launcher; the kernel releases the lock when the process dies.

        Yields the descriptor of the lock.

        Raises:
            RunBusyError: another launcher holds it.
        """
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock_with_patience(fd):
                raise self.busy_error()
            with suppress(OSError):  # a full disk: the name of the holder is only for display
                _fill(fd, msgspec.json.encode(_this_process()))
            yield fd
            with suppress(OSError):
                _fill(fd, b"")
        finally:
            os.close(fd)

    def is_gone(self, fd: int) -> bool:
        """Return whether the folder of a held lock was deleted, moved or replaced."""
        try:
            found = self.lock.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        held = os.fstat(fd)
        return (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino)

    def is_held(self) -> bool:
        """Return whether a launcher holds the run now."""
        try:
            fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def busy_error(self) -> RunBusyError:
        """Return the error that names the holder of the run."""
        holder = self.holder()
        if holder is None:
            return RunBusyError(str(self.path), 0, "this host")
        began = datetime.fromtimestamp(holder.started_at, UTC).isoformat(timespec="seconds")
        return RunBusyError(str(self.path), holder.pid, holder.host, began)

    def holder(self) -> LauncherInfo | None:
        """Return the launcher that holds the run; None if there is none, or its name is not written yet."""
        if not self.is_held():
            return None
        try:
            return msgspec.json.decode(self.lock.read_bytes(), type=LauncherInfo)
        except (OSError, msgspec.MsgspecError):
            return None


def _fill(fd: int, text: bytes) -> None:
    """Overwrite a lock file without changing its size: a full disk cannot refuse this."""
    os.pwrite(fd, text.ljust(_LOCK_BYTES), 0)


def boot_id() -> str:
    """Return the id of this boot of this kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def pid_started(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])  # the name before it may hold any character


def check_owner(folder: Path) -> None:
    """Raise UsageError unless only this user owns and may write to the folder."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{folder} is not a folder")
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"{folder} belongs to user {user_name(found.st_uid)}; it holds pickles, which could"
            f" run anything, so only your own runs are opened"
        )
    if found.st_mode & 0o022:
        raise UsageError(
            f"{folder} may be written to by others (mode {stat.S_IMODE(found.st_mode):o}); it holds"
            f" pickles, which could run anything. If you trust it: chmod go-w {folder}"
        )


def user_name(uid: int) -> str:
    """Return the user's name, or the number if there is no name (containers)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _lock_with_patience(fd: int) -> bool:
    """Take the lock; checks hold it for microseconds, so a single refusal means nothing."""
    for _ in range(_BUSY_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_BUSY_PAUSE_S)
        else:
            return True
    return False


def _this_process() -> LauncherInfo:
    return LauncherInfo(
        pid=os.getpid(),
        host=os.uname().nodename,
        boot=boot_id(),
        pid_started=pid_started(os.getpid()) or 0,
        started_at=time.time(),  # noqa: TID251 - a label for display
    )
