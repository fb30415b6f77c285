"""How an agent gets in: it makes a key of its own, and enrolls it under the key of its ticket.

It tries the addresses of its ticket in turn. It distinguishes the causes of a failure, since the cures
differ: an address that cannot be reached, one where something else answers, and a refused ticket.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from resilient_scoop._version import __version__
from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.transport.remote import KeyPair, RemoteDealer, make_keys
from resilient_scoop.wire import enrol

if TYPE_CHECKING:
    from resilient_scoop.transport.tickets import Ticket

ENROL: Final = b"E"
REACH_S: Final = 3.0
"""How long a connection may take."""
LOOK_S: Final = 0.1
ANSWER_S: Final = 6.0
"""How long the broker may take to answer."""


class Admission(NamedTuple):
    """The right to connect to a broker."""

    endpoint: str
    server: bytes
    keys: KeyPair
    host: str  # this host's name in the run
    number: int = 1  # its number in the run


def enroll(ticket: Ticket) -> Admission:
    """Return an admission.

    Raises:
        PlaceRefusedError: no address can be reached, or the broker refuses; says which, and the cure.
    """
    reached, failures = [], []
    for address in ticket.addresses:
        why = _reach(address)
        if why:
            failures.append(f"{address}: {why}")
        else:
            reached.append(address)
    if not reached:
        here = os.uname().nodename
        raise PlaceRefusedError(
            f"{here} cannot reach the broker ({'; '.join(failures) or 'its address is not known'}). If its "
            "run has not ended: open that port in the firewall of the broker's host, name an address that "
            "this host can reach (--external-address), or send all through SSH (--tunnel)"
        )
    keys = make_keys()
    for address in reached:
        answer = _ask(ticket, address, keys)
        if isinstance(answer, enrol.Enrolled):
            return Admission(
                f"tcp://{address}", ticket.server.encode(), keys, answer.host, answer.number
            )
        if answer is not None:
            raise PlaceRefusedError(answer.why)
    raise PlaceRefusedError(
        f"the broker at {', '.join(reached)} does not take this ticket: it was used before, has expired, "
        "or is another run's. Ask for a new one: rscoop invite"
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _reach(address: str) -> str:
    """Return why nothing can be reached there; empty if something can."""
    try:
        with socket.create_connection(_split(address), REACH_S):
            return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _ask(ticket: Ticket, address: str, keys: KeyPair) -> enrol.Enrolled | enrol.NotEnrolled | None:
    """Ask a broker; return its answer, or None if it gives none."""
    request = enrol.Enroll(
        ticket.id, keys.public, ticket.host or os.uname().nodename, sys.version.split()[0],
        __version__, sys.byteorder, os.getpid(), len(os.sched_getaffinity(0)),
    )  # fmt: skip
    own = KeyPair(ticket.public.encode(), ticket.secret.encode())
    dealer = RemoteDealer(f"tcp://{address}", own, ticket.server.encode(), keeps=True)
    try:
        dealer.send([ENROL, enrol.encode(request)])
        until = time.monotonic() + ANSWER_S
        while (left_s := until - time.monotonic()) > 0 and not dealer.is_refused:
            dealer.wait(min(left_s, LOOK_S))
            answer = dealer.receive()
            if answer is not None and answer[0] == ENROL:
                return enrol.decode_answer(answer[1])
        return None
    finally:
        dealer.close()
