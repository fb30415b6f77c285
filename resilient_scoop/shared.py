"""Constants of a run: set once by name, journaled, kept once in every worker."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from resilient_scoop.adapters import payload as codec
from resilient_scoop.errors import ConstExistsError
from resilient_scoop.futures import _engine
from resilient_scoop.wire.messages import Const, encode

_values: dict[str, Any] = {}
NAME_BYTES_MAX = 400


def set_const(**constants: Any) -> None:
    """Set constants: callables, big objects, anything that can travel. Returns when they are on disk.

    Raises:
        ConstExistsError: a name is set already, to something else.
        PicklingFailedError: a value cannot travel.
    """
    at = _engine.here()
    for name, value in constants.items():
        if at is None:
            if name in _values:
                raise ConstExistsError(name)
            _values[name] = value
        else:
            _set(at, name, value)


def _set(at: _engine.Here, name: str, value: Any) -> None:
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(
            f"the constant's name {name[:20]!r}… is longer than {NAME_BYTES_MAX} bytes"
        )
    machine = at.session.machine
    # Synced: a constant is a record, and nobody makes it again after a power cut.
    payload = codec.dumps_large(
        value, at.session.store, sync=True, what=f"constant {name}", root=name
    )
    const = Const(name, hashlib.blake2b(payload, digest_size=16).digest(), payload)
    with at.session.lock:
        machine.out.append(encode(const))
    _engine.block(at, lambda: name in machine.consts)
    if machine.consts[name].digest != const.digest:
        raise ConstExistsError(name)


def get_const(name: str, timeout: float | None = None) -> Any:
    """Return a constant, waiting until it is set; None if it is not set within `timeout` seconds."""
    at = _engine.here()
    if at is None:
        return _values.get(name)
    machine = at.session.machine
    if timeout is not None:
        # Told always, known or not: on a replay it may be known sooner than it was.
        until = time.monotonic() + timeout
        found = _engine.told(
            at,
            "const",
            lambda: b"1" if _engine.block(at, lambda: name in machine.consts, until) else b"0",
        )
        if found == b"0":
            return None
    if name not in machine.consts:
        _engine.block(at, lambda: name in machine.consts)
    if name not in _values:
        payload = machine.consts[name].payload
        _values[name] = codec.loads(payload, at.session.store, f"constant {name}")
    return _values[name]


setConst = set_const  # noqa: N816 - SCOOP's name
getConst = get_const  # noqa: N816 - SCOOP's name
