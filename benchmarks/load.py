"""The work of the workers: plain functions, so that every peer can send them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARRAY_ITEMS = 1_000_000
"""Float64 items of an array: 8 MB."""
CHILDREN = 64
"""Items of each inner map of the nested case."""
_EVALUATION_MS = 2.0


def noop(value: Any) -> Any:
    """Return the argument."""
    return value


def spin(span_ms: float) -> float:
    """Keep a core busy until `span_ms` of wall time have passed."""
    until = time.perf_counter() + span_ms / 1000
    while time.perf_counter() < until:
        pass
    return span_ms


def burn(span_ms: float) -> float:
    """Use `span_ms` of CPU time: it takes longer if others use the core."""
    until = time.thread_time() + span_ms / 1000
    while time.thread_time() < until:
        pass
    return span_ms


def nap(span_ms: float) -> float:
    """Sleep without using a core, so that only the waiting for work is measured."""
    time.sleep(span_ms / 1000)
    return span_ms


def evaluate(individual: list[float]) -> tuple[float]:
    """Stand in for a fitness function of 2 ms."""
    spin(_EVALUATION_MS)
    return (sum(individual),)


def total(array: Any) -> float:
    """Return the sum of an array (the array is the argument)."""
    return float(array[0] + array[-1])


def filled(number: int) -> Any:
    """Return an array; each has different content, so that no two can share storage."""
    import numpy as np

    return np.full(ARRAY_ITEMS, float(number))


def stamp(path: str) -> None:
    """Write the time at which this call ran (CLOCK_MONOTONIC, the same in all processes)."""
    with Path(path).open("a") as file:
        file.write(f"{time.monotonic()}\n")


def chunk_of(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Call a function for each item of a chunk."""
    return [function(item) for item in items]


def chunked(function: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Return a function over chunks, for peers that have no `chunksize`."""
    return functools.partial(chunk_of, function)
