"""Outcomes that the broker itself makes: tagged msgpack, since it neither pickles nor unpickles.

`payload.payload` turns it into an error.
"""

from __future__ import annotations

import msgspec

from resilient_scoop.wire.payload_tags import BROKER_ERROR


def broker_error(kind: str, *fields: object) -> bytes:
    """Return the payload of an outcome: `kind` is crashed, lost, timeout or cancelled."""
    return BROKER_ERROR + msgspec.msgpack.encode([kind, list(fields)])


def is_cancelled(payload: bytes) -> bool:
    """Return whether a payload is the outcome of a cancelled item."""
    return payload[:1] == BROKER_ERROR and read_broker_error(payload)[0] == "cancelled"


def read_broker_error(payload: bytes) -> tuple[str, list[object]]:
    """Return the kind and the fields of a payload made by `broker_error`."""
    kind, fields = msgspec.msgpack.decode(payload[1:], type=tuple[str, list[object]])
    return kind, fields
