"""The results of an undisturbed run, computed without a runtime: the world must have the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.parent.by_content import ByContent
from tests.sim.programs import (
    FNS,
    Body,
    Failed,
    Fn,
    Op,
    RaisedError,
    Step,
    digest,
    draw_value,
    encode_arg,
    step_value,
    value_of,
)
from tests.sim.scripts import script

_decode = msgspec.msgpack.Decoder().decode


class Untrue(AssertionError):
    """The history of the world is not possible in an undisturbed run."""


class _Teller:
    """Gives a body the answers that it got in the world."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = list(answers)

    def next(self, op: Op) -> Any:
        if not self.answers:
            raise Untrue(f"nothing was written down of {op[0]}")
        answer = self.answers.pop(0)
        if op[0] == "wait_any":
            answer = tuple(answer)
            if answer not in op[1]:
                raise Untrue(f"told of {answer}, which is none of {op[1]}")
        return answer


def check_value(fn: Fn, path: str, arg: Any, value: Any) -> None:
    """Raise `Untrue` if an item cannot have this outcome."""
    if isinstance(value, Failed):
        allowed = {"cancelled"} | ({"raised"} if fn.raises or fn.name == "flaky" else set())
        allowed |= ({"crashed"} if fn.poison else set()) | (set() if fn.idempotent else {"lost"})
        allowed |= {"timeout"} if fn.late else set()
        if value.kind not in allowed:
            raise Untrue(f"{path} = {fn.name}({arg}) failed as {value.kind}, not as {allowed}")
        return
    answers = value[0] if fn.tells else []
    expected = truth(fn, path, arg, answers)
    if value != expected:
        raise Untrue(f"{path} = {fn.name}({arg}) is {value}, not {expected}")


def truth(fn: Fn, path: str, arg: Any, answers: Sequence[Any] = ()) -> Any:
    """Return the value of an item, computed without a runtime."""
    if fn.raises:
        return Failed("raised")
    if fn.poison:
        return Failed("crashed")
    if fn.late == 1.0:
        return Failed("timeout")
    if fn.body is None:
        value = value_of(fn, path, arg)
        for step in range(fn.steps):
            value = step_value(value, step)
        return value
    try:
        return _pure(fn.body(arg), path, _Teller(answers), None)
    except RaisedError:
        return Failed("raised")


def check_output(steps: Sequence[Step], output: bytes) -> None:
    """Raise `Untrue` if the script cannot have printed this."""
    answers = []
    for line in output.split(b"\n")[:-1]:
        words = _decode(bytes.fromhex(line.decode()))
        if words[0] == "told":
            answers.append(words[1])
    printed = bytearray()
    try:
        _pure(script(steps), ids.ROOT, _Teller(answers), printed)
    except Untrue as error:
        raise Untrue(f"{error}; printed up to there: {bytes(printed)!r} of {output!r}") from None
    if printed != output:
        raise Untrue(f"printed {output!r}, not {bytes(printed)!r}")


def _pure(body: Body, path: str, teller: _Teller, printed: bytearray | None) -> Any:
    calls: list[tuple[str, list[Any]]] = []
    shared = ByContent()
    cancelled: set[tuple[int, int]] = set()
    answer: Any = None
    draws = 0
    while True:
        try:
            op = body.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = None
        match op:
            case ("map", fn, args):
                calls.append((fn, list(args)))
                answer = len(calls) - 1
            case ("open", fn):
                calls.append((fn, []))
                answer = len(calls) - 1
            case ("add", call, args, _):
                calls[call][1].extend(args)
            case ("result", call, index):
                if (call, index) in cancelled:
                    answer = Failed("cancelled")
                else:
                    answer = _item(path, calls[call], call, index, teller)
            case ("threads", fn, args):
                answer = [_shared_item(shared, FNS[fn], arg) for arg in args]
            case ("print", data) if printed is not None:
                printed += data
            case ("draw",):
                draws += 1
                answer = draw_value(path, draws)
            case ("cancel", call, index):
                answer = teller.next(op)
                cancelled |= {(call, index)} if answer else set()
            case ("get_const", name):
                answer = int(name[1:])
            case ("once_begin", inside):
                calls += [("", [])] * inside  # the calls of the function
                answer = teller.next(op)
            case ("once" | "wait_any" | "poll", *_):
                answer = teller.next(op)
            case _:
                pass  # takes time, and nothing else


def _shared_item(shared: ByContent, fn: Fn, arg: Any) -> Any:
    number = shared.number(fn.id, digest(encode_arg(arg)))
    return truth(fn, ids.item_path(ids.SHARED, number, 0), arg)


def _item(path: str, call: tuple[str, list[Any]], number: int, index: int, teller: _Teller) -> Any:
    fn, args = FNS[call[0]], call[1]
    item = ids.item_path(path, number, index)
    if fn.tells:  # the script prints the results that it got, and these are checked
        value = teller.next(("result",))
        check_value(fn, item, args[index], value)
        return value
    if not fn.is_certain and (kind := teller.next(("result",))):
        return Failed(kind)
    return truth(fn, item, args[index])
