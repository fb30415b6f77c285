"""Files that hold large payloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.journal.blobs import (
    BlobError,
    BlobRef,
    BlobStore,
    unpack_ref,
)

SMALL, LARGE = b"small", bytes(range(256)) * 20_000


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("payload", [b"", SMALL, LARGE])
def test_a_payload_is_returned_unchanged(blobs: BlobStore, payload: bytes, sync: bool) -> None:  # noqa: FBT001
    ref = blobs.put(payload, sync=sync)
    assert blobs.read(unpack_ref(ref.pack())) == payload
    assert blobs.size_bytes() == len(payload)


def test_equal_payloads_are_stored_once(blobs: BlobStore) -> None:
    assert blobs.put(SMALL) == blobs.put(SMALL)
    assert blobs.size_bytes() == len(SMALL)


def test_a_changed_shortened_or_missing_file_is_named(blobs: BlobStore) -> None:
    ref = blobs.put(SMALL)
    path = blobs.path(ref.digest)

    path.write_bytes(b"smalL")
    with pytest.raises(BlobError, match=r"content .* has changed"):
        blobs.read(ref)
    path.write_bytes(b"sm")
    for look in (blobs.read, blobs.look):
        with pytest.raises(BlobError, match="bytes long"):
            look(ref)
    path.unlink()
    with pytest.raises(BlobError, match="missing"):
        blobs.read(ref)


def test_storing_a_payload_again_repairs_its_file(blobs: BlobStore) -> None:
    ref = blobs.put(SMALL)
    blobs.path(ref.digest).write_bytes(b"smalL")
    blobs.put(SMALL)
    assert blobs.read(ref) == SMALL


def test_a_large_size_in_a_name_alone_takes_no_memory(blobs: BlobStore) -> None:
    ref = blobs.put(SMALL)
    with pytest.raises(BlobError, match="bytes long"):
        blobs.read(BlobRef(ref.digest, 1 << 60))


def test_a_sweep_removes_unnamed_files_and_keeps_foreign_ones(
    blobs: BlobStore, tmp_path: Path
) -> None:
    kept, dropped = blobs.put(b"kept"), blobs.put(b"dropped")
    (tmp_path / "blobs" / "1-2.tmp").write_bytes(b"half")
    (tmp_path / "blobs" / "README").write_bytes(b"a user's")

    assert blobs.sweep(lambda digest: digest == kept.digest) == 2

    assert blobs.read(kept) == b"kept"
    assert not blobs.path(dropped.digest).exists()
    assert (tmp_path / "blobs" / "README").exists()


def test_an_empty_store_has_nothing_to_sweep(blobs: BlobStore) -> None:
    assert (blobs.sweep(lambda _: False), blobs.size_bytes()) == (0, 0)
