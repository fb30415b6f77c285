"""Stored runs for tests of the command line: folders of their own, journals as a broker writes them."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner, Result

from resilient_scoop import ids
from resilient_scoop.cli.main import cli
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.journal.journal import Journal
from resilient_scoop.runs import catalog
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.wire import messages as wire

NOW = catalog.EPOCH_S + 90_000_000.0
RUN = bytes(range(16))
FIRST = wire.Attempt(1, 0)
FN = b"f" * 16


def rscoop(state: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["--state-dir", str(state), *args])


def new(state: Path, name: str | None = None, after_s: float = 0) -> RunDir:
    def describe(run_id: str) -> RunInfo:
        return RunInfo(
            id=run_id, uuid=RUN.hex(), name=name, script=str(state / "evolve.py"),
            argv=["--generations", "3"], cwd=str(state), python="python3", python_version="3.11.7",
            seed=7, workers=2, created_at=NOW + after_s, host=os.uname().nodename, user="me",
        )  # fmt: skip

    return catalog.create(state, describe, NOW + after_s)


def log(sequence: int, record: wire.Logged) -> Put:
    key = ids.log_prefix(RUN, record.parent) + sequence.to_bytes(8, "big")
    return Put(Table.LOG, key, wire.encode(record))


def output(offset: int, data: bytes) -> Put:
    record = wire.Output(FIRST, offset, data)
    return Put(Table.OUTPUT, offset.to_bytes(8, "big"), wire.encode(record))


def part(call: int, start: int, count: int, *, last: bool, fresh: bool = False) -> wire.Part:
    return wire.Part(call, start, count, FN, b"d" * 8 * count, last, fresh)


def outcome(call: int, start: int, count: int, failed: list[int] | None = None) -> wire.Outcome:
    digests = b"d" * 8 * count
    return wire.Outcome(call, start, b"p" * 16, digests, [b"v"] * count, failed or [], 0.5)


STORY: list[Change] = [
    Put(
        Table.DEFINE, FN,
        wire.encode(wire.Define(FN, b"p" * 16, "evolve:evaluate", b"code", wire.Options())),
    ),
    log(1, wire.Calls("0", FIRST, [part(0, 0, 10, last=True)])),
    log(2, wire.Outcomes("0", [outcome(0, 0, 6), outcome(0, 6, 4, [1])])),
    log(3, wire.Calls("0", FIRST, [part(1, 0, 8, last=True)])),
    log(4, wire.Outcomes("0", [outcome(1, 0, 3)])),
    log(5, wire.Crashed("0", 1, 3, -11, "crash", b"d" * 8)),
    log(6, wire.Crashed("0", 1, 3, -9, "oom", b"d" * 8)),
    output(0, b"generation 0\n"),
    output(13, b"generation 1\n"),
]  # fmt: skip
ENDED = Put(Table.META, b"ended", wire.encode(wire.RunEnded(FIRST, 0, failed=False)))
RAISED = Put(
    Table.META, b"ended", wire.encode(wire.RunEnded(FIRST, 1, failed=True, message="ValueError"))
)


def journaled(run: RunDir, *changes: Change) -> RunDir:
    journal = Journal.create(run.journal, RUN)
    journal.commit([*STORY, *changes])
    journal.close(clean=True)
    return run
