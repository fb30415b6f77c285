"""Files that the top level of the user's modules changes: in a worker, its import leaves them whole.

A worker imports the script at any time of a run. With `open("results.txt", "w")` at the top level,
it would empty the file that the script is writing. The script's process changes files, so an import
in another process does not:

| the top level | in a worker |
| --- | --- |
| opens a file to write or to append | the import writes to memory; a missing file is made at its end |
| keeps it open | what tasks write is appended to the file |
| opens it with `w+b` (`numpy.memmap`) | it is not emptied, and what it contains is not overwritten |
| opens an archive to write (`zipfile`) | the archive stays in memory; tasks that use it are refused |
| removes or renames a file or folder | nothing, unless this import has made it |
| makes a folder that exists | nothing |

Removals by libraries are theirs: they keep caches. The import of a worker on the script's host makes
what is missing only after the script has had its turn: it waits for the file `imported`, which the
script's process makes at the end of its own import.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import os
import stat
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.adapters.stand_ins import original_of, stands_in
from resilient_scoop.values.user_code import is_user_module
from resilient_scoop.values.user_modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_open: Final = io.open
_os_open: Final = os.open
WAIT_S: Final = 60.0
"""How long the import in a worker waits for that of the script."""
_LOOK_S: Final = 0.005
_MODES: Final = frozenset({"w", "x", "a", "+w", "+x", "+a"})
_PLAIN: Final = str.maketrans("x", "w", "bt")
_ARCHIVES: Final = frozenset(
    {"zipfile", "tarfile", "gzip", "bz2", "lzma", "_compression", "wave", "dbm"}
)
"""Modules that write the rest of a file when they close it."""
_ALIASES: Final = (("tarfile", "bltn_open"), ("bz2", "_builtin_open"))
_REMOVERS: Final = ("remove", "unlink", "rmdir", "truncate")
_RENAMERS: Final = ("rename", "replace")


class _State:
    is_importing = False
    is_survey = False
    mark: Path | None = None
    is_marked = False
    made: set[str] = set()  # noqa: RUF012 - one per process
    tasks_have_begun = False
    kept: list[weakref.ref[Any]] = []  # noqa: RUF012 - one per process


def script_begins(run_dir: str) -> None:
    """Let imports of workers wait for this process, which imports the script now."""
    _State.mark, _State.is_marked = _mark_in(run_dir), False
    _State.mark.unlink(missing_ok=True)


def script_is_imported(run_dir: str = "") -> None:
    """Let imports of workers continue: the top level of the script is done, or makes a call."""
    if run_dir:
        _State.mark, _State.is_marked = _mark_in(run_dir), False
    if _State.mark is not None and not _State.is_marked:
        _State.is_marked = True
        with contextlib.suppress(OSError):  # they continue later
            _State.mark.touch()


def wait_for_script(run_dir: str) -> None:
    """Let the import in this process wait for the script before it makes a file or folder."""
    _State.mark = _mark_in(run_dir)


def _mark_in(run_dir: str) -> Path:
    return Path(run_dir) / "sock" / "imported"


def _wait() -> None:
    mark, until = _State.mark, time.monotonic() + WAIT_S
    while mark is not None and not mark.exists() and time.monotonic() < until:
        if not mark.parent.exists():
            break  # the run has ended
        time.sleep(_LOOK_S)
    _State.mark = None


@contextlib.contextmanager
def left_whole(*, survey: bool = False) -> Iterator[None]:
    """Import the user's modules within this; with `survey`, no task follows and no file is written."""
    _State.is_importing, _State.is_survey = True, survey
    replaced: list[tuple[Any, str, Any]] = [
        (builtins, "open", _open_whole), (io, "open", _open_whole), (os, "open", _noting_made),
        (os, "mkdir", _made_folder(os.mkdir)),
        *((sys.modules[name], alias, _open_whole) for name, alias in _ALIASES if name in sys.modules),
        *((os, name, _unless_made(getattr(os, name))) for name in _REMOVERS),
        *((os, name, _renamed(getattr(os, name))) for name in _RENAMERS),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for each in replaced:
        setattr(*each)
    try:
        yield
    finally:
        for owner, name, old in before:
            if original_of(getattr(owner, name)) is original_of(
                old
            ):  # else the user has replaced it
                setattr(owner, name, old)
        _give_back()
        flush(lambda _text: None)
        _append_later()
        _State.is_importing = False
        _State.made.clear()


def tasks_begin() -> None:
    """Let tasks have the files that the import keeps open; the script has made them by now."""
    if _State.tasks_have_begun:
        return
    _State.tasks_have_begun = True
    for each in _State.kept:
        file = each()
        if file is None or file.closed:
            continue
        raw = getattr(getattr(file, "buffer", file), "raw", file)
        if isinstance(raw, _Draft) and raw.is_draft:
            with contextlib.suppress(OSError):  # its first use in a task fails so
                raw.become_real(make=False)


def flush(tell_user: Callable[[str], None]) -> None:
    """Write what an item has written to files that the import keeps open: its result is sent next."""
    if not _State.kept:
        return
    for each in list(_State.kept):
        file = each()
        if file is None or file.closed:
            _State.kept.remove(each)
            continue
        try:
            file.flush()
        except ValueError:  # its buffer was taken away
            _State.kept.remove(each)
        except OSError as error:
            tell_user(f"{file.name}: what a task has written could not be saved: {error.strerror}")


def _give_back() -> None:
    """Give the user's modules and classes the functions that their names mean."""
    for name, module in loaded():
        if is_user_module(name):
            held = list(vars(module).values())
            own = [each for each in held if isinstance(each, type) and each.__module__ == name]
            for owner in (module, *own):
                for key, value in list(vars(owner).items()):
                    if (original := original_of(value)) is not value:
                        known = type if isinstance(owner, type) else object
                        known.__setattr__(owner, key, original)


def _append_later() -> None:
    """Let handlers of `logging` that open their file at the first record append to it."""
    module: Any = sys.modules.get("logging")
    for each in [] if module is None else list(module._handlerList):  # noqa: SLF001 - nothing public lists them
        handler = each()
        if isinstance(handler, module.FileHandler) and handler.stream is None:
            handler.mode = handler.mode.replace("w", "a")


class _Draft(io.FileIO):
    """A file that is in memory during the import, and the real one from the first use by a task."""

    def __init__(self, path: str, mode: str, *, archive: bool) -> None:
        super().__init__(os.memfd_create("import"), mode.translate(_PLAIN))
        self.name = path
        self._path = os.path.abspath(path)  # noqa: PTH100 - bytes, too
        self._is_text = "b" not in mode
        self._is_exclusive = "x" in mode
        self.is_draft = not archive and not _State.is_survey
        self._was_missing = not os.path.exists(self._path)  # noqa: PTH110 - bytes, too

    def write(self, data: Any) -> int:
        """Write to the file, or during the import to memory."""
        self._become_real()
        return super().write(data)

    def readinto(self, buffer: Any) -> int | None:
        """Read from the file, or during the import from memory."""
        self._become_real()
        return super().readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; binary data that is written at a chosen position is not appended."""
        self._become_real()
        if not (_State.is_importing or self.is_draft or self._is_text):
            fd = super().fileno()
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_APPEND)
        return super().seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Shorten the file, or during the import what is in memory."""
        self._become_real()
        return super().truncate(size)

    def fileno(self) -> int:
        """Return the descriptor of the file, or during the import of what is in memory: for a lock."""
        self._become_real()
        return super().fileno()

    def become_real(self, *, make: bool = True) -> None:
        """Open the file, which tasks may use now; without `make`, only if it exists."""
        access = os.O_RDWR if self.readable() else os.O_WRONLY
        flags = access | os.O_CLOEXEC | os.O_APPEND | (os.O_CREAT if make else 0)
        try:
            real = _os_open(self._path, flags, 0o666)
        except FileNotFoundError:
            if make:
                raise
            return
        self.is_draft = False
        fd = super().fileno()
        os.lseek(real, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
        os.dup2(real, fd, inheritable=False)
        os.close(real)

    def _become_real(self) -> None:
        if self.is_draft and not _State.is_importing:
            self.become_real()

    def close(self) -> None:
        """Close; a file that was missing is written if the import has closed it."""
        if not self.closed and _State.is_importing:
            self._publish()
        super().close()

    def _publish(self) -> None:
        if _State.is_survey or self._is_exclusive or not self._was_missing:
            return
        with contextlib.suppress(FileExistsError):  # the script's process has made it since
            fd = _os_open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with _open(fd, "wb") as file:
                file.write(os.pread(self.fileno(), os.fstat(self.fileno()).st_size, 0))
            _State.made.add(os.fsdecode(self._path))


class _Whole(io.FileIO):
    """A file opened with `w+b`: the import does not overwrite what it contains."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        super().__init__(path, "w+", opener=lambda name, _: _os_open(name, flags, 0o666))

    def write(self, data: Any) -> int:
        """Write; during the import, only what is beyond the end of the file."""
        if not _State.is_importing:
            return super().write(data)
        view = memoryview(data).cast("B")
        here, size = self.tell(), os.fstat(self.fileno()).st_size
        beyond = view[max(0, size - here) :]
        if beyond:
            os.pwrite(self.fileno(), beyond, max(here, size))
        self.seek(here + len(view))
        return len(view)


for _kind in (_Draft, _Whole):
    _kind.__name__ = _kind.__qualname__ = io.FileIO.__name__  # the user's code may look
    _kind.__module__ = io.FileIO.__module__


def _open_whole(  # noqa: PLR0913, PLR0917 - the parameters of `open`
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002 - the parameters of `open`
    opener: Any = None,
) -> Any:
    raw = None
    if _State.is_importing and opener is None and type(mode) is str:
        is_valid = buffering != 0 if "b" not in mode else encoding == errors == newline is None
        raw = _file(file, mode) if is_valid else None
    if raw is None:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    found = _buffered(raw, mode, buffering)
    if "b" not in mode:
        found = io.TextIOWrapper(found, encoding, errors, newline, line_buffering=buffering == 1)
        found.mode = mode  # type: ignore[misc]  # as `open` does
    _State.kept.append(weakref.ref(found))
    return found


stands_in(_open_whole, _open)


def _file(file: Any, mode: str) -> io.FileIO | None:
    """Return a file that the import leaves whole; None if `open` itself is to open this one."""
    plain = "".join(sorted(mode.replace("b", "").replace("t", "")))
    path = _path_of(file) if plain in _MODES else None
    if path is None:
        return None
    if not os.path.lexists(path):
        _wait()
    is_archive = _opener(3) in _ARCHIVES
    if "b" in mode and "+" in mode and not is_archive and "a" not in mode:
        return None if "x" in mode else _Whole(path)
    return _Draft(path, mode, archive=is_archive)


def _opener(depth: int = 2) -> str:
    """Return the name of the module, without its package, that calls a function `depth` frames up."""
    frame = sys._getframe(depth)  # noqa: SLF001 - who opens it is what matters
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _buffered(raw: io.FileIO, mode: str, buffering: int) -> Any:
    if buffering == 0:
        return raw
    size = io.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
    return io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)


def _path_of(file: Any) -> Any:
    """Return the path of a regular file that can be written, also of one that is missing; else None."""
    if isinstance(file, int):
        return None
    try:
        path = os.fspath(file)
        place = os.path.abspath(path)  # noqa: PTH100 - bytes, too
        try:
            is_regular = stat.S_ISREG(os.stat(place).st_mode)  # noqa: PTH116 - bytes, too
        except FileNotFoundError:
            place, is_regular = os.path.dirname(place), True  # noqa: PTH120 - bytes, too
        return path if is_regular and os.access(place, os.W_OK) else None
    except (OSError, TypeError, ValueError):
        return None


def _is_by_user() -> bool:
    """Return whether the user's code asks, by functions of the standard library at most."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - who calls is what matters
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if is_user_module(name):
            return True
        if name.partition(".")[0] not in sys.stdlib_module_names:
            return False
        frame = frame.f_back
    return False


def _place(path: Any, folder: Any) -> str:
    base = "" if folder is None else str(Path(f"/proc/self/fd/{folder}").readlink())
    return os.path.abspath(os.path.join(base, os.fsdecode(path)))  # noqa: PTH100, PTH118 - as `os` has them


def _was_made(path: Any, folder: Any = None) -> bool:
    try:
        place = _place(path, folder)
    except (OSError, TypeError, ValueError):
        return True  # let the function raise its own error
    return any(place == each or place.startswith(each + os.sep) for each in _State.made)


def _noting_made(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    found = _os_open(path, flags, mode, dir_fd=dir_fd)
    if _State.is_importing and flags & os.O_CREAT and flags & os.O_EXCL:
        _State.made.add(_place(path, dir_fd))
    return found


stands_in(_noting_made, _os_open)


def _made_folder(mkdir: Callable[..., None]) -> Any:
    def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        try:
            if _State.is_importing and _opener() != "tempfile" and _is_by_user():
                _wait()
            mkdir(path, mode, dir_fd=dir_fd)
        except FileExistsError:
            is_folder = stat.S_ISDIR(os.stat(path, dir_fd=dir_fd).st_mode)
            if not _State.is_importing or not is_folder or not _is_by_user():
                raise
        else:
            if _State.is_importing:
                _State.made.add(_place(path, dir_fd))

    return stands_in(made, mkdir)


def _unless_made(remove: Callable[..., None]) -> Any:
    def removed(path: Any, *args: Any, dir_fd: int | None = None) -> None:
        if not _State.is_importing or _was_made(path, dir_fd) or not _is_by_user():
            keywords = {} if dir_fd is None else {"dir_fd": dir_fd}
            remove(path, *args, **keywords)

    return stands_in(removed, remove)


def _renamed(rename: Callable[..., None]) -> Any:
    def moved(
        src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        if not _State.is_importing or not _is_by_user():
            rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        elif _was_made(src, src_dir_fd):
            there = _place(dst, dst_dir_fd)
            if os.path.lexists(there) and not _was_made(there):
                os.remove(_place(src, src_dir_fd))  # noqa: PTH107 - the script's process has made the other
            else:
                rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                _State.made.add(there)

    return stands_in(moved, rename)
