"""Numbers and strings have a faster encoding in a call; it must give the same bytes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from resilient_scoop.futures import _engine
from resilient_scoop.identity.digest import SMALL_BYTES, digest, digest_many, digest_scalars

_SHORT = [
    [1, -(1 << 70), True, None, 2.5, float("nan"), 1j],
    ["", "a", "\ud800", "€" * 4096],
    [b"", b"x" * 4096],
    ["a", b"a"],
    [],
]


@pytest.mark.parametrize("args", _SHORT)
def test_the_fast_encoding_of_numbers_and_short_strings_equals_the_general_one(
    args: list[Any],
) -> None:
    payloads = _engine.encode_scalars(args)
    assert payloads == [pickle.dumps(arg, 5) for arg in args]
    joined = digest_scalars(payloads)
    assert joined == b"".join(map(digest, args, payloads))
    if args:
        assert joined == digest_many(args, payloads)


@pytest.mark.parametrize(
    "args",
    [
        ["a" * 4097],
        [b"x" * 4097],
        [1, "a"],
        [1, (2,)],
        [1 << 8 * SMALL_BYTES],
        [type("Number", (int,), {})(1)],
    ],
)
def test_other_items_use_the_general_encoding(args: list[Any]) -> None:
    assert _engine.encode_scalars(args) is None
