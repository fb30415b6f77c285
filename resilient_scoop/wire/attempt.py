"""The identity of one try at a future."""

from __future__ import annotations

from resilient_scoop.wire.base import Piece


class Attempt(Piece, frozen=True):
    """One try at a future: `no` is unique within `epoch`."""

    epoch: int
    no: int
