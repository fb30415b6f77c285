"""The actions that a turn requests from the shell, in order; all parts of the broker add to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.core.events import Offer, Send

if TYPE_CHECKING:
    from resilient_scoop.core.events import Action
    from resilient_scoop.ids import PeerId


class Outbox:
    """The actions of one turn."""

    __slots__ = ("actions",)

    def __init__(self) -> None:
        self.actions: list[Action] = []

    def send(self, to: PeerId, *frames: bytes) -> None:
        """Send once this turn's records are durable."""
        self.actions.append(Send(to, list(frames)))

    def offer(self, to: PeerId, *frames: bytes) -> None:
        """Send at once."""
        self.actions.append(Offer(to, list(frames)))
