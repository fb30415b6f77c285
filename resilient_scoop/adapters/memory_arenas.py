"""Arenas of the C library, of which each thread that allocates memory reserves one of 64 MiB.

With a limit of address space (`ulimit -v`), arenas could leave no room for the stack of the next
thread. Then all threads of the process share one.
"""

from __future__ import annotations

import resource
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of malloc.h."""


def share_if_limited() -> None:
    """Let threads share an arena if address space is limited; call it before the first thread."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    import ctypes  # it takes 2 ms, and limits are rare

    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has no arenas
        libc.mallopt(_ARENA_MAX, 1)
