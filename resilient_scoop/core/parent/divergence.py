"""A replay that does not do what was done before: said, or refused where it is strict.

A part of `Parent`, apart from the rest of it. A refusal stands (`Parent.refusal`): whatever the
parent does next is refused again, since what it waits for may never be asked for. So a parent that
catches the error cannot wait for ever, nor end as if nothing had been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.call import doubtful
from resilient_scoop.counts import counted
from resilient_scoop.errors import ReplayDivergedError

if TYPE_CHECKING:
    from collections import deque

    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.wire import messages as wire
    from resilient_scoop.wire.messages import Observation


_CURE = "; `rscoop replay` shows the line and both values; put what varies into futures.once"


class StrangeFutureError(ReplayDivergedError):
    """A future in a checkpoint's state waits for a call that the changed code has not made."""

    def __str__(self) -> str:
        return (
            f"{self.path} is {self.expected}, made before the block, and the code now makes {self.found} "
            f"in its place, so its outcome cannot be computed; undo the change before the block and "
            f"resume, or start a new run"
        )


class DiscardError(ReplayDivergedError):
    """A resume would throw away much computing, and the user has not said that it may."""

    exit_code = 75

    def __init__(self, path: str, what: str, seconds: int) -> None:
        super().__init__(path, what, str(seconds))
        self.args = (path, what, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"the resume stopped at {self.path}: {self.expected} from what is journaled, so results that "
            f"took {self.seconds} s to compute would be computed again; nothing has been thrown away. "
            f"Resume with --recompute-changed to compute them again, or undo the change and resume"
        )


class BegunBeforeError(ReplayDivergedError):
    """The replay asks for another call where one stood that must not be started twice."""

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.expected} stands there in the journal, and the code now asks for "
            f"{self.found}. It is idempotent=False and was started, so nothing is done in its place: "
            "undo what was changed in front of it and resume, or begin a new run. What varies (time, "
            "files, network) and is an argument of such a call goes through `futures.once`"
        )


def refuse(parent: Parent, where: str, expected: str, found: str) -> NoReturn:
    """Refuse to go on, for good.

    Raises:
        ReplayDivergedError: always.
    """
    parent.refusal = ReplayDivergedError(where, expected, found)
    raise parent.refusal


def refuse_future(parent: Parent, number: int, index: int, name: str) -> NoReturn:
    """Refuse to wait for a future of a state in whose place the code has made another call.

    Raises:
        StrangeFutureError: always.
    """
    where = f"{ids.item_path(parent.path, number, index)} ({name})"
    parent.refusal = StrangeFutureError(where, "a future in a checkpoint's state", "another call")
    raise parent.refusal


def judge(parent: Parent, doubted: set[int]) -> None:
    """Say which items nothing in the history fits, once per call; strictly, at every look."""
    doubted -= parent.durable.sought  # these are judged when the history is at its end
    _weigh(parent, doubted)
    _mind_begun(parent, doubted)
    for call, index, what in doubtful(parent.calls, doubted):
        name = parent.name_of(call.fn).rpartition(":")[2]
        where = f"{ids.item_path(parent.path, call.number, index)} ({name})"
        if parent.policy.strict:
            refuse(parent, where, "another call's outcome", f"a call: {what}")
        call.said = True
        if (name, what) in parent.said:
            continue  # said of another call
        parent.said.add((name, what))
        parent.say(
            f"replay: {where}: {what} from what is journaled; such calls are computed again, except "
            f"those whose result is found at another place{_CURE}"
        )


def _mind_begun(parent: Parent, doubted: set[int]) -> None:
    """Refuse to do anything in the place of a call that must not be started twice."""
    for call in [parent.calls[number] for number in sorted(doubted) if number in parent.calls]:
        name = parent.name_of(call.fn).rpartition(":")[2]
        for doubt in call.doubts:
            open_ = call.left.overlap(doubt.low, doubt.high) if doubt.once else []
            if open_ and not parent.policy.repeats(parent.name_of(call.fn)):
                where = ids.item_path(parent.path, call.number, open_[0][0])
                found = f"{name}, where {doubt.what}"
                parent.refusal = BegunBeforeError(where, "a call", found)
                raise parent.refusal


def mind_moved(parent: Parent, call: Call, part: wire.Part) -> None:
    """Refuse to start a call that must not be started twice, and was at another place."""
    for outcome in [each for ahead in parent._stash.values() for each in ahead if each.once]:  # noqa: SLF001
        if outcome.fingerprint != call.fingerprint or parent.policy.repeats(
            parent.name_of(call.fn)
        ):
            continue
        width = ids.DIGEST_BYTES
        theirs = [outcome.digests[at : at + width] for at in range(0, len(outcome.digests), width)]
        for at in range(part.count):
            if part.digests[at * width : (at + 1) * width] in theirs:
                where = ids.batch_path(parent.path, outcome.call)
                name = parent.name_of(call.fn).rpartition(":")[2]
                parent.refusal = BegunBeforeError(
                    where, f"the very call of {name}",
                    f"it as {ids.item_path(parent.path, call.number, part.start + at)}",
                )  # fmt: skip
                raise parent.refusal


def _weigh(parent: Parent, doubted: set[int]) -> None:
    """Refuse to throw away much computing unasked."""
    for number in sorted(doubted):
        call = parent.calls.get(number)
        if call is None:
            continue
        lost_s, lost = 0.0, Intervals()
        for doubt in reversed(call.doubts):  # of an item's records the last counts
            for low, high in call.left.overlap(doubt.low, doubt.high) if doubt.took_s else ():
                fresh = lost.gaps(low, high)
                lost_s += doubt.took_s * sum(b - a for a, b in fresh)
                lost.add(low, high)
        parent.discarded_s += lost_s
        name = parent.name_of(call.fn)
        if lost and not parent.policy.discards(name, parent.discarded_s):
            first = lost.starts[0]
            what = next(each.what for each in call.doubts if each.low <= first < each.high)
            where = f"{ids.item_path(parent.path, number, first)} ({name.rpartition(':')[2]})"
            parent.refusal = DiscardError(where, what, round(parent.discarded_s))
            raise parent.refusal


def say_moved(parent: Parent, call: Call) -> None:
    """Say how many items of a call keep their results although they have moved."""
    name = parent.name_of(call.fn).rpartition(":")[2]
    where = f"{ids.batch_path(parent.path, call.number)} ({name})"
    many, call.moved = counted(call.moved, "result"), 0
    if call.count > 1 or not parent.moved.said:
        more = "" if call.count > 1 else "; more single calls may be, and are not named"
        parent.say(f"replay: {where}: {many} found by function and arguments, and reused{more}")
    parent.moved.said = parent.moved.said or call.count == 1


def told_otherwise(parent: Parent, first: Observation, kind: str) -> None:
    """The parent asks for something else than it was told before: say it."""
    where = f"{parent.path} at call {parent.next_call}"
    if parent.policy.strict:
        refuse(parent, where, f"`{first.kind}` at call {first.at_call}", f"`{kind}`")
    what = f"it asked `{first.kind}` at call {first.at_call} before, and asks `{kind}` now"
    parent.say(f"replay: {where}: {what}; from here on it gets new answers{_CURE}")


def rewind_mark(first: Observation) -> tuple[str, bytes]:
    """Return the kind and answer of the mark that the use of the history ended at this observation."""
    return "rewind", str(first.no).encode()


def rewound(recorded: deque[Observation], first: Observation) -> bool:
    """Drop what an earlier attempt was told up to where it, too, was told anew (P2), if it was."""
    mark = rewind_mark(first)
    marks = [i for i, each in enumerate(recorded) if (each.kind, each.answer) == mark]
    for _ in range(marks[-1] + 1 if marks else 0):
        recorded.popleft()
    return bool(marks)
