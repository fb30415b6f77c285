"""Find and check a script before a run exists for it: a typing error leaves nothing behind.

Errors have Python's own texts and exit codes, as if the user had typed `python` instead of `rscoop
run`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import traceback
import warnings
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from resilient_scoop.errors import UsageError
from resilient_scoop.processes import program
from resilient_scoop.processes.starting import absolute_path

if TYPE_CHECKING:
    from resilient_scoop.processes.starting import ScriptSpec

_CANT_OPEN, _CANT_RUN = 2, 1
_STDIN: Final = "<stdin>"
_PASSING: Final = ("/dev/", "/proc/")
"""A path below these is valid only for this process or this redirection."""


class ScriptError(click.ClickException):
    """The script cannot be started; the text is that of Python."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print the text as it is, without `Error:` before it."""
        click.echo(self.message, err=True)


@dataclass(frozen=True, slots=True)
class ScriptTarget:
    """What is to be run: either a script's absolute path or a module's name.

    `source` is the text of a script that can be read only once; `first` is then the folder of its
    modules.
    """

    script: str | None = None
    module: str | None = None
    source: bytes | None = None
    first: str | None = None


def find_script(name: str, folder: Path) -> ScriptTarget:
    """Return the script, folder or archive that `python NAME` would run in `folder`; it must compile.

    Raises:
        ScriptError: there is none, or it is not valid Python.
    """
    path = os.path.join(folder, name)  # noqa: PTH118 - `link/..` is another folder than this one
    place = program.importer(path)
    if place is not None:
        path = os.path.abspath(path)  # noqa: PTH100 - as Python's own
        found = place.find_spec("__main__")
        if found is None:
            text = f"{sys.executable}: can't find '__main__' module in {path!r}"
            raise ScriptError(text, _CANT_RUN)
        _check_module(found)
        return ScriptTarget(script=path)
    source, once = _read(path, name)
    if program.is_compiled(path, source):
        try:
            program.unmarshal(path, source)
        except UsageError as error:
            raise ScriptError(f"{sys.executable}: {error}", _CANT_RUN) from error
    else:
        check_source(source, path)
    if once:
        return ScriptTarget(script=path, source=source, first=program.search_folder(path))
    return ScriptTarget(script=path)


def read_script() -> ScriptTarget:
    """Return the script that `python -` would run: all of standard input.

    Raises:
        ScriptError: standard input is closed, or not valid Python.
    """
    try:
        with open(0, "rb", closefd=False) as file:
            source = file.read()
    except OSError as error:
        text = f"{sys.executable}: can't read the script from standard input: {error.strerror}"
        raise ScriptError(text, _CANT_OPEN) from error
    check_source(source, _STDIN)
    return ScriptTarget(script=_STDIN, source=source, first="")


def _read(path: str, name: str) -> tuple[bytes, bool]:
    """Return a script's source, and whether the path can be read only once."""
    if path.endswith(".ipynb"):
        raise ScriptError(
            f"{sys.executable}: {path!r} is a notebook: make a script of it with "
            f"`jupyter nbconvert --to script {shlex.quote(name)}`, and run that",
            _CANT_OPEN,
        )
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as it was typed
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(), not regular or path.startswith(_PASSING)
    except OSError as error:
        text = f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        command = shutil.which(name) if os.sep not in name else None
        if command is not None and isinstance(error, FileNotFoundError):
            text += f"; to run the command of that name: rscoop run {shlex.quote(command)}"
        raise ScriptError(text, _CANT_OPEN) from error


def check_program(spec: ScriptSpec) -> None:
    """Check that the program of a run is still there and compiles.

    Raises:
        ScriptError: it does not exist, or does not compile.
    """
    if spec.module is not None:
        find_module(spec.module, Path(spec.cwd))
    elif spec.kept is not None:
        if not Path(spec.kept).is_file():
            raise ScriptError(
                f"{spec.script} was read once when the run began, and its copy {spec.kept} is gone; "
                "restore the run's folder from a backup",
                _CANT_OPEN,
            )
    else:
        find_script(spec.script or "", Path(spec.cwd))


def find_module(name: str, folder: Path) -> ScriptTarget:
    """Check that `python -m NAME` would find something in `folder`; nothing is imported.

    Raises:
        ScriptError: there is no such module, or it is not valid Python.
    """
    first = [] if sys.flags.safe_path else [str(folder)]
    where: list[str] | None = [*first, *_python_path(folder), *sys.path]
    full, spec = "", None
    for part in name.split("."):
        full = f"{full}.{part}" if full else part
        spec = PathFinder.find_spec(full, where)
        if spec is None:
            raise ScriptError(f"{sys.executable}: No module named {full}", _CANT_RUN)
        found = spec.submodule_search_locations
        where = None if found is None else list(found)
    if where is not None:
        spec = PathFinder.find_spec(f"{name}.__main__", where)
        if spec is None:
            raise ScriptError(
                f"{sys.executable}: No module named {name}.__main__; "
                f"{name!r} is a package and cannot be directly executed",
                _CANT_RUN,
            )
    if spec is not None:
        _check_module(spec)
    return ScriptTarget(module=name)


def _python_path(folder: Path) -> list[str]:
    """Return the entries of PYTHONPATH; a resume has restored those of its run after our own start."""
    path = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    return absolute_path(path, str(folder)).split(os.pathsep) if path else []


def _check_module(found: ModuleSpec) -> None:
    """Raise ScriptError unless a module's source, if it has one, compiles."""
    loader: Any = found.loader
    if hasattr(loader, "get_data") and found.origin and found.origin.endswith(".py"):
        check_source(loader.get_data(found.origin), found.origin)


def check_source(source: bytes, path: str) -> None:
    """Raise ScriptError, with the text that Python would print, unless the source compiles."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run itself will show the warnings
            compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        text = "".join(traceback.format_exception_only(error)).rstrip()
        raise ScriptError(text, _CANT_RUN) from error
