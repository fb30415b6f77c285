"""Changes of the script to its environment, search path and arguments, which its calls bring along.

A worker starts with the environment of the run and imports the script. What the script has changed since
its own import (under its guard) is sent with each definition and holds while items of that callable run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from resilient_scoop.wire.callables import Setting


def apply(setting: Setting) -> None:
    """Change this process accordingly."""
    for name, value in setting.environ.items():
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value
    if setting.search_path:
        sys.path[:] = setting.search_path
    if setting.arguments:
        sys.argv = list(setting.arguments)


class _Base:
    environ: dict[bytes, bytes] = {}  # noqa: RUF012 - one per process
    search_path: list[str] = []  # noqa: RUF012
    arguments: list[str] = []  # noqa: RUF012
    version = 0  # rises with each change of a variable
    known: Setting | None = None
    known_at = -1  # the version that `known` is of


def note() -> None:
    """Take environment and search path as they are for what a worker has, too."""
    _Base.environ, _Base.search_path = dict(os.environb), list(sys.path)
    _Base.arguments = list(sys.argv)
    for name in ("putenv", "unsetenv"):  # `os.environ` calls them by these names
        made = getattr(os, name)
        if not isinstance(made, _Counted):
            setattr(os, name, _Counted(made))
    _Base.version += 1


class _Counted:
    """A function of `os` that changes the environment, and counts that it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        _Base.version += 1
        return self._function(*args)


def changes() -> Setting | None:
    """Return what has been changed since `note`; None where nothing has."""
    base = _Base
    same = sys.path == base.search_path and sys.argv == base.arguments
    if same and base.known_at == base.version:
        return base.known
    if not _Base.search_path:
        return None  # nothing was noted: no process of a run
    now, then = dict(os.environb), _Base.environ
    environ: dict[bytes, bytes | None] = {
        name: value for name, value in now.items() if then.get(name) != value
    }
    environ.update(dict.fromkeys(then.keys() - now.keys()))
    moved = [] if sys.path == _Base.search_path else list(sys.path)
    told = [] if sys.argv == _Base.arguments else [str(each) for each in sys.argv]
    changed = bool(environ or moved or told)
    found = Setting(dict(sorted(environ.items())), moved, told) if changed else None
    _Base.known, _Base.known_at = found, _Base.version if same else -1
    return found
