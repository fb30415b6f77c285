"""Texts with bytes that are not UTF-8 are escaped before a message is written."""

from __future__ import annotations

from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.text import writable

FOREIGN = b"z\xfcrich".decode("utf-8", "surrogateescape")


def test_all_texts_of_a_message_are_escaped() -> None:
    message = wire.Hello("worker", FOREIGN, "w1", 7, incarnations=[b"\xe9"])
    found = writable(message)
    assert "z\\xfcrich" in found
    assert [b"\xe9"] in found, "bytes are not text"
    assert 7 in found


def test_keys_lists_and_plain_values_stay_what_they_are() -> None:
    given = {FOREIGN: ["naïve", 1, None, (FOREIGN, 2.5)]}
    assert writable(given) == {"z\\xfcrich": ["naïve", 1, None, ["z\\xfcrich", 2.5]]}
