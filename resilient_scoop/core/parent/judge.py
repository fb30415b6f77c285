"""Decides what a parent reports or refuses when its replay differs from its history.

`strict`, `reuse` and `recompute` say what to do with outcomes of functions whose code has changed.
A refusal is final (`Judge.refusal`): every later operation of the parent is refused again, because
the results that it waits for may never be computed. So a parent that catches the error can neither
wait forever nor end normally.

  J1  A difference is reported once per function, or it is an error (strict runs).
  J2  A call that must not start twice is never replaced by another call that starts.
  J3  Not more than `discard_s_max` seconds of computing are discarded unless the user has agreed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.counts import counted
from resilient_scoop.errors import (
    BegunBeforeError,
    DiscardError,
    ReplayDivergedError,
    StrangeFutureError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from resilient_scoop.core.parent.call import Call, ReusedOutcome
    from resilient_scoop.wire import messages as wire

_CURE = (
    "; `rscoop replay` shows the line and both values; read values that vary through futures.once"
)


class Policy(msgspec.Struct):
    """What a replay does about changed code: names of functions, or `*`; names take precedence.

    `kept` are pairs of fingerprints, then and now, whose results are kept regardless of the names;
    `keep` is called for each pair that a name adds.
    """

    strict: bool = False
    reuse: tuple[str, ...] = ()
    recompute: tuple[str, ...] = ()
    kept: set[tuple[bytes, bytes]] = msgspec.field(default_factory=set)
    keep: Callable[[bytes, bytes, str], None] | None = None
    discard_s_max: float = 0.0  # seconds of computing that may be discarded without asking; 0: any

    def discards(self, name: str, seconds: float) -> bool:
        """Return whether `seconds` of computing, the last of them of a function, may be discarded."""
        if not self.discard_s_max or seconds <= self.discard_s_max:
            return True
        return "*" in self.recompute or name in self.recompute

    def repeats(self, name: str) -> bool:
        """Return whether the user has said that a function's calls are to be computed again."""
        return "*" in self.recompute or name in self.recompute

    def reuses(self, then: bytes, now: bytes, name: str) -> bool:
        """Return whether the code `now` takes over what the code `then` has computed."""
        if (then, now) in self.kept:
            return True
        if name not in self.reuse and ("*" not in self.reuse or name in self.recompute):
            return False
        self.kept.add((then, now))
        if self.keep is not None:
            self.keep(then, now, name)
        return True


class Judge:
    """What one parent's replay may do, which of its items are doubted, and what was reported."""

    __slots__ = (
        "_missing_reported",
        "_moved_reported",
        "_path",
        "_reported",
        "discarded_s",
        "doubted",
        "name_of",
        "policy",
        "refusal",
        "tell_user",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        policy: Policy,
        tell_user: Callable[[str], None],
        name_of: Callable[[bytes], str],
    ) -> None:
        self._path = path
        self.policy = policy
        self.tell_user = tell_user
        self.name_of = name_of  # function id -> name
        self.refusal: ReplayDivergedError | None = None  # the refusal, which is final
        self.doubted: set[int] = set()  # calls with items that no outcome fits yet
        self.discarded_s = 0.0  # seconds of computing of outcomes that fit no item of the replay
        self._reported: set[tuple[str, str]] = set()  # differences, by function
        self._moved_reported = False  # that a single call keeps its result
        self._missing_reported = False  # that dropped outcomes are missing

    def refuse(self, error: ReplayDivergedError) -> NoReturn:
        """Refuse to continue, for good.

        Raises:
            ReplayDivergedError: always.
        """
        self.refusal = error
        raise error

    def refuse_future(self, number: int, index: int, name: str) -> NoReturn:
        """Refuse to wait for a future of a state if the code has made another call in its place.

        Raises:
            StrangeFutureError: always.
        """
        where = f"{ids.item_path(self._path, number, index)} ({name})"
        self.refuse(StrangeFutureError(where, "a future in a checkpoint's state", "another call"))

    def _refuse_begun(self, where: str, expected: str, found: str) -> NoReturn:
        self.refuse(BegunBeforeError(where, expected, found))

    def reuses(self, then: bytes, call: Call) -> bool:
        """Return whether outcomes of a function's earlier code count for a call."""
        return self.policy.reuses(then, call.fingerprint, self.name_of(call.fn))

    def reuses_code_of(self, calls: Iterable[Call]) -> bool:
        """Return whether the user has said that earlier results of each of these functions count."""
        kept, reuse = {now for _, now in self.policy.kept}, self.policy.reuse
        return all(
            call.fingerprint in kept or "*" in reuse or self.name_of(call.fn) in reuse
            for call in calls
        )

    def doubt(self, call: Call, doubts: Sequence[ReusedOutcome]) -> None:
        """Record items of a call whose journaled outcome belongs to another call."""
        call.doubts += tuple(doubts)
        self.doubted.add(call.number)

    def forget(self, number: int) -> None:
        """Forget the doubts about a call whose results are no longer read."""
        self.doubted.discard(number)

    def judge(self, calls: Mapping[int, Call], sought: set[int]) -> None:
        """Report items that nothing in the history fits (J1); if strict, at every check.

        `sought` are calls that are judged when the history is at its end.
        """
        self.doubted -= sought
        if not self.doubted:
            return
        doubted = [calls[number] for number in sorted(self.doubted) if number in calls]
        self._weigh(doubted)
        self._mind_begun(doubted)
        for call, index, what in _open_doubts(doubted):
            name = self._short_name(call)
            where = f"{ids.item_path(self._path, call.number, index)} ({name})"
            if self.policy.strict:
                expected, found = "another call's outcome", f"a call: {what}"
                self.refuse(ReplayDivergedError(where, expected, found))
            call.is_reported = True
            if (name, what) in self._reported:
                continue  # reported for another call
            self._reported.add((name, what))
            self.tell_user(
                f"replay: {where}: {what} from what is journaled; such calls are computed again, except "
                f"those whose result is found at another place{_CURE}"
            )
        self.doubted.clear()

    def _weigh(self, doubted: list[Call]) -> None:
        """Refuse to discard much computing without asking (J3)."""
        for call in doubted:
            lost_s, lost = 0.0, Intervals()
            for doubt in reversed(call.doubts):  # the last record of an item counts
                for low, high in call.left.overlap(doubt.low, doubt.high) if doubt.took_s else ():
                    fresh = lost.gaps(low, high)
                    lost_s += doubt.took_s * sum(b - a for a, b in fresh)
                    lost.add(low, high)
            self.discarded_s += lost_s
            name = self.name_of(call.fn)
            if lost and not self.policy.discards(name, self.discarded_s):
                first = lost.starts[0]
                what = next(each.what for each in call.doubts if each.low <= first < each.high)
                where = (
                    f"{ids.item_path(self._path, call.number, first)} ({self._short_name(call)})"
                )
                self.refuse(DiscardError(where, what, round(self.discarded_s)))

    def _mind_begun(self, doubted: list[Call]) -> None:
        """Refuse to replace a call that must not be started twice (J2)."""
        for call in doubted:
            for doubt in call.doubts:
                open_ = call.left.overlap(doubt.low, doubt.high) if doubt.once else []
                if open_ and not self.policy.repeats(self.name_of(call.fn)):
                    where = ids.item_path(self._path, call.number, open_[0][0])
                    found = f"{self._short_name(call)}, where {doubt.what}"
                    self._refuse_begun(where, "a call", found)

    def mind_moved(
        self, call: Call, part: wire.Part, ahead: Mapping[int, Sequence[wire.Outcome]]
    ) -> None:
        """Refuse to start a call that must not start twice, if it was started elsewhere (J2).

        `ahead` are outcomes of calls that are not made yet.
        """
        width = ids.DIGEST_BYTES
        for outcome in [each for outcomes in ahead.values() for each in outcomes if each.once]:
            if outcome.fingerprint != call.fingerprint or self.policy.repeats(
                self.name_of(call.fn)
            ):
                continue
            digests = outcome.digests
            theirs = {digests[at : at + width] for at in range(0, len(digests), width)}
            for at in range(part.count):
                if ids.digests_of(part.digests, at, at + 1) in theirs:
                    where = ids.batch_path(self._path, outcome.call)
                    place = ids.item_path(self._path, call.number, part.start + at)
                    expected = f"this call of {self._short_name(call)}"
                    self._refuse_begun(where, expected, f"it as {place}")

    def report_moved(self, call: Call) -> None:
        """Report how many items of a call keep their results although they have moved."""
        where = f"{ids.batch_path(self._path, call.number)} ({self._short_name(call)})"
        many, call.moved = counted(call.moved, "result"), 0
        if call.count > 1 or not self._moved_reported:
            more = "" if call.count > 1 else "; more single calls may be, and are not named"
            self.tell_user(
                f"replay: {where}: {many} found by function and arguments, and reused{more}"
            )
        self._moved_reported = self._moved_reported or call.count == 1

    def report_other_answer(self, first: wire.Observation, kind: str, at_call: int) -> None:
        """Report or refuse that the parent asks for another answer than before."""
        where = f"{self._path} at call {at_call}"
        if self.policy.strict:
            expected = f"`{first.kind}` at call {first.at_call}"
            self.refuse(ReplayDivergedError(where, expected, f"`{kind}`"))
        what = f"it asked `{first.kind}` at call {first.at_call} before, and asks `{kind}` now"
        if (first.kind, first.at_call) == (kind, at_call):
            what = f"the recorded answer to `{kind}` does not answer what it waits for now"
        self.tell_user(f"replay: {where}: {what}; from here on it gets new answers{_CURE}")

    def report_other_calls(self, question: str, at_call: int) -> None:
        """Report or refuse that an awaited call was edited, and ends in or after its time limit now."""
        where = f"{self._path} at call {at_call}"
        if self.policy.strict:
            expected = f"the recorded answer to `{question}`"
            found = "another answer, since what it waits for was edited"
            self.refuse(ReplayDivergedError(where, expected, found))
        self.tell_user(
            f"replay: {where}: what `{question}` waits for was edited, and the answer is another one; "
            f"from here on it gets new answers{_CURE}"
        )

    def report_asked_again(self, kind: str, at_call: int) -> None:
        """Report that the parent does not get the answer again after which it failed."""
        self.tell_user(
            f"replay: {self._path} at call {at_call}: the script failed after `{kind}` had ended here "
            "without a result; it waits again"
        )

    def other_once(self, then: str, now: str, at_call: int) -> None:
        """Report that another function of `once`, or an edited one, is at the position of an answer."""
        where = f"{self._path} at call {at_call}"
        if then == now:
            if ("once", now) not in self._reported:
                self._reported.add(("once", now))
                self.tell_user(
                    f"replay: {where}: `once({now})` has other code or arguments than before, and keeps "
                    "its value"
                )
            return
        if self.policy.strict:
            self.refuse(ReplayDivergedError(where, f"`once({then})`", f"`once({now})`"))
        self.tell_user(f"replay: {where}: `once({now})` takes the place of `once({then})`, and gets "
                 "its value")  # fmt: skip

    def report_missing(self, call: Call) -> None:
        """Report a call whose outcomes were dropped: a checkpoint that covers it was not entered."""
        where = f"{ids.batch_path(self._path, call.number)} ({self.name_of(call.fn)})"
        if self.policy.strict:
            expected = "a checkpoint that covers it"
            self.refuse(ReplayDivergedError(where, expected, "the call itself"))
        if not self._missing_reported:
            self._missing_reported = True
            self.tell_user(
                f"replay: {where} and others are covered by a checkpoint that the code does not "
                "reach any more; they are computed again"
            )

    def _short_name(self, call: Call) -> str:
        return self.name_of(call.fn).rpartition(":")[2]


def _open_doubts(calls: list[Call]) -> Iterator[tuple[Call, int, str]]:
    """Yield, of calls with doubts, the first item that nothing has settled, if one, and its doubt."""
    for call in calls:
        open_ = ((run[0][0], each.what) for each in sorted(call.doubts)
                 if (run := call.left.overlap(each.low, each.high)))  # fmt: skip
        found, what = next(open_, (-1, ""))
        if found >= 0 and not call.is_reported:
            yield call, found, what
        call.doubts = ()
