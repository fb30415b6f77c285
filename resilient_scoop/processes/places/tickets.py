"""What an agent is given to enter the run: its ticket, with an address of the broker that it can reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from resilient_scoop.hosts.make import ReachablePlace
    from resilient_scoop.processes.places.calls import MakeTicket, Share
    from resilient_scoop.processes.places.settings import PlacesSettings

TICKET_S: Final = 600.0
"""Time in which a ticket must be used: an agent enrolls within seconds of its start."""


class Issue(Protocol):
    """Makes tickets that the broker will accept."""

    def __call__(
        self,
        run_dir: Path,
        host: str,
        *,
        valid_s: float,
        uses: int,
        addresses: list[str],
        extra: dict[str, Any],
    ) -> bytes:
        """Return a ticket: one line of JSON. May raise OSError."""


def ticket_maker(settings: PlacesSettings, issue: Issue) -> MakeTicket:
    """Return how a ticket is made for the next agent of a host."""

    def make(place: ReachablePlace, share: Share) -> bytes:
        return issue(
            Path(settings.run_dir), share.host.name, valid_s=TICKET_S, uses=1,
            addresses=addresses(place, share, settings),
            extra={"workers": share.workers, "workers_max": share.limit},
        )  # fmt: skip

    return make


def addresses(place: ReachablePlace, share: Share, settings: PlacesSettings) -> list[str]:
    """Return where a host reaches the broker: through SSH, or at our address on the route to it.

    Behind a jump host or a proxy there is no route that we know of, so SSH carries it too.

    Raises:
        PlaceError: the host cannot be reached, or its server forwards no ports.
    """
    asked = share.host.tunnel
    if settings.tunnel if asked is None else asked:
        return [place.tunnel(settings.port)]
    ours = settings.external_address or place.route()
    if ours is None:
        return [place.tunnel(settings.port)]
    return [f"[{ours}]:{settings.port}" if ":" in ours else f"{ours}:{settings.port}"]
