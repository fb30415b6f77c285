"""`rscoop replay`: check that the code still does what the journal says; usable as a test in CI."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from resilient_scoop.cli.base import SCHEMA, SETTINGS, json_option, note, print_json, run_argument
from resilient_scoop.cli.environment import enter_surroundings, env_option
from resilient_scoop.cli.resume import ResumeCommand
from resilient_scoop.cli.script import check_program
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError
from resilient_scoop.processes.replay.request import Played, replay, spec_of
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import open_view
from resilient_scoop.runs.surroundings import parse

DIFFERS = 1


class ReplayReport(msgspec.Struct, frozen=True):
    """The `--json` output; `parents` are those that were replayed up to the first difference."""

    schema: int
    id: str
    clean: bool
    parents: list[Played]


@click.command(
    cls=ResumeCommand,
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop replay last
    rscoop replay --code . tests/runs/k3x0q7am       in CI: does the new code still fit?
    rscoop replay --reuse-changed=evaluate last      evaluate may have changed
    rscoop replay last --json | jq '.parents[].difference'
\b
Exit codes:
    0    clean: the same calls, arguments, answers and output as in the journal
    1    something differs; the first difference is printed
    2    the command cannot be executed as given
    74   the journal is damaged
""",
)
@run_argument
@click.option(
    "--code", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Take the script from FOLDER instead of the folder in which the run was started.",
)  # fmt: skip
@click.option(
    "--reuse-changed", multiple=True, metavar="[=FUNCTION]",
    help="Changed code of tasks is no difference: of all tasks, or of FUNCTION.",
)  # fmt: skip
@env_option
@click.option("--output", "shows", is_flag=True, help="Show the output of the script.")
@json_option
def command(
    *,
    run: RunDir,
    code: Path | None,
    reuse_changed: tuple[str, ...],
    env: tuple[str, ...],
    shows: bool,
    as_json: bool,
) -> int:
    """Check that the code still makes the calls in RUN's journal.

    The script, and every unfinished task that makes calls, runs from the top and gets its results
    from the journal. Calls, arguments, answers and output are compared. No call is computed and
    nothing is journaled, but THE SCRIPT'S OWN CODE RUNS: its effects on files or the network outside
    of tasks and `futures.once` are repeated.

    The replay of an unfinished run ends where its history ends. RUN may be live, or the folder
    of a copied run. The environment, umask and limits are those of the run, as for `rscoop resume`;
    with --code they are those of this shell.
    """
    info = run.load()
    view = open_view(run)
    if view is None:
        raise UsageError(f"run {run.id} has not begun: there is no history to replay")
    view.close()
    spec = spec_of(run, info, code)
    if not Path(spec.cwd).is_dir():
        raise UsageError(
            f"run {run.id} works in {spec.cwd}, which is not there; name the code's folder: --code"
        )
    if code is None:
        for text in enter_surroundings(run, info, env):
            note(text)
    else:
        os.environ.update(parse(env, os.environ))
    check_program(spec)
    played = replay(run, info, spec, reuse_changed, shows=shows)
    clean = not any(each.difference for each in played)
    if as_json:
        print_json(ReplayReport(SCHEMA, run.id, clean, played))
    else:
        click.echo(f"replay of run {run.id} ({info.title}): {'clean' if clean else 'differs'}")
        for each in played:
            click.echo("\n".join(_lines(each)))
    return 0 if clean else DIFFERS


def _lines(played: Played) -> list[str]:
    counts = f"{counted(played.calls, 'batch', 'batches')}, {counted(played.items, 'result')}"
    if played.observations:
        counts += f", {counted(played.observations, 'answer')}"
    if played.output_bytes:
        counts += f", {counted(played.output_bytes, 'byte')} of output"
    head = f"  {played.path} {played.name}: {counts}"
    found = played.difference
    if found is None and played.complete:
        return [f"{head}; it reached its end"]
    if found is None:
        return [f"{head}; clean so far, its history ends there:", f"    it {played.stands}"]
    lines = [
        f"{head}; then, at {found.path}, {_WHAT[found.what]}",
        f"    expected   {found.expected}",
        f"    found      {found.found}",
    ]
    if found.place is not None:
        place = found.place
        lines.append(f"    at         {place.file}:{place.line}, in {place.function}")
        lines += [f"                 {place.text}"] if place.text else []
    return [*lines, f"  {_ADVICE[found.what]}"]


_WHAT = {
    "call": "another call is made",
    "arguments": "an argument differs",
    "code": "a function's code has changed",
    "observation": "it asks for another answer",
    "output": "other output is written",
    "input": "other input is read",
    "end": "it ends differently",
}
_ADVICE = {
    "code": "`rscoop resume` would ask whether the results still count; if they do: --reuse-changed",
    "arguments": "`rscoop resume` would compute that item again; read values that vary (time, files, "
    "network) through futures.once",
}
for _each in _WHAT:
    _ADVICE.setdefault(
        _each, "read values that vary (time, files, network) through futures.once; if the code was "
        "changed on purpose, `rscoop resume` computes what differs",
    )  # fmt: skip
