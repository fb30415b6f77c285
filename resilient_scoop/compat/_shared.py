"""The module that scripts import as `scoop.shared`: constants, with SCOOP's defaults."""

from __future__ import annotations

from typing import Any

from resilient_scoop.shared import get_const, set_const

__all__ = ["getConst", "get_const", "setConst", "set_const"]

setConst = set_const  # noqa: N816 - SCOOP's name


def getConst(name: str, timeout: float | None = 0.1) -> Any:  # noqa: N802 - SCOOP's name
    """Return a constant; None if it is not set within `timeout` seconds, as in SCOOP.

    `resilient_scoop.shared.getConst` waits until it is set.
    """
    return get_const(name, timeout)
