"""What is asked of the broker and answered behind a commit."""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame


class BeginWanted(Frame, frozen=True):
    """A worker would begin an `idempotent=False` item now; it waits for `MayBegin`."""

    attempt: Attempt
    index: int


class MayBegin(Frame, frozen=True):
    """Answer to `BeginWanted`, behind the commit of the item's `Intent`."""

    attempt: Attempt
    index: int


class Noted(Frame, frozen=True):
    """Answer to an `Observed` that asks for it: all observations up to `no` are durable."""

    parent: str
    no: int
