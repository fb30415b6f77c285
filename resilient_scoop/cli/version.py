"""`rscoop version`: what is installed, for bug reports and for scripts."""

from __future__ import annotations

import sys

import click
import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.cli.base import SCHEMA, SETTINGS, json_option, print_json
from resilient_scoop.runs.versions import installed_versions


class VersionReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    version: str
    python: str
    executable: str
    dependencies: dict[str, str]


@click.command(context_settings=SETTINGS)
@json_option
def command(*, as_json: bool) -> None:
    """Print the versions of rscoop and of its libraries."""
    report = VersionReport(
        SCHEMA, __version__, sys.version.split()[0], sys.executable, installed_versions()
    )
    if as_json:
        print_json(report)
        return
    click.echo(f"rscoop {report.version} on Python {report.python} ({report.executable})")
    for name, version in report.dependencies.items():
        click.echo(f"  {name} {version}")
