"""The flight record: what a worker is executing now, in memory that outlives it.

The agent makes the record (an anonymous file: nothing to clean up) and passes its descriptor to the
process; the process writes a few memory words at every switch of items; after its death the agent
reads which item it was executing. User code cannot prevent the agent from reading it.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Final

from resilient_scoop.core.flight import Flight, OnCpu

_WORDS: Final = 13
(
    _BUSY, _EPOCH, _NO, INDEX, DEADLINE, _ENDED, _CALL, _PATH_BYTES, _SINCE, TRIES, _READY, _NEEDED,
    _REACHED,
) = range(_WORDS)  # fmt: skip
_PATH_AT: Final = 8 * _WORDS
_PATH_BYTES_MAX: Final = mmap.PAGESIZE - _PATH_AT


class FlightRecord:
    """The record of one process; one writer, any number of readers.

    `words` is public for the executor's inner loop, which records an item in 30 ns.
    """

    def __init__(self, fd: int, *, readonly: bool = False) -> None:
        self.fd = fd
        access = mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, access=access)
        self.words = memoryview(self._memory).cast("Q")
        self._parent = ""

    @classmethod
    def create(cls, name: str) -> FlightRecord:
        """Make a record; its descriptor can be inherited."""
        fd = os.memfd_create(f"rscoop-{name}")
        os.ftruncate(fd, mmap.PAGESIZE)
        record = cls(fd)
        record.words[_SINCE] = time.monotonic_ns()
        return record

    @classmethod
    def of_process(cls, pid: int) -> FlightRecord | None:
        """Open the record of another process to read it; None if it has none or is not accessible."""
        folder = Path(f"/proc/{pid}/fd")
        try:
            for path in folder.iterdir():
                if str(path.readlink()).startswith("/memfd:rscoop-"):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    return cls(fd, readonly=True)
        except OSError:
            return None  # it has ended
        return None

    def begin(self, epoch: int, no: int, parent: str, call: int, index: int) -> None:
        """Record what is executed from now on."""
        words = self.words
        words[_BUSY] = 0  # if the process dies in between, no item is blamed
        if parent != self._parent:
            self._parent = parent
            path = parent.encode()[: _PATH_BYTES_MAX + 1]
            path = b"" if len(path) > _PATH_BYTES_MAX else path
            self._memory[_PATH_AT : _PATH_AT + len(path)] = path
            words[_PATH_BYTES] = len(path)
        words[_EPOCH], words[_NO], words[_CALL], words[INDEX] = epoch, no, call, index
        words[DEADLINE] = words[TRIES] = 0
        words[_SINCE] = time.monotonic_ns()
        words[_BUSY] = 1

    def limit(self, until: float, tries: int) -> None:
        """Record the deadline of the running item (monotonic), and how often it was tried here."""
        self.words[TRIES] = tries
        self.words[DEADLINE] = round(until * 1e9)

    def idle(self) -> None:
        """Record that no user code runs."""
        self.words[_BUSY] = 0

    def run_again(self) -> None:
        """Record that the last item is executed again."""
        self.words[_BUSY] = 1

    def end(self) -> None:
        """Record that the process ends because its work is done: it needs no successor."""
        self.words[_ENDED] = 1

    def ready(self) -> None:
        """Record that the process has started its work."""
        self.words[_READY] = 1

    @property
    def is_ready(self) -> bool:
        """Whether the process has started its work."""
        return bool(self.words[_READY])

    @property
    def starts_s(self) -> float:
        """Seconds since the start of the process, until it starts its work; then 0."""
        return 0.0 if self.is_ready else (time.monotonic_ns() - self.words[_SINCE]) / 1e9

    def reach(self, count: int) -> None:
        """Record the progress of the script: the number of its batches and answers."""
        self.words[_REACHED] = count

    @property
    def reached(self) -> int:
        """The progress of the script, or at its death."""
        return self.words[_REACHED]

    def wait_for_space(self, size_bytes: int) -> None:
        """Record the disk space for which the process waits; 0: it does not wait."""
        self.words[_NEEDED] = size_bytes

    @property
    def needed_bytes(self) -> int:
        """The disk space for which the process waits."""
        return self.words[_NEEDED]

    @property
    def has_ended(self) -> bool:
        """Whether the process has recorded that its work is done."""
        return bool(self.words[_ENDED])

    def read(self) -> OnCpu | None:
        """Return what is being executed, or None."""
        words = self.words
        if not words[_BUSY]:
            return None
        parent = self._memory[_PATH_AT : _PATH_AT + words[_PATH_BYTES]].decode()
        return OnCpu(
            words[_EPOCH], words[_NO], parent, words[_CALL], words[INDEX], words[DEADLINE],
            words[_SINCE], words[TRIES],
        )  # fmt: skip

    def look(self) -> Flight:
        """Return everything that the agent acts on."""
        return Flight(self.read(), self.is_ready, self.has_ended, self.reached, self.starts_s)

    def close(self) -> None:
        """Release the memory and the descriptor."""
        self.words.release()
        self._memory.close()
        os.close(self.fd)
