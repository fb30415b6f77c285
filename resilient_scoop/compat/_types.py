"""Names that scripts import from `scoop._types`, `scoop.fallbacks` and `scoop._comm`."""

from __future__ import annotations

import builtins
import enum
from concurrent.futures import CancelledError
from typing import Final

from resilient_scoop.futures import Future

__all__ = [
    "CallbackType", "CancelledError", "Future", "NotStartedProperly", "ReferenceBroken", "Shutdown",
    "TimeoutError",
]  # fmt: skip

TimeoutError: Final = builtins.TimeoutError  # noqa: A001 - SCOOP's name


class CallbackType(enum.Enum):
    """The third kind of argument of `add_done_callback`: accepted, without effect."""

    standard = "standard"
    universal = "universal"


class NotStartedProperly(Exception):  # noqa: N818 - SCOOP's name
    """Never raised here; defined so that scripts can catch it.

    Without `rscoop`, calls run one after another.
    """


class Shutdown(Exception):  # noqa: N818 - SCOOP's name
    """Never raised here: a run whose processes are lost continues."""


class ReferenceBroken(Exception):  # noqa: N818 - SCOOP's name
    """Never raised here: a function that a worker lacks is an error of its future."""
