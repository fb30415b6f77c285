"""An envelope detects values that were changed, moved or cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from resilient_scoop.core.events import Table
from resilient_scoop.journal.envelope import (
    BLOB,
    OVERHEAD_BYTES,
    EnvelopeError,
    flags_of,
    seal,
    unseal,
)

tables, flags = some.sampled_from(Table), some.sampled_from([0, BLOB])


@given(tables, some.binary(max_size=40), some.binary(max_size=200), flags)
def test_a_sealed_value_is_unsealed_unchanged(
    table: Table, key: bytes, payload: bytes, flag: int
) -> None:
    value = seal(table, key, payload, flag)
    assert len(value) == len(payload) + OVERHEAD_BYTES
    assert unseal(table, key, memoryview(value)) == (flag, payload)
    assert flags_of(memoryview(value)) == flag


@given(some.binary(max_size=60), some.data())
def test_any_flipped_bit_is_detected(payload: bytes, data: some.DataObject) -> None:
    value = bytearray(seal(Table.LOG, b"key", payload))
    bit = data.draw(some.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnvelopeError):
        unseal(Table.LOG, b"key", bytes(value))


@given(some.binary(max_size=60), some.data())
def test_a_shortened_value_is_detected(payload: bytes, data: some.DataObject) -> None:
    value = seal(Table.LOG, b"key", payload)
    with pytest.raises(EnvelopeError):
        unseal(Table.LOG, b"key", value[: data.draw(some.integers(0, len(value) - 1))])


def test_a_value_under_another_key_or_in_another_table_is_detected() -> None:
    value = seal(Table.LOG, b"key", b"payload")
    for table, key in [(Table.LOG, b"kez"), (Table.LOG, b"keyp"), (Table.ARGS, b"key")]:
        with pytest.raises(EnvelopeError, match="checksum"):
            unseal(table, key, value)


def test_a_page_of_zeros_is_detected() -> None:
    with pytest.raises(EnvelopeError, match="begins with 0x00"):
        unseal(Table.LOG, b"key", bytes(100))
