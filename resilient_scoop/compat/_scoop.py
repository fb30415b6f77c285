"""The module that scripts import as `scoop`: constants of the process, `futures` and `shared`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import resilient_scoop
from resilient_scoop import futures, this_process
from resilient_scoop.compat import _shared as shared

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["futures", "shared"]

__path__: list[str] = []  # a package whose modules are found by `processes.scoop_names`

CONFIGURATION: Final = {"headless": False, "backend": "ZMQ"}
SHUTDOWN_REQUESTED: Final = False
TIME_BETWEEN_PARTIALDEBUG: Final = 30
TIME_BETWEEN_STATUS_REPORTS: Final = 25
TIME_BETWEEN_STATUS_PRUNING: Final = 60

_LIVE: Final = this_process.NAMES | {"logger"}
"""Names that the package sets when its process has started."""


def __getattr__(name: str) -> Any:
    if name in _LIVE:
        return getattr(resilient_scoop, name)
    if name == "MAIN_MODULE":
        return _main_module()
    if name == "WORKING_DIRECTORY":
        return os.getcwd()  # noqa: PTH109 - SCOOP has a string
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"scoop.{name} does not exist in resilient_scoop, which stands in for SCOOP here; it has "
        f"{', '.join(sorted(_LIVE))}, MAIN_MODULE, WORKING_DIRECTORY, CONFIGURATION, futures and shared"
    )


def _main_module() -> str | None:
    main: ModuleType | None = sys.modules.get("__main__")
    return getattr(main, "__file__", None)
