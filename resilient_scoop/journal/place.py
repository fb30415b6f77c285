"""The folder of a journal, and what can be read of it without LMDB.

LMDB maps its file into memory, so a cut file kills the process that reads it (SIGBUS), and a file
of length 0 opens as a new, empty database: a lost journal would look like a new one. So two things
are checked first, with plain reads:

- `generation.json`, a second file: the run, how often the journal was opened for writing, the
  folder of the data file (a compaction makes a new one), and, if it was closed in order, LMDB's last
  transaction then. It is replaced as a whole, after the commit that raises the generation inside
  the database; the database may be ahead of it, never behind.
- the two meta pages of the data file: magic, page size, last page, last transaction.

The folder must belong to us alone (workers unpickle its content) and be on a local file system
(LMDB's map and locks do not work over networks and FUSE).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import struct
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from resilient_scoop.adapters.synced_files import write_synced
from resilient_scoop.core.compaction import obsolete
from resilient_scoop.counts import counted
from resilient_scoop.errors import (
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalPlaceError,
)

DATA_FILE: Final = "data.mdb"
DATA_LOCK_FILE: Final = "lock.mdb"
BLOB_FOLDER: Final = "blobs"
GENERATION_FILE: Final = "generation.json"
FORMAT: Final = 1
"""Format of tables and envelopes; a higher number is refused, lower ones are opened."""

# statfs(2) and the kernel's magic.h; FUSE covers sshfs, s3fs, gcsfuse, GlusterFS, and more.
NETWORK_TYPES: Final = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x65735546: "FUSE",
    0x01021997: "9p",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x00C36400: "CephFS",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
    0xAAD7AAEA: "PanFS",
    0x20030528: "OrangeFS",
    0x786F4256: "VirtualBox shared folders",
    0xBACBACBC: "VMware shared folders",
}

UNWRITTEN_BYTES_MAX: Final = 1 << 20
"""Pages at the end that one transaction allocated and freed again are counted by LMDB's meta page
but never written: by this number of whole pages, an undamaged file may be shorter."""
_is_compact: Final = re.compile(r"compact-([1-9]\d{0,17})").fullmatch
_MAGIC: Final = 0xBEEFC0DE
_DATA_VERSION: Final = 1
_PAGE_HEADER_BYTES: Final = 16
_PAGE_SIZES: Final = tuple(1 << bits for bits in range(9, 17))
_META: Final = struct.Struct("=IIQQI92xQQ")  # magic, version, address, size, page, last page, txn


class GenerationFile(msgspec.Struct, frozen=True):
    """The second file."""

    run: str  # hexadecimal
    format: int
    generation: int
    closed_txn: int = 0  # 0: open, or its last writer was killed
    data: str = ""  # folder of the data file inside the journal's own; "" is the latter itself


class DataMeta(NamedTuple):
    """The newer meta page of a data file."""

    page_bytes: int
    last_page: int
    txn: int
    before_txn: int  # the transaction of the other meta page
    is_short: bool = False  # pages at the end are missing: never written, or cut off

    @property
    def size_bytes(self) -> int:
        """The least size of the file."""
        return (self.last_page + 1) * self.page_bytes


def check_place(directory: Path, *, allow_network: bool = False) -> None:
    """Refuse a folder that other users may change, or whose file system is not suitable for LMDB.

    Raises:
        JournalPlaceError: the text says what is wrong and what to do.
    """
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise JournalPlaceError(
            str(directory),
            f"it belongs to user {status.st_uid}, not to you ({os.geteuid()})",
            "what it holds is unpickled, so use a folder of your own",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalPlaceError(
            str(directory),
            f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})",
            f"if you trust its content, `chmod 700 {directory}`",
        )
    if not allow_network:
        refuse_network(directory, file_system_type(directory))


def refuse_network(directory: Path, type_id: int) -> None:
    """Raise JournalPlaceError if this file system (`f_type` of statfs) is not a local one."""
    name = NETWORK_TYPES.get(type_id)
    if name is not None:
        raise JournalPlaceError(
            str(directory),
            f"it is on {name}, where memory maps and locks do not hold what the journal needs",
            "choose a local disk (--state-dir); `rscoop journal backup` writes a copy where you like",
        )


def file_system_type(directory: Path) -> int:
    """Return `f_type` of statfs(2), which the standard library does not offer."""
    import ctypes

    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(directory), buffer) != 0:
        return 0
    word = ctypes.c_ulong.from_buffer(buffer).value
    return int(word) & 0xFFFFFFFF


def read_generation(directory: Path) -> GenerationFile:
    """Return the content of the second file.

    Raises:
        JournalFormatError: there is no journal here, or one of another format.
        JournalDamagedError: the file cannot be read.
    """
    try:
        content = (directory / GENERATION_FILE).read_bytes()
    except FileNotFoundError as error:
        reason = f"it has no {GENERATION_FILE}, so no journal was ever completed here"
        raise JournalFormatError(str(directory), reason) from error
    except OSError as error:
        raise _unreadable(directory, GENERATION_FILE, error) from error
    try:
        found = msgspec.json.decode(content, type=GenerationFile)
    except msgspec.DecodeError as error:
        raise JournalDamagedError(str(directory), f"{GENERATION_FILE}: {error}") from error
    if found.format > FORMAT:
        reason = (
            f"its format is {found.format}, this version reads up to {FORMAT}; "
            f"use the version of rscoop that wrote it"
        )
        raise JournalFormatError(str(directory), reason, found.format)
    if found.data and not _is_compact(found.data):
        raise JournalDamagedError(str(directory), f"{GENERATION_FILE} names folder {found.data!r}")
    return found


def data_folder(directory: Path, known: GenerationFile) -> Path:
    """Return the folder that holds the data file of a journal."""
    return directory / known.data if known.data else directory


def data_file(directory: Path) -> Path:
    """Return the present path of a journal's data file; a compaction may move it at any time.

    Raises:
        JournalFormatError, JournalDamagedError: see `read_generation`.
    """
    return data_folder(directory, read_generation(directory)) / DATA_FILE


def compact_folder(number: int) -> str:
    """Return the name of the folder of the data file that a compaction makes."""
    return f"compact-{number}"


def compact_number(name: str) -> int:
    """Return the number of such a folder; 0 for the data file that a journal begins with."""
    found = _is_compact(name)
    return int(found[1]) if found else 0


def remove_data(directory: Path, keep: str, *, newer: bool = True) -> None:
    """Remove every data file of a journal but the one in the folder `keep`; errors are ignored.

    These are leftovers of a killed compaction, or of one that had not removed the old file yet.
    Without `newer`, files of a running compaction are kept.
    """
    found = {compact_number(path.name) for path in directory.iterdir() if _is_compact(path.name)}
    for number in obsolete({0, *found}, compact_number(keep), newer=newer):
        if number:
            shutil.rmtree(directory / compact_folder(number), ignore_errors=True)
        else:
            for name in (DATA_FILE, DATA_LOCK_FILE):
                (directory / name).unlink(missing_ok=True)


def write_generation(directory: Path, generation: GenerationFile) -> None:
    """Replace the second file durably."""
    write_synced(directory / GENERATION_FILE, msgspec.json.encode(generation))


def close_generation(directory: Path, generation: GenerationFile) -> None:
    """Record that the journal was closed in order; if there is no space, the next opening verifies."""
    try:
        write_generation(directory, generation)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def read_meta(directory: Path) -> DataMeta:
    """Return the newer meta page of the data file, read without LMDB.

    Raises:
        JournalDamagedError: the file is missing, cut or not a data file.
    """
    older, newest = sorted(meta_pages(directory), key=lambda meta: meta.txn)
    try:
        size_bytes = (directory / DATA_FILE).stat().st_size
    except OSError as error:
        raise JournalDamagedError(str(directory), f"{DATA_FILE}: {error.strerror}") from error
    short_bytes = newest.size_bytes - size_bytes
    unwritten = not size_bytes % newest.page_bytes and short_bytes <= UNWRITTEN_BYTES_MAX
    if short_bytes > 0 and not unwritten:
        reason = f"{DATA_FILE} was cut: {size_bytes} of {counted(newest.size_bytes, 'byte')} left"
        raise JournalDamagedError(str(directory), reason)
    return newest._replace(before_txn=older.txn, is_short=short_bytes > 0)


def is_there(directory: Path, known: GenerationFile, file: tuple[int, int]) -> bool:
    """Return whether the name of the data file still leads to this (device, inode)."""
    try:
        found = (data_folder(directory, known) / DATA_FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (found.st_dev, found.st_ino) == file


def lengthen(directory: Path, meta: DataMeta) -> None:
    """Extend the data file to the length in its meta page, for a writer.

    If a used page is missing after all, it then reads as zeros, which its checksum detects, and
    does not kill the process.
    """
    fd = os.open(directory / DATA_FILE, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < meta.size_bytes:
            os.posix_fallocate(fd, 0, meta.size_bytes)
    finally:
        os.close(fd)


def check_sequence(directory: Path, meta: DataMeta) -> None:
    """Refuse a data file, without a writer, whose newest meta page is not the last written one.

    The two are written alternately, so they are one transaction apart; LMDB would use the older one
    if a bit flipped in the number of the newer.
    """
    if meta.txn - meta.before_txn > 1:
        reason = f"its meta pages {meta.before_txn} and {meta.txn} do not follow one another"
        raise JournalDamagedError(str(directory), reason)


def meta_pages(directory: Path) -> list[DataMeta]:
    """Return both meta pages of the data file.

    Raises:
        JournalDamagedError: the file is missing or not a data file.
    """
    try:
        with (directory / DATA_FILE).open("rb", buffering=0) as file:
            first = _meta(directory, file.fileno(), 0)
            return [first, _meta(directory, file.fileno(), first.page_bytes)]
    except OSError as error:
        raise _unreadable(directory, DATA_FILE, error) from error


def _unreadable(directory: Path, name: str, error: OSError) -> JournalError:
    """Return the error for a file that cannot be read: missing permission is not damage."""
    if isinstance(error, PermissionError):
        return JournalError(str(directory), f"reading {name}", str(error.strerror))
    return JournalDamagedError(str(directory), f"{name}: {error.strerror}")


def _meta(directory: Path, fd: int, offset: int) -> DataMeta:
    raw = os.pread(fd, _META.size, offset + _PAGE_HEADER_BYTES)
    if len(raw) < _META.size:
        length = os.fstat(fd).st_size
        raise JournalDamagedError(
            str(directory), f"{DATA_FILE} was cut to {counted(length, 'byte')}"
        )
    magic, version, _, _, page_bytes, last_page, txn = _META.unpack(raw)
    if magic != _MAGIC or version != _DATA_VERSION or page_bytes not in _PAGE_SIZES:
        raise JournalDamagedError(str(directory), f"{DATA_FILE} does not begin like an LMDB file")
    return DataMeta(page_bytes, last_page, txn, txn)
