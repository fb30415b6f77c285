"""`rscoop fork`: another run from here on, without computing again what led to here."""

from __future__ import annotations

import os
import time

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
from resilient_scoop.cli.run import check_name
from resilient_scoop.errors import RscoopError, UsageError
from resilient_scoop.runtime import rundirs
from resilient_scoop.runtime.figures import open_view
from resilient_scoop.runtime.rundir import RunDir, RunInfo, user_name


class ForkReport(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    schema: int
    id: str
    forked_from: str
    at: str | None
    calls: int
    results: int
    undone: int
    folder: str


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop fork last                                 a copy to try something on
    rscoop fork --at 0.17 --name colder k3x0q7am     everything before the script's call 0.17
    rscoop resume colder
\b
Exit codes:
    0    the new run is there; its id is printed
    2    the command can't be carried out as given
    74   the journal is damaged, or the disk refuses
""",
)
@run_argument
@click.option(
    "--at", metavar="BATCH",
    help="Take what lies before this call of the script, as `rscoop status` shows it (0.17). "
    "[default: take everything]",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="A name for the new run, to be used like its id.")
@json_option
def command(*, run: RunDir, at: str | None, name: str | None, as_json: bool) -> None:
    """Make a new run that shares RUN's results, and go on there with `rscoop resume NEWRUN`.

    The new run has the same script, arguments and seed, and so comes to the same point with the
    same values; from there on it is its own. Change the code before you resume it, and both
    histories can be compared. RUN is not touched and may be live. Large results are not copied
    but linked; either run can be removed.
    """
    from resilient_scoop.runtime import forking

    check_name(name)
    info = run.load()
    call = None if at is None else forking.parse_batch(at)
    if at is not None and call is None:
        raise UsageError(
            f"--at {at}: name a call of the script, as 0.17; a call of a nested parent is no place "
            "to fork at, since the script waits for that parent as a whole"
        )
    _check_call(run, call)
    now = time.time()  # noqa: TID251  labels the run and makes its id
    uuid = os.urandom(16)
    source = run.id if at is None else f"{run.id} at 0.{call}"

    def describe(run_id: str) -> RunInfo:
        return msgspec.structs.replace(
            info, id=run_id, uuid=uuid.hex(), name=name, created_at=now, forked_from=source,
            host=os.uname().nodename, user=user_name(os.geteuid()),
        )  # fmt: skip

    made = rundirs.create(state_folder(), describe, now)
    try:
        taken = forking.fork(run, made, uuid, call)
    except RscoopError:
        rundirs.remove(made)
        raise
    if as_json:
        print_json(
            ForkReport(
                SCHEMA, made.id, run.id, at, taken.calls, taken.results, taken.undone,
                str(made.path),
            )
        )  # fmt: skip
        return
    click.echo(made.id)
    note(
        f"run {made.id} has {taken.results} results of {taken.calls} calls from {source}; "
        f"go on with `rscoop resume {made.id}`"
    )


def _check_call(run: RunDir, call: int | None) -> None:
    """Raise UsageError for a call that the run has not made: a fork there would promise too much."""
    from resilient_scoop import ids
    from resilient_scoop.runtime.replays import read_state

    view = open_view(run)
    if view is None:
        raise UsageError(f"run {run.id} has not begun: there is nothing to share yet")
    if call is None:
        view.close()
        return
    with view:
        state = read_state(view, view.run)
    made = state.parent(ids.ROOT).next_call()
    if call > made:
        raise UsageError(
            f"--at 0.{call}: the script of run {run.id} has made {made} calls so far, "
            f"0.0 to 0.{made - 1}"
        )
