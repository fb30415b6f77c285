"""Decide whether results of changed code still count, from options, a question and earlier decisions."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import Final

import click

from resilient_scoop.cli.base import note, utc
from resilient_scoop.counts import counted
from resilient_scoop.errors import RunStoppedError, UsageError
from resilient_scoop.processes.code_survey import Changed, CodeSurvey
from resilient_scoop.processes.edited_modules import Edit
from resilient_scoop.runs.decisions import Decision, Pair, load
from resilient_scoop.runs.display import duration
from resilient_scoop.runs.folder import RunDir

_SHOWN_MAX: Final = 4
_KEPT: Final = (
    "results of functions without a change are kept; to compute them again, start a new run"
)
ALL: Final = "*"
"""Value of `--reuse-changed` and `--recompute-changed` for every function."""


@dataclass(frozen=True, slots=True)
class ChangedCode:
    """A resume's decisions about changed code: names for the replay, pairs of fingerprints."""

    reuse: tuple[str, ...]
    recompute: tuple[str, ...]
    decisions: tuple[Decision, ...]  # new ones
    undecided: dict[str, int]  # undecided functions -> number of results of other code
    lost: frozenset[bytes]  # fingerprints of code whose results are computed again


def check_flags(reuse: tuple[str, ...], recompute: tuple[str, ...]) -> None:
    """Raise UsageError if the two options contradict each other."""
    both = set(reuse) & set(recompute)
    if both:
        what = "everything" if ALL in both else ", ".join(sorted(both))
        raise UsageError(f"--reuse-changed and --recompute-changed both name {what}; choose one")


def decide(
    run: RunDir, survey: CodeSurvey, reuse: tuple[str, ...], recompute: tuple[str, ...]
) -> ChangedCode:
    """Return what is to be done, and report which earlier decisions apply.

    Raises:
        UsageError: there are results of changed code without a decision.
    """
    changed = survey.changed
    is_settled = not survey.edits or ALL in reuse
    is_decided = bool(reuse or recompute)
    verdict = weigh(run, changed, reuse, recompute)
    if verdict.undecided and is_terminal():
        answer = _ask(run, verdict, changed)
        more = dict.fromkeys(verdict.undecided)
        reuse, recompute = (
            (*reuse, *(more if answer == "keep" else ())),
            (*recompute, *(more if answer == "recompute" else ())),
        )
        verdict = weigh(run, changed, reuse, recompute)
    if verdict.undecided:
        others = "" if is_settled else f"; {_edited(survey)}; {_KEPT}"
        raise UsageError(
            f"the code behind results of run {run.id} has changed: {_named(verdict, changed)}; add "
            f"--recompute-changed to compute them again, or --reuse-changed to keep them (for one "
            f"function: =NAME){others}"
        )
    if survey.classes:
        note(
            f"classes were edited since run {run.id} last ran: {_listed(survey.classes)}; calls that have "
            f"arguments of these classes are computed again"
        )
    if not is_settled:
        _settle_edits(run, survey, is_decided=is_decided)
    same = [  # the same code, in a journal of an older format
        _decision(name, (then, now), 0, keep=True) for name, then, now in survey.renewed
    ]
    return replace(verdict, decisions=(*verdict.decisions, *same))


def is_terminal() -> bool:
    """Return whether a user can answer on a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(run: RunDir, verdict: ChangedCode, changed: list[Changed]) -> str:
    note(f"the code behind results of run {run.id} has changed: {_named(verdict, changed)}")
    choice = click.Choice(["keep", "recompute", "stop"])
    answer: str = click.prompt(
        "Keep these results, compute them again, or stop?", type=choice, default="stop", err=True
    )
    if answer == "stop":
        raise RunStoppedError(run.id, "you chose not to resume it; nothing was changed")
    return answer


def _listed(edits: list[Edit]) -> str:
    more = f", and {len(edits) - _SHOWN_MAX} more" if len(edits) > _SHOWN_MAX else ""
    return ", ".join(map(str, edits[:_SHOWN_MAX])) + more


def _edited(survey: CodeSurvey) -> str:
    return (
        f"code was edited: {_listed(survey.edits)}; rscoop knows no function with results that uses it, "
        f"but one may"
    )


def _settle_edits(run: RunDir, survey: CodeSurvey, *, is_decided: bool) -> None:
    """Let the user decide about edits that change no function's fingerprint.

    With `is_decided`, options have decided about changed functions: then it is only reported.
    """
    what = f"since run {run.id} last ran, {_edited(survey)}"
    if is_decided:
        note(f"{what}; {_KEPT}")
        return
    if not is_terminal():
        raise UsageError(
            f"{what}; add --reuse-changed to keep all results, undo the edit, or start a new run to "
            f"compute everything again"
        )
    note(what)
    if not click.confirm(f"Keep all {'other ' if survey.changed else ''}results?", err=True):
        raise RunStoppedError(run.id, "you chose not to resume it; nothing was changed")


def _named(verdict: ChangedCode, changed: list[Changed]) -> str:
    """Return the undecided functions, with their changes."""
    by_title = {each.title: each for each in changed}
    parts = []
    for name, count in verdict.undecided.items():
        what = by_title[name].differences
        took = (
            f", {duration(by_title[name].spent_s)} of computing"
            if by_title[name].spent_s >= 1
            else ""
        )
        shown = "; ".join(what[:_SHOWN_MAX])
        more = f"; {len(what) - _SHOWN_MAX} more" if len(what) > _SHOWN_MAX else ""
        parts.append(
            f"{name} ({counted(count, 'result')}{took})" + (f": {shown}{more}" if shown else "")
        )
    return ", ".join(parts) if len(parts) == 1 else "\n  ".join(["", *parts]) + "\n"


def weigh(
    run: RunDir, changed: list[Changed], reuse: tuple[str, ...], recompute: tuple[str, ...]
) -> ChangedCode:
    """As `decide`, without a question: undecided results are computed again."""
    known = load(run.path)
    reuse = _resolve(run, "--reuse-changed", reuse, changed, known)
    recompute = _resolve(run, "--recompute-changed", recompute, changed, known)
    decisions: list[Decision] = []
    undecided: dict[str, int] = {}
    lost: set[bytes] = set()
    for each in changed:
        keep = _asked(each.names, reuse, recompute)
        for pair, results in each.pairs.items():
            if keep is not None:
                decisions.append(_decision(each.name, pair, results, keep=keep))
            elif pair in known:
                _remind(known[pair], each.title, results)
            else:
                undecided[each.title] = undecided.get(each.title, 0) + results
            if not (known[pair].keep if keep is None and pair in known else keep):
                lost.add(pair[0])
    about = {each.pair for each in decisions}
    decisions += [  # of functions that only a replay can compare
        _decision(before.name, before.pair, before.results, keep=False)
        for before in known.values()
        if before.keep and before.pair not in about
        if _asked(frozenset({before.name}), reuse, recompute) is False
    ]
    return ChangedCode(reuse, recompute, tuple(decisions), undecided, frozenset(lost))


def _asked(
    names: frozenset[str], reuse: tuple[str, ...], recompute: tuple[str, ...]
) -> bool | None:
    """Return whether results are to be kept; None if the options do not say. Names take precedence."""
    if names & set(reuse):
        return True
    if names & set(recompute):
        return False
    if ALL in reuse:
        return True
    return False if ALL in recompute else None


def _decision(name: str, pair: Pair, results: int, *, keep: bool) -> Decision:
    now = time.time()  # noqa: TID251 - a label for display
    return Decision(
        name=name, then=pair[0], now=pair[1], keep=keep, results=results, decided_at=now
    )


def _remind(before: Decision, title: str, results: int) -> None:
    what, other = ("kept", "recompute") if before.keep else ("computed again", "reuse")
    note(
        f"{title}: {counted(results, 'result')} of earlier code {'is' if results == 1 else 'are'} "
        f"{what}, as decided on "
        f"{utc(before.decided_at)}; to change that: --{other}-changed={title}"
    )


def _resolve(
    run: RunDir,
    flag: str,
    given: tuple[str, ...],
    changed: list[Changed],
    known: dict[Pair, Decision],
) -> tuple[str, ...]:
    """Return the full names of typed ones; report names without a changed function."""
    found: list[str] = []
    for word in given:
        names = [
            name for each in changed if word in {each.title, *each.names} for name in each.names
        ]
        names += [each.name for each in known.values() if word in (each.title, each.name)]
        if word != ALL and not names:
            titles = ", ".join(each.title for each in changed) or "none"
            note(
                f"{flag}={word}: no changed function of run {run.id} has this name (changed: {titles})"
            )
        found += [word, *names]
    return tuple(dict.fromkeys(found))
