"""The script's standard input when the launcher that reads it has died."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from resilient_scoop.core.link import Link
from resilient_scoop.processes.origin.stdin import Pieces


class Ended(BaseException):
    """Raised where the process would end."""


class Waiter:
    """Ends the process instead of waiting forever."""

    def wait(self, ready: Any, until: float | None) -> bool:
        assert until is None
        assert not ready()
        raise Ended


def test_the_end_of_the_launcher_is_not_recorded_as_end_of_file() -> None:
    # Given a script that asks for input which is not in the journal
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    out: list[bytes] = []
    machine = SimpleNamespace(link=Link(b"run of a", 1), out=out, root=None)
    session: Any = SimpleNamespace(
        turn=threading.Lock,
        send=out.append,
        machine=machine,
        waiter=Waiter(),
        pump=lambda: None,
        is_cut=False,
    )
    settings: Any = SimpleNamespace(stdin_fd=theirs.detach(), stdin_source=b"s" * 8)
    pieces = Pieces(session, settings)
    pieces._recorded = iter(())

    # When the launcher dies, then the script waits for its own end, and nothing is recorded
    ours.close()
    for _ in range(2):
        with pytest.raises(Ended):
            pieces.next()
    assert out == []
    assert pieces._socket is not None
    pieces._socket.close()
