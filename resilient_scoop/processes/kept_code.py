"""Copies of the user's source files: all processes of a launch run the code with which it began.

A worker that is replaced hours later must not run code that the user has edited since. So the first
process that imports a file puts a copy into the folder `code/` of the run, and every process that
imports it afterwards takes the copy. Each launch (`run`, `resume`) starts with an empty folder.

- Kept are the script and the modules that it imports, where they are the user's: not Python's, not
  in site-packages, not ours.
- A file that was changed after the launch began, and was not imported before, is read as it is, and
  not kept: it may be one that the program writes itself.
- A module that is executed a second time in one process (`importlib.reload`) is read as it is.
- Paths stay: `__file__`, tracebacks and `inspect` name the user's file, and show the copy's text.
- A process that is forked reads the copies and writes none. A process that is spawned by the
  user's code reads the user's files.
- Compiled code that lies beside a file is used if it is of the copy's time and size; that of a copy
  is written there only while the file is still the same.

If a copy cannot be written (no space), the file is read as it is.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from resilient_scoop import hashing
from resilient_scoop.hashing import blake2b

FOLDER: Final = "code"
_BEFORE: Final = "code-before"  # the copies of the last launch, until this one has ended
BEGAN: Final = "began"
_LIST: Final = "files"
_OWN: Final = os.path.dirname(hashing.__file__) + os.sep  # noqa: PTH120 - on each import


def begin(run_dir: Path, script: str | None) -> None:
    """Empty the folder at a launch, and keep the script; raises OSError if that fails."""
    import shutil  # needed by the launcher, not by its children

    folder, before = run_dir / FOLDER, run_dir / _BEFORE
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    folder.mkdir(mode=0o700)
    (folder / BEGAN).touch(mode=0o600)
    if script is not None and os.path.isfile(script):  # noqa: PTH113 - strings, as the import system has them
        KeptCode(folder).keep(script, is_old=True)


def end(run_dir: Path, *, counts: bool) -> None:
    """End a launch: if it added nothing to the journal, restore the copies of the last launch.

    An edited file is to be compared with the code that made results.
    """
    import shutil

    folder, before = run_dir / FOLDER, run_dir / _BEFORE
    if not counts and before.exists():
        shutil.rmtree(folder, ignore_errors=True)
        before.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def install(run_dir: str) -> None:
    """Make this process use the copies of its launch, if the launcher could make the folder."""
    folder = Path(run_dir) / FOLDER
    if (folder / BEGAN).exists():
        KeptCode(folder).install()


def files(run_dir: Path) -> dict[str, Path]:
    """Return the files of which the last launch made a copy, with their copies."""
    folder = run_dir / FOLDER
    try:
        listed = (folder / _LIST).read_bytes()
    except OSError:
        return {}
    paths = [os.fsdecode(each) for each in listed.split(b"\0") if each]
    return {path: folder / _name(path) for path in sorted(set(paths))}


def copy(run_dir: Path, other: Path) -> None:
    """Give the copies of a run's last launch to a fork of the run, whose results that code has made."""
    import shutil  # needed by the command, not by the processes of a launch

    found = files(run_dir)
    if not found:
        return
    folder = other / FOLDER
    folder.mkdir(mode=0o700)
    for kept in found.values():
        shutil.copyfile(kept, folder / kept.name)
    (folder / _LIST).write_bytes(b"".join(os.fsencode(path) + b"\0" for path in found))


def _name(path: str) -> str:
    return blake2b(os.fsencode(path), digest_size=16).hexdigest()


def is_users(path: str) -> bool:
    """Return whether a file belongs to the user."""
    from resilient_scoop.values.user_code import is_user_file  # not needed in the launcher

    return is_user_file(path) and not path.startswith(_OWN)


class KeptCode:
    """The copies of one launch, as a process uses them; a finder of modules."""

    current: KeptCode | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._began_ns = (folder / BEGAN).stat().st_ctime_ns
        self._pid = os.getpid()
        self._executed: set[str] = set()
        self._used: set[str] = set()  # files of which this process runs the copy
        self._reread: set[str] = set()  # files that it has executed a second time
        self._read_lines: Callable[..., list[str]] = linecache.updatecache

    def install(self) -> None:
        """Make imports and tracebacks of this process use the copies."""
        KeptCode.current = self
        at = next((n for n, finder in enumerate(sys.meta_path) if _is_path_finder(finder)), 0)
        sys.meta_path.insert(at, self)
        linecache.updatecache = self._lines

    def keep(self, path: str, *, is_old: bool = False) -> str | None:
        """Return the path of a file's copy, made now if needed; None: use the file itself."""
        copy = f"{self._folder}/{_name(path)}"
        if os.path.exists(copy):  # noqa: PTH110 - on each import
            return copy
        if os.getpid() != self._pid:
            return None
        draft = f"{copy}.{self._pid}.{threading.get_ident()}.tmp"
        try:
            return copy if self._copy(path, draft, copy, is_old=is_old) else None
        except OSError:
            return None

    def _copy(self, path: str, draft: str, copy: str, *, is_old: bool) -> bool:
        with open(path, "rb") as file:  # noqa: PTH123 - strings, as the import system has them
            before = os.fstat(file.fileno())
            if before.st_ctime_ns > self._began_ns and not is_old:
                return False
            data = file.read()
            if os.fstat(file.fileno()).st_mtime_ns != before.st_mtime_ns:
                return False
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.utime(draft, ns=(before.st_mtime_ns, before.st_mtime_ns))
            os.link(draft, copy)
            self._list(path)
        except FileExistsError:
            pass  # another process was first
        finally:
            Path(draft).unlink(missing_ok=True)
        return True

    def _list(self, path: str) -> None:
        """Add a file to the list of those that have a copy."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(f"{self._folder}/{_LIST}", flags, 0o600)
        try:
            os.write(descriptor, os.fsencode(path) + b"\0")
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes:
        """Return the content of a file when the launch began to use it."""
        copy = self.keep(path)
        if copy is not None:
            self._used.add(path)
        with open(copy or path, "rb") as file:  # noqa: PTH123 - strings, as the import system has them
            return file.read()

    def begins(self, path: str) -> bool:
        """Record that a module is executed; return whether it is for the first time in this process."""
        if path in self._executed:
            self._used.discard(path)
            self._reread.add(path)
            linecache.cache.pop(path, None)
            return False
        self._executed.add(path)
        return True

    def _lines(self, filename: str, module_globals: Any = None) -> list[str]:
        """Replace `linecache.updatecache`: for the user's files, give the text of the copy.

        This includes files that are not imported yet: a function's meaning depends on files that it
        will import.
        """
        counts = filename.endswith(".py") and is_users(filename) and filename not in self._reread
        copy = self.keep(filename) if counts or filename in self._used else None
        if copy is None:
            return self._read_lines(filename, module_globals)
        with open(copy, "rb") as file:  # noqa: PTH123 - strings, as the import system has them
            data = file.read()
        try:
            lines = importlib.util.decode_source(data).splitlines(keepends=True)
        except (SyntaxError, UnicodeDecodeError):
            return []
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        linecache.cache[filename] = (len(data), None, lines, filename)  # None: never out of date
        return lines

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as the later finders do; a module of the user gets a loader of copies."""
        passed = False
        for finder in list(sys.meta_path):
            if passed and hasattr(finder, "find_spec"):
                found = finder.find_spec(fullname, path, target)
                if found is not None:
                    return self.adapted(found, reloaded=target is not None)
            passed = passed or finder is self
        return self._removed(fullname, path)

    def adapted(self, found: ModuleSpec, *, reloaded: bool = False) -> ModuleSpec:
        """Return a module's spec with a loader of copies, if its source is the user's."""
        loader = found.loader
        if type(loader) is SourceFileLoader and is_users(loader.path):
            found.loader = _Loader(
                loader.name, loader.path, self, counts=not reloaded or self.begins(loader.path)
            )
        return found

    def _removed(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Find a module whose file was removed after it was kept."""
        name = fullname.rpartition(".")[2]
        for entry in sys.path if path is None else path:
            if not is_users(f"{entry}{os.sep}"):
                continue
            for file in (f"{entry}/{name}/__init__.py", f"{entry}/{name}.py"):
                if self.keep(file) is not None:
                    loader = _Loader(fullname, file, self)
                    inside = [os.path.dirname(file)] if file.endswith("__init__.py") else None  # noqa: PTH120 - strings, as the import system has them
                    return importlib.util.spec_from_file_location(
                        fullname, file, loader=loader, submodule_search_locations=inside
                    )
        return None


class _Loader(SourceFileLoader):
    """Loads a module from its copy."""

    def __init__(self, fullname: str, path: str, code: KeptCode, *, counts: bool = True) -> None:
        super().__init__(fullname, path)
        self._code = code
        self._copy: str | None = None
        self._counts = counts  # the copy is used, not the file

    def create_module(self, spec: ModuleSpec) -> None:
        """Start an import; the second time in one process, the module is read as it is.

        (Not in `exec_module`: its frame would appear in the tracebacks of failing imports.)
        """
        self._counts = self._code.begins(self.path)
        super().create_module(spec)

    def _kept(self) -> str | None:
        if self._counts and self._copy is None:
            self._copy = self._code.keep(self.path)
        return self._copy if self._counts else None

    def path_stats(self, path: str) -> dict[str, Any]:
        """Return time and size of the copy."""
        copy = self._kept() if path == self.path else None
        return {**super().path_stats(copy or path)}

    def get_data(self, path: str) -> bytes:
        """Return the copy's text."""
        if path == self.path and self._kept() is not None:
            return self._code.read(path)
        return super().get_data(path)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write compiled code, unless it belongs to a copy whose file has changed."""
        copy = self._kept()
        if copy is not None:
            try:
                now, then = os.stat(self.path), os.stat(copy)  # noqa: PTH116 - strings, as the import system has them
            except OSError:
                return
            if (now.st_mtime_ns, now.st_size) != (then.st_mtime_ns, then.st_size):
                return
        super().set_data(path, data, _mode=_mode)


def _is_path_finder(finder: Any) -> bool:
    return getattr(finder, "__name__", "") == "PathFinder"
