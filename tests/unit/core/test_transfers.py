"""A file crosses a connection that loses, repeats and reorders messages, and arrives whole."""

from __future__ import annotations

import hashlib
import random

import pytest

from resilient_scoop.core.transfers import PATIENCE_S, WINDOW_MAX, Download, Upload
from resilient_scoop.wire.files import CHUNK_BYTES, Chunk, Stored

pytestmark = pytest.mark.parametrize("seed", range(20))


def content(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 7 * CHUNK_BYTES - 3]))


def mixed(messages: list[int], rng: random.Random) -> list[int]:
    """Lose some messages, repeat some, and change their order."""
    kept = [each for each in messages if rng.random() > 0.2]
    kept += [each for each in messages if rng.random() < 0.1]
    rng.shuffle(kept)
    return kept


def test_a_download_writes_the_content_without_gaps(seed: int) -> None:
    rng = random.Random(seed)
    source = content(rng)
    digest = hashlib.sha256(source).digest()
    download, target, now = Download("f", 0, 0.0), b"", 0.0
    for _ in range(500):
        now += PATIENCE_S / 3
        offsets = download.wanted(now)
        assert len(offsets) <= WINDOW_MAX
        for at in mixed(offsets, rng):
            part = source[at : at + CHUNK_BYTES]
            assert download.size == len(target)
            target += download.take(Chunk("f", at, len(source), part, digest), now + 0.01)
        if download.is_whole:
            break
    assert target == source
    assert download.digest == digest


def test_an_upload_arrives_whole(seed: int) -> None:
    rng = random.Random(seed)
    source = content(rng)
    upload, target, now = Upload("f", len(source), sync=True, now=0.0), b"", 0.0
    for round_ in range(500):
        now += PATIENCE_S / 3
        if round_ == 5:
            target = target[: len(target) // 2]  # another broker, after a power cut
        for at in mixed(upload.due(now), rng):
            if at == len(target):
                target += source[at : at + CHUNK_BYTES]
            done = len(target) == len(source)
            if rng.random() > 0.2:
                upload.hear(Stored("f", len(target), done), now + 0.01)
        if upload.is_done:
            break
    assert target == source


def test_a_transfer_that_is_not_answered_asks_again_after_its_patience(seed: int) -> None:
    del seed
    download, upload = Download("f", 0, 0.0), Upload("f", 10, sync=False, now=0.0)
    assert download.wanted(0.0) == [0]
    assert upload.due(0.0) == [0]
    assert not download.wanted(PATIENCE_S)
    assert not upload.due(PATIENCE_S)
    assert download.wanted(PATIENCE_S + 0.1) == [0]
    assert upload.due(PATIENCE_S + 0.1) == [0]
