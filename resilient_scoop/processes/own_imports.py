"""Late imports of rscoop itself, which do not depend on what the script does to `sys.path`.

Parts of rscoop and of its libraries are imported when they are first needed: an error's traceback,
a function sent by value. A script may have replaced `sys.path` by then. So the last finder of the
process searches the path with which the process began, but only for the standard library and
rscoop's libraries, and only if these or rscoop import them: imports of the user fail as under
`python`.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

_LIBRARIES: Final = frozenset(
    ["resilient_scoop", "dill", "greenlet", "lmdb", "msgspec", "psutil", "tblib", "tenacity", "zmq"]
)


def install() -> None:
    """Let late imports of rscoop succeed whatever the script does to `sys.path`."""
    if not any(isinstance(finder, _OwnImports) for finder in sys.meta_path):
        sys.meta_path.append(_OwnImports(list(sys.path)))


class _OwnImports:
    """The last finder of this process."""

    def __init__(self, path: list[str]) -> None:
        self._path = path

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module that rscoop, one of its libraries, or the standard library imports."""
        del target
        if path is not None or not _is_own(name) or not _is_own(_importer()):
            return None
        return PathFinder.find_spec(name, self._path)


def _is_own(name: str) -> bool:
    first = name.partition(".")[0]
    return first in _LIBRARIES or first in sys.stdlib_module_names


def _importer() -> str:
    """Return the name of the module that imports; empty if nothing is being imported."""
    frame, is_import = sys._getframe(2), False  # noqa: SLF001 - documented, for CPython
    while frame.f_back is not None:
        where = frame.f_globals.get("__name__", "")
        if where.partition(".")[0] == "importlib":
            is_import = is_import or frame.f_code.co_name == "_find_and_load"
        elif is_import:
            return str(where)
        frame = frame.f_back
    return ""
