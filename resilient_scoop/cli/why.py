"""`rscoop why`: explain why an item is not running, was run again, failed, or is in doubt."""

from __future__ import annotations

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    run_and_path,
    run_and_path_arguments,
)
from resilient_scoop.errors import UsageError
from resilient_scoop.ids import ROOT
from resilient_scoop.runs.explain import (
    How,
    Inquiry,
    Why,
    parse_path,
)
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import open_view


class WhyReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    id: str
    answer: Why


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop why '0.3[17]'            item 17 of the script's fourth batch, in the newest run
    rscoop why evolve-7 0.3         the batch as a whole
    rscoop why                      the script
    rscoop why '0.3[17]' --json | jq -r .answer.how
Quote the brackets: a shell would
take them for a file name pattern.
\b
Exit codes:
    0    the answer is printed
    1    the run knows no such item
    2    the command cannot be executed as given
    74   the journal is damaged
""",
)
@run_and_path_arguments
@json_option
def command(*, run: RunDir | str, path: str | None, as_json: bool) -> int:
    """Explain the current state of an item or a batch of RUN.

    ID is the item's name in error messages and in `rscoop status`; without ID, the script is
    explained. The answer comes from the journal and from what the workers execute now. The command does
    not slow the run down, and also works on runs that have ended. Nothing is unpickled: an exception is
    shown as its worker stored it.
    """
    run, path = run_and_path(run, path)
    run.load()
    wanted = parse_path(path or ROOT)
    view = open_view(run)
    if view is None:
        raise UsageError(f"run {run.id} has not begun: its journal holds nothing yet")
    with view:
        answer = Inquiry(run, view).answer(wanted)
    if as_json:
        print_json(WhyReport(SCHEMA, run.id, answer))
    else:
        click.echo("\n".join(_lines(answer)))
    return 1 if answer.how is How.UNKNOWN else 0


def _lines(why: Why) -> list[str]:
    name = f" {why.name}" if why.name else ""
    lines = [f"{why.path}{name}: {why.how}", *_indented(why.text)]
    lines += [f"  - {each}" for each in why.history]
    if why.traceback:
        lines += [
            "  its worker wrote:",
            *(f"    {line}" for line in why.traceback.rstrip().split("\n")),
        ]
    return [*lines, f"  next: {why.advice}"] if why.advice else lines


def _indented(text: str) -> list[str]:
    """Return a text, which may have several lines for an error, below its heading."""
    first, *rest = text.split("\n")
    return [f"  {first}", *(f"    {line}" for line in rest)]
