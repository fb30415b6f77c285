"""Check from outside whether the guarantees held in a round; a violation names its guarantee."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from chaos.evidence import Ledger, LedgerLine, Snapshot
from chaos.workloads.ledger import ONCE

_SHOWN_MAX = 5


class Guarantee(StrEnum):
    """The guarantees of the design that a round can check."""

    NO_LOST = "NO-LOST"
    ONE_COMMIT = "ONE-COMMIT"
    SAME_ANSWER = "SAME-ANSWER"
    PROGRESS = "PROGRESS"
    AT_MOST_ONCE = "AT-MOST-ONCE"
    SMALL_LOSS = "SMALL-LOSS"
    NO_LEFTOVERS = "NO-LEFTOVERS"
    ALWAYS_OPENS = "ALWAYS-OPENS"
    SOUND = "SOUND"  # no process of ours ends with a traceback; `status` and `runs` are correct


@dataclass(frozen=True, slots=True)
class Violation:
    """A guarantee that did not hold, and the evidence."""

    guarantee: Guarantee
    text: str

    def __str__(self) -> str:
        return f"{self.guarantee}: {self.text}"


def check_ledger(
    ledger: Ledger, snapshots: Iterable[Snapshot], kills: int, *, parents: bool = True
) -> list[Violation]:
    """Check that nothing acknowledged ran again, and that no item ran more often than necessary.

    `parents`: whether to check items that made calls, too. (A parent that waits for a long time is
    replayed on another worker.)
    """
    lines = ledger.lines()
    found: list[Violation] = []
    known: dict[str, int] = {}  # path -> the ledger line after which the item may not start
    for snapshot in snapshots:
        for path in snapshot.acknowledged:
            known.setdefault(path, snapshot.ledger_lines)
    again = [
        f"{line.path} (line {number})"
        for number, line in enumerate(lines)
        if line.is_start and any(known.get(p, number + 1) <= number for p in above_of(line.path))
    ]
    if again:
        found.append(Violation(Guarantee.NO_LOST, f"acknowledged, started again: {_some(again)}"))
    starts = Counter(line.path for line in lines if line.is_start)
    above = set() if parents else {each for path in starts for each in above_of(path)[1:]}
    often = [
        f"{path} {count} times"
        for path, count in starts.items()
        if count > 1 + kills and path not in above
    ]
    if often:
        found.append(Violation(Guarantee.SMALL_LOSS, f"{kills} kills, started: {_some(often)}"))
    return found + _check_once(lines)


def _check_once(lines: list[LedgerLine]) -> list[Violation]:
    counted = Counter(line.path for line in lines if line.mark == ONCE)
    twice = [path for path, count in counted.items() if count > 1]
    if not twice:
        return []
    return [Violation(Guarantee.AT_MOST_ONCE, f"not idempotent, started twice: {_some(twice)}")]


def above_of(path: str) -> list[str]:
    """Return the path of an item and the paths of all its parents."""
    found = [path]
    while "]." in path:
        path = path[: path.rindex("].") + 1]
        found.append(path)
    return found


def check_outcomes(outcomes: Counter[str]) -> list[Violation]:
    """Check that each item has one outcome."""
    twice = [path for path, count in outcomes.items() if count > 1]
    if not twice:
        return []
    return [Violation(Guarantee.ONE_COMMIT, f"journaled more than once: {_some(twice)}")]


def check_output(output: bytes, expected: bytes) -> list[Violation]:
    """Check that the output is equal to that of the undisturbed run, byte for byte."""
    if output == expected:
        return []
    ours, theirs = output.splitlines(), expected.splitlines()
    at = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    text = (
        f"{len(output)} bytes instead of {len(expected)}, line {at + 1} is "
        f"{ours[at : at + 2]!r} and not {theirs[at : at + 2]!r}"
    )
    return [Violation(Guarantee.SAME_ANSWER, text)]


def check_history(output: bytes, items: int, pending: int) -> list[Violation]:
    """Check that the lines are one consistent history: each follows from those before it."""
    lines = [line.split() for line in output.decode(errors="replace").splitlines()]
    try:
        problem = _history_problem(lines, items, pending)
    except (IndexError, ValueError) as error:
        problem = f"a line is cut or missing: {error}"
    return [] if problem is None else [Violation(Guarantee.SAME_ANSWER, problem)]


def _history_problem(lines: list[list[str]], items: int, pending: int) -> str | None:
    if len(lines) != items + 2:
        return f"{len(lines)} lines instead of {items + 2}"
    token = lines[0][1]
    history = _digest(token)
    args = {call: _digest("first", call) for call in range(pending)}
    for number, words in enumerate(lines[1:-1]):
        call = int(words[1])
        arg = args.pop(call, "")  # empty: the call was not submitted, or was completed twice
        value = _digest("value", arg)
        history = _digest(history, call, value)
        expected = [str(number), str(call), arg, value, history]
        if words != expected:
            return f"line {number} is {words} and not {expected}"
        if number + pending < items:
            args[number + pending] = history
    if lines[-1] != ["end", token, history]:
        return f"the last line is {lines[-1]}"
    return None


def _digest(*parts: object) -> str:
    text = "|".join(map(str, parts))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN_MAX} more" if len(texts) > _SHOWN_MAX else ""
    return ", ".join(texts[:_SHOWN_MAX]) + more
