"""Functions of the simulated world: generators of operations, and the values of leaves.

A body yields one operation at a time and is sent its answer. The same bodies run in two ways: in
the world, by workers that die; and in `truths`, without workers.

The body records every answer that may differ between two undisturbed runs (an order of completion,
a draw, whether a cancellation came in time), so that `truths` can give the same answers. Values
depend on the item's path and its arguments, so a result that is given to another call is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import read_broker_error
from resilient_scoop.wire.payload_tags import BROKER_ERROR

RUN_SEED = 0xC0FFEE
Op = tuple[Any, ...]
Body = Generator[Op, Any, Any]
Step = tuple[Any, ...]
"""Of a script (`scripts`)."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Failed:
    """Replaces the value of an item that failed."""

    kind: str  # raised, crashed, lost, cancelled, timeout


class RaisedError(Exception):
    """Raised by a body that fails."""


@dataclass(frozen=True, slots=True)
class Fn:
    """A function that simulated scripts call."""

    name: str
    mean_s: float = 0.01
    body: Callable[[Any], Body] | None = None  # None: a leaf
    idempotent: bool = True
    poison: bool = False
    raises: bool = False
    steps: int = 0  # a long leaf: reports its progress after each step, and saves its state
    tells: bool = False  # its value contains the answers that it got: [answers, result]
    timeout_s: float | None = None
    late: float = 0.0  # chance that an attempt exceeds its time limit
    retries: int = 0  # chance for a late item
    priority: int = 0
    pure: bool = False  # its value depends only on its argument
    # its values are files, which are removed with the last record that names them
    large: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether any two undisturbed runs have the same result, except for cancellations."""
        return self.idempotent and self.late in (0.0, 1.0)

    @property
    def id(self) -> bytes:
        return name_digest(self.name)

    def define(self) -> wire.Define:
        options = wire.Options(
            timeout_s=self.timeout_s, retries=self.retries, idempotent=self.idempotent,
            priority=self.priority,
        )  # fmt: skip
        return wire.Define(
            self.id,
            self.id,
            self.name,
            b"code of " + self.name.encode(),
            options,
            self.pure,
        )


@cache
def name_digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()


def digest(arg: bytes) -> bytes:
    return blake2b(arg, digest_size=ids.DIGEST_BYTES).digest()


def encode_arg(arg: Any) -> bytes:
    return _encode(arg)


def decode_arg(raw: bytes) -> Any:
    return _decode(raw)


def encode_value(value: Any, *, large: bool = False) -> bytes:
    """Return the payload of a value; with `large`, its content is in a file."""
    return (b"B" if large else b"V") + _encode(value)


def read_outcome(payload: bytes, *, failed: bool) -> Any:
    """Return a value, or `Failed`."""
    if not failed:
        return _decode(payload[1:])
    return Failed(read_broker_error(payload)[0] if payload[:1] == BROKER_ERROR else "raised")


@cache
def _mix(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def mix(*parts: Any) -> int:
    return _mix(repr(parts))


def leaf_value(path: str, arg: Any) -> int:
    """Return what any leaf returns: a draw from the item's own random stream, and its argument."""
    return mix(ids.seed_of(RUN_SEED, path), arg)


def pure_value(arg: Any) -> int:
    """Return what a pure leaf returns."""
    return mix("pure", arg)


def value_of(fn: Fn, path: str, arg: Any) -> int:
    """Return what a leaf returns."""
    return pure_value(arg) if fn.pure else leaf_value(path, arg)


def step_value(value: int, step: int) -> int:
    """Return the value of a long leaf after one more step."""
    return mix(value, step)


def draw_value(path: str, draws: int) -> int:
    """Return a draw from a parent's own stream."""
    return mix(ids.seed_of(RUN_SEED, path), "draw", draws)


def fan(arg: Any) -> Body:
    """Make a map, whose items do the same to some depth, and fold the values in order."""
    depth, width, leaf = arg
    yield ("compute", 0.002)
    fn, args = (leaf, list(range(width))) if depth <= 1 else ("fan", [[depth - 1, width, leaf]] * 2)
    call = yield ("map", fn, args)
    total = 0
    for index in range(len(args)):
        total = mix(total, (yield ("result", call, index)))
    return total


def dice(arg: Any) -> Body:
    """Draw a number that differs in each run, and use it as an argument."""
    drawn = yield ("once",)
    call = yield ("map", "leaf", [drawn, drawn + arg])
    first = yield ("result", call, 0)
    again = yield ("once",)
    second = yield ("result", call, 1)
    return [[drawn, again], mix(first, second, again)]


def race(arg: Any) -> Body:
    """Handle calls in the order of completion."""
    answers: list[Any] = []
    chain = yield from steady(arg, answers.append)
    return [answers, chain]


def steady(total: int, tell: Callable[[Any], None]) -> Generator[Op, Any, int]:
    pending: list[tuple[int, int]] = []
    chain, made = 0, 0
    while made < min(3, total):
        made += 1
        pending.append(((yield ("map", "leaf", [made])), 0))
    while pending:
        call, index = yield ("wait_any", tuple(pending))
        tell([call, index])
        pending.remove((call, index))
        chain = mix(chain, call, (yield ("result", call, index)))
        if made < total:
            made += 1
            pending.append(((yield ("map", "leaf", [chain % 97])), 0))
    return chain


def flaky(arg: Any) -> Body:
    """Fail several times, with longer and longer pauses, and then succeed or give up."""
    for tries in range(3):
        yield ("compute", 0.02)
        if tries == arg % 4:
            return mix("flaky", arg)
        yield ("sleep", 0.05 * 2**tries)
    raise RaisedError


def user(arg: Any) -> Body:
    """Use a constant; wait if it is not set yet."""
    name, more = arg
    yield ("compute", 0.01)
    return mix((yield ("get_const", name)), more)


def quitter(arg: Any) -> Body:
    """Make calls and cancel them, in a task."""
    count, waits = arg
    answers = []
    call = yield ("map", "slow", list(range(count)))
    for at, wait in enumerate(waits):
        yield ("sleep", wait)
        answers.append((yield ("cancel", call, (at * 2 + 1) % count)))
    total = 0
    for index in range(count):
        total = mix(total, repr((yield ("result", call, index))))
    return [answers, total]


def kept(count: int) -> Generator[Op, Any, Any]:
    """Call `once` with a function that makes calls, gets answers, and calls `once` itself."""
    answer = yield ("once_begin", 2)
    if answer is None:
        first = yield ("once_begin", 0)
        if first is None:
            first = yield ("once_end", (yield ("noise",)))
        call = yield ("map", "leaf", list(range(count)))
        seen = yield ("poll", call, 0)
        inner = yield ("once_begin", 1)
        if inner is None:
            other = yield ("map", "slow", [count])
            value = yield ("result", other, 0)
            inner = yield ("once_end", [value, (yield ("noise",))])
        total = 0
        for index in range(count):
            total = mix(total, (yield ("result", call, index)))
        answer = yield ("once_end", [total, inner, [seen, first], (yield ("noise",))])
    return answer


def keeper(arg: Any) -> Body:
    """Record a varying value with `once`, in a task, and use it."""
    first = yield from kept(arg)
    call = yield ("map", "leaf", [first[3] % 97, arg])
    answers = [first, (yield ("once",))]
    total = yield ("result", call, 1)
    answers.append((yield from kept(1)))
    return [answers, mix(total, (yield ("result", call, 0)), answers[-1][3])]


def saver(arg: Any) -> Body:
    """Continue from checkpoints of its own."""
    total, width = arg
    answers: list[Any] = []
    chain = yield from durable("main", total, width, answers, None)
    return [answers, chain]


def durable(
    name: str, total: int, width: int, answers: list[Any], tell: Callable[..., Op] | None
) -> Generator[Op, Any, int]:
    """Run a loop over generations, with futures that outlive them, draws, and a commit at the end of each.

    Some futures were made before the block. Some outlive generations and are not in the state; then
    nothing of them may be in the state, but they can be read as long as the parent lives.
    """
    early = yield ("map", "large" if total % 2 else "slow", [total])
    state = yield ("durable", name)
    gen, chain, pending, answers[:] = (0, 0, [[early, 0]], []) if state is None else state
    held: list[int] = []
    while gen < total:
        if gen % 3 == 0:
            held.append((yield ("map", "large" if gen % 2 else "slow", [gen])))
        if gen % 3 == 2 and held:
            yield ("result", held.pop(), 0)
        drawn = yield ("draw",)
        args = [gen, chain % 97, drawn % 89, gen % 2][:width]
        call = yield ("map", "leaf", args)
        pending.append([(yield ("map", ("leaf", "slow", "large")[gen % 3], [drawn % 83])), 0])
        if len(pending) > 2:
            chain = mix(chain, (yield from _next(pending, answers, tell)))
        for index in reversed(range(len(args))):
            chain = mix(chain, (yield ("result", call, index)))
        if gen % 2:
            answers.append((yield ("once",)))
            if tell is not None:
                yield tell("told", answers.pop())
        if tell is not None:
            yield tell("gen", gen, chain)
        gen += 1
        yield ("commit", name, [gen, chain, pending, answers], pending)
    while held:
        yield ("result", held.pop(), 0)
    while pending:
        chain = mix(chain, (yield from _next(pending, answers, tell)))
    yield ("leave", name)
    return mix(chain, (yield ("draw",)))


def venture(arg: Any) -> Body:
    """Have an effect and make calls, as a parent that must not be started twice."""
    yield ("compute", 0.01)
    call = yield ("map", "slow" if arg % 2 else "leaf", [arg, arg + 1])
    first = yield ("result", call, 1)
    yield ("sleep", 0.2)
    other = yield ("map", "leaf", [arg])
    return mix(first, (yield ("result", call, 0)), (yield ("result", other, 0)))


def glance(arg: Any) -> Body:
    """Take the first results of calls, and give up the rest."""
    leaf, count, reads, again = arg
    total = 0
    for at in range(again):
        call = yield ("open", leaf)
        yield ("add", call, list(range(count)), at % 2 == 0)
        for index in range(min(reads, count)):
            total = mix(total, (yield ("result", call, index)))
        yield ("give_up", call)
        if at % 3 == 1:
            yield ("sleep", 0.1)
    if again % 2:
        yield ("drained",)
    return total


def drip(arg: Any) -> Body:
    """Call one callable from time to time while many others are made and forgotten."""
    number, chunks = arg
    name = f"leaf~drip {number}"
    call = yield ("open", name)
    total = 0
    for at in range(chunks):
        yield ("add", call, [at, number], False)
        yield ("sleep", 0.2)
        other = yield ("map", f"slow~{number} {at}" if at % 2 else f"leaf~{at}", [at])
        total = mix(total, (yield ("result", other, 0)), (yield ("result", call, 2 * at + 1)))
    yield ("add", call, [7], True)
    for index in range(2 * chunks + 1):
        total = mix(total, (yield ("result", call, index)))
    return total


def _next(
    pending: list[Any], answers: list[Any], tell: Callable[..., Op] | None
) -> Generator[Op, Any, int]:
    call, index = yield ("wait_any", tuple(map(tuple, pending)))
    answers.append([call, index])
    if tell is not None:
        yield tell("told", answers.pop())
    pending.remove([call, index])
    value: int = yield ("result", call, index)
    return value


class _Fns(dict[str, Fn]):
    """Functions by name; a name with `~` and a suffix gives another function that does the same."""

    def __missing__(self, name: str) -> Fn:
        found = self[name] = replace(self[name.partition("~")[0]], name=name)
        BY_ID[found.id] = found
        return found


BY_ID: dict[bytes, Fn] = {}
FNS = _Fns(
    (fn.name, fn)
    for fn in (
        Fn("leaf", 0.02),
        Fn("slow", 0.4),
        Fn("pure", 0.1, pure=True),
        Fn("large", 0.05, large=True),
        Fn("fails", raises=True),
        Fn("poison", 0.05, poison=True),
        Fn("risky", 0.2, idempotent=False),
        Fn("venture", body=venture, idempotent=False),
        Fn("urgent", 0.05, priority=1),
        Fn("hangs", timeout_s=0.5, late=1.0, retries=1),
        Fn("laggard", 0.1, timeout_s=1.0, late=0.3, retries=1),
        Fn("hasty", 0.1, timeout_s=0.5, late=0.3, idempotent=False),
        Fn("flaky", body=flaky),
        Fn("user", body=user),
        Fn("quitter", body=quitter, tells=True),
        Fn("long", 4.0, steps=10),
        Fn("fan", body=fan),
        Fn("dice", body=dice, tells=True),
        Fn("race", body=race, tells=True),
        Fn("keeper", body=keeper, tells=True),
        Fn("saver", body=saver, tells=True),
        Fn("drip", body=drip),
        Fn("glance", body=glance),
    )
)
BY_ID.update((fn.id, fn) for fn in FNS.values())
SCRIPT = Fn("script")
