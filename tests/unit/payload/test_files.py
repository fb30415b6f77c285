"""Files of large payloads: two kinds of names, and what a reader gets."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from resilient_scoop.journal.blobs import BlobError
from resilient_scoop.journal.state_store import StateStore
from resilient_scoop.payload.files import (
    ARGUMENT,
    LargeStore,
    remove_arguments,
    size_of,
)

PARTS: list[bytes | memoryview] = [b"head", memoryview(bytes(range(256)) * 100), b"", b"tail"]
WHOLE = b"".join(PARTS)


@pytest.fixture
def store(tmp_path: Path) -> LargeStore:
    return LargeStore(tmp_path / "payloads")


@pytest.mark.parametrize("sync", [True, False])
def test_parts_are_joined_and_writable_when_loaded(store: LargeStore, sync: bool) -> None:  # noqa: FBT001
    ref = store.put(PARTS, sync)
    got = store.get(ref)
    assert bytes(got) == WHOLE
    got[0] = 7  # the caller's own
    assert bytes(store.get(ref)) == WHOLE


def test_a_result_is_not_taken_for_an_argument_whatever_its_digest_begins_with(
    store: LargeStore,
) -> None:
    numbers = (b"%d" % number for number in range(100_000))
    payload = next(n for n in numbers if hashlib.sha256(n).digest()[:1] == ARGUMENT)
    assert bytes(store.get(store.put([payload], True))) == payload


def test_a_file_of_an_argument_has_a_size_and_can_be_removed(store: LargeStore) -> None:
    ref = store.put(PARTS, False)
    assert size_of(ref) == len(WHOLE)
    store.remove(ref)
    store.remove(ref)  # removed already: no error
    with pytest.raises(BlobError, match="large argument"):
        store.get(ref)


class FullHost:
    """A host other than the run's, whose disk has space for a file after some tries."""

    def __init__(self, folder: Path, tries: int, number: int = errno.ENOSPC) -> None:
        self.folder, self.tries, self.number = folder, tries, number

    def fetch(self, name: str) -> None:
        self.tries -= 1
        if self.tries > 0:
            raise OSError(self.number, os.strerror(self.number))
        (self.folder / name).write_bytes(WHOLE)

    def push(self, name: str, *, durable: bool) -> None:
        raise NotImplementedError

    def sync(self, names: Sequence[str]) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError


def test_an_argument_waits_for_space_on_another_host(store: LargeStore, tmp_path: Path) -> None:
    ref = store.put(PARTS, False)
    host = tmp_path / "host"
    (host / "payloads").mkdir(parents=True)
    mirror = FullHost(host, tries=3)
    sizes = []

    def patience(fetch: Callable[[], bytes], size_bytes: int, sync: bool) -> bytes:  # noqa: FBT001
        sizes.append((size_bytes, sync))
        while True:
            with suppress(OSError):
                return fetch()

    there = LargeStore(host / "payloads", patience, mirror)
    assert bytes(there.get(ref)) == WHOLE
    assert sizes == [(len(WHOLE), False)]
    assert mirror.tries == 0


def test_leftover_argument_files_are_removed_and_results_kept(
    store: LargeStore, tmp_path: Path
) -> None:
    store.put(PARTS, False)
    kept = store.put(PARTS, True)
    remove_arguments(tmp_path / "payloads")
    assert len(list((tmp_path / "payloads").iterdir())) == 1
    assert bytes(store.get(kept)) == WHOLE


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OSError), (errno.ENOENT, BlobError)])
def test_a_state_is_valid_although_another_host_has_no_space(
    tmp_path: Path, number: int, kind: type[Exception]
) -> None:
    for folder in ("run", "host"):
        (tmp_path / folder).mkdir()
    name = StateStore(tmp_path / "run").put(PARTS)
    there = StateStore(tmp_path / "host", FullHost(tmp_path / "host", 9, number))
    with pytest.raises(kind):
        there.get(name)
