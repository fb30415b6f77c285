"""What is asked of the broker and answered behind a commit."""

from __future__ import annotations

import msgspec

from resilient_scoop.wire.attempt import Attempt


class _Struct(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):
    """Base of every frame."""


class BeginWanted(_Struct, frozen=True):
    """A worker would begin an `idempotent=False` item now; it waits for `MayBegin`."""

    attempt: Attempt
    index: int


class MayBegin(_Struct, frozen=True):
    """Answer to `BeginWanted`, behind the commit of the item's `Intent`."""

    attempt: Attempt
    index: int


class Noted(_Struct, frozen=True):
    """Answer to an `Observed` that asks for it: all observations up to `no` are durable."""

    parent: str
    no: int
