"""The script's output and input, as sent to the broker and recorded."""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame


class Output(Frame, frozen=True):
    """Text on the script's standard output.

    If a script writes something else than before, it goes back in the record: `at` is the position
    in its own output. The output is the fold: cut off at `at`, then add `data`.
    """

    attempt: Attempt
    offset: int  # bytes recorded before it
    data: bytes
    at: int | None = None


class Input(Frame, frozen=True):
    """The result of one read of the script's standard input; no data and no error: end of file."""

    attempt: Attempt
    no: int  # number of the read in the run, from 0
    source: bytes  # the launcher whose standard input was read
    data: bytes
    error: int = 0  # the errno of a failed read
