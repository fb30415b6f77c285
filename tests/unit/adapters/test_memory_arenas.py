"""Threads of a process whose address space is limited share one arena of the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import mmap, resource, sys, threading
from resilient_scoop.adapters.memory_arenas import share_if_limited

def used():
    return int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE >> 20

if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
share_if_limited()
threading.stack_size(1 << 20)
gate, before = threading.Event(), used()

def allocate():
    pieces = [b"a" * count for count in range(1000, 2000)]
    gate.wait()

threads = [threading.Thread(target=allocate) for _ in range(3)]
for thread in threads:
    thread.start()
print(used() - before)
gate.set()
"""


def growth(kind: str) -> int:
    """Return by how many MiB three threads make a process grow."""
    done = subprocess.run([sys.executable, "-c", CODE, kind], capture_output=True, check=True)
    return int(done.stdout)


def test_threads_share_an_arena_if_address_space_is_limited() -> None:
    assert growth("limited") < 32


def test_threads_have_their_own_arenas_without_a_limit() -> None:
    if growth("unlimited") < 32:
        pytest.skip("this C library has no arenas")
