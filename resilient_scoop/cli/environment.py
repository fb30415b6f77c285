"""Restore the surroundings of a run for commands that run its code: `rscoop resume` and `replay`."""

from __future__ import annotations

import os
from typing import Final

import click

from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.runs.surroundings import parse, restore

env_option: Final = click.option(
    "--env", "env", multiple=True, metavar="NAME[=VALUE]",
    help="Set a variable for this command; NAME alone takes this shell's value. All other variables are "
    "restored from the run, except secrets and variables of a terminal or a batch job.",
)  # fmt: skip


def enter_surroundings(
    run: RunDir, info: RunInfo, env: tuple[str, ...], *, new_limits: bool = False
) -> list[str]:
    """Give this process the environment, umask and limits of a run; return what differs, for display.

    Raises:
        UsageError: an `--env` has no name.
    """
    given = parse(env, os.environ)
    if info.around is None:  # of version 0.1
        os.environ.update(given)
        return []
    met = run.limit_met.exists() and not new_limits
    return restore(info.around, given, limits=not (new_limits or met), met=met)
