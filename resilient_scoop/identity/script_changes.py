"""The script's changes in environment, search path, arguments and settings, sent with calls.

A worker starts with the environment of the run and imports the script. Changes of the script since
its own import (under its guard) are sent with each definition and apply while items of that
callable run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from resilient_scoop.identity import process_settings
from resilient_scoop.wire.callables import Setting


def apply(setting: Setting) -> None:
    """Apply the changes to this process."""
    for name, value in setting.environ.items():
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value
    if setting.search_path:
        sys.path[:] = setting.search_path
    if setting.arguments:
        sys.argv = list(setting.arguments)
    if setting.more:
        process_settings.apply(setting.more)


@contextmanager
def searching(setting: Setting | None) -> Iterator[None]:
    """Look for modules where the script does, while a callable or an argument is loaded."""
    if setting is None or not setting.search_path:
        yield
        return
    before = list(sys.path)
    sys.path[:] = setting.search_path
    try:
        yield
    finally:
        sys.path[:] = before


class _WorkerBase:
    environ: dict[bytes, bytes] = {}  # noqa: RUF012 - one per process
    search_path: list[str] = []  # noqa: RUF012 - one set for the process
    arguments: list[str] = []  # noqa: RUF012 - one set for the process
    known: Setting | None = None
    known_at = -1  # the version of the settings in `known`


def note(variables: dict[str, ContextVar[Any]] | None = None) -> None:
    """Record the present environment and search path as those of workers.

    `variables` are the context variables of the user's modules, by home.
    """
    _WorkerBase.environ, _WorkerBase.search_path = dict(os.environb), list(sys.path)
    _WorkerBase.arguments = list(sys.argv)
    process_settings.note(variables or {})


def changes() -> Setting | None:
    """Return the changes since `note`; None if there are none."""
    base = _WorkerBase
    same = sys.path == base.search_path and sys.argv == base.arguments
    version = process_settings.version()
    if same and base.known_at == version:
        return base.known
    if not _WorkerBase.search_path:
        return None  # nothing was recorded: not a process of a run
    now, then = dict(os.environb), _WorkerBase.environ
    environ: dict[bytes, bytes | None] = {
        name: value for name, value in now.items() if then.get(name) != value
    }
    environ.update(dict.fromkeys(then.keys() - now.keys()))
    moved = [] if sys.path == _WorkerBase.search_path else list(sys.path)
    arguments = [] if sys.argv == _WorkerBase.arguments else [str(each) for each in sys.argv]
    more = process_settings.pickled()
    changed = bool(environ or moved or arguments or more)
    found = Setting(dict(sorted(environ.items())), moved, arguments, more) if changed else None
    _WorkerBase.known, _WorkerBase.known_at = found, version if same else -1
    return found
