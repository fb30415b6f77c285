"""What a process does, as its agent knows it: the content of a flight record, as values."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class OnCpu(NamedTuple):
    """The attempt and item that a process executes; `deadline_ns` is on CLOCK_MONOTONIC, 0 if none."""

    epoch: int
    no: int
    parent: str  # path of the item's parent; empty where it is too long to be noted
    call: int
    item: int
    deadline_ns: int
    since_ns: int  # when this process began the slice, on CLOCK_MONOTONIC
    tries: int = 0  # earlier tries of the item in this process, under `retries=`


class Flight(msgspec.Struct, frozen=True):
    """A flight record at one moment."""

    on_cpu: OnCpu | None = None
    is_ready: bool = False  # the process has begun its work
    has_ended: bool = False  # its work is done: it needs no successor
    reached: int = 0  # how far the script is: its calls and the answers it was told
    starts_s: float = 0.0  # for how long it has been starting; 0 where it has begun its work
