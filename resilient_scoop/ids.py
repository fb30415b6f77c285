"""Ids, and the places in a run that they represent.

A future's path is its identity: `0` is the script, `0.3` the script's fourth batch, `0.3[17]` item
17 of that batch. It depends only on the order of the parent's own calls: not on time, worker,
slices or the order of results. `t.917[0]` is a call that the script has made in a thread: its
number depends on the function and the arguments. Keys of the journal are digests of (run, path), so
that the same path in another run can never match records of this run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NewType, TypeVar

from resilient_scoop.hashing import blake2b

if TYPE_CHECKING:
    from collections.abc import Iterator

PeerId = NewType("PeerId", bytes)
"""Routing id of one incarnation of a process: a role letter and eight random bytes."""

ROOT: Final = "0"
SHARED: Final = "t"
"""Path of the script's calls that are found by content: those of its threads (`core.parent.by_content`)."""
SCRIPTS: Final = (ROOT, SHARED)
"""The parents that the script's process is the writer of."""
KEY_BYTES: Final = 16
DIGEST_BYTES: Final = 8
"""Bytes of one item's argument digest; digests of a slice are joined."""
Digests = TypeVar("Digests", bytes, bytearray)


def batch_path(parent: str, call: int) -> str:
    """Return the path of the parent's batch number `call`."""
    return f"{parent}.{call}"


def item_path(parent: str, call: int, index: int) -> str:
    """Return the path of one item of a batch, which is the path of its future."""
    return f"{parent}.{call}[{index}]"


def parse_item(path: str) -> tuple[str, int, int] | None:
    """Return (parent path, batch number, index) of an item's path, or None for the root."""
    if not path.endswith("]"):
        return None
    batch, _, index = path[:-1].rpartition("[")
    parent, _, call = batch.rpartition(".")
    return parent, int(call), int(index)


def lineage(path: str) -> Iterator[str]:
    """Yield a future's own path, and the paths of the parents above it, up to the script."""
    yield path
    while (place := parse_item(path)) is not None:
        path = place[0]
        yield path


def depth(path: str) -> int:
    """Return the number of parents above this future (0 for the script)."""
    return path.count(".")


def numbers(path: str) -> list[int]:
    """Return the numbers in a path, to sort by; calls that are found by content come first."""
    parts = path.replace("[", ".").replace("]", "").split(".")
    return [-1 if part == SHARED else int(part) for part in parts]


def log_prefix(run: bytes, path: str) -> bytes:
    """Return the journal key prefix (16 bytes) of everything that the future at `path` did."""
    return blake2b(path.encode(), key=run, digest_size=KEY_BYTES).digest()


def seed_of(run_seed: int, path: str) -> int:
    """Return the seed (64 bits) of a future's random streams: SAME-ANSWER depends on it."""
    key = run_seed.to_bytes(16, "big", signed=False)
    return int.from_bytes(blake2b(path.encode(), key=key, digest_size=8).digest(), "big")


def record_key(prefix: bytes, number: int) -> bytes:
    """Return the key of a record: a prefix, and a number in the order of which records are read."""
    return prefix + number.to_bytes(8, "big")


def seq_of(key: bytes) -> int:
    """Return the sequence number in a key of LOG or ARGS; `log_prefix` is before it."""
    return int.from_bytes(key[KEY_BYTES:], "big")


def digests_of(digests: Digests, start: int, stop: int) -> Digests:
    """Return the digests of the items `[start, stop)`; the first digest is that of item 0."""
    return digests[start * DIGEST_BYTES : stop * DIGEST_BYTES]
