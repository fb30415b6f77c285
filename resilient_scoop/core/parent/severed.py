"""A parent that was cut off from the run: it gets no answers, and nothing it does is recorded.

Every item without an outcome is canceled, also items of later calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error

if TYPE_CHECKING:
    from resilient_scoop.core.parent.parent import Parent

_NOBODY = wire.Attempt(0, 0)


def sever(parent: Parent) -> None:
    """Cut a parent off; call this again after each call that it makes."""
    parent.sever()
    for call in list(parent.calls.open.values()):
        for start, stop in list(call.left):
            digests = bytes(ids.digests_of(call.digests, start, stop))
            paths = (ids.item_path(parent.path, call.number, index) for index in range(start, stop))
            payloads = [broker_error("cancelled", path) for path in paths]
            outcome = wire.Outcome(
                call.number, start, call.fingerprint, digests, payloads,
                list(range(stop - start)), 0.0, _NOBODY,
            )  # fmt: skip
            parent.outcomes(wire.Outcomes(parent.path, [outcome]))
        assert not call.left, "a severed parent waits for nothing"
    parent.frames()  # nothing of it is sent
