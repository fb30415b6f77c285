"""`rscoop resolve`: record what happened to an item that must not be started twice."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    note,
    print_json,
    run_and_path,
    run_and_path_arguments,
)
from resilient_scoop.core.facts.recovery import doubts
from resilient_scoop.errors import UsageError
from resilient_scoop.payload.payload import dumps
from resilient_scoop.runs.explain import parse_path
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.resolve import DoubtDecision, given_up, resolve
from resilient_scoop.runs.status import is_live, open_view
from resilient_scoop.runs.stored_state import read_state


class DoubtRow(msgspec.Struct, frozen=True):
    """One item in doubt, or one that was in doubt and has ended."""

    path: str
    name: str


class DoubtsReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    id: str
    in_doubt: list[DoubtRow]
    ended: list[DoubtRow]  # as WorkerLostError; they can be resolved, too


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop resolve                                list what can be resolved
    rscoop resolve '0.3[17]' --again              it had no effect: run it again
    rscoop resolve '0.3[17]' --done '{"receipt": 4711}'
    rscoop resolve '0.3[17]' --failed             its parent gets WorkerLostError
Quote the brackets: a shell would
take them for a file name pattern.
\b
Exit codes:
    0    the decision is recorded, or the list is printed
    2    the command cannot be executed as given (the item is not in doubt, the value is not JSON)
    73   the run is live
    74   the journal is damaged, or the disk has an error
""",
)
@run_and_path_arguments
@click.option(
    "--again", is_flag=True, help="Run it again: it had no effect, or repeating it is harmless."
)
@click.option("--done", "value", metavar="JSON", help="It had its effect, and its value is JSON.")
@click.option("--failed", is_flag=True, help="End it as failed: its parent gets WorkerLostError.")
@json_option
def command(
    *,
    run: RunDir | str,
    path: str | None,
    again: bool,
    value: str | None,
    failed: bool,
    as_json: bool,
) -> None:
    """Record what happened to an item of RUN that is in doubt.

    An item of an idempotent=False call is in doubt if its start is in the journal and its outcome
    is not: its worker, or the whole run, was lost in between. rscoop never starts such an item a
    second time; a resume ends it with WorkerLostError. Check whether the item had its effect, and
    record that here. An item that has already ended with WorkerLostError can be resolved too, until
    the run has finished. Without ID, the command lists all such items.
    """
    run, path = run_and_path(run, path)
    info = run.load()
    chosen = [
        verdict
        for verdict, given in (
            (DoubtDecision.AGAIN, again),
            (DoubtDecision.DONE, value is not None),
            (DoubtDecision.FAILED, failed),
        )
        if given
    ]  # fmt: skip
    if path is None:
        if chosen:
            raise UsageError(
                f"--{chosen[0]} needs the item's ID: rscoop resolve {run.id} '0.3[17]' --{chosen[0]}"
            )
        _list(run, as_json=as_json)
        return
    if len(chosen) != 1:
        raise UsageError("give one of --again, --done JSON and --failed")
    view = open_view(run)
    if view is None:
        raise UsageError(f"run {run.id} has not begun: nothing is in doubt")
    view.close()
    payload = b"" if value is None else dumps(_parsed(value), "value", "value")
    text = resolve(run, info, parse_path(path), chosen[0], payload)
    note(f"{text}; to continue: rscoop resume {run.id}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--done {text}: not JSON ({error}); write 3, null, '\"text\"' or '{{\"key\": 1}}'"
        ) from error


def _list(run: RunDir, *, as_json: bool) -> None:
    view = open_view(run)
    found: list[DoubtRow] = []
    ended: list[DoubtRow] = []
    if view is not None and not is_live(run):
        with view:
            state = read_state(view, view.run)
            found = [DoubtRow(path, name) for path, name in doubts(state)]
            ended = [DoubtRow(path, name) for path, name in given_up(view, state)]
    if as_json:
        print_json(DoubtsReport(SCHEMA, run.id, found, ended))
        return
    if not found:
        live = " while it is live" if is_live(run) else ""
        click.echo(f"nothing of run {run.id} is in doubt{live}")
    for each in found:
        click.echo(f"{each.path} {each.name}")
    for each in ended:
        click.echo(f"{each.path} {each.name}   ended as WorkerLostError; it can be resolved too")
