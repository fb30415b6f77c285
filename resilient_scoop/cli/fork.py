"""`rscoop fork`: make a new run that starts with the results of another one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    note,
    print_json,
    run_argument,
    state_folder,
)
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError
from resilient_scoop.runs import catalog
from resilient_scoop.runs.folder import RunDir, RunInfo, user_name
from resilient_scoop.runs.status import open_view

if TYPE_CHECKING:
    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.runs.fork import Point


class ForkReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    id: str
    forked_from: str
    at: str | None
    checkpoint: int | None
    calls: int
    results: int
    undone: int
    covered: int
    folder: str


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop fork                              a copy, to try something
    rscoop fork --at 0.17 --name colder      everything before batch 0.17
    rscoop resume colder
    rscoop fork --at-checkpoint last         the state that was saved last
\b
Exit codes:
    0    the new run was made; its id is printed
    2    the command cannot be executed as given
    74   the journal is damaged, or the disk has an error
""",
)
@run_argument
@click.option(
    "--at", metavar="BATCH",
    help="Take the results before this batch of the script, named as in `rscoop status` (0.17).  "
    "[default: take all]",
)  # fmt: skip
@click.option(
    "--at-checkpoint", metavar="N",
    help="Take the results before this checkpoint of the script, and continue from it; `last` is the "
    "newest. The last two are kept.",
)  # fmt: skip
@click.option("--block", metavar="NAME", help="The block of --at-checkpoint, if there are several.")
@click.option("--name", metavar="NAME", help="A name for the new run, usable like its id.")
@json_option
def command(
    *,
    run: RunDir,
    at: str | None,
    at_checkpoint: str | None,
    block: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Make a new run with RUN's results so far.

    The new run has the same script, arguments and seed, so it reaches the same point with the same
    values; it reads the standard input that RUN has read. From that point on it is independent.
    Change the code, start it with `rscoop resume NEWRUN`, and compare. RUN is not changed and may be
    live. Large results are linked, not copied; either run can be removed.
    """
    from resilient_scoop.processes import kept_code
    from resilient_scoop.runs import fork

    catalog.check_name(name)
    info = run.load()
    if at is not None and at_checkpoint is not None:
        raise UsageError("--at and --at-checkpoint cannot be used together: give one of them")
    if block is not None and at_checkpoint is None:
        raise UsageError(f"--block {block}: use it with --at-checkpoint only")
    view = open_view(run)
    if view is None:
        raise UsageError(f"run {run.id} has not begun: there are no results to fork")
    view.close()
    now = time.time()  # noqa: TID251 - labels the run and makes its id
    uuid = os.urandom(16)
    with fork.moment(run) as source:
        place = _place(run, _script_of(source), at, at_checkpoint, block)

        def describe(run_id: str) -> RunInfo:
            return msgspec.structs.replace(
                info, id=run_id, uuid=uuid.hex(), name=name, created_at=now,
                forked_from=place.source, host=os.uname().nodename, user=user_name(os.geteuid()),
            )  # fmt: skip

        target = catalog.create(state_folder(), describe, now)
        taken = None
        try:
            kept_code.copy(run.path, target.path)
            taken = fork.fork(source, target, uuid, place.point)
        finally:
            if taken is None:
                catalog.remove(target)
    if as_json:
        print_json(
            ForkReport(
                SCHEMA, target.id, run.id, at, place.gen,
                taken.calls, taken.results, taken.undone, taken.covered, str(target.path),
            )
        )  # fmt: skip
        return
    click.echo(target.id)
    more = f", {taken.covered} more covered by its checkpoints" if taken.covered else ""
    note(
        f"run {target.id} has {counted(taken.results, 'result')} of "
        f"{counted(taken.calls, 'batch', 'batches')} "
        f"from {place.source}{more}; to continue it: rscoop resume {target.id}"
    )


class _ForkPoint(NamedTuple):
    point: Point | None  # None: everything
    source: str  # for display
    gen: int | None  # of the checkpoint


class _NamedCheckpoint(NamedTuple):
    name: str
    kept: Generation


def _place(
    run: RunDir, root: ParentFacts, at: str | None, at_checkpoint: str | None, block: str | None
) -> _ForkPoint:
    """Return the point that the options select.

    Raises:
        UsageError: there is no such point, or it no longer exists.
    """
    from resilient_scoop.runs import fork

    if at_checkpoint is not None:
        name, kept = _checkpoint(run, root, at_checkpoint, block)
        point = fork.Point(kept.calls, kept.observations, kept.seq)
        return _ForkPoint(point, f"{run.id} at checkpoint {kept.gen} of {name!r}", kept.gen)
    if at is not None:
        point = _at_call(run, root, at)
        return _ForkPoint(point, f"{run.id} at 0.{point.call}", None)
    return _ForkPoint(None, run.id, None)


def _script_of(source: RunDir) -> ParentFacts:
    """Return the script's state in the journal."""
    from resilient_scoop import ids
    from resilient_scoop.journal.view import JournalView
    from resilient_scoop.runs.stored_state import read_state

    with JournalView.open(source.journal) as view:
        return read_state(view, view.run).parent(ids.ROOT)


def _at_call(run: RunDir, root: ParentFacts, text: str) -> Point:
    """Return the point before a batch of the script.

    Raises:
        UsageError: the run has not made this batch, or records before it no longer exist.
    """
    from resilient_scoop.runs import fork

    call = fork.parse_batch(text)
    if call is None:
        raise UsageError(
            f"--at {text}: name a batch of the script, as 0.17; a run cannot be forked at a batch of a "
            "task, because the script waits for the whole task"
        )
    made = root.next_call()
    if call > made:
        raise UsageError(
            f"--at 0.{call}: the script of run {run.id} has made "
            f"{counted(made, 'batch', 'batches')} so far, "
            f"up to 0.{made - 1}"
        )
    point = fork.Point(call)
    if not fork.check_point(root, point):
        first = fork.first_call(root)
        raise UsageError(
            f"--at 0.{call}: results before it were removed, because later checkpoints cover "
            f"them; from 0.{first} on, use any batch, or a checkpoint: --at-checkpoint with one of "
            f"{_known(root)}"
        )
    return point


def _checkpoint(run: RunDir, root: ParentFacts, text: str, block: str | None) -> _NamedCheckpoint:
    """Return the selected checkpoint.

    Raises:
        UsageError: there is none, or several fit.
    """
    from resilient_scoop.runs import fork

    if not root.blocks:
        raise UsageError(f"the script of run {run.id} has made no checkpoint; --at names a call")
    if text != "last" and not text.isdecimal():
        raise UsageError(f"--at-checkpoint {text}: a number, or `last`; there are {_known(root)}")
    names = {name for name, _ in root.blocks}
    if block is None and len(names) > 1:
        raise UsageError(f"name the block with --block: there are {_known(root)}")
    name = next(iter(names)) if block is None else block
    found = [
        kept
        for (each, _), generations in sorted(root.blocks.items())
        for kept in generations
        if each == name and text in ("last", str(kept.gen))
    ]
    if not found:
        raise UsageError(
            f"checkpoint {text} of block {name!r} is not in the journal of run {run.id}, which keeps "
            f"the last two; there are {_known(root)}"
        )
    kept = max(found, key=lambda each: each.seq)
    if not fork.check_point(root, fork.Point(kept.calls, kept.observations, kept.seq)):
        raise UsageError(
            f"checkpoint {kept.gen} of block {name!r} needs results that were removed when "
            f"later checkpoints were made; there are {_known(root)}"
        )
    return _NamedCheckpoint(name, kept)


def _known(root: ParentFacts) -> str:
    """Return the existing checkpoints, for display."""
    parts = []
    for (name, _), generations in sorted(root.blocks.items()):
        numbers = " and ".join(str(kept.gen) for kept in generations)
        parts.append(f"{numbers} of block {name!r}")
    return ", ".join(parts)
