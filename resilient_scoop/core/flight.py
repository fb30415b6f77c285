"""What a process does: the content of a flight record, as values."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class OnCpu(NamedTuple):
    """The attempt and item that a process executes; `deadline_ns` is on CLOCK_MONOTONIC, 0 if none."""

    epoch: int
    no: int
    parent: str  # path of the item's parent; empty if it is too long to be recorded
    call: int
    item: int
    deadline_ns: int
    since_ns: int  # when this process began the slice, on CLOCK_MONOTONIC
    tries: int = 0  # earlier tries of the item in this process, under `retries=`


class Flight(msgspec.Struct, frozen=True):
    """A flight record at one moment."""

    on_cpu: OnCpu | None = None
    is_ready: bool = False  # the process has started its work
    has_ended: bool = False  # its work is done: it needs no successor
    reached: int = 0  # progress of the script: number of its calls and answers
    starts_s: float = 0.0  # seconds since its start, until it starts its work; then 0
