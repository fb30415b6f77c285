"""The tags of units that may live, on disk: `RUN/units`, lines of JSON, each synced before it counts.

The last line of a host counts. A line without a tag means that its unit has ended; it need not be
durable. An incomplete last line had no effect yet, so it is dropped.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.adapters.synced_files import sync_folder, write_synced
from resilient_scoop.core.places import WrittenTag

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "units"
LINES_MAX: Final = 4096
"""The file is written afresh when it has more lines than this, of which most are out of date."""


class UnitsFile:
    """The tags of one run; its only writer."""

    def __init__(self, folder: Path) -> None:
        """Read and compact the lines of earlier processes."""
        self._path = folder / NAME
        self._tags = _read(self._path)
        self.found = tuple(self._tags.values())
        self._fd = -1
        self._compact()

    def write(self, host: str, tag: str) -> None:
        """Write a tag; it is durable on return.

        Raises:
            OSError: it could not be written, and does not count.
        """
        written = WrittenTag(host, tag)
        self._append(written, sync=True)
        self._tags[host] = written

    def drop(self, host: str, tag: str) -> None:
        """Forget a tag, unless the host has another one now."""
        if host in self._tags and self._tags[host].tag == tag:
            del self._tags[host]
            with suppress(OSError):  # a full disk: the tag is searched once more
                self._append(WrittenTag(host, ""))

    def _append(self, line: WrittenTag, *, sync: bool = False) -> None:
        if self._lines >= LINES_MAX + 2 * len(self._tags):
            self._compact()
        data = msgspec.json.encode(line) + b"\n"
        start = os.fstat(self._fd).st_size
        try:
            self._put(data)
            if sync:
                os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)  # no later line is joined with an incomplete one
            raise
        self._lines += 1

    def _put(self, data: bytes) -> None:
        if os.write(self._fd, data) != len(data):
            raise OSError(f"{self._path} is full")

    def _compact(self) -> None:
        lines = [msgspec.json.encode(each) + b"\n" for each in self._tags.values()]
        write_synced(self._path, b"".join(lines))
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        sync_folder(self._path.parent)
        self._lines = len(lines)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read(path: Path) -> dict[str, WrittenTag]:
    tags: dict[str, WrittenTag] = {}
    if not path.exists():
        return tags
    for line in path.read_bytes().split(b"\n"):
        try:
            each = msgspec.json.decode(line, type=WrittenTag)
        except msgspec.MsgspecError:
            continue  # incomplete
        tags.pop(each.host, None)
        if each.tag:
            tags[each.host] = each
    return tags
