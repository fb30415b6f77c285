"""`rscoop journal`: check a journal, show statistics, and export it as text."""

from __future__ import annotations

import sys
from typing import Any, Final

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    run_argument,
    size,
)
from resilient_scoop.cli.journal_copies import backup, restore
from resilient_scoop.cli.journal_mend import check_begun, compact, repair_command
from resilient_scoop.core.events import Table
from resilient_scoop.counts import counted
from resilient_scoop.errors import RunBusyError
from resilient_scoop.journal import writer_lock
from resilient_scoop.journal.damage_check import CheckResult, Depth, check
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.wire.messages import decode_logged, decode_up

_DAMAGED_EXIT: Final = 74
_WIRE: Final = {Table.DEFINE, Table.CONST, Table.OUTPUT, Table.PROGRESS}


class VerifyReport(msgspec.Struct, frozen=True):
    """The `verify --json` output."""

    schema: int
    id: str
    depth: str
    sound: bool
    verdict: CheckResult


class TableRow(msgspec.Struct, frozen=True):
    """One table of the journal."""

    table: str
    records: int
    value_bytes: int


class StatsReport(msgspec.Struct, frozen=True):
    """The `stats --json` output."""

    schema: int
    id: str
    generation: int
    size_bytes: int
    tables: list[TableRow]


class ExportedRecord(msgspec.Struct, frozen=True):
    """One line of `export`; `record` is the decoded value, or base64 where it is opaque."""

    table: str
    key: str  # hexadecimal
    record: Any


@click.group(context_settings=SETTINGS)
def command() -> None:
    """Check, show, compact, repair and copy a run's journal."""


command.add_command(compact)
command.add_command(repair_command, "repair")
command.add_command(backup)
command.add_command(restore)


@command.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal verify
    rscoop journal verify --depth contents || echo restore it from a backup
""",
)
@run_argument
@click.option(
    "--depth", type=click.Choice([each.name.lower() for each in Depth]), default="structure",
    help="records: every record's checksum; structure: also the pages of the database; contents: also "
    "every large file.  "
    "[default: structure]",
)  # fmt: skip
@json_option
def verify(*, run: RunDir, depth: str, as_json: bool) -> int:
    """Check RUN's journal for damage.

    The exit code is 74 if there is damage.
    """
    run.load()  # this version cannot check a newer format
    holder = writer_lock.holder(run.journal)
    if holder is not None:
        raise RunBusyError(str(run.journal), holder.pid, holder.host, holder.started)
    check_begun(run)
    verdict = check(run.journal, Depth[depth.upper()])
    if as_json:
        print_json(VerifyReport(SCHEMA, run.id, depth, verdict.sound, verdict))
    else:
        for problem in verdict.problems:
            where = f"{problem.table} {problem.key or ''}: " if problem.table else ""
            click.echo(f"{where}{problem.text}")
        found = "is sound" if verdict.sound else f"has {counted(verdict.problems_total, 'problem')}"
        click.echo(
            f"journal of {run.id} {found}: "
            f"{counted(verdict.records, 'record')}, {size(verdict.payload_bytes)} of payload"
        )
        if not verdict.sound:
            click.echo(
                f"`rscoop journal repair {run.id}` keeps every undamaged record, and the damaged "
                f"journal beside it; or restore a backup: `rscoop journal restore`"
            )
    return 0 if verdict.sound else _DAMAGED_EXIT


@command.command(context_settings=SETTINGS)
@run_argument
@json_option
def stats(*, run: RunDir, as_json: bool) -> None:
    """Show the records and bytes of each table."""
    run.load()  # this version cannot check a newer format
    with JournalView.open(run.journal) as view:
        tables = []
        for table in Table:
            sizes = [len(value) for _, value in view.scan(table)]
            tables.append(TableRow(table.name.lower(), len(sizes), sum(sizes)))
        report = StatsReport(SCHEMA, run.id, view.generation, view.size_bytes(), tables)
    if as_json:
        print_json(report)
        return
    click.echo(
        f"journal of {run.id}: {size(report.size_bytes)}, opened {counted(report.generation, 'time')}"
    )
    for each in tables:
        click.echo(f"  {each.table:8} {each.records:10} records {size(each.value_bytes):>10}")


@command.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal export last | jq -c 'select(.table == "log") | .record'
    rscoop journal export --table define last
""",
)
@run_argument
@click.option(
    "--table", "tables", multiple=True,
    type=click.Choice([each.name.lower() for each in Table]), metavar="TABLE",
    help="Only this table, as `rscoop journal stats` lists them; may be given several times.",
)  # fmt: skip
def export(*, run: RunDir, tables: tuple[str, ...]) -> None:
    """Print RUN's journal as JSON lines.

    Pickled values are printed as base64, never opened.
    """
    run.load()  # this version cannot check a newer format
    with JournalView.open(run.journal) as view:
        for table in Table:
            if tables and table.name.lower() not in tables:
                continue
            for key, value in view.scan(table):
                line = ExportedRecord(table.name.lower(), key.hex(), _decoded(table, value))
                sys.stdout.write(msgspec.json.encode(line).decode() + "\n")


def _decoded(table: Table, value: bytes) -> Any:
    try:
        if table in {Table.LOG, Table.HISTORY}:
            return msgspec.to_builtins(_named(decode_logged(value)))
        if table in _WIRE:
            return msgspec.to_builtins(_named(decode_up(value)))
        if table is Table.EVENT:
            return msgspec.msgpack.decode(value)
    except msgspec.MsgspecError:
        pass  # a record of another version is still worth printing
    return value


def _named(record: msgspec.Struct) -> dict[str, Any]:
    """Return a record with the names of its fields, which the arrays on disk do not contain."""
    return {"type": type(record).__name__, **msgspec.structs.asdict(record)}
