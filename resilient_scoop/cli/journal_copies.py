"""`rscoop journal backup` and `restore`: signed copies of a run."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    size,
    state_folder,
)
from resilient_scoop.cli.journal_mend import check_begun
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError
from resilient_scoop.journal.backup import (
    BackupManifest,
    make_key,
    read_key,
    read_manifest,
    unpack_backup,
    write_backup,
)
from resilient_scoop.runs import catalog


class CopyReport(msgspec.Struct, frozen=True):
    """The output of `backup --json` and `restore --json`."""

    schema: int
    id: str
    path: str
    files: int
    size_bytes: int


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal backup /mnt/nas/evolve.tar            the newest run
    rscoop journal backup evolve-7 /mnt/nas/evolve       into a folder
""",
)
@click.argument("words", nargs=-1, required=True, metavar="[RUN] TARGET", type=click.Path())
@json_option
def backup(*, words: tuple[str, ...], as_json: bool) -> None:
    """Write a copy of RUN to TARGET.

    RUN may be live. TARGET is one file if its name ends in .tar, else a folder.

    The copy is signed with your key (`backup.key` in the configuration folder of rscoop), so that
    `restore` notices any change. Keep that key: without it the copy is refused.
    """
    if len(words) > 2:  # noqa: PLR2004 - RUN and TARGET
        raise UsageError("give a run, which may be left out, and one TARGET")
    run = catalog.select(state_folder(), words[0] if len(words) > 1 else catalog.LAST)
    target = Path(words[-1])
    run.load()
    check_begun(run)
    manifest = write_backup(run.path, target.absolute(), make_key(key_path()))
    _report(manifest, target.absolute(), as_json=as_json, verb="saved")


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal restore /mnt/nas/evolve.tar && rscoop resume last
""",
)
@click.argument("source", type=click.Path(path_type=Path), metavar="SOURCE")
@json_option
def restore(*, source: Path, as_json: bool) -> None:
    """Restore a run from SOURCE, which `backup` wrote.

    The restored run can be resumed. The signature is checked before anything in the copy is opened. If
    the run still exists, the command stops.
    """
    manifest = read_manifest(source.absolute(), read_key(key_path()))
    if not manifest.id.isalnum():
        raise UsageError(f"{source} is of a run with an impossible id, {manifest.id!r}")
    run = catalog.restore(
        state_folder(), manifest.id, lambda draft: unpack_backup(source.absolute(), manifest, draft)
    )
    _report(manifest, run.path, as_json=as_json, verb="restored")


def key_path() -> Path:
    """Return the path of the user's key."""
    from platformdirs import user_config_path

    return user_config_path("rscoop") / "backup.key"


def _report(manifest: BackupManifest, path: Path, *, as_json: bool, verb: str) -> None:
    count = len(manifest.files)
    if as_json:
        print_json(CopyReport(SCHEMA, manifest.id, str(path), count, manifest.size_bytes))
    else:
        click.echo(
            f"{verb} run {manifest.id}: {counted(count, 'file')}, {size(manifest.size_bytes)}: {path}"
        )
