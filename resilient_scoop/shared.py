"""Constants of a run: set once by name, journaled, and given unchanged to each task.

Whether a name is set again to the same value is decided by the digest of the value, never by its
pickle: a replay makes an equal array, set or closure again, and its pickle or file may differ.
"""

from __future__ import annotations

import sys
from typing import Any

from resilient_scoop import ids
from resilient_scoop.core.parent.history import Question
from resilient_scoop.errors import ConstExistsError, PicklingFailedError, RscoopError
from resilient_scoop.futures import _engine
from resilient_scoop.hashing import blake2b
from resilient_scoop.identity.digest import digest_anew, digest_value
from resilient_scoop.payload import payload as codec
from resilient_scoop.processes.callables import is_stateless
from resilient_scoop.processes.here import Process
from resilient_scoop.wire.messages import Const, encode
from resilient_scoop.wire.payload_tags import FILE

_values: dict[str, Any] = {}
NAME_BYTES_MAX = 400
_FROZEN = frozenset({int, float, bool, str, bytes, type(None), complex})
OWN_BYTES_MAX = 1 << 16
"""A larger constant is shared by the tasks of a worker, because loading it again would cost too much."""


def set_const(**constants: Any) -> None:
    """Set constants: callables, big objects, anything that can be pickled. Returns when they are on disk.

    Setting a name again to an equal value, as a replay does, changes nothing.

    Raises:
        ConstExistsError: a name is already set to another value. PicklingFailedError: a value
        cannot be pickled.
    """
    at = _engine.here()
    for name, value in constants.items():
        if at is not None:
            _set(at, name, value)
        elif name not in _values:
            _values[name] = value
        elif not _is_same(value, _values[name]):
            raise ConstExistsError(name)


def _set(at: _engine.Here, name: str, value: Any) -> None:
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(
            f"the constant's name {name[:20]!r}… is longer than {NAME_BYTES_MAX} bytes"
        )
    machine, store = at.session.machine, at.session.store
    if name in machine.consts:  # on a replay: nothing to write
        _compare(at, machine.consts[name], value)
        return
    # Synced: a constant is a record, and it is not made again after a power cut.
    payload = codec.dumps_large(value, store, sync=True, what=f"constant {name}", root=name)
    digest = digest_value(value) or _digest_of_payload(payload)
    const = Const(name, digest, payload)
    with at.session.turn():
        at.session.send(encode(const))
    _engine.block(at, lambda: name in machine.consts)
    kept = machine.consts[name]
    if kept.payload == payload:
        return
    if payload[:1] == FILE:
        store.withdraw(payload[1:])  # another task was first: no record names this file
    _compare(at, kept, value)


def _digest_of_payload(payload: bytes) -> bytes:
    """Return what counts for a constant without a digest."""
    return blake2b(payload, digest_size=16).digest()


def _compare(at: _engine.Here, kept: Const, value: Any) -> None:
    """Refuse a value that differs from the stored one; for the script, also if its code was edited.

    Raises:
        ConstExistsError: it differs.
    """
    digest = digest_value(value)
    if digest == kept.digest:
        return
    has_digest = kept.digest != _digest_of_payload(kept.payload)
    is_kept = at.context.path != ids.ROOT or "*" in Process.policy.reuse
    if has_digest and not is_kept and digest is not None and digest == digest_anew(value):
        raise ConstExistsError(kept.name)
    try:  # of an older version, of edited code, or it cannot be compared
        journaled = codec.loads(kept.payload, at.session.store, f"constant {kept.name}")
    except RscoopError as error:
        raise ConstExistsError(kept.name) from error
    if not _is_same(value, journaled):
        raise ConstExistsError(kept.name)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal: by their digests, else by their pickles."""
    mine = digest_value(one)
    if mine is not None:
        return mine == digest_value(other)
    try:
        return codec.dumps(one) == codec.dumps(other)
    except PicklingFailedError:  # without `rscoop`, values need not be pickled
        return one is other


def get_const(name: str, timeout: float | None = None) -> Any:
    """Return a constant, waiting until it is set; None if it is not set within `timeout` seconds.

    Each task gets it unchanged, and the same object each time. A constant of more than 64 KiB is
    loaded once per worker and shared by its tasks: its arrays are read-only, and other changes in
    it are visible to other tasks (`--audit` names them).
    """
    at = _engine.here()
    if at is None:
        return _values.get(name)
    machine = at.session.machine
    if timeout is not None:
        # Always recorded, even if already known: on a replay it may be known earlier.
        limit = _engine.Limit(timeout)
        found = _engine.observe(
            at,
            Question("const", name),
            lambda: (
                b"1" if _engine.block(at, lambda: name in machine.consts, limit.until) else b"0"
            ),
            limit,
        )
        if found == b"0":
            _engine.in_vain(at)
            return None
    if name not in machine.consts:
        _engine.block(at, lambda: name in machine.consts)
    own = at.context.consts
    if name not in own:
        own[name] = _values[name] if name in _values else _loaded(at, machine.consts[name])
    return own[name]


def _loaded(at: _engine.Here, const: Const) -> Any:
    """Return a constant for this task, or, if it is immutable, for all tasks here."""
    value = codec.loads(const.payload, at.session.store, f"constant {const.name}")
    is_large = len(const.payload) > OWN_BYTES_MAX or const.payload[:1] == FILE
    if is_large or _is_frozen(value) or is_stateless(value):
        _values[const.name] = value
        _forbid_writing(value)
    return value


def _is_frozen(value: Any) -> bool:
    """Return whether a value is deeply immutable."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_frozen, value))
    return type(value) in _FROZEN


def _forbid_writing(value: Any, depth: int = 3) -> None:
    """Make arrays read-only: tasks share them."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not depth:
        return
    if isinstance(value, numpy.ndarray):
        value.flags.writeable = False
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            _forbid_writing(each, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        _forbid_writing(vars(value), depth - 1)


setConst = set_const  # noqa: N816 - SCOOP's name
getConst = get_const  # noqa: N816 - SCOOP's name
