"""What the script wrote and read, as it is told to the broker and written down."""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame


class Output(Frame, frozen=True):
    """What the script wrote to its standard output.

    A script that writes otherwise than before goes back behind what is recorded: `at` tells to which
    of its own bytes. What it wrote is the fold: cut off at `at`, then add `data`.
    """

    attempt: Attempt
    offset: int  # bytes recorded before it
    data: bytes
    at: int | None = None


class Input(Frame, frozen=True):
    """What one read of the script's standard input gave; no data and no error: the end of file."""

    attempt: Attempt
    no: int  # of the run's reads, from 0
    source: bytes  # of which launcher's standard input it is the next piece
    data: bytes
    error: int = 0  # the errno of a read that failed
