"""The calls of places: each may block for seconds, so it has a thread; its result is an event.

The machine has one call in progress for a host, and one stop beside it, which limits the number of
threads. Calls that log in have threads of their own, so that looks and stops do not wait behind
hosts that do not answer.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from resilient_scoop.core import places
from resilient_scoop.core.places import PlaceCall, PlaceState, Sight
from resilient_scoop.errors import PlaceBusyError, PlaceError, PlaceRefusedError
from resilient_scoop.hosts.conversation import EndedAgent
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.processes.places.reports import HostAgentOver

if TYPE_CHECKING:
    from resilient_scoop.hosts.base import Unit
    from resilient_scoop.hosts.make import ReachablePlace

THREADS_MAX: Final = 64
CLOSE_S: Final = 1.0
UNITS_MAX: Final = 16
"""Units of a host that are remembered: the last one, and doubles of it."""
Asked = places.StartUnit | places.Look | places.Find | places.StopUnits


class Share(msgspec.Struct, frozen=True):
    """A host, and its number of workers."""

    host: Host
    workers: int | None  # None: as many as its cores, at most `limit`
    limit: int | None = None


MakeTicket = Callable[["ReachablePlace", Share], bytes]
"""Makes what a new agent needs to enter the run. May raise PlaceError or OSError."""


class PlaceOfHost(msgspec.Struct, frozen=True, eq=False):
    """A host with its place."""

    place: ReachablePlace
    share: Share


class PlaceCalls:
    """Makes the calls of places that the machine requests."""

    def __init__(self, hosts: Mapping[str, PlaceOfHost], make_ticket: MakeTicket) -> None:
        self._hosts = hosts
        self._make_ticket = make_ticket
        threads = min(THREADS_MAX, len(hosts) + 1)
        self._logins = ThreadPoolExecutor(threads, "start")
        self._others = ThreadPoolExecutor(threads, "look")
        self._units: dict[str, dict[str, Unit]] = {host: {} for host in hosts}  # by host and id
        self._done: SimpleQueue[Future[places.Event | None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._asked: dict[
            str, places.StartUnit
        ] = {}  # starts that were not passed to their place yet
        self._under_way: dict[Future[places.Event | None], str] = {}  # with the host
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._over: SimpleQueue[HostAgentOver] = SimpleQueue()
        for name, mine in hosts.items():
            mine.place.hear_over(partial(self._is_over, name))
        self._random = random.Random()  # noqa: S311 - jitter; the user's streams are not touched

    def jitter(self) -> float:
        """Draw a number in [0, 1)."""
        return self._random.random()

    def ask(self, action: Asked) -> None:
        """Begin a call; its event comes out of `events`."""
        pool = self._others
        if isinstance(action, places.StartUnit | places.Find):
            pool = self._logins
        if isinstance(action, places.StartUnit):
            with self._lock:
                self._asked[action.host] = action
        future = pool.submit(self._carry_out, action)
        with self._lock:
            self._under_way[future] = action.host
        future.add_done_callback(self._is_done)

    def withdraw(self) -> list[places.Event]:
        """Cancel starts that have not reached their place; return their events."""
        with self._lock:
            withdrawn, self._asked = self._asked, {}
        return [
            places.Failed(each.host, each.tag, PlaceCall.START, "the run ends", unasked=True)
            for each in withdrawn.values()
        ]

    def renew(self) -> None:
        """Give new tickets to all agents that have a connection here; nothing waits for it."""
        for each in self._hosts.values():
            self._others.submit(self._renew, each)

    def _renew(self, mine: PlaceOfHost) -> None:
        with suppress(PlaceError, OSError):  # the next start makes a ticket anyway
            mine.place.renew(self._make_ticket(mine.place, mine.share))

    def _is_done(self, future: Future[places.Event | None]) -> None:
        with self._lock:
            del self._under_way[future]
        self._done.put(future)
        os.eventfd_write(self.wake, 1)

    def _is_over(self, host: str, over: EndedAgent) -> None:
        self._over.put(HostAgentOver(host, over.agent, over.died))
        with suppress(OSError):  # this process ends
            os.eventfd_write(self.wake, 1)

    def over(self) -> list[HostAgentOver]:
        """Return the agents that have ended since the last call."""
        found = []
        while not self._over.empty():
            found.append(self._over.get())
        return found

    def events(self) -> list[places.Event]:
        """Return the events of calls that have ended."""
        found = []
        while not self._done.empty():
            event = self._done.get().result()
            if event is not None:
                found.append(event)
        return found

    def close(self) -> None:
        """Close all places, for a limited time; one whose call still blocks is not waited for."""
        for pool in (self._logins, self._others):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            busy = set(self._under_way.values())
        closing = ThreadPoolExecutor(min(THREADS_MAX, len(self._hosts) + 1), "close")
        ends = {name: closing.submit(each.place.close) for name, each in self._hosts.items()}
        wait([end for name, end in ends.items() if name not in busy], CLOSE_S)
        closing.shutdown(wait=False, cancel_futures=True)

    # The methods below run in a thread.

    def _carry_out(self, action: Asked) -> places.Event | None:
        try:
            if isinstance(action, places.StartUnit):
                return self._start(action)
            return self._call(action)
        except (PlaceError, OSError) as error:
            return self._failure(action, error)

    def _call(self, action: places.Look | places.Find | places.StopUnits) -> places.Event:
        host, tag = action.host, action.tag
        place, known = self._hosts[host].place, self._units[host]
        match action:
            case places.Look():
                units = {known[unit]: unit for unit in action.units}
                seen = place.look(list(units))
                sights = tuple(
                    Sight(
                        units[unit],
                        PlaceState(each.state.value),
                        each.why,
                        each.log,
                        each.until_s,
                        each.lasting,
                    )
                    for unit, each in seen.items()
                    if unit in units
                )
                return places.UnitsLooked(host, tag, sights, self.jitter())
            case places.Find():
                return places.UnitsFound(
                    host, tag, self._named(host, place.find(tag)), self.jitter()
                )
            case places.StopUnits(grace_s=grace_s):
                place.stop([known[unit] for unit in action.units], grace_s=grace_s)
                return places.Stopped(host, tag)
            case _:
                assert_never(action)

    def _start(self, action: places.StartUnit) -> places.Event | None:
        """Make a ticket, which needs a login, and start; None if the start was withdrawn."""
        mine = self._hosts[action.host]
        failed = ticket = None
        try:
            ticket = self._make_ticket(mine.place, mine.share)
        except (PlaceError, OSError) as error:
            failed = msgspec.structs.replace(self._failure(action, error), unasked=True)
        with self._lock:
            if self._asked.pop(action.host, None) is not action:
                return None
        if ticket is None:
            return failed
        units = mine.place.start(1, ticket, tag=action.tag)
        return places.StartAccepted(action.host, action.tag, self._named(action.host, units))

    def _named(self, host: str, units: Sequence[Unit]) -> tuple[str, ...]:
        """Return the names of units, and keep the units: those of a host's last calls."""
        known = self._units[host]
        for unit in units:
            known[unit.id] = unit
        while len(known) > UNITS_MAX:
            del known[next(iter(known))]
        return tuple(unit.id for unit in units)

    def _failure(self, action: Asked, error: PlaceError | OSError) -> places.Failed:
        return places.Failed(
            action.host, action.tag, _CALLS[type(action)], str(error),
            refused=isinstance(error, PlaceRefusedError),
            retry_after_s=error.retry_after_s if isinstance(error, PlaceBusyError) else None,
            jitter=self.jitter(),
        )  # fmt: skip


_CALLS: Final = {
    places.StartUnit: PlaceCall.START, places.Look: PlaceCall.LOOK, places.Find: PlaceCall.FIND,
    places.StopUnits: PlaceCall.STOP,
}  # fmt: skip
