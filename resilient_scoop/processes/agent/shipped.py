"""The script's folder on a host that shares no file system with the run's host (`hosts.shipping`).

Contents come from the host's cache, or else from the run's host. One that a killed agent or a power cut
has left unfinished is noticed by its digest. Each agent makes the folder in its own one; the paths of the
script's settings then point there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.hosts import shipping

if TYPE_CHECKING:
    from resilient_scoop.hosts.shipping import Manifest
    from resilient_scoop.processes.agent.uplink import Uplink
    from resilient_scoop.processes.starting import ScriptSpec

CACHE_BYTES_MAX: Final = 1 << 30
_TREE: Final = "script"
_FETCH_S: Final = 600.0


def receive(run_dir: Path, uplink: Uplink, spec: ScriptSpec) -> ScriptSpec:
    """Fetch the script's folder; return the script with its paths on this host.

    Raises:
        PlaceRefusedError: it could not be had.
    """
    until = time.monotonic() + _FETCH_S
    folder = run_dir / shipping.FOLDER
    _fetch(uplink, f"{shipping.FOLDER}/{shipping.MANIFEST}", until)
    manifest = shipping.read(folder)
    cache = _cache()
    for each in manifest.files:
        content = folder / each.digest
        if _is_whole(content, each.digest):
            continue
        if cache is not None and (cache / each.digest).exists():
            with suppress(OSError):  # another agent has removed it, or the disk is full
                shutil.copyfile(cache / each.digest, content)
                os.utime(cache / each.digest)
                if _is_whole(content, each.digest):
                    continue
        _fetch(uplink, f"{shipping.FOLDER}/{each.digest}", until)
        if cache is not None:
            with suppress(OSError):  # no space: the next run fetches it again
                draft = cache / f"{each.digest}.{os.getpid()}.tmp"
                shutil.copyfile(content, draft)
                draft.rename(cache / each.digest)
    tree = run_dir / _TREE
    _build(manifest, folder, tree)
    if cache is not None:
        _trim(cache)
    return moved(spec, manifest.root, str(tree))


def _is_whole(content: Path, digest: str) -> bool:
    try:
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


def follow(run_dir: Path, uplink: Uplink, spec: ScriptSpec) -> ScriptSpec | None:
    """Fetch the present script's folder; return the script, or None if nothing has changed.

    Raises:
        PlaceRefusedError: it could not be had.
    """
    manifest = run_dir / shipping.FOLDER / shipping.MANIFEST
    before = manifest.read_bytes()
    _fetch(uplink, f"{shipping.FOLDER}/{shipping.MANIFEST}", time.monotonic() + _FETCH_S)
    if manifest.read_bytes() == before:
        return None
    return receive(run_dir, uplink, spec)


def _fetch(uplink: Uplink, name: str, until: float) -> None:
    if not uplink.fetch(name, until):
        raise PlaceRefusedError(
            f"{os.uname().nodename} could not get {name} of the script's folder from the run's host: see "
            "whether the connection is too slow for it, and start the host again"
        )


def _build(manifest: Manifest, folder: Path, tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(mode=0o700)
    for each in manifest.files:
        path = Path(os.fsdecode(each.path))
        if ".." in path.parts or path.is_absolute():
            raise PlaceRefusedError(f"the script's folder has a file outside of it: {each.path!r}")
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / each.digest, target)
        if each.executable:
            target.chmod(0o700)


def moved(spec: ScriptSpec, root: str, tree: str) -> ScriptSpec:
    """Return a script whose paths below `root` are below `tree`, and whose folder is there at least."""

    def there(path: str) -> str:
        if path == root or path.startswith(root.rstrip("/") + "/"):
            return tree + path[len(root.rstrip("/")) :]
        return path

    cwd = there(spec.cwd)
    return msgspec.structs.replace(
        spec,
        script=None if spec.script is None else there(spec.script),
        cwd=cwd if Path(cwd).is_dir() else tree,
        first=None if spec.first is None else there(spec.first),
        argv0=there(spec.argv0),
    )


def _cache() -> Path | None:
    """Return the folder of contents that runs share on this host; None if there is no place for it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - a string, before `pathlib` is imported
    folder = Path(base) / "rscoop" / "shipped"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def _trim(cache: Path) -> None:
    """Remove the least recently used contents, if there are too many."""
    found = []
    for entry in os.scandir(cache):
        with suppress(FileNotFoundError):
            stat = entry.stat()
            found.append((stat.st_mtime, stat.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= CACHE_BYTES_MAX:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
