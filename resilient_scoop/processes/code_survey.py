"""Find whether the code that made journaled results has changed, before a run is resumed.

A child process imports the script as a worker does, loads each callable that has results from its
journaled definition (a name, which now finds the new code) and compares what it refers to with what
the definition lists. Values that the script had set after its imports (a global, the code of a
local function) are in the definition and are taken from there, because only the replay can tell
what the script sets now. A renamed function is found by its fingerprint; what cannot be found is
left to the replay.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.processes import starting
from resilient_scoop.processes.edited_modules import Edit, edits
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.wire.messages import Define, Outcome, decode_logged, decode_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.ports import Readable
    from resilient_scoop.runs.folder import RunDir, RunInfo

NOT_IMPORTED: Final = 3
"""Exit status of the child if the script cannot be imported."""
_TIMEOUT_S: Final = 120.0
_Spans = dict[tuple[str, int], dict[bytes, Intervals]]


class ChangedReference(msgspec.Struct, frozen=True):
    """Something that a function refers to and that has changed."""

    label: str
    then: str
    now: str
    at: str

    def __str__(self) -> str:
        values = f" {self.then or '…'} → {self.now or '…'}" if self.then or self.now else ""
        return f"{self.label}{values}" + (f", {self.at}" if self.at else "")


class Comparison(msgspec.Struct, frozen=True):
    """What the child found about a definition; no fingerprint: it cannot tell."""

    fingerprint: bytes = b""
    differences: list[ChangedReference] = []
    missing: bool = False
    is_old: bool = (
        False  # of a format without references; the code is equal by the rule of that format
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """A function with results whose code has changed."""

    name: str  # as in the journal
    names: frozenset[str]  # that, and the name from `name=`
    pairs: dict[tuple[bytes, bytes], int]  # fingerprints then and now -> how many results
    differences: tuple[str, ...] = ()
    spent_s: float = 0.0  # seconds of computing

    @property
    def results(self) -> int:
        """How many results were made by other code."""
        return sum(self.pairs.values())

    @property
    def title(self) -> str:
        """The name to show to the user."""
        return min(self.names, key=lambda name: (":" in name, name)).rpartition(":")[2]


class CodeSurvey(NamedTuple):
    """What a comparison of the code has found."""

    changed: list[Changed]  # in the order of their names
    missing: dict[str, int]  # functions that no longer exist -> their results
    renewed: list[tuple[str, bytes, bytes]] = []  # noqa: RUF012 - same code, fingerprints of two formats
    edits: list[Edit] = []  # noqa: RUF012 - of modules, which show in no function's fingerprint
    classes: list[Edit] = []  # noqa: RUF012 - of the script's classes, which arguments may have


class ResultCount(NamedTuple):
    """Results of one fingerprint, and the seconds of computing that they took."""

    results: int
    spent_s: float


def look(run: RunDir, info: RunInfo, view: Readable) -> CodeSurvey:
    """Compare the present code of all functions with results with their journaled code.

    The results are counted, which reads the whole log, only if some code has changed.
    """
    asked = list(_defines(view))
    answers, whole = _ask(run, info, asked) if asked else ([], True)
    renewed = [
        (define.name, define.fingerprint, answer.fingerprint)
        for define, answer in zip(asked, answers, strict=True)
        if answer.is_old
    ]
    differing = [
        (define, answer)
        for define, answer in zip(asked, answers, strict=True)
        if answer.missing or (answer.fingerprint and answer.fingerprint != define.fingerprint)
        if not answer.is_old
    ]
    noticed = {each.label for answer in answers for each in answer.differences}
    # If the script cannot be imported, the launch reports the reason.
    found_edits, classes = edits(run.path, info.script, asked) if whole else ([], [])
    edited = [each for each in found_edits if not _is_noticed(each, noticed)]
    if not differing and not edited:
        return CodeSurvey([], {}, renewed, [], classes)
    counts = _results(view)
    if not counts:
        return CodeSurvey([], {}, renewed)
    found, missing = _with_results(differing, counts)
    return CodeSurvey([found[name] for name in sorted(found)], missing, renewed, edited, classes)


def _with_results(
    differing: list[tuple[Define, Comparison]], counts: dict[bytes, ResultCount]
) -> tuple[dict[str, Changed], dict[str, int]]:
    """Return, by name, the changed functions that have results, and the results of missing ones."""
    found: dict[str, Changed] = {}
    missing: dict[str, int] = {}
    for define, answer in differing:
        counted = counts.pop(define.fingerprint, None)  # several definitions may have one name
        if counted is None:
            continue
        if answer.missing:
            missing[define.name] = missing.get(define.name, 0) + counted.results
            continue
        before = found.get(define.name, Changed(define.name, frozenset({define.name}), {}))
        names = before.names | ({define.options.name} if define.options.name else set())
        pairs = before.pairs | {(define.fingerprint, answer.fingerprint): counted.results}
        texts = (*before.differences, *map(str, answer.differences))
        found[define.name] = Changed(
            define.name, names, pairs, tuple(dict.fromkeys(texts)), before.spent_s + counted.spent_s
        )
    return found, missing


def _is_noticed(edit: Edit, labels: set[str]) -> bool:
    """Return whether a function's fingerprint shows an edit; labels: `Net.rate`, `draw(closure 0)`."""
    top = edit.name.partition(".")[0]
    return any(top in label.partition("(")[0].split(".") for label in labels)


def _defines(view: Readable) -> Iterator[Define]:
    for _, raw in view.scan(Table.DEFINE):
        record = decode_up(raw)
        if isinstance(record, Define):
            yield record


def _results(view: Readable) -> dict[bytes, ResultCount]:
    """Return the number of results by the fingerprint of their code; a later one replaces an earlier."""
    results = _Results()
    for _, raw in view.scan(Table.LOG):
        results.visit(decode_logged(raw))
    return results.counted()


class _Results(LogVisitor):
    """Which code the results of a log were computed by."""

    def __init__(self) -> None:
        self._spans: _Spans = {}
        self._spent: dict[bytes, float] = {}

    def ended(self, parent: str, outcome: Outcome) -> None:
        made = self._spans.setdefault((parent, outcome.call), {})
        stop = outcome.start + len(outcome.values)
        _discard(made, outcome.start, stop)
        made.setdefault(outcome.fingerprint, Intervals()).add(outcome.start, stop)
        took_s = max(0.0, outcome.spent_s)
        self._spent[outcome.fingerprint] = self._spent.get(outcome.fingerprint, 0.0) + took_s

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        _discard(self._spans.get((parent, call), {}), stop, 1 << 62)

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        _discard(self._spans.get((parent, call), {}), start, stop)

    def counted(self) -> dict[bytes, ResultCount]:
        counts: dict[bytes, int] = {}
        for made in self._spans.values():
            for fingerprint, each in made.items():
                counts[fingerprint] = counts.get(fingerprint, 0) + each.count()
        return {
            fingerprint: ResultCount(count, self._spent[fingerprint])
            for fingerprint, count in counts.items()
            if count
        }


def _discard(made: dict[bytes, Intervals], start: int, stop: int) -> None:
    for each in made.values():
        each.discard(start, stop)


def _ask(run: RunDir, info: RunInfo, defines: list[Define]) -> tuple[list[Comparison], bool]:
    """Let a child compare what callables refer to now with their definitions.

    The second value says whether the script can be imported.
    """
    settings = starting.ChildSettings(
        run_dir=str(run.path),
        run_id=run.id,
        run_key=run.key(info),
        run=bytes.fromhex(info.uuid),
        seed=info.seed,
        hash_seed=starting.given_hash_seed(info, os.environ),
        streams=info.streams,
        script=starting.script_spec(run, info),
        options=RunOptions(workers=info.workers),
        name="survey",
    )
    process = starting.start(
        "survey", settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, user_code=True,
    )  # fmt: skip
    asked = msgspec.msgpack.encode(defines)
    try:
        output, _ = process.communicate(asked, timeout=_TIMEOUT_S)
        answers = msgspec.msgpack.decode(output, type=list[Comparison])
    except (subprocess.TimeoutExpired, msgspec.MsgspecError):
        return [Comparison()] * len(
            defines
        ), False  # the script cannot be imported: the replay will report why
    finally:
        process.kill()
        process.wait()
    return answers, process.returncode != NOT_IMPORTED
