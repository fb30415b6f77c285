"""The identity of one try at a future."""

from __future__ import annotations

from resilient_scoop.wire.base import MessagePart


class Attempt(MessagePart, frozen=True):
    """One try at a future: `no` is unique within `epoch`."""

    epoch: int
    no: int
