"""The script's folder, as it is sent to hosts that do not share a file system (`--ship`).

    <run>/ship/
        manifest.json     the files, each with its path, its size and the SHA-256 of its content
        <sha-256>         a content; a file that changes after the start of the run is sent as it was

Files that git ignores are not sent; without git, files that are never part of a program (`_NEVER`). A host
keeps contents in a cache, so that it gets only what has changed since its last run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.adapters.synced_files import write_synced
from resilient_scoop.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER: Final = "ship"
MANIFEST: Final = "manifest.json"
BYTES_MAX: Final = 2 << 30
FILES_MAX: Final = 50_000
_NEVER: Final = frozenset({
    ".git", ".hg", ".svn", "__pycache__", ".venv", "venv", ".tox", ".nox", "node_modules",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints", ".DS_Store",
})  # fmt: skip
_GIT: Final = ("git", "--no-optional-locks")
_LIST: Final = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
_GIT_S: Final = 30.0


class Shipped(msgspec.Struct, frozen=True):
    """One file: its path relative to the folder, which need not be UTF-8."""

    path: bytes
    digest: str  # SHA-256, hexadecimal
    size_bytes: int
    executable: bool = False


class Manifest(msgspec.Struct, frozen=True):
    """All files of a folder."""

    root: str
    files: list[Shipped]

    @property
    def size_bytes(self) -> int:
        """The size of all contents."""
        return sum(each.size_bytes for each in self.files)


def files_of(root: Path) -> list[Path]:
    """Return the files of a folder that belong to a program, relative to it, in order.

    Raises:
        UsageError: there are too many.
    """
    found: list[Path] = []
    for path in _from_git(root) or _from_disk(root):
        if not (root / path).is_file() or _NEVER.intersection(path.parts):
            continue
        found.append(path)
        if len(found) > FILES_MAX:
            raise UsageError(
                f"--ship: {root} has more than {FILES_MAX} files: move the script to a folder of its own, "
                "or let git ignore what it does not need"
            )
    return sorted(found)


def _from_git(root: Path) -> list[Path]:
    """Return the files that git tracks or would add; none without git."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of the user's, with a path of the user's
            [*_GIT, "-C", str(root), *_LIST], capture_output=True, timeout=_GIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [Path(os.fsdecode(each)) for each in done.stdout.split(b"\0") if each]


def _from_disk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(set(names) - _NEVER)
        for name in files:
            yield Path(folder, name).relative_to(root)


def pack(root: Path, run_dir: Path, paths: Iterable[Path] | None = None) -> Manifest:
    """Copy the contents of a folder into the run folder, and describe it.

    Raises:
        UsageError: a file cannot be read, or the folder is too large.
    """
    target = run_dir / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    shipped, total = [], 0
    for path in files_of(root) if paths is None else paths:
        source = root / path
        try:
            content = source.read_bytes()
            executable = bool(source.stat().st_mode & 0o100)
        except OSError as error:
            raise UsageError(
                f"--ship: {source} cannot be read ({error.strerror}): let git ignore it, or correct it"
            ) from error
        total += len(content)
        if total > BYTES_MAX:
            raise UsageError(
                f"--ship: {root} has more than {BYTES_MAX >> 30} GB: keep large data where all hosts can "
                "read it, and let git ignore it here"
            )
        digest = hashlib.sha256(content).hexdigest()
        copy = target / digest
        if not copy.exists():
            copy.write_bytes(content)
        shipped.append(Shipped(os.fsencode(path), digest, len(content), executable))
    manifest = Manifest(str(root), shipped)
    write_synced(target / MANIFEST, msgspec.json.encode(manifest))
    return manifest


def read(folder: Path) -> Manifest:
    """Return the manifest of a `ship` folder; raises OSError or msgspec.MsgspecError if there is none."""
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
