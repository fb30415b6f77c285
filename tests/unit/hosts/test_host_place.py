"""A thread reads the output of an agent; whatever ends the thread, the unit does not count as running."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from resilient_scoop.hosts.base import UnitState
from resilient_scoop.hosts.conversation import PREFIX, Conversation
from resilient_scoop.hosts.door import ConnectionLostError
from resilient_scoop.hosts.host_place import _listen

RUNNING = PREFIX + '{"state": "running", "pid": 7}'


class Breaking:
    """A command whose output breaks off."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_closed = False

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is written")

    def end_input(self) -> None:
        raise AssertionError("its input is not ended")

    def lines(self) -> Iterator[str]:
        yield RUNNING
        raise self.error

    def status(self) -> int | None:
        return 0

    def close(self) -> None:
        self.is_closed = True

    def kill(self) -> None:
        self.close()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLostError("the connection to alice was lost"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_the_unit_is_unknown_when_its_output_breaks_off(error: OSError) -> None:
    pipe, talk = Breaking(error), Conversation("alice", start_s=10.0, now=0.0)

    _listen(pipe, talk)

    assert (talk.seen().state, talk.seen().why) == (UnitState.UNKNOWN, str(error))
    assert pipe.is_closed


def test_no_unit_counts_as_running_after_an_error_of_its_reader() -> None:
    pipe, talk = Breaking(ZeroDivisionError()), Conversation("alice", start_s=10.0, now=0.0)

    with pytest.raises(ZeroDivisionError):
        _listen(pipe, talk)

    assert talk.is_lost
    assert pipe.is_closed


def test_a_unit_whose_end_is_known_stays_ended() -> None:
    class Ending(Breaking):
        def lines(self) -> Iterator[str]:
            yield RUNNING

    talk = Conversation("alice", start_s=10.0, now=0.0)
    _listen(Ending(ZeroDivisionError()), talk)
    assert talk.seen().state is UnitState.GONE
