"""Find a program's code as `python` does: a script, a folder, an archive, a module.

Python's rules, kept here for the origin, the workers and the command line:

| command | first entry of `sys.path` | `__file__` |
| --- | --- | --- |
| `python script.py` | the folder of the file behind all symbolic links | the path as it was typed |
| `python folder`, `python app.pyz` | the folder or archive | `__main__.py` in it |
| `python -m module` | the working directory | the module's file |

Under `PYTHONSAFEPATH` or `-P`, the first and the third have no such entry. A script that can be
read only once (a pipe, `/dev/stdin`) is read when the run is created; `ScriptSpec.kept` names the
copy.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import linecache
import marshal
import os
import sys
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilient_scoop.errors import UsageError
from resilient_scoop.processes import main_guard
from resilient_scoop.processes.kept_code import KeptCode

if TYPE_CHECKING:
    from resilient_scoop.processes.starting import ScriptSpec

_PYC_HEAD_BYTES: Final = 16


class Program(NamedTuple):
    """A program that can be executed."""

    code: CodeType
    path: str  # its `__file__`
    module: importlib.machinery.ModuleSpec | None  # None: a script has none
    loader: Any
    rest: CodeType | None = None  # the part from the guard on, if it is open


def first_entry(spec: ScriptSpec) -> str | None:
    """Return the first entry of the program's `sys.path`; None: nothing is added."""
    if spec.module is not None:
        return None if sys.flags.safe_path else spec.cwd
    assert spec.script is not None, "a run has a script or a module"
    if importer(spec.script) is not None:
        return spec.script
    if sys.flags.safe_path:
        return None
    return search_folder(spec.script) if spec.first is None else spec.first


def search_folder(script: str) -> str:
    """Return the folder in which a script's own modules are searched."""
    try:
        return str(Path(script).resolve(strict=True).parent)
    except OSError:  # a pipe; Python does the same
        folder = os.path.dirname(script)  # noqa: PTH120 - strings, as the import system has them
        if os.path.islink(script):  # noqa: PTH114 - strings, as the import system has them
            return os.path.dirname(os.path.join(folder, os.readlink(script)))  # noqa: PTH115, PTH118, PTH120 - strings, as the import system has them
        return folder


def importer(path: str) -> Any:
    """Return the importer of a folder or archive; None for a script."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


def is_compiled(path: str, head: bytes) -> bool:
    """Return whether a file holds compiled code, by its name and first bytes."""
    return path.endswith(".pyc") or head.startswith(importlib.util.MAGIC_NUMBER)


def unmarshal(path: str, data: bytes) -> CodeType:
    """Return the code of a compiled file.

    Raises:
        UsageError: it was compiled by another version of Python, or is damaged.
    """
    if not data.startswith(importlib.util.MAGIC_NUMBER):
        raise UsageError(
            f"{path} was compiled by another version of Python: run its source, or compile it again"
        )
    try:
        code = marshal.loads(data[_PYC_HEAD_BYTES:])  # noqa: S302 - the user's program
    except (EOFError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}; compile it again") from error
    if not isinstance(code, CodeType):
        raise UsageError(f"{path} holds no compiled program; run its source")
    return code


def source(spec: ScriptSpec) -> tuple[bytes, str]:
    """Return a program's source and path; empty where there is none."""
    found = None
    if spec.module is not None:
        found = find_module(spec.module)
    elif spec.script is not None and (place := importer(spec.script)) is not None:
        found = _adapted(place.find_spec("__main__"))
    elif spec.script is not None:
        data = _read(spec)
        return (b"" if is_compiled(spec.script, data) else data), spec.script
    loader: Any = None if found is None else found.loader
    if found is None or not hasattr(loader, "get_source"):
        return b"", ""
    text = loader.get_source(found.name)
    return (text or "").encode(), found.origin or ""


def load(spec: ScriptSpec, *, closed: bool) -> Program:
    """Return the compiled program; with `closed`, code under its guard is not run.

    Raises:
        UsageError: it is not there.
    """
    if spec.module is not None:
        what = f"module named {spec.module} in {spec.cwd}"
        return _of_module(find_module(spec.module), what, closed=closed)
    assert spec.script is not None, "a run has a script or a module"
    place = importer(spec.script)
    if place is not None:
        what = f"'__main__' module in {spec.script!r}"
        return _of_module(_adapted(place.find_spec("__main__")), what, closed=closed)
    data, path = _read(spec), spec.script
    machinery = importlib.machinery
    if is_compiled(path, data):
        compiled = unmarshal(path, data)
        shut = main_guard.closed_code(compiled) if closed else compiled
        return Program(shut, path, None, machinery.SourcelessFileLoader("__main__", path))
    if spec.kept is not None:
        lines = data.decode("utf-8", "replace").splitlines(keepends=True)
        linecache.cache[path] = (len(data), None, lines, path)  # so that tracebacks have lines
    code, rest = _compiled(data, path, closed=closed)
    return Program(code, path, None, machinery.SourceFileLoader("__main__", path), rest)


def find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return a module, or a package's `__main__`."""
    found = importlib.util.find_spec(name)
    if found is not None and found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{name}.__main__")
    return found


def _of_module(found: importlib.machinery.ModuleSpec | None, what: str, *, closed: bool) -> Program:
    loader: Any = None if found is None else found.loader
    if found is None or not hasattr(loader, "get_code"):
        raise UsageError(f"there is no {what}")
    path = found.origin or found.name
    if path.endswith(".py") and hasattr(loader, "get_data"):
        code, rest = _compiled(loader.get_data(path), path, closed=closed)
        return Program(code, path, found, loader, rest)
    made = loader.get_code(found.name)
    if made is None:
        raise UsageError(f"the {what} has no code to run")
    return Program(main_guard.closed_code(made) if closed else made, path, found, loader)


def _compiled(source: bytes, path: str, *, closed: bool) -> tuple[CodeType, CodeType | None]:
    if closed:
        return main_guard.closed(source, path), None
    try:
        return main_guard.split(source, path)
    except RecursionError:  # an expression that only the compiler can handle
        return compile(source, path, "exec", dont_inherit=True), None


def _read(spec: ScriptSpec) -> bytes:
    assert spec.script is not None, "modules are read by their loaders"
    if spec.kept is None and KeptCode.current is not None:
        return KeptCode.current.read(spec.script)
    with io.open_code(spec.kept or spec.script) as file:
        return file.read()


def _adapted(found: importlib.machinery.ModuleSpec | None) -> importlib.machinery.ModuleSpec | None:
    code = KeptCode.current
    return found if found is None or code is None else code.adapted(found)
