"""The identity of one try at a future."""

from __future__ import annotations

import msgspec


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One try at a future: `no` is unique within `epoch`."""

    epoch: int
    no: int
