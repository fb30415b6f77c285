"""`once` in a parent: return the recorded value, else run the function and record its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.futures import _engine
from resilient_scoop.payload import payload as codec
from resilient_scoop.processes.random_streams import aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.futures._engine import Here

_VALUE, _ERROR = b"0", b"1"


def run(at: Here, name: str, function: Callable[[], Any]) -> Any:
    """Return the value of a function, from this launch of the run or from an earlier one."""
    _engine.refuse_cut(at, f"once({name})")
    parent, context, session = at.parent, at.context, at.session
    begun = parent.begin_once(context.in_once)
    if not parent.is_once_known(begun):
        _engine.block(at, lambda: parent.is_once_known(begun))
    with session.turn():
        answer = parent.recall_once(begun, name)
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
            answer = parent.end_once(begun, name, answer)
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
