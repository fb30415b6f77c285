"""The enrolment of an agent: it makes its own key, and enrolls it under the key of its ticket.

It tries the addresses of its ticket at once, and uses the first in their order that can be reached. It
distinguishes the causes of a failure, since the cures differ: an address that cannot be reached, one where
something else answers, and a refused ticket.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from resilient_scoop._version import __version__
from resilient_scoop.errors import BrokerUnreachableError, PlaceRefusedError
from resilient_scoop.transport.remote import KeyPair, RemoteDealer, make_keys
from resilient_scoop.wire import enrol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.transport.tickets import Ticket

ENROL: Final = b"E"
REACH_S: Final = 3.0
"""How long a connection may take."""
BETTER_S: Final = 0.5
"""How long a better address may take when another one has been reached."""
AGAIN_S: Final = 0.5
PATIENCE_S: Final = 4.0
"""How long a new agent tries again when it reaches nothing: the broker may be starting again."""
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


def enroll(ticket: Ticket, patience_s: float = 0.0) -> Admission:
    """Return an admission; while no address can be reached, try again for `patience_s`.

    Raises:
        BrokerUnreachableError: no address can be reached; says why, and the cure.
        PlaceRefusedError: the broker refuses.
    """
    until = time.monotonic() + patience_s
    while True:
        reached, failures = _reached(ticket.addresses)
        if reached:
            break
        if time.monotonic() >= until:
            here = os.uname().nodename
            raise BrokerUnreachableError(
                f"{here} cannot reach the broker ({'; '.join(failures) or 'its address is not known'}). If "
                "its run has not ended: send all through SSH (--tunnel), open that port in the firewall of "
                "the broker's host, or name an address that this host can reach (--external-address)"
            )
        time.sleep(AGAIN_S)
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


def _reached(addresses: Sequence[str]) -> tuple[list[str], list[str]]:
    """Connect to all addresses at once; return those that can be reached, and why the others cannot."""
    answers: dict[str, str] = {}
    heard = queue.SimpleQueue[tuple[str, str]]()
    for address in addresses:
        work = partial(_answer, address, heard)
        threading.Thread(target=work, daemon=True).start()  # a look-up of a name has no time limit
    until = time.monotonic() + REACH_S + LOOK_S
    with suppress(queue.Empty):
        while len(answers) < len(addresses) and _first_reached(addresses, answers) is None:
            address, answers[address] = heard.get(timeout=max(until - time.monotonic(), 0.0))
            if not answers[address]:
                until = min(until, time.monotonic() + BETTER_S)
    reached = [each for each in addresses if answers.get(each) == ""]
    unanswered = "no answer in time"
    return reached, [f"{each}: {answers.get(each, unanswered)}" for each in addresses]


def _first_reached(addresses: Sequence[str], answers: dict[str, str]) -> str | None:
    """Return the address that is used whichever other addresses answer."""
    for address in addresses:
        if address not in answers:
            return None
        if not answers[address]:
            return address
    return None


def _answer(address: str, heard: queue.SimpleQueue[tuple[str, str]]) -> None:
    heard.put((address, _reach(address)))


def _reach(address: str) -> str:
    """Return why an address cannot be reached; empty if it can."""
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
