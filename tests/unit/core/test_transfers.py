"""A file crosses a connection that loses, repeats and reorders messages, and arrives whole."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest

from resilient_scoop.core import transfers
from resilient_scoop.core.transfers import (
    _NEXT,
    PATIENCE_S,
    WINDOW_MAX,
    Download,
    Transfer,
    TransferEvent,
    TransferState,
    Upload,
)
from resilient_scoop.wire.files import CHUNK_BYTES, Chunk, Stored

with_seeds = pytest.mark.parametrize("seed", range(20))


def content(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 7 * CHUNK_BYTES - 3]))


def mixed(messages: list[int], rng: random.Random) -> list[int]:
    """Lose some messages, repeat some, and change their order."""
    kept = [each for each in messages if rng.random() > 0.2]
    kept += [each for each in messages if rng.random() < 0.1]
    rng.shuffle(kept)
    return kept


@with_seeds
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


@with_seeds
def test_an_upload_arrives_whole(seed: int) -> None:
    rng = random.Random(seed)
    source = content(rng)
    upload, target, now = Upload("f", len(source), sync=True, now=0.0), b"", 0.0
    for round_ in range(500):
        now += PATIENCE_S / 3
        if round_ == 5:
            target = target[: len(target) // 2]  # by another broker, after a power cut
        for at in mixed(upload.due(now), rng):
            if at == len(target):
                target += source[at : at + CHUNK_BYTES]
            done = len(target) == len(source)
            if rng.random() > 0.2:
                upload.hear(Stored("f", len(target), done), now + 0.01)
        if upload.is_whole:
            break
    assert target == source


def test_a_transfer_without_an_answer_repeats_its_request_after_a_time_limit() -> None:
    download, upload = Download("f", 0, 0.0), Upload("f", 10, sync=False, now=0.0)
    assert download.wanted(0.0) == [0]
    assert upload.due(0.0) == [0]
    assert not download.wanted(PATIENCE_S)
    assert not upload.due(PATIENCE_S)
    assert download.wanted(PATIENCE_S + 0.1) == [0]
    assert upload.due(PATIENCE_S + 0.1) == [0]


@pytest.mark.parametrize(
    ("state", "event"),
    list(itertools.product(TransferState, TransferEvent)),
    ids=lambda each: each.name,
)
def test_a_transfer_changes_state_only_as_its_table_says(
    state: TransferState, event: TransferEvent
) -> None:
    transfer = Transfer("f", 0.0)
    transfer.state = state
    after = _NEXT[state].get(event)
    if after is None:
        with pytest.raises(AssertionError, match=f"f is {state.name} at {event.name}"):
            transfer.enter(event)
        assert transfer.state is state
    else:
        transfer.enter(event)
        assert transfer.state is after


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    lines = [line.split() for line in (transfers.__doc__ or "").splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["state"]]
    rows = {
        words[0]: words[1:]
        for words in lines
        if words and words[0] in TransferState.__members__ and len(words) == len(head) + 1
    }
    table = {
        TransferState[state]: {
            TransferEvent[event]: TransferState[after]
            for event, after in zip(head, row, strict=True)
            if after != "-"
        }
        for state, row in rows.items()
    }
    assert table == _NEXT


def test_a_transfer_ends_only_when_the_agent_drops_it() -> None:
    ends = {state for state, after in _NEXT.items() if not after}
    assert ends == {TransferState.FAILED, TransferState.FULL}


@pytest.mark.parametrize(
    ("stored", "state"),
    [
        (Stored("f", 0, done=False), TransferState.MOVING),
        (Stored("f", 10, done=True), TransferState.WHOLE),
        (Stored("f", 0, done=False, error="no such folder"), TransferState.FAILED),
        (Stored("f", 0, done=False, full=True), TransferState.FULL),
    ],
)
def test_an_upload_enters_the_state_that_an_answer_says(
    stored: Stored, state: TransferState
) -> None:
    upload = Upload("f", 10, sync=False, now=0.0)
    upload.due(0.0)

    upload.hear(stored, 0.1)

    assert upload.state is state
    assert upload.error == stored.error


def test_an_upload_begins_again_at_the_part_that_the_other_end_has_lost() -> None:
    upload = Upload("f", 3 * CHUNK_BYTES, sync=False, now=0.0)
    assert upload.due(0.0) == [0, CHUNK_BYTES]
    upload.hear(Stored("f", 2 * CHUNK_BYTES, done=False), 0.1)

    upload.hear(Stored("f", CHUNK_BYTES, done=False), 0.2)

    assert upload.state is TransferState.MOVING
    assert upload.due(0.2) == [CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_a_download_fails_if_the_source_reports_an_error_or_changes() -> None:
    refused, changed = Download("f", 0, 0.0), Download("f", 0, 0.0)
    refused.take(Chunk("f", 0, 0, b"", b"", error="no such file"), 0.1)
    changed.take(Chunk("f", 0, 2, b"a", b"digest"), 0.1)
    assert changed.take(Chunk("f", 1, 2, b"b", b"another"), 0.2) == b""

    assert (refused.state, refused.error) == (TransferState.FAILED, "no such file")
    assert (changed.state, changed.error) == (
        TransferState.FAILED, "f changes while it is copied",
    )  # fmt: skip


def test_a_download_with_another_digest_begins_again() -> None:
    download = Download("f", 0, 0.0)
    download.take(Chunk("f", 0, 1, b"a", b"digest"), 0.1)
    assert download.is_whole
    assert download.take(Chunk("f", 0, 1, b"a", b"digest"), 0.2) == b"", "a repetition"

    download.begin_again(0.3)

    assert download.state is TransferState.MOVING
    assert download.take(Chunk("f", 0, 1, b"a", b"digest"), 0.4) == b"a"
    assert download.is_whole
