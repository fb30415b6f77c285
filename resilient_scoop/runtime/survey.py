"""Has the code that made journaled results changed? Asked before a run is resumed.

A child process imports the script as a worker does, loads each callable that has results from its
journaled definition (a name, which now finds the new code) and takes its fingerprint. What travels
by value (lambdas, local functions) carries its old code with it, and what cannot be loaded any more
(`missing_functions`) has no code to compare: both are left to the replay, which sees the calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop.core.events import Table
from resilient_scoop.core.intervals import Intervals
from resilient_scoop.runtime import child, script
from resilient_scoop.runtime.launching import script_spec
from resilient_scoop.wire.messages import Calls, Define, Outcomes, decode_logged, decode_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.runtime.figures import Readable
    from resilient_scoop.runtime.rundir import RunDir, RunInfo

_TIMEOUT_S: Final = 120.0
_BY_VALUE: Final = b"D"
_MISSING: Final = b"missing"
_Spans = dict[tuple[str, int], dict[bytes, Intervals]]


@dataclass(frozen=True, slots=True)
class Changed:
    """A function with results whose code is not what it was."""

    name: str  # as the journal has it
    names: frozenset[str]  # that and what `name=` calls it
    pairs: dict[tuple[bytes, bytes], int]  # fingerprints then and now -> how many results

    @property
    def results(self) -> int:
        """How many results other code has made."""
        return sum(self.pairs.values())

    @property
    def title(self) -> str:
        """What the user calls it."""
        return min(self.names, key=lambda name: (":" in name, name)).rpartition(":")[2]


class Looked(NamedTuple):
    """What a look at the code has found."""

    changed: list[Changed]  # in the order of their names
    missing: dict[str, int]  # functions that are not to be found any more -> their results


def changed_functions(run: RunDir, info: RunInfo, view: Readable) -> list[Changed]:
    """Return the functions with results whose code has changed, in the order of their names."""
    return look(run, info, view).changed


def look(run: RunDir, info: RunInfo, view: Readable) -> Looked:
    """Compare the code of all functions with results with what it was.

    The results are counted, which reads the whole log, only where some code has changed.
    """
    asked = [each for each in _defines(view) if not each.payload.startswith(_BY_VALUE)]
    answers = _ask(run, info, asked) if asked else []
    differing = [
        (define, now)
        for define, now in zip(asked, answers, strict=True)
        if now not in (b"", define.fingerprint)
    ]
    if not differing:
        return Looked([], {})
    counts = _results(view)
    found: dict[str, Changed] = {}
    missing: dict[str, int] = {}
    for define, now in differing:
        results = counts.pop(define.fingerprint, 0)  # a name may stand in several definitions
        if not results:
            continue
        if now == _MISSING:
            missing[define.name] = missing.get(define.name, 0) + results
            continue
        before = found.get(define.name, Changed(define.name, frozenset({define.name}), {}))
        names = before.names | ({define.options.name} if define.options.name else set())
        pairs = before.pairs | {(define.fingerprint, now): results}
        found[define.name] = Changed(define.name, names, pairs)
    return Looked([found[name] for name in sorted(found)], missing)


def _defines(view: Readable) -> Iterator[Define]:
    for _, raw in view.scan(Table.DEFINE):
        record = decode_up(raw)
        if isinstance(record, Define):
            yield record


def _results(view: Readable) -> dict[bytes, int]:
    """Return how many results there are by the fingerprint of what made them; later ones replace."""
    spans: _Spans = {}
    for _, raw in view.scan(Table.LOG):
        record = decode_logged(raw)
        if isinstance(record, Outcomes):
            for item in record.items:
                made = spans.setdefault((record.parent, item.call), {})
                stop = item.start + len(item.values)
                _discard(made, item.start, stop)
                made.setdefault(item.fingerprint, Intervals()).add(item.start, stop)
        elif isinstance(record, Calls):
            for part in record.parts:
                if part.fresh:
                    _discard(
                        spans.get((record.parent, part.call), {}),
                        part.start,
                        part.start + part.count,
                    )
    counts: dict[bytes, int] = {}
    for made in spans.values():
        for fingerprint, each in made.items():
            counts[fingerprint] = counts.get(fingerprint, 0) + each.count()
    return {fingerprint: count for fingerprint, count in counts.items() if count}


def _discard(made: dict[bytes, Intervals], start: int, stop: int) -> None:
    for each in made.values():
        each.discard(start, stop)


def _ask(run: RunDir, info: RunInfo, defines: list[Define]) -> list[bytes]:
    """Have a child take the fingerprints as of now.

    `_MISSING` stands for what cannot be loaded, and empty is what cannot be said.
    """
    settings = child.ChildSettings(
        run_dir=str(run.path),
        run_id=run.id,
        run=bytes.fromhex(info.uuid),
        seed=info.seed,
        script=script_spec(run, info),
        workers=info.workers,
        name="survey",
    )
    process = child.start(
        "survey", settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, user_code=True,
    )  # fmt: skip
    asked = msgspec.msgpack.encode([define.payload for define in defines])
    try:
        told, _ = process.communicate(asked, timeout=_TIMEOUT_S)
        answers = msgspec.msgpack.decode(told, type=list[bytes])
    except (subprocess.TimeoutExpired, msgspec.MsgspecError):
        return [b""] * len(defines)  # the script cannot be imported: its replay will say why
    finally:
        process.kill()
        process.wait()
    return answers


def main() -> int:
    """Run the child."""
    from resilient_scoop.adapters import payload
    from resilient_scoop.adapters.fingerprint import fingerprint
    from resilient_scoop.adapters.store import LargeStore
    from resilient_scoop.runtime.current import Process

    settings = child.take_settings()
    sys.dont_write_bytecode = True  # who only asks leaves no trace
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[bytes])
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)  # what the script reads and writes is not for us
    Process.importing = settings.script.script or settings.script.module
    try:
        script.prepare(settings.script)
        script.import_for_workers(settings.script)
        whole = True
    except BaseException:  # user code: what is there by now is compared
        whole = False
    store = LargeStore(Path(settings.run_dir) / "payloads")
    found = []
    for each in asked:
        try:
            found.append(fingerprint(payload.loads(each, store)))
        except Exception:  # user code: unpickling runs it
            found.append(_MISSING if whole else b"")
    with os.fdopen(answer, "wb") as stream_out:
        stream_out.write(msgspec.msgpack.encode(found))
    os._exit(0)
