"""Backups: signed copies of a run, and their restoration.

The content of a run's folder is unpickled, so it must be the user's own; a copy was stored
elsewhere. So a backup has an HMAC with a key in the user's configuration folder (32 random bytes,
mode 0600, made on first use), over a manifest that names each file with size and SHA-256. Nothing
in a backup is opened or unpickled before the manifest and every file have been verified.

A backup is a folder, or one tar file:

    manifest.json   what is in it
    manifest.hmac   HMAC-SHA256 of that, hexadecimal
    run.json, input.json, shown, script, decisions.jsonl,
    journal/data.mdb, journal/blobs/…, payloads/…, checkpoints/…

It may be made from a live run (`moment`). Files of large arguments are included only if a checkpoint
waits for their calls; a restored run makes the others again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.core.events import Put, Table
from resilient_scoop.errors import JournalError, JournalFormatError, UsageError
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.moment import may_be_in_it, one_moment
from resilient_scoop.journal.view import JournalView

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.hmac"
BOOT_KEY: Final = b"boot"
KEY_BYTES: Final = 32
_PIECE_BYTES: Final = 1 << 20
_MANIFEST_BYTES_MAX: Final = 1 << 30


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    name: str
    size_bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True):
    """What is in a backup."""

    format: int
    id: str  # of the run
    run: str  # its UUID, hexadecimal
    files: list[FileEntry]

    @property
    def size_bytes(self) -> int:
        """Return the size of all files."""
        return sum(each.size_bytes for each in self.files)


def read_key(path: Path) -> bytes:
    """Return the user's key.

    Raises:
        UsageError: there is none, or other users may read it.
    """
    try:
        status, key = path.lstat(), path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            f"the key {path} is missing, so a forged backup could not be recognized; copy the key from the "
            f"account that made the backup (`rscoop journal backup` made it there), with mode 0600"
        ) from error
    except OSError as error:
        raise UsageError(f"the key {path} can't be read: {error.strerror}") from error
    if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise UsageError(f"the key {path} is not yours alone; if you trust it: chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise UsageError(f"the key {path} has {len(key)} bytes, not {KEY_BYTES}; restore that file")
    return key


def make_key(path: Path) -> bytes:
    """Return the user's key, made on first use.

    Raises:
        UsageError: it cannot be made or read.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)  # left by a killed process that had our process id
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(fd)
            with suppress(FileExistsError):
                os.link(draft, path)  # another process has made it first
            draft.unlink()
            sync_folder(path.parent)
        except OSError as error:
            raise UsageError(f"the key {path} can't be made: {error.strerror}") from error
    return read_key(path)


def write_backup(run: Path, target: Path, key: bytes) -> BackupManifest:
    """Write a backup of a run's folder, live or dead; a target that ends in `.tar` is one file.

    Raises:
        JournalFormatError: the target already exists. JournalDamagedError: the journal is damaged;
        repair it first. JournalError: the disk refused; nothing is left.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise JournalFormatError(str(target), "it is there already; name a new file or folder")
    try:
        with one_moment(run) as stage:
            manifest = _manifest(run, stage)
            raw = msgspec.json.format(msgspec.json.encode(manifest))
            seal = hmac.new(key, raw, hashlib.sha256).hexdigest()
            (stage / MANIFEST).write_bytes(raw)
            (stage / SEAL).write_text(seal + "\n", "ascii")
            names = [MANIFEST, SEAL, *(each.name for each in manifest.files)]
            (_write_tar if target.suffix == ".tar" else _write_folder)(stage, names, target)
    except OSError as error:
        raise JournalError(str(run), "writing a backup", str(error)) from error
    return manifest


def _manifest(run: Path, stage: Path) -> BackupManifest:
    entries = []
    for path in sorted(stage.rglob("*")):
        name = str(path.relative_to(stage))
        if path.is_file() and may_be_in_it(name):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries.append(FileEntry(name, path.stat().st_size, digest))
    with JournalView.open(stage / "journal") as view:
        return BackupManifest(FORMAT, run.name, view.run.hex(), entries)


def _write_folder(stage: Path, names: list[str], target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders = {target}
    for name in names:
        path = target / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (stage / name).open("rb") as source, path.open("xb") as copy:
            shutil.copyfileobj(source, copy, _PIECE_BYTES)
            copy.flush()
            os.fsync(copy.fileno())
        path.chmod(0o600)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)
    sync_folder(target.parent)


def _write_tar(stage: Path, names: list[str], target: Path) -> None:
    draft = target.with_name(target.name + ".tmp")
    with _draft(draft) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                tar.add(stage / name, arcname=name, recursive=False)
        file.flush()
        os.fsync(file.fileno())
        draft.rename(target)
    sync_folder(target.parent)


@contextmanager
def _draft(path: Path) -> Iterator[BinaryIO]:
    """Open a draft that no other process writes; one of a killed process is begun again.

    Raises:
        OSError: another process writes it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the other process has just renamed it
            is_ours = path.stat().st_ino == os.fstat(fd).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise OSError(errno.EBUSY, "another process writes it", str(path))
        is_whole = False
        try:
            os.ftruncate(fd, 0)
            yield file
            is_whole = True
        finally:
            if not is_whole:
                path.unlink(missing_ok=True)


def read_manifest(source: Path, key: bytes) -> BackupManifest:
    """Return the manifest of a backup, after its signature was verified.

    Raises:
        JournalFormatError: it is not a backup, it was changed, or another key was used.
    """
    with _opened(source) as files:
        raw = _small(source, files, MANIFEST)
        seal = _small(source, files, SEAL).decode("ascii", "replace").strip()
    if not hmac.compare_digest(hmac.new(key, raw, hashlib.sha256).hexdigest(), seal):
        raise JournalFormatError(
            str(source),
            "its signature does not match: it was changed, or made by an account with another key; nothing "
            "in it was opened. If you trust its maker, copy that account's key here",
        )
    manifest = msgspec.json.decode(raw, type=BackupManifest)
    if manifest.format > FORMAT:
        reason = f"it is a backup of format {manifest.format}, this version reads up to {FORMAT}"
        raise JournalFormatError(str(source), reason)
    return manifest


def unpack_backup(source: Path, manifest: BackupManifest, folder: Path) -> None:
    """Write a backup's files to a new folder, each verified against the manifest.

    Raises:
        JournalFormatError: a file is missing or was changed; remove what was written.
        JournalDamagedError: the journal in it is damaged.
    """
    with _opened(source) as files:
        for entry in manifest.files:
            if not may_be_in_it(entry.name):
                raise JournalFormatError(str(source), f"it holds a file {entry.name!r}")
            path = folder / entry.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _member(source, files, entry.name) as file, path.open("xb") as copy:
                _copy_checked(source, file, copy, entry)
            path.chmod(0o600)
    check(folder / "journal", Depth.CONTENTS).raise_if_damaged(folder / "journal")
    journal = Journal.open(folder / "journal", run=bytes.fromhex(manifest.run))
    journal.commit(
        [Put(Table.META, BOOT_KEY, b"restored")]
    )  # of arguments, only synced files count
    journal.close(clean=True)


class _BackupFiles(Protocol):
    def open(self, name: str) -> BinaryIO: ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> BinaryIO:
        path = self._folder / name
        if not stat.S_ISREG(path.lstat().st_mode):
            raise KeyError(name)
        return path.open("rb")


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def open(self, name: str) -> BinaryIO:
        member = self._tar.getmember(name)
        file = self._tar.extractfile(member) if member.isreg() else None
        if file is None:
            raise KeyError(name)
        return file  # type: ignore[return-value]  # a reader of bytes


@contextmanager
def _opened(source: Path) -> Iterator[_BackupFiles]:
    if source.is_dir():
        yield _Folder(source)
        return
    try:
        with tarfile.open(source, "r:") as tar:
            yield _Tar(tar)
    except FileNotFoundError as error:
        raise JournalFormatError(str(source), "there is no such file or folder") from error
    except tarfile.TarError as error:
        raise JournalFormatError(str(source), f"it is not a backup ({error})") from error


@contextmanager
def _member(source: Path, files: _BackupFiles, name: str) -> Iterator[BinaryIO]:
    try:
        file = files.open(name)
    except (KeyError, FileNotFoundError) as error:
        raise JournalFormatError(
            str(source), f"the backup is incomplete: {name} is missing"
        ) from error
    with file:
        yield file


def _small(source: Path, files: _BackupFiles, name: str) -> bytes:
    with _member(source, files, name) as file:
        return file.read(_MANIFEST_BYTES_MAX)


def _copy_checked(source: Path, file: BinaryIO, copy: BinaryIO, entry: FileEntry) -> None:
    digest, left = hashlib.sha256(), entry.size_bytes + 1
    while left and (data := file.read(min(_PIECE_BYTES, left))):
        digest.update(data)
        copy.write(data)
        left -= len(data)
    copy.flush()
    os.fsync(copy.fileno())
    if left != 1 or digest.hexdigest() != entry.sha256:
        reason = f"{entry.name} is not what was saved; nothing in it was opened"
        raise JournalFormatError(str(source), reason)
