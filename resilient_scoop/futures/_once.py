"""`once` in a parent: return the recorded value, else run the function and record its value."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.core.parent.once import Label
from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.futures import _engine
from resilient_scoop.hashing import blake2b
from resilient_scoop.payload import payload as codec
from resilient_scoop.processes.random_streams import aside
from resilient_scoop.values.user_code import is_user_code
from resilient_scoop.values.values import SCALARS, content, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.futures._engine import Here

_VALUE, _ERROR = b"0", b"1"
_DIGITS: Final = 16
_DEPTH_MAX: Final = 8
"""Containers that are deeper count by their type; one may contain itself."""
_LENGTH_MAX: Final = 100
"""So do longer ones, because all of a large table would be read at each call."""


def label_of(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Label:
    """Return the name of a function, and a digest of its own code and of the constants that it gets."""
    name = getattr(function, "__qualname__", type(function).__name__)
    digest = blake2b(repr((_plain(args), _plain(keywords))).encode())
    while isinstance(function, partial):
        digest.update(repr((_plain(function.args), _plain(function.keywords))).encode())
        function = function.func
    function = getattr(function, "__func__", function)
    if isinstance(function, FunctionType) and is_user_code(function):
        cells = [content(cell) for cell in function.__closure__ or ()]
        digest.update(text_of(function) + repr(_plain(cells)).encode())
    return Label(name, digest.hexdigest()[:_DIGITS])


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value with the types of all that is no constant in place of it."""
    kind = type(value)
    if kind is int:
        return "int", hex(value)  # Python refuses to write very large numbers in decimal
    if kind in SCALARS:
        return value
    if kind not in (list, tuple, dict) or depth == _DEPTH_MAX or len(value) > _LENGTH_MAX:
        return kind.__qualname__
    if kind is not dict:
        return kind([_plain(each, depth + 1) for each in value])
    return {"dict": [(_plain(key), _plain(each, depth + 1)) for key, each in value.items()]}


def run(at: Here, label: Label, function: Callable[[], Any]) -> Any:
    """Return the value of a function, from this launch of the run or from an earlier one."""
    name = label.name
    _engine.refuse_cut(at, f"once({name})")
    parent, context, session = at.parent, at.context, at.session
    begun = parent.begin_once(context.in_once)
    if not parent.is_once_known(begun):
        _engine.block(at, lambda: parent.is_once_known(begun))
    with session.turn():
        answer = parent.recall_once(begun, label)
    if answer is None:
        context.in_once += 1
        try:
            with aside(session, f"!{begun.kind}{begun.call}.{begun.observation}"):
                answer = _answer(function, name)
        finally:
            context.in_once -= 1
        if parent.judge.refusal is not None:  # of a strict replay
            raise parent.judge.refusal.with_traceback(None)
        with session.turn():
            answer = parent.end_once(begun, label, answer)
        if not parent.once.is_durable:
            _engine.block(at, lambda: parent.once.is_durable)
    return _engine.decode(at, answer[1:], failed=answer[:1] == _ERROR, what=f"once({name})")


def _answer(function: Callable[[], Any], name: str) -> bytes:
    try:
        value = function()
    except Exception as error:  # user code: if it raises, the error is the answer
        return _ERROR + codec.dumps_exception(error, f"once({name})")
    try:
        return _VALUE + codec.dumps(value, f"value of once({name})", "value")
    except PicklingFailedError as error:  # the function has run, and must not run again
        return _ERROR + codec.dumps_exception(error, f"once({name})")
