"""Questions to the broker that are answered after a commit."""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame


class BeginWanted(Frame, frozen=True):
    """A worker asks to start an `idempotent=False` item; it waits for `MayBegin`."""

    attempt: Attempt
    index: int


class MayBegin(Frame, frozen=True):
    """Answer to `BeginWanted`, after the commit of the item's `Intent`."""

    attempt: Attempt
    index: int


class Noted(Frame, frozen=True):
    """Answer to an `Observed` that requests it: all observations up to `no` are durable."""

    parent: str
    no: int
