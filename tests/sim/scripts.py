"""Scripts of the simulated world: steps, how they are drawn, and how an author changes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.sim.programs import FNS, Body, Failed, Op, Step, durable, glance, kept, mix, steady

_encode = msgspec.msgpack.Encoder().encode


def script(steps: Sequence[Step]) -> Body:
    """Run the steps one after another; print each result, and all answers."""
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
    """Make two calls at the same time, and read them in reverse order."""
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


def _threads_step(fn: str, args: list[Any]) -> Body:
    """Make calls in threads, in any order: a replay finds each by its function and arguments."""
    values = yield ("threads", fn, args)
    total = 0
    for value in values:
        total = mix(total, value)
    yield _say("threads", fn, total)


def _steady_step(total: int) -> Body:
    answers: list[Any] = []
    running = steady(total, answers.append)
    answer = None
    while True:
        try:
            op = running.send(answer)
        except StopIteration as stop:
            yield _say("steady", stop.value)
            return
        answer = yield op
        if op[0] == "wait_any":
            yield _say("told", answer)


def _once_step() -> Body:
    yield _say("told", (yield ("once",)))


def _kept_step(count: int) -> Body:
    """Call `once` with a function that makes calls, and make more calls with its answer."""
    answer = yield from kept(count)
    yield _say("told", answer)
    call = yield ("map", "leaf", [answer[3] % 97])
    yield _say("told", (yield ("once",)))
    yield _say("kept", (yield ("result", call, 0)))


def _cancel_step(count: int) -> Body:
    """Cancel one item at once, and one after some have had time to begin."""
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
    """Cancel items at different moments, and check that each ends as its answer says."""
    call = yield ("map", fn, list(range(count)))
    gone = set()
    for wait, victim in moments:
        yield ("sleep", wait)
        in_time = yield ("cancel", call, victim)
        yield _say("told", in_time)
        gone |= {victim} if in_time else set()
    for index in range(count):
        value = yield ("result", call, index)
        is_cancelled = index in gone
        assert (value == Failed("cancelled")) == is_cancelled, f"item {index} is {value}"
        if index not in gone and not FNS[fn].is_certain:
            yield _say("told", value.kind if isinstance(value, Failed) else "")
        yield _say("cancels", repr(value))


def _glance_step(fn: str, count: int, reads: int, again: int) -> Body:
    """Take the first results of calls, some of them in the order of completion, and give up the rest."""
    yield _say("glance", (yield from glance([fn, count, reads, again])))
    call = yield ("map", fn, list(range(count)))
    first = yield ("wait_any", tuple((call, index) for index in range(count)))
    yield _say("told", first)
    yield _say("glance", (yield ("result", *first)))
    yield ("give_up", call)
    yield ("drained",)  # like the end of a script


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
    """Make urgent calls while many others are running."""
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


def _ventures_step(count: int, risks: int, busy: list[str]) -> Body:
    """Call parents that must not be started twice, while others keep the workers busy."""
    calls = [("venture", (yield ("map", "venture", list(range(count)))), count)]
    if risks:
        calls.append(("risky", (yield ("map", "risky", list(range(risks)))), risks))
    yield ("sleep", 0.3)
    others = []
    for at, fn in enumerate(busy):
        others.append(((yield ("map", fn, [at])), fn))
    for name, call, many in calls:
        for index in range(many):
            value = yield ("result", call, index)
            yield _say("told", value.kind if isinstance(value, Failed) else "")
            yield _say(name, repr(value))
    for call, fn in others:
        yield _say(fn, (yield ("result", call, 0)))


def _durable_step(name: str, total: int, width: int) -> Body:
    yield _say("durable", name, (yield from durable(name, total, width, [], _say)))


def _below_step(total: int, length: int) -> Body:
    """Commit in a block while parents with their own blocks run below it."""
    state = yield ("durable", "below")
    gen, chain, pending = (0, 0, []) if state is None else state
    while gen < total or pending:
        for call, index in pending:
            value = yield ("result", call, index)
            yield _say("told", value)
            chain = mix(chain, value)
        pending = []
        if gen < total:
            call = yield ("map", "saver", [[length, 2], [length, 1]])
            pending = [[call, 0], [call, 1]]
            gen += 1
        yield ("commit", "below", [gen, chain, pending], pending)
    yield ("leave", "below")
    yield _say("below", chain)


def _around_step(rounds: int, total: int, width: int) -> Body:
    """Open blocks repeatedly inside another one."""
    state = yield ("durable", "around")
    at, chain = (0, 0) if state is None else state
    while at < rounds:
        chain = mix(chain, (yield from durable("inside", total, width, [], _say)))
        yield _say("around", at, chain)
        at += 1
        yield ("commit", "around", [at, chain], [])
    yield ("leave", "around")


def _differing_step(name: str, total: int, again: int) -> Body:
    """Loop over generations with checkpoints, where callables differ.

    Each generation calls a callable of its own, and one of an earlier generation; some calls are
    awaited in a later generation.
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
    "once": _once_step, "kept": _kept_step,
    "cancel": _cancel_step, "risky": _risky_step, "cancels": _cancels_step,
    "const": _const_step, "urgent": _urgent_step, "late": _late_step,
    "ventures": _ventures_step, "glance": _glance_step, "threads": _threads_step,
    "durable": _durable_step, "around": _around_step, "below": _below_step, "differing": _differing_step,
}  # fmt: skip


def draw(rng: random.Random, *, plain: bool = False) -> list[Step]:
    """Return a random script; a plain one gets no answers that may differ between runs."""
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
        lambda: ("kept", rng.randint(1, 4)),
        lambda: ("map", "keeper", [rng.randint(1, 3)] * rng.randint(1, 2)),
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
    # A name for each: the first value of a name stays, whichever task sets it again.
    number = rng.getrandbits(30)
    return ("const", f"c{number}", number, rng.randint(0, 3), rng.randint(0, 3))


def lengthen(rng: random.Random, steps: Sequence[Step]) -> list[Step]:
    """Return the script; in every fourth world, with long leaves."""
    longer = list(steps)
    if rng.random() < 0.25:
        args = [rng.randint(0, 9) for _ in range(rng.randint(1, 4))]
        longer.insert(rng.randint(0, len(longer)), ("map", "long", args))
    return longer


def with_ventures(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return the script; in some worlds, with parents that must not be started twice."""
    if rng.random() < 0.75:
        return steps
    busy = [rng.choice(["slow", "slow", "long"]) for _ in range(rng.randint(1, 4))]
    step: Step = ("ventures", rng.randint(1, 3), rng.randint(0, 3), busy)
    at = rng.randint(0, len(steps))
    return [*steps[:at], step, *steps[at:]]


def with_glances(rng: random.Random, steps: Sequence[Step]) -> list[Step]:
    """Return the script; in every third world, with calls that are given up halfway."""
    more = list(steps)
    if rng.random() < 0.33:
        fn = rng.choice(["leaf", "slow", "fan"])
        sizes = rng.randint(1, 30), rng.randint(0, 3), rng.randint(1, 4)
        step: Step = ("glance", fn if fn != "fan" else "slow", *sizes)
        if fn == "fan":
            step = ("map", "glance", [["leaf", *sizes], ["slow", *sizes]])
        more.insert(rng.randint(0, len(more)), step)
    return more


def with_threads(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return the script; in every fourth world, with calls of threads at one or two positions."""
    if rng.random() < 0.75:
        return steps
    more = list(steps)
    for _ in range(rng.randint(1, 2)):
        args = rng.sample(range(12), rng.randint(1, 8))
        step: Step = ("threads", rng.choice(["leaf", "slow", "slow", "pure", "long"]), args)
        more.insert(rng.randint(0, len(more)), step)
    return more


def with_checkpoints(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return the script; in less than half of the worlds, with checkpoints."""
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
    """Return the script; in some worlds, with many different callables."""
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
            ("map", "pure", list(range(rng.randint(1, 9)))),
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
        case ("map", "pure", args) if (
            rng.random() < 0.7
        ):  # a sweep that gets more values, and loses others
            new = [rng.randint(100, 999) for _ in range(rng.randint(0, 3))]
            edited[at] = ("map", "pure", [*new, *args[rng.randint(0, 2) :], *new[:1]])
        case _ if rng.random() < 0.5 and len(edited) > 1:
            del edited[at]
        case _:
            edited.insert(at, _plain_step(rng))
    return edited
