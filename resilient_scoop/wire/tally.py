"""The record of what the log no longer holds: counts of erased results, and of processes that died."""

from __future__ import annotations

import msgspec


class Work(msgspec.Struct, array_like=True, gc=False):
    """What calls of one function came to."""

    done: int = 0  # values and exceptions
    failed: int = 0  # of these, exceptions
    spent_s: float = 0.0  # all together, on all workers

    def add(self, done: int, failed: int, spent_s: float) -> None:
        """Add counts; they may be negative."""
        self.done += done
        self.failed += failed
        self.spent_s += spent_s


class Tally(msgspec.Struct, array_like=True):
    """Totals of a run beside those that its log gives; one record, replaced as a whole."""

    gone: int = 0  # items that were done below parents that have ended
    functions: dict[str, Work] = {}  # work whose records are erased, by the function's name
    crashes: int = 0  # processes of the run that died unasked
    resubmitted: int = 0  # items that a worker held when it died, and that were handed out again
    retried: int = 0  # second tries under `retries=`


TALLY_KEY = b"tally"
"""Its key in the table META."""
encode_tally = msgspec.msgpack.Encoder().encode
decode_tally = msgspec.msgpack.Decoder(Tally).decode
