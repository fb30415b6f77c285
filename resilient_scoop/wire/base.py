"""The bases of messages, and of parts of messages."""

from __future__ import annotations

import msgspec


class Frame(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):
    """A message or record: an array that begins with the name of its class."""


class MessagePart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a message: an array of its fields."""
