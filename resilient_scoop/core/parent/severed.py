"""A parent that was cut off from the run: it is told nothing more, and what it does is not recorded.

Every item without an outcome is canceled, also those that it asks for later.
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
    """Cut a parent off; call it again behind each call that it makes."""
    parent.sever()
    for call in list(parent.calls.open.values()):
        for start, stop in list(call.left):
            digests = bytes(call.digests[start * ids.DIGEST_BYTES : stop * ids.DIGEST_BYTES])
            paths = (ids.item_path(parent.path, call.number, index) for index in range(start, stop))
            payloads = [broker_error("cancelled", path) for path in paths]
            outcome = wire.Outcome(
                call.number, start, call.fingerprint, digests, payloads,
                list(range(stop - start)), 0.0, _NOBODY,
            )  # fmt: skip
            parent.outcomes(wire.Outcomes(parent.path, [outcome]))
        assert not call.left, "a severed parent waits for nothing"
    parent.frames()  # nothing of it is sent
