"""What every frame is made of: the base of the structs that travel, and an attempt's identity."""

from __future__ import annotations

import msgspec


class Frame(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):
    """Base of every frame."""


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One try at a future: `no` is unique within `epoch`."""

    epoch: int
    no: int
