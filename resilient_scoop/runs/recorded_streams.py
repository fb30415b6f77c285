"""The script's streams, as recorded in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.core.events import FAILED_KEY, INPUT_KEY, Table
from resilient_scoop.wire.messages import Input, Output, RunEnded, decode_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.ports import Readable

_PAGE_BYTES = 1 << 20


def recorded_output(view: Readable) -> bytes:
    """Return the output of the script's last attempt, without output that only earlier attempts wrote."""
    written = bytearray()
    for _, raw in view.scan(Table.OUTPUT):
        piece = decode_up(raw)
        assert isinstance(piece, Output), "a foreign record in OUTPUT"
        if piece.at is not None:
            del written[piece.at :]
        written += piece.data
    return bytes(written)


def read_failed(view: Readable) -> RunEnded | None:
    """Return the script's last failure after which the run was continued."""
    raw = view.get(Table.META, FAILED_KEY)
    ended = None if raw is None else decode_up(raw)
    return ended if isinstance(ended, RunEnded) else None


def recorded_input(view: Readable) -> Iterator[Input]:
    """Yield the results of the script's reads, one after the other."""
    after = None
    while page := view.read(Table.META, INPUT_KEY, after, _PAGE_BYTES):
        after = page[-1][0]
        for _, raw in page:
            read = decode_up(raw)
            assert isinstance(read, Input), "a foreign record among inputs"
            yield read
