"""`rscoop resume`: continue a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from resilient_scoop.cli.base import (
    EXIT_CODES,
    SETTINGS,
    determinism_options,
    note,
    run_argument,
    task_output_option,
)
from resilient_scoop.cli.changed import ALL, check_flags, decide
from resilient_scoop.cli.environment import enter_surroundings, env_option
from resilient_scoop.cli.grid import Crew, GridWish, crew, grid_options, hosts_before, save_hosts
from resilient_scoop.cli.script import check_program
from resilient_scoop.cli.start import start
from resilient_scoop.cli.timelimit import TimeLimit, limit_of, time_limit_option
from resilient_scoop.errors import UsageError
from resilient_scoop.processes.code_survey import CodeSurvey
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.processes.starting import script_spec
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.runs.stdin_rest import continue_input, file_of
from resilient_scoop.runs.versions import installed_versions

_OPTIONAL_VALUE: Final = {"--reuse-changed", "--recompute-changed"}


class ResumeCommand(click.Command):
    """Takes `--reuse-changed` with or without `=FUNCTION`; the next word is never its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Complete a bare flag, because click would take the run's name as its value."""
        return super().parse_args(
            ctx, [f"{word}={ALL}" if word in _OPTIONAL_VALUE else word for word in args]
        )


@click.command(
    cls=ResumeCommand,
    context_settings=SETTINGS,
    short_help="Resume RUN: rerun its script with its finished results.",
    epilog=f"""\b
Examples:
    rscoop resume                            the newest run
    rscoop resume -n 32 k3x0q7am             other workers, the same answer
    rscoop resume --dry-run
    rscoop resume --recompute-changed=evaluate
{EXIT_CODES}""",
)
@run_argument
@click.option(
    "-n", "--workers", type=click.IntRange(min=1), metavar="N",
    help="Worker processes.  [default: as many as before]",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Stop (70) when the replay differs from the journal.")
@click.option(
    "--reuse-changed", multiple=True, metavar="[=FUNCTION]",
    help="Keep the results of functions whose code has changed: of all, or of FUNCTION.",
)  # fmt: skip
@click.option(
    "--recompute-changed", multiple=True, metavar="[=FUNCTION]",
    help="Compute again the results of functions whose code has changed: of all, or of FUNCTION.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Compute failed calls again.")
@click.option(
    "--dry-run", is_flag=True,
    help="Show which results would be kept, what would be computed, and the time for that.",
)  # fmt: skip
@env_option
@click.option(
    "--end-of-input", is_flag=True,
    help="Declare that the script had read all of its standard input when the run died.",
)  # fmt: skip
@click.option(
    "--new-limits", is_flag=True,
    help="Use the resource limits (ulimit) of this shell, not those of the run.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print one JSON value.")
@click.option("--detach", is_flag=True, help="Resume the run in the background.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@task_output_option
@time_limit_option
@determinism_options
@grid_options
def command(  # noqa: PLR0913 - one parameter per option
    *,
    run: RunDir,
    grid: GridWish,
    workers: int | None,
    strict: bool,
    reuse_changed: tuple[str, ...],
    recompute_changed: tuple[str, ...],
    retry_failed: bool,
    dry_run: bool,
    env: tuple[str, ...],
    new_limits: bool,
    end_of_input: bool,
    as_json: bool,
    detach: bool,
    quiet: bool,
    task_output: bool,
    audit: bool,
    always_replay: bool,
    time_limit: TimeLimit | None,
) -> int:
    """Resume RUN: rerun its script, taking finished results from the journal.

    If the code of functions with results has changed, the command lists these functions and asks
    whether to keep their results.
    """
    info = run.load()
    check_flags(reuse_changed, recompute_changed)
    if as_json and not dry_run:
        raise UsageError("--json is for --dry-run; a resumed run prints what its script prints")
    if run.is_held():
        raise run.busy_error()
    notes = _restore(run, info, env, new_limits=new_limits)
    if dry_run:
        _note_all(notes)
        from resilient_scoop.cli.forecast import dry_run as show_forecast

        return show_forecast(
            run, info, reuse=reuse_changed, recompute=recompute_changed,
            retry_failed=retry_failed, as_json=as_json,
        )  # fmt: skip
    survey = _changed(run, info, retry_failed=retry_failed)
    if survey is None:
        _conclude(run)
        note(f"run {run.id} has finished; its output: rscoop logs {run.id}")
        return 0
    _note_all(notes)
    verdict = decide(run, survey, reuse_changed, recompute_changed)
    _continue_input(run, info)
    resources = _resources(run, info, grid, workers)
    options = RunOptions(
        workers=resources.here, total=resources.total, grid=resources.spec is not None,
        hosts=resources.hosts, resume=True, reuse_changed=verdict.reuse,
        recompute_changed=verdict.recompute, retry_failed=retry_failed, end_of_input=end_of_input,
        strict=strict or info.strict, quiet=quiet, detach=detach, audit=audit,
        task_output=task_output, always_replay=always_replay, limit=limit_of(time_limit),
    )  # fmt: skip
    return start(run, options, verdict.decisions)


def _resources(run: RunDir, info: RunInfo, grid: GridWish, workers: int | None) -> Crew:
    """Return the workers of this launch, after its other hosts are saved with the run."""
    resources = crew(grid, workers, hosts_before(run), info.workers)
    if resources.spec is not None:
        save_hosts(run, resources.spec, info.script, info.cwd)
    return resources


def _restore(run: RunDir, info: RunInfo, env: tuple[str, ...], *, new_limits: bool) -> list[str]:
    """Restore the surroundings of the run and enter its folder; return what to tell the user."""
    notes = enter_surroundings(run, info, env, new_limits=new_limits)
    try:
        _enter(run, info)
    except (UsageError, click.ClickException):
        _note_all(notes)  # the directory may be the reason
        raise
    return notes + changed_interpreter(info) + changed_versions(info)


def _continue_input(run: RunDir, info: RunInfo) -> None:
    """Move standard input to the position at which the run stopped reading."""
    if info.stdin_file or file_of(0):
        problem = continue_input(run, info.stdin_file)
        if problem:
            note(problem)


def _note_all(notes: list[str]) -> None:
    for text in notes:
        note(text)


def changed_interpreter(info: RunInfo) -> list[str]:
    """Return a message if the interpreter is in another environment than that of the run."""
    if os.path.realpath(Path(info.python).parent) == os.path.realpath(Path(sys.executable).parent):
        return []
    return [f"the run began with {info.python}; this resume uses {sys.executable} and its packages"]


def changed_versions(info: RunInfo) -> list[str]:
    """Return packages with another version than when the run began; results may depend on them."""
    now = {**installed_versions(), "Python": sys.version.split()[0]}
    then = {**info.versions, "Python": info.python_version}
    return [
        f"{name} was {then[name]} when the run began and is {now.get(name, 'missing')} now"
        for name in sorted(then)
        if now.get(name) != then[name]
    ]


def _enter(run: RunDir, info: RunInfo) -> None:
    """Change to the working directory of the run, and check that its script exists and compiles."""
    if info.in_process and info.script_kept:
        raise UsageError(
            f"run {info.id} is the session {info.name} of calls that were typed at a prompt or in a "
            "notebook, of which no script is kept: run that program again, which opens the session by "
            "its name"
        )
    try:
        os.chdir(info.cwd)
    except OSError as error:
        raise UsageError(
            f"run {info.id} works in {info.cwd}: {error.strerror}; make the folder available again"
        ) from error
    check_program(script_spec(run, info))


def _changed(run: RunDir, info: RunInfo, *, retry_failed: bool) -> CodeSurvey | None:
    """Return what has changed in functions with results; None: there is nothing to do.

    One view answers both questions, because opening one is costly: a child checks a journal that
    was not closed.
    """
    from resilient_scoop.processes.code_survey import look
    from resilient_scoop.runs.status import open_view, read_ended

    view = open_view(run)
    if view is None:
        return CodeSurvey([], {})
    with view:
        ended = read_ended(view)
        if ended is not None and ended.code == 0 and not ended.failed and not retry_failed:
            return None
        return look(run, info, view)


def _conclude(run: RunDir) -> None:
    from resilient_scoop.processes.launcher.cleanup import conclude

    conclude(run)
