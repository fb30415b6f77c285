"""Find which modules belong to the user: not to the standard library, an installed package, or this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

PACKAGE: Final = str(Path(__file__).resolve().parents[1]) + os.sep
STANDARD: Final = (str(Path(os.__file__).parent) + os.sep, "<frozen ")
_INSTALLED: Final = ("site-packages", "dist-packages")


def is_standard(file: str) -> bool:
    """Return whether a source file belongs to the standard library."""
    return file.startswith(STANDARD) and not any(each in file for each in _INSTALLED)


def is_users_file(file: str | None) -> bool:
    """Return whether a source file is the user's own."""
    if not file or file.startswith((PACKAGE, *STANDARD)):
        return False
    return not any(each in file for each in _INSTALLED)


def is_users(module: object) -> bool:
    """Return whether an object is a module of the user."""
    return isinstance(module, ModuleType) and is_users_file(vars(module).get("__file__"))


def loaded() -> list[tuple[str, ModuleType]]:
    """Return the loaded modules by name; programs put other things into `sys.modules`, too, also None."""
    found: list[tuple[str, Any]] = list(sys.modules.items())
    return [(name, module) for name, module in found if isinstance(module, ModuleType)]


def scope_of(name: str) -> dict[str, Any]:
    """Return the globals of a loaded module; empty if there is none of this name."""
    module: object = sys.modules.get(name)
    return vars(module) if isinstance(module, ModuleType) else {}


def file_of(name: str) -> str | None:
    """Return the file of a loaded module, if it has one."""
    file = scope_of(name).get("__file__")
    return file if isinstance(file, str) else None
