"""Find which modules are the user's own: not of the standard library, not installed, not ours."""

from __future__ import annotations

import os
from pathlib import Path
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


def is_users(module: Any) -> bool:
    """Return whether a module is the user's own."""
    return module is not None and is_users_file(getattr(module, "__file__", None))
