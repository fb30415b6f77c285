"""Map-reduce and map-scan by trees of tasks.

The rows are cut into at most 64 parts, depending only on their number, so that the answer is the
same for any number of workers. The reduction needs only to be associative: the order of the rows is
kept.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_scoop.futures._api import map as futures_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
_RUNS, _FAN = 64, 8


def _fold_rows(
    map_func: Callable[..., Any], op: Callable[[Any, Any], Any], rows: list[tuple[Any, ...]]
) -> Any:
    return functools.reduce(op, [map_func(*row) for row in rows])


def _fold(op: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    return functools.reduce(op, values)


def _scan_rows(
    map_func: Callable[..., Any], op: Callable[[Any, Any], Any], rows: list[tuple[Any, ...]]
) -> list[Any]:
    total: list[Any] = []
    for row in rows:
        value = map_func(*row)
        total.append(op(total[-1], value) if total else value)
    return total


def _shift(op: Callable[[Any, Any], Any], before: Any, values: list[Any]) -> list[Any]:
    return [op(before, value) for value in values]


def _runs(rows: list[Any], count: int) -> list[list[Any]]:
    size = max(1, -(-len(rows) // count))
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def map_reduce(
    mapFunc: Callable[..., Any],
    reductionOp: Callable[[T, T], T],
    *iterables: Iterable[Any],
) -> T:
    """Return the reduction of `mapFunc(*row)` over the rows of the zipped iterables.

    Raises:
        TypeError: there is no row, as in `functools.reduce`.
    """
    rows = list(zip(*iterables, strict=False))
    if not rows:
        raise TypeError("mapReduce() of empty iterables with no initial value")
    fold_rows = functools.partial(_fold_rows, mapFunc, reductionOp)
    values = list(futures_map(fold_rows, _runs(rows, _RUNS)))
    while len(values) > 1:
        fold = functools.partial(_fold, reductionOp)
        values = list(futures_map(fold, _runs(values, -(-len(values) // _FAN))))
    result: T = values[0]
    return result


def map_scan(
    mapFunc: Callable[..., Any],
    reductionOp: Callable[[T, T], T],
    *iterables: Iterable[Any],
) -> list[T]:
    """Return all inclusive prefix reductions of `mapFunc(*row)`, in the order of the rows."""
    rows = list(zip(*iterables, strict=False))
    if not rows:
        return []
    scan_rows = functools.partial(_scan_rows, mapFunc, reductionOp)
    parts: list[list[Any]] = list(futures_map(scan_rows, _runs(rows, _RUNS)))
    before = parts[0][-1]
    carried = []
    for part in parts[1:]:
        carried.append(before)
        before = reductionOp(before, part[-1])
    shifted = futures_map(functools.partial(_shift, reductionOp), carried, parts[1:])
    return [*parts[0], *(value for part in shifted for value in part)]


mapReduce = map_reduce  # noqa: N816 - SCOOP's name
mapScan = map_scan  # noqa: N816 - SCOOP's name
