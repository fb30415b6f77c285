"""Modules that are loaded completely."""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """Return a module if it is there and its import has ended, else None.

    A module in C that is still being imported may crash the process when it is used (`_socket` of
    Python 3.12). What a program has put into `sys.modules` itself counts as loaded.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module  # as `importlib` looks
