"""The report of a replay without workers, and how its processes are started.

The parents run in child processes with the environment of the run (hash seed, threads), one for the
script and one for all nested parents that are not done; they report as JSON lines. Nothing is
written to the folder of the run.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.recovery import is_open
from resilient_scoop.errors import UsageError
from resilient_scoop.processes import starting
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.runs.stored_state import read_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.runs.folder import RunDir, RunInfo

_LAST_LINES: Final = 5


class SourceLine(msgspec.Struct, frozen=True):
    """A line of user code."""

    file: str
    line: int
    function: str
    text: str


class Difference(msgspec.Struct, frozen=True):
    """What a parent did differently from its history."""

    what: str  # call, arguments, code, observation, output, end
    path: str  # of the call or item, or of the parent
    expected: str
    found: str
    place: SourceLine | None


class Played(msgspec.Struct, frozen=True):
    """The result of the replay of one parent."""

    path: str
    name: str
    calls: int
    items: int
    observations: int
    output_bytes: int
    complete: bool  # it reached its end; else `stands` says where the history ended
    stands: str = ""
    difference: Difference | None = None


class ReplayRequest(msgspec.Struct, frozen=True):
    """What a child is to replay."""

    nested: list[str] = []  # paths; none: the script
    shows: bool = False  # the script's output is passed on to standard error
    scratch: str = ""  # folder for temporary files


def open_parents(state: DurableState) -> list[str]:
    """Return the nested parents that are not done, shallow ones first."""
    paths = [path for path in state.parents if path not in ids.SCRIPTS and is_open(state, path)]
    return sorted(paths, key=lambda path: (ids.depth(path), path))


def replay(
    run: RunDir, info: RunInfo, spec: starting.ScriptSpec, reuse: Iterable[str], *, shows: bool
) -> list[Played]:
    """Replay all parents of a run; `spec` says which code.

    Raises:
        JournalError: the journal cannot be read. UsageError: a child ended without a report.
    """
    from resilient_scoop.journal.view import JournalView

    with JournalView.open(run.journal) as view:
        nested = open_parents(read_state(view, bytes.fromhex(info.uuid)))
    settings = starting.ChildSettings(
        run_dir=str(run.path), run_id=run.id, run_key=run.key(info), run=bytes.fromhex(info.uuid),
        seed=info.seed, hash_seed=starting.given_hash_seed(info, os.environ),
        streams=info.streams, script=spec, name="replay",
        options=RunOptions(workers=info.workers, reuse_changed=tuple(reuse)),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="rscoop-replay-") as scratch:
        played = _play(settings, ReplayRequest([], shows, scratch))
        if nested and not any(each.difference for each in played):
            played += _play(settings, ReplayRequest(nested, shows, scratch))
    return played


def _play(settings: starting.ChildSettings, wanted: ReplayRequest) -> list[Played]:
    process = starting.start(
        "replay", settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=None if wanted.shows else subprocess.PIPE, user_code=True,
        cwd=settings.script.cwd,
    )  # fmt: skip
    try:
        output, errors = process.communicate(msgspec.json.encode(wanted))
    finally:
        process.kill()
        process.wait()
    played = [msgspec.json.decode(line, type=Played) for line in output.splitlines()]
    if process.returncode != 0:
        raise UsageError(_died(process.returncode, errors or b""))
    return played


def _died(code: int, errors: bytes) -> str:
    how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
    lines = errors.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    last = ": " + " | ".join(lines) if lines else ""
    return (
        f"the process that replays the code ended {how} before it was done{last}; "
        "the script may end its own process (os._exit, native code)"
    )


def spec_of(run: RunDir, info: RunInfo, code: Path | None) -> starting.ScriptSpec:
    """Return the program of the run, or the same program in `code`.

    That folder replaces the one in which the run was started.

    Raises:
        UsageError: it is not there.
    """
    if code is None:
        return starting.script_spec(run, info)
    folder = code.absolute()
    if not folder.is_dir():
        raise UsageError(f"--code {code}: there is no such folder")
    script = None
    if info.script is not None and not info.script_kept:
        path = Path(info.script)
        inside = path.relative_to(info.cwd) if path.is_relative_to(info.cwd) else Path(path.name)
        found = next((p for p in (folder / inside, folder / path.name) if p.exists()), None)
        if found is None:
            raise UsageError(f"--code {code}: there is no {inside} in it")
        script = str(found)
    spec = starting.script_spec(run, info)
    return msgspec.structs.replace(spec, script=script or spec.script, cwd=str(folder))
