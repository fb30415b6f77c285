"""What a worker is executing right now, in memory that outlives it.

The agent makes the record (an anonymous file: nothing to clean up) and hands its descriptor to the
process; the process writes a few words at every switch; after a death the agent reads who was on
the CPU. Nothing that user code does to its interpreter can keep the agent from reading it.
"""

from __future__ import annotations

import mmap
import os
from typing import Final, NamedTuple

_WORDS: Final = 6
_BUSY, _EPOCH, _NO, INDEX, DEADLINE, _ENDED = range(_WORDS)


class OnCpu(NamedTuple):
    """The attempt and item that a process executes; `deadline_ns` is on CLOCK_MONOTONIC, 0 if none."""

    epoch: int
    no: int
    item: int
    deadline_ns: int


class FlightRecord:
    """One process' record; one writer, any number of readers.

    `words` is open to the executor's inner loop, which notes an item in 30 ns.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        self.words = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls, name: str) -> FlightRecord:
        """Make a record; its descriptor can be inherited."""
        fd = os.memfd_create(f"rscoop-{name}")
        os.ftruncate(fd, mmap.PAGESIZE)
        return cls(fd)

    def begin(self, epoch: int, no: int, index: int, deadline_ns: int = 0) -> None:
        """Note what is on the CPU from now on."""
        words = self.words
        words[_EPOCH], words[_NO], words[INDEX] = epoch, no, index
        words[DEADLINE] = deadline_ns
        words[_BUSY] = 1

    def idle(self) -> None:
        """Note that no user code runs."""
        self.words[_BUSY] = 0

    def end(self) -> None:
        """Note that the process ends because its work is done: it needs no successor."""
        self.words[_ENDED] = 1

    @property
    def has_ended(self) -> bool:
        """Whether the process said that its work is done."""
        return bool(self.words[_ENDED])

    def read(self) -> OnCpu | None:
        """Return what is on the CPU, or None."""
        words = self.words
        if not words[_BUSY]:
            return None
        return OnCpu(words[_EPOCH], words[_NO], words[INDEX], words[DEADLINE])

    def close(self) -> None:
        """Let go of the memory and the descriptor."""
        self.words.release()
        self._memory.close()
        os.close(self.fd)
