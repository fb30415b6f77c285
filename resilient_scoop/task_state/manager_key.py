"""The key by which `multiprocessing` admits processes to a manager: that of the run, in each process.

A process that `multiprocessing` starts has the key of its parent. Workers are no children of the
script, so the first connection of a proxy would be refused.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from resilient_scoop.hashing import blake2b

MODULE: Final = "multiprocessing.process"
_KEY_BYTES: Final = 32


class _Run:
    key = b""


def follow(run: bytes) -> None:
    """Use a key that follows from the run's random number, before user code is imported."""
    _Run.key = blake2b(b"multiprocessing", key=run, digest_size=_KEY_BYTES).digest()
    if MODULE in sys.modules:
        set_key(sys.modules[MODULE])


def set_key(module: Any) -> None:
    """Set the key in `multiprocessing.process`, which is already imported."""
    if _Run.key:
        module.current_process().authkey = _Run.key
