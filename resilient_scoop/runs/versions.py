"""The installed versions of packages on which results depend."""

from __future__ import annotations

import os
import sys
from typing import Final

DISTRIBUTIONS: Final = (
    "resilient-scoop", "pyzmq", "greenlet", "dill", "lmdb", "tenacity", "paramiko", "msgspec",
    "click", "rich", "psutil", "platformdirs", "tblib", "numpy", "deap",
)  # fmt: skip
"""Packages on which results may depend; `resume` reports changes of their versions."""


def installed_versions() -> dict[str, str]:
    """Return the versions of DISTRIBUTIONS, read from the names of their metadata folders.

    Importing `importlib.metadata` takes 60 ms, more than everything else at the start.
    """
    wanted = {name.replace("-", "_"): name for name in DISTRIBUTIONS}
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208 - names are all that is wanted
        except OSError:
            continue  # Python ignores such entries too
        for entry in entries:
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").rpartition("-")
                name = wanted.get(name.lower().replace("-", "_"), "")
                if name:
                    found.setdefault(name, version)
    return dict(sorted(found.items()))
