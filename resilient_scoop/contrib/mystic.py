"""mystic: a map that returns a list, for `SetMapper`.

    from resilient_scoop.contrib.mystic import mapper

    solver.SetMapper(mapper)

In a session or with an executor: `solver.SetMapper(Mapper(session.map))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[..., Iterable[Any]]

__all__ = ["Mapper", "mapper"]


class Mapper:
    """A mapper. `map` defaults to `futures.map`; a session's or an executor's fits, too."""

    def __init__(self, map: Map = futures.map) -> None:  # noqa: A002 - the usual name
        self._map = map

    def __call__(
        self, function: Callable[..., Any], *iterables: Iterable[Any], **ignored: Any
    ) -> list[Any]:
        """Return the results as a list, as mystic needs them. Its own keywords have no effect."""
        del ignored
        return list(self._map(function, *iterables))


mapper = Mapper()
