"""mystic: a map that returns a list, for `SetMapper`.

from resilient_scoop.contrib.mystic import mapper

solver.SetMapper(mapper)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["mapper"]


def mapper(function: Callable[..., Any], *iterables: Iterable[Any], **ignored: Any) -> list[Any]:
    """Return the results as a list, as mystic needs them. Its own keywords have no effect."""
    del ignored
    return list(futures.map(function, *iterables))
