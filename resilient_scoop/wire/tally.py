"""The record of counts of erased results, and of processes that died."""

from __future__ import annotations

import msgspec


class FunctionWork(msgspec.Struct, array_like=True, gc=False):
    """Counts of the calls of one function."""

    done: int = 0  # values and exceptions
    failed: int = 0  # how many are exceptions
    spent_s: float = 0.0  # total, on all workers

    def add(self, done: int, failed: int, spent_s: float) -> None:
        """Add counts; they may be negative."""
        self.done += done
        self.failed += failed
        self.spent_s += spent_s


class Tally(msgspec.Struct, array_like=True):
    """Totals of a run in addition to its log; one record, replaced as a whole."""

    gone: int = 0  # items done below ended parents
    functions: dict[str, FunctionWork] = {}  # work with erased records, by the function's name
    crashes: int = 0  # processes of the run that died without being stopped
    resubmitted: int = 0  # items that a dead worker held, and that were assigned again
    retried: int = 0  # second tries under `retries=`


TALLY_KEY = b"tally"
"""Its key in the table META."""
encode_tally = msgspec.msgpack.Encoder().encode
decode_tally = msgspec.msgpack.Decoder(Tally).decode
