"""Large frames are sent once, whatever is lost on the way."""

from __future__ import annotations

import random

import pytest

from resilient_scoop.transport import large_frames
from resilient_scoop.transport.large_frames import LARGE_BYTES, KeptFrames, SentFrames


def frame(number: int) -> bytes:
    return number.to_bytes(2, "big") * (LARGE_BYTES // 2)


def test_a_large_frame_is_sent_once() -> None:
    sent, kept = SentFrames(), KeptFrames()
    message = [b"small", frame(1), frame(2)]
    positions, frames = sent.shorten(message)
    assert positions == b""
    assert frames == message
    kept.keep(frames)
    positions, frames = sent.shorten([frame(2), b"other", frame(1)])
    assert positions == bytes([0, 2])
    assert sum(map(len, frames)) < 100
    assert kept.whole(positions, frames) == [frame(2), b"other", frame(1)]


def test_small_frames_are_never_shortened() -> None:
    sent = SentFrames()
    small = b"x" * (LARGE_BYTES - 1)
    for _ in range(3):
        assert sent.shorten([small]) == (b"", [small])


@pytest.mark.parametrize("seed", range(20))
def test_every_message_arrives_whole_over_a_connection_that_loses_some(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caches of both ends differ after a loss, and are smaller than what is sent."""
    monkeypatch.setattr(large_frames, "KEPT_BYTES_MAX", 5 * LARGE_BYTES)
    rng = random.Random(seed)
    sent, kept = SentFrames(), KeptFrames()
    for _ in range(200):
        message = [frame(rng.randrange(8)) for _ in range(rng.randrange(1, 4))]
        for _ in range(30):
            positions, frames = sent.shorten(message)
            if rng.random() < 0.3:
                continue  # lost: the link sends it again
            if not positions:
                kept.keep(frames)
                break
            whole = kept.whole(positions, frames)
            if isinstance(whole, list):
                assert whole == message
                break
            sent.forget(whole)
        else:
            raise AssertionError("it never arrives")
        assert sent._total == sum(sent._sizes.values())
        assert kept._total == sum(map(len, kept._frames.values())) <= 5 * LARGE_BYTES


def test_an_unknown_position_makes_no_message() -> None:
    assert KeptFrames().whole(bytes([7]), [b"x"]) == b""
