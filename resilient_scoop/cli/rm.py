"""`rscoop rm`: remove the named runs."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import RUN, SETTINGS, size
from resilient_scoop.runs import catalog
from resilient_scoop.runs.folder import RunDir


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop rm evolve-7
    rscoop rm 2q403gs3 2q403gsx
    rscoop rm last
""",
)
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
def command(*, runs: tuple[RunDir, ...]) -> None:
    """Remove each RUN with its journal, output and logs.

    It cannot be resumed afterwards. A live run is refused: stop it first with
    `rscoop cancel`. `rscoop gc` removes old runs.
    """
    for run in dict.fromkeys(runs):
        freed = sum(path.lstat().st_blocks * 512 for path in run.path.rglob("*"))
        catalog.remove(run)
        click.echo(f"removed {run.id}  {size(freed)}")
