"""Power cuts in user space: the possible contents of a disk if the power fails after any system call.

A program runs under strace, which records every change that it makes to files below a folder. From
this record, crash images are built. Synced data is present. Of later writes, any subset of sectors
may be present. Of the names made, changed and removed in a directory since its last sync, any first
part may be present (file systems keep the order of such changes in one directory). After ALICE
(Pillai et al. 2014), without kernel modules.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512
CALLS = (
    "openat,write,pwrite64,writev,pwritev,lseek,fdatasync,fsync,ftruncate,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\w+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*|[^>]*)>")


@dataclass
class Inode:
    """A file: the content that is certainly on disk, and later writes."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def sync(self) -> None:
        for at, data in self.pending:
            _put(self.durable, at, data)
        self.pending.clear()


@dataclass
class Change:
    """A change of a directory: a name that now belongs to this inode, or to none."""

    names: dict[str, Inode | None]


@dataclass
class Disk:
    """What a program has done to the files of one folder, call by call."""

    root: str
    inodes: dict[str, Inode] = field(default_factory=dict)  # as the program sees them
    base: dict[str, Inode] = field(default_factory=dict)  # durable names
    # changes by directory, not durable
    changes: dict[str, list[Change]] = field(default_factory=dict)
    offsets: dict[tuple[str, str], int] = field(default_factory=dict)
    dsync: set[tuple[str, str]] = field(default_factory=set)
    acknowledged: int = 0

    @classmethod
    def of(cls, folder: Path) -> Disk:
        disk = cls(str(folder))
        for path in folder.rglob("*"):
            if path.is_file():
                disk.inodes[str(path)] = Inode(bytearray(path.read_bytes()))
        disk.base = dict(disk.inodes)
        return disk

    def change(self, path: str, inode: Inode | None, gone: str = "") -> None:
        names = {path: inode} | ({gone: None} if gone else {})
        self.changes.setdefault(path.rpartition("/")[0], []).append(Change(names))

    def sync_folder(self, folder: str) -> None:
        for change in self.changes.pop(folder, []):
            _rename(self.base, change)

    def image(self, chance: random.Random, share: float, target: Path) -> None:
        """Write a possible content of the disk: a `share` of the unsynced changes, drawn with `chance`."""
        names = dict(self.base)
        for changes in self.changes.values():
            some = chance.randint(0, len(changes)) if 0 < share < 1 else round(share * len(changes))
            for change in changes[:some]:
                _rename(names, change)
        for path, inode in names.items():
            content = bytearray(inode.durable)
            for at, data in inode.pending:
                for start in range(0, len(data), SECTOR_BYTES):
                    if chance.random() < share:
                        _put(content, at + start, data[start : start + SECTOR_BYTES])
            file = target / path[len(self.root) + 1 :]
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_bytes(content)


def _rename(names: dict[str, Inode], change: Change) -> None:
    for path, inode in change.names.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _put(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def record(command: list[str], log: Path) -> int:
    """Run a program and record what it does to files; return its status."""
    trace = ["strace", "-f", "-y", "-xx", "-s", "2000000", "-e", f"trace={CALLS}", "-o", str(log)]
    return subprocess.run([*trace, *command], check=False, timeout=120).returncode


def replay(disk: Disk, log: Path) -> Iterator[str]:
    """Apply a recorded run to `disk`; yield the name of each system call that changed something."""
    begun: dict[str, str] = {}
    with log.open() as lines:
        for line in lines:
            whole = _LINE.match(line)
            if whole is None:
                continue
            pid, text = whole.groups()
            if text.endswith("<unfinished ...>"):
                begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
                continue
            if text.startswith("<... "):
                text = begun.pop(pid, "") + text.partition(" resumed>")[2]
            call = _CALL.match(text)
            if (
                call
                and not call[3].startswith("-1")
                and _apply(disk, pid, call[1], call[2], call[3])
            ):
                yield call[1]


def _apply(disk: Disk, pid: str, name: str, arguments: str, returned: str) -> bool:
    texts = [_text(found) for found in _TEXT.findall(arguments)]
    if name in {"openat", "rename", "renameat", "renameat2"} or name.startswith(
        ("unlink", "mkdir", "rmdir")
    ):
        return _apply_names(disk, pid, name, arguments, texts, returned)
    found = _FD.match(arguments)
    if found is None:
        return False
    fd, path = found[1], _text(found[2]) if "\\x" in found[2] else found[2]
    if name == "write" and fd == "1" and texts and texts[0].startswith("ACK "):
        disk.acknowledged = int(texts[0][4:])
        return True
    if name in {"fsync", "fdatasync"} and path.startswith(disk.root):
        inode = disk.inodes.get(path)
        if inode is None:
            disk.sync_folder(path)
        else:
            inode.sync()
        return True
    if path not in disk.inodes or "lock" in path:
        return False
    return _apply_data(disk, (pid, fd), path, name, arguments, returned)


def _apply_data(
    disk: Disk, handle: tuple[str, str], path: str, name: str, arguments: str, returned: str
) -> bool:
    inode = disk.inodes[path]
    offset = disk.offsets.get(handle, 0)
    if name == "lseek":
        disk.offsets[handle] = int(returned)
        return False
    if name == "ftruncate":
        return False
    data = b"".join(_bytes(found) for found in _TEXT.findall(arguments))
    if name in {"pwrite64", "pwritev"}:
        offset = int(arguments.rpartition(", ")[2])
    else:
        disk.offsets[handle] = offset + len(data)
    inode.pending.append((offset, data))
    if handle in disk.dsync:
        inode.sync()
    return True


def _apply_names(
    disk: Disk, pid: str, name: str, arguments: str, texts: list[str], returned: str
) -> bool:
    base = _FD.match(arguments)
    folder = "" if base is None else (_text(base[2]) if "\\x" in base[2] else base[2])
    paths = [text if text.startswith("/") else f"{folder}/{text}" for text in texts]
    if not paths or not paths[-1].startswith(disk.root):
        return False
    path = paths[0]
    if name == "openat":
        handle = (pid, returned.partition("<")[0])
        disk.offsets[handle] = 0
        (disk.dsync.add if "DSYNC" in arguments or "O_SYNC" in arguments else disk.dsync.discard)(
            handle
        )
        if "O_CREAT" in arguments and path not in disk.inodes:
            disk.inodes[path] = Inode()
            disk.change(path, disk.inodes[path])
            return True
        if "O_TRUNC" in arguments and path in disk.inodes:
            disk.inodes[path] = Inode()
            disk.change(path, disk.inodes[path])
        return False
    if name.startswith("rename"):
        disk.inodes[paths[1]] = disk.inodes.pop(path)
        disk.change(paths[1], disk.inodes[paths[1]], gone=path)
        return True
    if path in disk.inodes:  # unlink; folders are made and removed with their files
        del disk.inodes[path]
        disk.change(path, None)
        return True
    return False


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(escaped: str) -> str:
    return _bytes(escaped).decode(errors="replace")
