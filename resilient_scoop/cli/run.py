"""`rscoop run`: start a script as a new run.

The script is checked before the run exists, so that a typing error leaves nothing behind. Arguments
after the script belong to the script.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import click

from resilient_scoop.cli.base import (
    EXIT_CODES,
    SETTINGS,
    determinism_options,
    file_names,
    state_folder,
    task_output_option,
)
from resilient_scoop.cli.grid import Crew, GridWish, crew, grid_options, save_hosts
from resilient_scoop.cli.script import (
    ScriptTarget,
    find_module,
    find_script,
    read_script,
)
from resilient_scoop.cli.start import start
from resilient_scoop.cli.timelimit import TimeLimit, limit_of, time_limit_option
from resilient_scoop.errors import JournalPlaceError, UsageError
from resilient_scoop.processes.new_run import describe_run
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.runs import catalog
from resilient_scoop.runs.folder import (
    KEPT_SCRIPT,
    RunDir,
    RunInfo,
)
from resilient_scoop.runs.stdin_rest import file_of

SEED_BITS: Final = 64


@click.command(
    context_settings={**SETTINGS, "allow_interspersed_args": False},
    epilog=f"""\b
Examples:
    rscoop run evolve.py                    on all cores of this host
    rscoop run -n 4 --name trial7 evolve.py --generations 100
    rscoop run --seed 7 -m package.module   as python -m
    rscoop run --detach evolve.py           continues when you log out
    rscoop run --hostfile hosts.txt evolve.py
{EXIT_CODES}""",
)
@click.option(
    "-n", "--workers", type=click.IntRange(min=1), metavar="N",
    help="Worker processes.  [default: one per core that this process may use]",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="A name for the run, usable like its id.")
@click.option(
    "--seed", type=click.IntRange(0, 2**SEED_BITS - 1), metavar="NUMBER",
    help="Seed of all random streams: the same seed gives the same answer with any number of "
    "workers.  [default: random; a resume uses the same]",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Stop (70) when a replay differs from the journal.")
@click.option(
    "--keep-history", is_flag=True,
    help="Keep records that a resume does not need: calls of tasks that have ended, and results that "
    "a checkpoint covers. The journal then grows with the run.",
)  # fmt: skip
@click.option("--detach", is_flag=True, help="Start the run in the background and print its id.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@task_output_option
@time_limit_option
@determinism_options
@click.option(
    "-m", "as_module", is_flag=True, help="SCRIPT is the name of a module, as in python -m."
)
@click.argument("script", type=click.Path(readable=False), metavar="SCRIPT")
@click.argument(
    "args", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...", shell_complete=file_names
)
@grid_options
def command(  # noqa: PLR0913 - one parameter per option
    *,
    grid: GridWish,
    workers: int | None,
    name: str | None,
    seed: int | None,
    strict: bool,
    keep_history: bool,
    detach: bool,
    quiet: bool,
    task_output: bool,
    audit: bool,
    always_replay: bool,
    time_limit: TimeLimit | None,
    as_module: bool,
    script: str,
    args: tuple[str, ...],
) -> int:
    """Run SCRIPT, a Python script that uses futures.

    SCRIPT's output goes to standard output, progress and messages go to standard error. Ctrl-C stops
    the run cleanly, a second Ctrl-C stops it at once; `rscoop resume` continues it.
    """
    folder = working_folder()
    target = _target(script, folder, as_module=as_module)
    catalog.check_name(name)
    resources = crew(grid, workers)
    drawn = int.from_bytes(os.urandom(SEED_BITS // 8)) if seed is None else seed

    now = time.time()  # noqa: TID251 - labels the run and makes its id

    def describe(run_id: str) -> RunInfo:
        return describe_run(
            run_id, now, name=name, script=target.script, module=target.module, argv=list(args),
            argv0="" if target.module else script, script_kept=target.source is not None,
            first=target.first, stdin_file=None if detach else file_of(0), cwd=str(folder), seed=drawn,
            strict=strict, keep_history=keep_history, workers=resources.here,
        )  # fmt: skip

    files = {} if target.source is None else {KEPT_SCRIPT: target.source}
    run = catalog.create(state_folder(), describe, now, files)
    _save_hosts(run, resources, target, folder)
    options = RunOptions(
        workers=resources.here, total=resources.total, grid=resources.spec is not None,
        hosts=resources.hosts, strict=strict, quiet=quiet, detach=detach, audit=audit,
        task_output=task_output, always_replay=always_replay, limit=limit_of(time_limit),
    )  # fmt: skip
    return _started(run, options)


def working_folder() -> Path:
    """Return the working directory.

    Raises:
        UsageError: it has been deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the working directory has been deleted: change to one that exists, where the script and "
            "its workers can run"
        ) from error


def _target(script: str, folder: Path, *, as_module: bool) -> ScriptTarget:
    if as_module:
        return find_module(script, folder)
    if script == "-":
        return read_script()
    return find_script(script, folder)


def _save_hosts(run: RunDir, resources: Crew, target: ScriptTarget, folder: Path) -> None:
    if resources.spec is None:
        return
    try:
        save_hosts(run, resources.spec, target.script, str(folder))
    except UsageError:
        catalog.remove(run)  # nothing was run
        raise


def _started(run: RunDir, options: RunOptions) -> int:
    try:
        return start(run, options)
    except JournalPlaceError:
        catalog.remove(run)  # nothing was run and nothing can be resumed
        raise
