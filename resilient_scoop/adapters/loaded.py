"""Modules that are loaded completely."""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """Return a module if it is there and its import has ended, else None.

    Before that, functions of a module in C may read memory that is not set up (`_socket` of Python 3.12).
    """
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):  # as `importlib` looks
        return None
    return module
