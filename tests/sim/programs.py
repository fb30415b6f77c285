"""Scripts of the simulated world: generators of operations, and what they must come to.

A body yields one operation at a time and is sent its answer. The same bodies run in two ways: in
the world, by workers that die; and here, by `truth`, which knows no workers at all. Every answer
that may differ between two undisturbed runs (an order of completion, a draw, whether a cancellation
came in time) is written down by the body as soon as it is told, so that `truth` can be told the
same.

Values are a function of the item's path and its arguments, so a result that is given to another
call shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import TAG, read_broker_error

RUN_SEED = 0xC0FFEE
Op = tuple[Any, ...]
Body = Generator[Op, Any, Any]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Failed:
    """What a body is sent in place of the value of an item that failed."""

    kind: str  # raised, crashed, lost, cancelled, timeout


class RaisedError(Exception):
    """What a body raises that fails."""


@dataclass(frozen=True, slots=True)
class Fn:
    """A function that scripts call."""

    name: str
    mean_s: float = 0.01
    body: Callable[[Any], Body] | None = None  # None: a leaf
    idempotent: bool = True
    poison: bool = False
    raises: bool = False
    steps: int = 0  # a long leaf: says after each how far it is, and keeps what it has
    tells: bool = False  # its value holds what it was told: [answers, result]
    timeout_s: float | None = None
    late: float = 0.0  # chance that a start of it takes longer than that
    retries: int = 0  # of what came too late
    priority: int = 0
    large: bool = False  # its values are files, which go with the last record that names them

    @property
    def is_certain(self) -> bool:
        """Whether any two undisturbed runs come to the same, cancellations apart."""
        return self.idempotent and self.late in (0.0, 1.0)

    @property
    def id(self) -> bytes:
        return name_digest(self.name)

    def define(self) -> wire.Define:
        options = wire.Options(
            timeout_s=self.timeout_s, retries=self.retries, idempotent=self.idempotent,
            priority=self.priority,
        )  # fmt: skip
        return wire.Define(self.id, self.id, self.name, b"code of " + self.name.encode(), options)


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
    """Return the payload of a value; `large`: as one whose content is in a file."""
    return (b"B" if large else b"V") + _encode(value)


def read_outcome(payload: bytes, *, failed: bool) -> Any:
    """Return a value, or `Failed`."""
    if not failed:
        return _decode(payload[1:])
    return Failed(read_broker_error(payload)[0] if payload[:1] == TAG else "raised")


@cache
def _mix(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def mix(*parts: Any) -> int:
    return _mix(repr(parts))


def leaf_value(path: str, arg: Any) -> int:
    """Return what any leaf returns: a draw from the item's own random stream, and its argument."""
    return mix(ids.seed_of(RUN_SEED, path), arg)


def step_value(value: int, step: int) -> int:
    """Return what a long leaf has after one more step."""
    return mix(value, step)


def draw_value(path: str, draws: int) -> int:
    """Return a draw from a parent's own stream."""
    return mix(ids.seed_of(RUN_SEED, path), "draw", draws)


# --- bodies of parents ------------------------------------------------------------------------


def fan(arg: Any) -> Body:
    """Map below itself, to some depth, and fold the values in order."""
    depth, width, leaf = arg
    yield ("compute", 0.002)
    fn, args = (leaf, list(range(width))) if depth <= 1 else ("fan", [[depth - 1, width, leaf]] * 2)
    call = yield ("map", fn, args)
    total = 0
    for index in range(len(args)):
        total = mix(total, (yield ("result", call, index)))
    return total


def dice(arg: Any) -> Body:
    """Draw a number that is never the same, and use it as an argument."""
    drawn = yield ("once",)
    call = yield ("map", "leaf", [drawn, drawn + arg])
    first = yield ("result", call, 0)
    again = yield ("once",)
    second = yield ("result", call, 1)
    return [[drawn, again], mix(first, second, again)]


def race(arg: Any) -> Body:
    """Follow the order of completion."""
    told: list[Any] = []
    chain = yield from _steady(arg, told.append)
    return [told, chain]


def _steady(total: int, tell: Callable[[Any], None]) -> Generator[Op, Any, int]:
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
    """Fail some times, waiting longer and longer in between, and then succeed or give up."""
    for tries in range(3):
        yield ("compute", 0.02)
        if tries == arg % 4:
            return mix("flaky", arg)
        yield ("sleep", 0.05 * 2**tries)
    raise RaisedError


def user(arg: Any) -> Body:
    """Use a constant, waiting for it where it is not set yet."""
    name, more = arg
    yield ("compute", 0.01)
    return mix((yield ("get_const", name)), more)


def quitter(arg: Any) -> Body:
    """Cancel what was asked for, below the script."""
    count, waits = arg
    told = []
    call = yield ("map", "slow", list(range(count)))
    for at, wait in enumerate(waits):
        yield ("sleep", wait)
        told.append((yield ("cancel", call, (at * 2 + 1) % count)))
    total = 0
    for index in range(count):
        total = mix(total, repr((yield ("result", call, index))))
    return [told, total]


def saver(arg: Any) -> Body:
    """Go on from checkpoints of its own."""
    total, width = arg
    told: list[Any] = []
    chain = yield from _durable("main", total, width, told, None)
    return [told, chain]


def _durable(
    name: str, total: int, width: int, told: list[Any], tell: Callable[..., Op] | None
) -> Generator[Op, Any, int]:
    """A loop over generations, with futures that outlive them, draws, and a commit at each end.

    Some were made in front of the block; some outlive generations and are not in the state: then
    nothing of them may be either, but as long as the parent lives they can be read.
    """
    early = yield ("map", "large" if total % 2 else "slow", [total])
    state = yield ("durable", name)
    gen, chain, pending, told[:] = (0, 0, [[early, 0]], []) if state is None else state
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
            chain = mix(chain, (yield from _next(pending, told, tell)))
        for index in reversed(range(len(args))):
            chain = mix(chain, (yield ("result", call, index)))
        if gen % 2:
            told.append((yield ("once",)))
            if tell is not None:
                yield tell("told", told.pop())
        if tell is not None:
            yield tell("gen", gen, chain)
        gen += 1
        yield ("commit", name, [gen, chain, pending, told], pending)
    while held:
        yield ("result", held.pop(), 0)
    while pending:
        chain = mix(chain, (yield from _next(pending, told, tell)))
    yield ("leave", name)
    return mix(chain, (yield ("draw",)))


def drip(arg: Any) -> Body:
    """Call a callable bit by bit while many others come and go."""
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
    pending: list[Any], told: list[Any], tell: Callable[..., Op] | None
) -> Generator[Op, Any, int]:
    call, index = yield ("wait_any", tuple(map(tuple, pending)))
    told.append([call, index])
    if tell is not None:
        yield tell("told", told.pop())
    pending.remove([call, index])
    value: int = yield ("result", call, index)
    return value


# --- the script -------------------------------------------------------------------------------

Step = tuple[Any, ...]


def script(steps: Sequence[Step]) -> Body:
    """Run the steps one after another; print what comes of each, and all that it is told."""
    for step in steps:
        yield from _STEPS[step[0]](*step[1:])
    return 0


def _say(*words: Any) -> Op:
    return ("print", _encode(words).hex().encode() + b"\n")


def _map_step(fn: str, args: list[Any]) -> Body:
    call = yield ("map", fn, args)
    total = 0
    for index in range(len(args)):
        value = yield ("result", call, index)
        if FNS[fn].tells:
            yield _say("told", value)
        total = mix(total, value)
    yield _say("map", fn, total)


def _overlap_step(first: int, second: int) -> Body:
    """Two calls under way at once, read in reverse."""
    calls = [(yield ("map", "leaf", list(range(first)))), (yield ("map", "slow", [7] * second))]
    total = 0
    for call, count in ((calls[1], second), (calls[0], first)):
        for index in reversed(range(count)):
            total = mix(total, (yield ("result", call, index)))
    yield _say("overlap", total)


def _lazy_step(chunks: list[int]) -> Body:
    call = yield ("open", "leaf")
    at = 0
    for size in chunks:
        yield ("add", call, list(range(at, at + size)), False)
        at += size
        value = yield ("result", call, at - 1)
        yield _say("lazy", value)
    yield ("add", call, [], True)
    total = 0
    for index in range(at):
        total = mix(total, (yield ("result", call, index)))
    yield _say("lazy", total)


def _steady_step(total: int) -> Body:
    told: list[Any] = []
    steady = _steady(total, told.append)
    answer = None
    while True:
        try:
            op = steady.send(answer)
        except StopIteration as stop:
            yield _say("steady", stop.value)
            return
        answer = yield op
        if op[0] == "wait_any":
            yield _say("told", answer)


def _once_step() -> Body:
    yield _say("told", (yield ("once",)))


def _cancel_step(count: int) -> Body:
    """Cancel one item at once, and one when some have had time to begin."""
    call = yield ("map", "slow", list(range(count)))
    for wait, victim in ((0.0, count - 1), (0.3, count // 2)):
        yield ("sleep", wait)
        in_time = yield ("cancel", call, victim)
        yield _say("told", in_time)
        value = yield ("result", call, victim)
        if victim:
            assert isinstance(value, Failed) == in_time, "cancelled in time, and has a value"
        yield _say("cancel", repr(value))
    done = yield ("poll", call, 0)
    yield _say("told", done)
    total = 0
    for index in range(count):
        total = mix(total, repr((yield ("result", call, index))))
    yield _say("cancel", total)


def _cancels_step(fn: str, count: int, moments: list[Any]) -> Body:
    """Cancel items at some moments, and see that each comes to what the answer said."""
    call = yield ("map", fn, list(range(count)))
    gone = set()
    for wait, victim in moments:
        yield ("sleep", wait)
        in_time = yield ("cancel", call, victim)
        yield _say("told", in_time)
        gone |= {victim} if in_time else set()
    for index in range(count):
        value = yield ("result", call, index)
        said = index in gone
        assert (value == Failed("cancelled")) == said, f"item {index}: told {said}, is {value}"
        if index not in gone and not FNS[fn].is_certain:
            yield _say("told", value.kind if isinstance(value, Failed) else "")
        yield _say("cancels", repr(value))


def _const_step(name: str, value: int, before: int, after: int) -> Body:
    """Set a constant that some wait for and others find."""
    early = yield ("map", "user", [[name, more] for more in range(before)])
    yield ("sleep", 0.05)
    yield ("set_const", name, value)
    late = yield ("map", "user", [[name, more] for more in range(after)])
    total = yield ("get_const", name)
    for call, count in ((late, after), (early, before)):
        for index in range(count):
            total = mix(total, (yield ("result", call, index)))
    yield _say("const", total)


def _urgent_step(fn: str, count: int, waits: list[float]) -> Body:
    """Ask for what goes first while much else is under way."""
    calls = [((yield ("map", fn, list(range(count)))), count)]
    for wait in waits:
        yield ("sleep", wait)
        calls.append(((yield ("map", "urgent", [1, 2])), 2))
    total = 0
    for call, many in calls:
        for index in range(many):
            total = mix(total, (yield ("result", call, index)))
    yield _say("urgent", total)


def _late_step(fn: str, count: int) -> Body:
    call = yield ("map", fn, list(range(count)))
    for index in range(count):
        value = yield ("result", call, index)
        if not FNS[fn].is_certain:
            yield _say("told", value.kind if isinstance(value, Failed) else "")
        yield _say("late", repr(value))


def _risky_step(count: int) -> Body:
    call = yield ("map", "risky", list(range(count)))
    for index in range(count):
        value = yield ("result", call, index)
        yield _say("told", value.kind if isinstance(value, Failed) else "")
        yield _say("risky", repr(value))


def _durable_step(name: str, total: int, width: int) -> Body:
    yield _say("durable", name, (yield from _durable(name, total, width, [], _say)))


def _around_step(rounds: int, total: int, width: int) -> Body:
    """Blocks that are opened again and again inside of another one."""
    state = yield ("durable", "around")
    at, chain = (0, 0) if state is None else state
    while at < rounds:
        chain = mix(chain, (yield from _durable("inside", total, width, [], _say)))
        yield _say("around", at, chain)
        at += 1
        yield ("commit", "around", [at, chain], [])
    yield ("leave", "around")


def _differing_step(name: str, total: int, again: int) -> Body:
    """A loop over generations under checkpoints, each of which calls what no other calls, and what
    one before it has called, too; some are waited for across generations.
    """
    state = yield ("durable", name)
    gen, chain, pending = (0, 0, []) if state is None else state
    while gen < total:
        several = yield ("map", f"leaf~{name} {gen}", [gen, chain % 97])
        calls = [(several, 1), (several, 0)]
        calls.append(((yield ("map", f"leaf~{name} {gen % again}", [gen])), 0))
        pending.append([(yield ("map", f"slow~{name} {gen}", [gen])), 0])
        if gen % 3 == 0:
            calls.append(((yield ("map", "drip", [[gen, 1 + gen % 3]])), 0))
        if len(pending) > 2:
            chain = mix(chain, (yield ("result", *pending.pop(0))))
        for each in calls:
            chain = mix(chain, (yield ("result", *each)))
        yield _say("differing", gen, chain)
        gen += 1
        yield ("commit", name, [gen, chain, pending], pending)
    for each in pending:
        chain = mix(chain, (yield ("result", *each)))
    yield ("leave", name)
    yield _say("differing", chain)


_STEPS: dict[str, Callable[..., Body]] = {
    "map": _map_step, "overlap": _overlap_step, "lazy": _lazy_step, "steady": _steady_step,
    "once": _once_step, "cancel": _cancel_step, "risky": _risky_step, "cancels": _cancels_step,
    "const": _const_step, "urgent": _urgent_step, "late": _late_step,
    "durable": _durable_step, "around": _around_step, "differing": _differing_step,
}  # fmt: skip


class _Fns(dict[str, Fn]):
    """Functions by name; what is behind a `~` makes another one that does the same."""

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
        Fn("large", 0.05, large=True),
        Fn("fails", raises=True),
        Fn("poison", 0.05, poison=True),
        Fn("risky", 0.2, idempotent=False),
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
        Fn("saver", body=saver, tells=True),
        Fn("drip", body=drip),
    )
)
BY_ID.update((fn.id, fn) for fn in FNS.values())


def draw(rng: random.Random, *, plain: bool = False) -> list[Step]:
    """Return some script; a plain one is told nothing that may differ."""
    if plain:
        return [_plain_step(rng) for _ in range(rng.randint(2, 5))]
    makers: list[Callable[[], Step]] = [
        lambda: ("map", "leaf", list(range(rng.randint(0, 25)))),
        lambda: ("map", "slow", list(range(rng.randint(1, 6)))),
        lambda: (
            "map",
            "fan",
            [[rng.randint(1, 2), rng.randint(1, 4), "leaf"]] * rng.randint(1, 3),
        ),
        lambda: ("map", "fan", [[1, 2, rng.choice(["slow", "poison", "fails"])]]),
        lambda: ("map", "fails", [1]),
        lambda: ("map", "poison", [1] * rng.randint(1, 2)),
        lambda: ("map", "dice", [3] * rng.randint(1, 3)),
        lambda: ("map", "race", [rng.randint(2, 5)] * rng.randint(1, 2)),
        lambda: ("overlap", rng.randint(1, 8), rng.randint(1, 3)),
        lambda: ("lazy", [rng.randint(1, 5) for _ in range(rng.randint(1, 3))]),
        lambda: ("steady", rng.randint(3, 9)),
        lambda: ("steady", rng.randint(3, 9)),
        lambda: ("once",),
        lambda: ("cancel", rng.randint(2, 6)),
        lambda: ("risky", rng.randint(1, 3)),
        lambda: _cancels(rng),
        lambda: _cancels(rng),
        lambda: ("map", "quitter", [[rng.randint(2, 5), _waits(rng)]] * rng.randint(1, 2)),
        lambda: ("map", "flaky", list(range(rng.randint(1, 5)))),
        lambda: _const(rng),
        lambda: ("urgent", "slow", rng.randint(2, 12), _waits(rng)),
        lambda: ("urgent", "leaf", rng.randint(20, 60), _waits(rng)),
        lambda: ("late", rng.choice(["hangs", "laggard", "hasty"]), rng.randint(1, 3)),
    ]
    return [rng.choice(makers)() for _ in range(rng.randint(1, 5))]


def _waits(rng: random.Random) -> list[float]:
    return [rng.choice((0.0, 0.01, 0.1, 0.5)) * rng.random() for _ in range(rng.randint(1, 3))]


def _cancels(rng: random.Random) -> Step:
    fn = rng.choice(["leaf", "slow", "slow", "risky", "flaky", "laggard", "hasty", "urgent"])
    count = rng.randint(2, 9)
    return ("cancels", fn, count, [[wait, rng.randrange(count)] for wait in _waits(rng)])


def _const(rng: random.Random) -> Step:
    # A name for each: the first value of a name stands, whoever sets it again.
    number = rng.getrandbits(30)
    return ("const", f"c{number}", number, rng.randint(0, 3), rng.randint(0, 3))


def lengthen(rng: random.Random, steps: Sequence[Step]) -> list[Step]:
    """Return the script, in every fourth world with long leaves somewhere."""
    longer = list(steps)
    if rng.random() < 0.25:
        args = [rng.randint(0, 9) for _ in range(rng.randint(1, 4))]
        longer.insert(rng.randint(0, len(longer)), ("map", "long", args))
    return longer


def with_checkpoints(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return a script with checkpoints in it, or, more often than not, the same one."""
    if rng.random() < 0.6:
        return steps
    added = list(steps)
    for at in range(rng.randint(1, 2)):
        step: Step = rng.choice([
            ("durable", f"block {at}", rng.randint(2, 12), rng.randint(0, 4)),
            ("durable", f"block {at}", rng.randint(2, 12), rng.randint(1, 4)),
            ("around", rng.randint(2, 4), rng.randint(1, 5), rng.randint(0, 2)),
            ("map", "saver", [[rng.randint(2, 8), rng.randint(1, 3)]] * rng.randint(1, 2)),
        ])  # fmt: skip
        if step[0] != "around" or not any(each[0] == "around" for each in added):
            added.insert(rng.randint(0, len(added)), step)
    return added


def with_differing(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return a script that, in some worlds, makes callables without end."""
    if rng.random() < 0.7:
        return steps
    drips = [[rng.randint(100, 200), rng.randint(1, 4)] for _ in range(rng.randint(1, 3))]
    step = rng.choice([
        ("differing", "differing", rng.randint(3, 14), rng.randint(1, 3)),
        ("differing", "differing", rng.randint(3, 14), rng.randint(1, 3)),
        ("map", "drip", drips),
    ])  # fmt: skip
    at = rng.randint(0, len(steps))
    return [*steps[:at], step, *steps[at:]]


def _plain_step(rng: random.Random) -> Step:
    return rng.choice(
        [
            ("map", rng.choice(["leaf", "slow", "fails"]), list(range(rng.randint(1, 9)))),
            ("map", "fan", [[1, rng.randint(1, 3), "slow"]] * rng.randint(1, 3)),
            ("map", rng.choice(["race", "dice"]), [3] * rng.randint(1, 2)),
            ("overlap", rng.randint(1, 8), rng.randint(1, 3)),
        ]
    )


def edit(rng: random.Random, steps: Sequence[Step]) -> list[Step]:
    """Return the script as its author has changed it between two runs."""
    edited = list(steps)
    at = rng.randrange(len(edited))
    match edited[at]:
        case ("map", ("leaf" | "slow" | "long") as fn, args) if rng.random() < 0.7:
            offset = rng.randint(100, 10**6)
            changed = [arg + offset if rng.random() < 0.5 else arg for arg in args]
            edited[at] = ("map", fn, changed[: rng.randint(1, 9)])
        case _ if rng.random() < 0.5 and len(edited) > 1:
            del edited[at]
        case _:
            edited.insert(at, _plain_step(rng))
    return edited


# --- what it must come to ---------------------------------------------------------------------


class Untrue(AssertionError):
    """The world's history is none that an undisturbed run could have had."""


class _Teller:
    """Gives a body the answers that it was told in the world."""

    def __init__(self, told: Sequence[Any]) -> None:
        self.told = list(told)

    def next(self, op: Op) -> Any:
        if not self.told:
            raise Untrue(f"nothing was written down of {op[0]}")
        answer = self.told.pop(0)
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
    told = value[0] if fn.tells else []
    expected = truth(fn, path, arg, told)
    if value != expected:
        raise Untrue(f"{path} = {fn.name}({arg}) is {value}, not {expected}")


def truth(fn: Fn, path: str, arg: Any, told: Sequence[Any] = ()) -> Any:
    """Return the value of an item, computed without a runtime."""
    if fn.raises:
        return Failed("raised")
    if fn.poison:
        return Failed("crashed")
    if fn.late == 1.0:
        return Failed("timeout")
    if fn.body is None:
        value = leaf_value(path, arg)
        for step in range(fn.steps):
            value = step_value(value, step)
        return value
    try:
        return _pure(fn.body(arg), path, _Teller(told), None)
    except RaisedError:
        return Failed("raised")


def check_output(steps: Sequence[Step], output: bytes) -> None:
    """Raise `Untrue` if the script cannot have printed this."""
    told = []
    for line in output.split(b"\n")[:-1]:
        words = _decode(bytes.fromhex(line.decode()))
        if words[0] == "told":
            told.append(words[1])
    printed = bytearray()
    try:
        _pure(script(steps), ids.ROOT, _Teller(told), printed)
    except Untrue as error:
        raise Untrue(f"{error}; printed up to there: {bytes(printed)!r} of {output!r}") from None
    if printed != output:
        raise Untrue(f"printed {output!r}, not {bytes(printed)!r}")


def _pure(body: Body, path: str, teller: _Teller, printed: bytearray | None) -> Any:
    calls: list[tuple[str, list[Any]]] = []
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
            case ("once" | "wait_any" | "poll", *_):
                answer = teller.next(op)
            case _:
                pass  # takes time, and nothing else


def _item(path: str, call: tuple[str, list[Any]], number: int, index: int, teller: _Teller) -> Any:
    fn, args = FNS[call[0]], call[1]
    item = ids.item_path(path, number, index)
    if fn.tells:  # the script writes down what it was given, and that is what is checked
        value = teller.next(("result",))
        check_value(fn, item, args[index], value)
        return value
    if not fn.is_certain and (kind := teller.next(("result",))):
        return Failed(kind)
    return truth(fn, item, args[index])


SCRIPT = Fn("script")
