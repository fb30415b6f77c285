"""Commands of the launcher, as lines."""

from __future__ import annotations

import msgspec
import pytest

from resilient_scoop.core import places
from resilient_scoop.processes.places.commands import event_of


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{"agent": "a", "is": "came"}', places.AgentCame("a")),
        (b'{"agent": "a", "is": "lost"}', places.AgentLost("a", 0.5)),
        (b'{"agent": "a", "is": "left"}', places.AgentLeft("a", 0.5)),
        (b'{"host": "a", "is": "drained"}', places.HostDrained("a")),
        (b'{"host": "a", "is": "revoked"}', places.HostRevoked("a")),
        (b'{"stop": 3}', places.EndUnits(3.0)),
    ],
)
def test_a_command_is_an_event(line: bytes, event: places.Event) -> None:
    assert event_of(line, 0.5) == event


@pytest.mark.parametrize(
    "line", [b"{}", b'{"agent": "a", "is": "drained"}', b'{"host": "a", "is": "came"}', b"stop"]
)
def test_a_line_that_is_not_a_command_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        event_of(line, 0.0)
