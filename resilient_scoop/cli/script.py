"""What is to be run, checked before a run exists for it: a typing error leaves nothing behind.

Whatever is wrong is said in Python's own words and with Python's exit codes, since the user may
as well have typed `python` instead of `rscoop run`.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

import click

DISTRIBUTIONS: Final = (
    "resilient-scoop", "pyzmq", "greenlet", "dill", "lmdb", "tenacity", "paramiko", "msgspec",
    "click", "rich", "psutil", "platformdirs", "tblib", "numpy", "deap",
)  # fmt: skip
"""What results may depend on; `resume` says which of them have changed."""
_CANT_OPEN, _CANT_RUN = 2, 1


class ScriptError(click.ClickException):
    """The script can't be started; the text is what Python would say."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class

    def show(self, file: object = None) -> None:  # noqa: ARG002  click's signature
        """Print the text as it is, without `Error:` before it."""
        click.echo(self.message, err=True)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be run: either a script's absolute path or a module's name."""

    script: str | None = None
    module: str | None = None


def find_script(name: str, folder: Path) -> Target:
    """Return the script that `python NAME` would run in `folder`, once it compiles.

    Raises:
        ScriptError: there is none, or it is no Python.
    """
    path = Path(os.path.normpath(folder / name))
    if path.is_dir():
        inner = path / "__main__.py"
        if not inner.is_file():
            raise ScriptError(
                f"{sys.executable}: can't find '__main__' module in {str(path)!r}", _CANT_RUN
            )
        path = inner
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ScriptError(
            f"{sys.executable}: can't open file {str(path)!r}: "
            f"[Errno {error.errno}] {error.strerror}",
            _CANT_OPEN,
        ) from error
    check_source(source, str(path))
    return Target(script=str(path))


def find_module(name: str, folder: Path) -> Target:
    """Check that `python -m NAME` would find something in `folder`; nothing is imported.

    Raises:
        ScriptError: there is no such module, or it is no Python.
    """
    where: list[str] | None = [str(folder), *sys.path]
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
    if spec is not None and spec.origin and spec.origin.endswith(".py"):
        check_source(Path(spec.origin).read_bytes(), spec.origin)
    return Target(module=name)


def check_source(source: bytes, path: str) -> None:
    """Raise ScriptError, with the text that Python would print, unless the source compiles."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run itself will show them, once
            compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        text = "".join(traceback.format_exception_only(error)).rstrip()
        raise ScriptError(text, _CANT_RUN) from error


def installed_versions() -> dict[str, str]:
    """Return the versions of DISTRIBUTIONS, read off the names of their metadata folders.

    `importlib.metadata` takes 60 ms to import, more than all else that a start does here.
    """
    wanted = {name.replace("-", "_"): name for name in DISTRIBUTIONS}
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208  names are all that is wanted
        except OSError:
            continue  # Python ignores such entries too
        for entry in entries:
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").rpartition("-")
                name = wanted.get(name.lower().replace("-", "_"), "")
                if name:
                    found.setdefault(name, version)
    return dict(sorted(found.items()))
