"""The rules for messages of processes of other hosts, which come through the remote door.

A host is admitted by its key, and each of its messages is checked before the machine handles it. A
guest is an agent or a worker of such a host; its identity is bound to the host that used it first.
What is judged:

  agent   its own arrival, the processes of its own host that live and die, its end
  worker  its own arrival, what concerns attempts that it was given, callables and constants

  GU1  Nothing that only the script's process may say is taken from a guest, and nothing in the name of
       the script.
  GU2  A guest names only attempts that this broker has given it, for the items that it was given; or, of
       an earlier epoch, what it named when it arrived, and what came with that message.
  GU3  An identity belongs to one host; a process of this host loses none to a guest.
  GU4  A message that breaks a rule changes nothing. Its sender is dropped, and its later messages are
       ignored; the third such message revokes its host.
  GU5  The record of a guest is bounded: it has what the guest holds, and of what it held before at least
       the last `OVER_MIN` attempts and twice the most that it ever held. A host that slept names no others.

Attempts of an earlier epoch cannot be checked, since grants are not journaled: what their workers
return is checked by digests, like every outcome. No rule here costs anything for a process of this
host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from resilient_scoop.core.broker.host_life import KnownHost
    from resilient_scoop.core.broker.leases import Lease, Peer
    from resilient_scoop.ids import PeerId

LIES_MAX: Final = 3
"""The lie that revokes a host."""
OVER_MIN: Final = 64
IDENTITIES_MAX: Final = 4096
"""Identities of one host at a time: a host has some hundred workers, and those of its earlier lives are
kept until they are known to be dead."""

_AGENT_SAYS = wire.Hello | wire.Alive | wire.ProcessLost | wire.Unfit | wire.Bye
_SCRIPT_SAYS = wire.Output | wire.Input | wire.RunEnded
_AGENT_ALONE_SAYS = wire.Alive | wire.ProcessLost
_OF_A_PARENT = (
    wire.Calls | wire.Observed | wire.HistoryWanted | wire.Cancel | wire.Abandon | wire.Checkpoint
    | wire.Verified | wire.Halted
)  # fmt: skip
_OF_AN_ITEM = wire.Parked | wire.Stuck | wire.BeginWanted


class Given(NamedTuple):
    """The items that an attempt was given: `[start, stop)` of a batch."""

    parent: str
    call: int
    start: int
    stop: int

    def covers(self, parent: str, call: int, start: int, stop: int) -> bool:
        """Return whether these items are among its items."""
        inside = self.start <= start and stop <= self.stop
        return inside and call == self.call and parent == self.parent

    def runs(self, path: str) -> bool:
        """Return whether the future at a path is one of its items."""
        place = ids.parse_item(path)
        return place is not None and self.covers(place[0], place[1], place[2], place[2] + 1)


@dataclass(slots=True, eq=False)
class Guest:
    """A process of another host, as long as its messages count."""

    host: KnownHost
    role: str = ""  # empty until its Hello
    name: str = ""
    given: dict[wire.Attempt, Given] = field(default_factory=dict)
    over: dict[wire.Attempt, None] = field(default_factory=dict)  # ended, oldest first
    held_max: int = 0
    open: frozenset[str] | None = None  # parents with an open block, as it reported during a drain
    asked_seq: int = -1  # end of the log when a drain requested checkpoints from it

    def give(self, lease: Lease) -> None:
        """Record items that it is granted, or keeps."""
        left = lease.left
        given = Given(lease.batch.parent.path, lease.batch.call, left.starts[0], left.stops[-1])
        before = self.given.get(lease.attempt)
        # it may still report on items that are no longer wanted
        if before is None or not before.covers(*given):
            self.given[lease.attempt] = given
        self.over.pop(lease.attempt, None)
        self.held_max = max(self.held_max, len(self.given) - len(self.over))

    def end(self, attempt: wire.Attempt) -> None:
        """Record that it no longer holds an attempt, which it may still name (GU5)."""
        self.over[attempt] = None
        while len(self.over) > max(OVER_MIN, 2 * self.held_max):
            oldest = next(iter(self.over))
            del self.over[oldest], self.given[oldest]

    def claim(self, hello: wire.Hello) -> None:
        """Record the attempts that it held under an earlier broker."""
        self.held_max = max(self.held_max, len(hello.held) + len(hello.waiting))
        for held in hello.held:
            if held.spans:
                stop = max(stop for _, stop in held.spans)
                start = min(start for start, _ in held.spans)
                self._claim(held.attempt, Given(held.parent, held.call, start, stop))
        for each in hello.waiting:
            place = ids.parse_item(each.parent)
            if place is not None and each.attempt not in self.given:
                self._claim(each.attempt, Given(*place, place[2] + 1))

    def _claim(self, attempt: wire.Attempt, given: Given) -> None:
        self.given[attempt] = given
        self.end(attempt)


class Guests:
    """The identities of other hosts, and the rules for their messages."""

    def __init__(self, peers: Mapping[PeerId, Peer], epoch: int) -> None:
        self.peers = peers
        self.epoch = epoch
        self.of: dict[PeerId, Guest] = {}
        self.dropped: set[PeerId] = set()  # liars, at most `LIES_MAX` of a host that is not revoked

    def bind(self, peer: PeerId, host: KnownHost, here: Container[PeerId]) -> str:
        """Bind an identity to a host; return what is wrong (GU3). `here`: all known local identities."""
        guest = self.of.get(peer)
        if guest is None:
            if peer in here:
                return "it uses the identity of a process of this host"
            if len(host.identities) >= IDENTITIES_MAX:
                return f"it uses more than {IDENTITIES_MAX} identities"
            self.of[peer] = Guest(host)
            host.identities.add(peer)
        elif guest.host is not host:
            return f"it uses the identity of {guest.name or 'a process'} of host {guest.host.name}"
        return ""

    def forget(self, peer: PeerId) -> None:
        """Drop a process that is dead, after its last messages have arrived.

        If one of them was a Hello, it is a peer, until it counts as lost; then it is kept as silent.
        """
        if peer not in self.peers:
            self.unbind(peer)

    def unbind(self, peer: PeerId) -> None:
        """Take an identity from the host that has used it."""
        guest = self.of.pop(peer, None)
        if guest is not None:
            guest.host.identities.discard(peer)

    def forget_host(self, host: KnownHost) -> None:
        """Drop a revoked host: its messages are ignored from now on."""
        for peer in host.identities:
            self.of.pop(peer, None)
        self.dropped -= host.identities
        host.identities.clear()

    def judge(self, peer: PeerId, messages: Sequence[wire.Up]) -> str:
        """Return what is wrong with a bundle of a guest; empty: nothing.

        An accepted Hello is recorded at once.
        """
        guest = self.of[peer]
        arrives = isinstance(messages[0], wire.Hello)
        if not guest.role and not arrives:
            return "it says something before it has said who it is"
        for at, message in enumerate(messages):
            if isinstance(message, wire.Hello):
                # After the first one: what it said to an earlier broker, which is not handled.
                wrong = self._hello(guest, message) if not at else _later_hello(arrives=arrives)
            elif guest.role == "agent":
                wrong = self._of_agent(guest, message)
            else:
                wrong = self._of_worker(guest, message, arrives=arrives)
            if wrong:
                return wrong
        return ""

    def _hello(self, guest: Guest, hello: wire.Hello) -> str:  # noqa: PLR0911 - a list of rules
        if hello.role not in ("agent", "worker") or guest.role not in ("", hello.role):
            return f"it says that it is of role {hello.role[:20]!r}"
        if hello.node != guest.host.name:
            return f"it says that it runs on host {hello.node[:80]!r}"
        if hello.role == "agent" and (hello.held or hello.waiting):
            return "an agent says that it holds items"
        claimed = [held.attempt for held in hello.held]
        claimed += [waiting.attempt for waiting in hello.waiting]
        for attempt in claimed:
            if not 0 < attempt.epoch < self.epoch and attempt not in guest.given:
                return f"it says that it holds attempt {_no(attempt)}, which it was never given"
        if any(each.parent in ids.SCRIPTS for each in hello.waiting):
            return "it says that it runs the script"
        if wrong := self._not_its_own(guest, hello.incarnations):
            return wrong
        guest.role, guest.name = hello.role, hello.name[:80]
        guest.claim(hello)
        return ""

    def _of_agent(self, guest: Guest, message: wire.Up) -> str:
        if not isinstance(message, _AGENT_SAYS):
            return f"an agent sends {type(message).__name__}"
        if isinstance(message, wire.Alive):
            return self._not_its_own(guest, [*message.incarnations, *message.ended])
        if isinstance(message, wire.ProcessLost):
            return self._lost(guest, message)
        return ""

    def _lost(self, agent: Guest, lost: wire.ProcessLost) -> str:
        """Judge the report of a death.

        If the process has sent nothing yet, attempts of earlier epochs are not checked.
        """
        if wrong := self._not_its_own(agent, [lost.incarnation]):
            return wrong
        attempt = lost.on_cpu
        if attempt is None or 0 < attempt.epoch < self.epoch or self.was_given(lost):
            return ""
        return f"it blames attempt {_no(attempt)}, which that process was never given"

    def has_used(self, host: str, peer: PeerId) -> bool:
        """Return whether an identity is one of a host's."""
        guest = self.of.get(peer)
        return guest is not None and guest.host.name == host

    def was_given(self, lost: wire.ProcessLost) -> bool:
        """Return whether a process that died is known to have been given what it was executing."""
        guest = self.of.get(ids.PeerId(lost.incarnation))
        given = None if guest is None or lost.on_cpu is None else guest.given.get(lost.on_cpu)
        place = (lost.parent, lost.call, lost.index, lost.index + 1)
        return given is not None and given.covers(*place)

    def _not_its_own(self, guest: Guest, incarnations: Sequence[bytes]) -> str:
        for each in map(ids.PeerId, incarnations):
            other = self.of.get(each)
            if other is None and each in self.peers:
                return "it speaks for a process of this host"
            if other is not None and other.host is not guest.host:
                return f"it speaks for a process of host {other.host.name}"
        return ""

    def _of_worker(self, guest: Guest, message: wire.Up, *, arrives: bool) -> str:  # noqa: PLR0911 - a table
        if isinstance(message, _SCRIPT_SAYS):
            return f"it sends {type(message).__name__}, which only the script's process may"
        if isinstance(message, _AGENT_ALONE_SAYS):
            return f"a worker sends {type(message).__name__}"
        if isinstance(message, wire.Outcomes):
            return self._outcomes(guest, message.parent, message.items, arrives=arrives)
        if isinstance(message, wire.Returned):
            return self._named(guest, message.attempt, None, arrives=arrives)
        if isinstance(message, wire.Progress):
            place = (message.parent, message.call, message.index, message.index + 1)
            return self._named(guest, message.attempt, place, arrives=arrives)
        if isinstance(message, _OF_A_PARENT):
            item = ids.parse_item(message.parent)
            if item is None:
                return f"it sends {type(message).__name__} in the name of the script"
            place = (*item, item[2] + 1)
            return self._named(guest, message.attempt, place, arrives=arrives)
        if isinstance(message, _OF_AN_ITEM):
            given = guest.given.get(message.attempt)
            if given is None or not given.start <= message.index < given.stop:
                return self._named(guest, message.attempt, ("", -1, -1, -1), arrives=arrives)
        return ""  # the others name no attempt

    def _outcomes(
        self, guest: Guest, parent: str, items: Sequence[wire.Outcome], *, arrives: bool
    ) -> str:
        for outcome in items:
            if outcome.task is None:  # found by a parent among its own results, at another place
                runs = any(each.runs(parent) for each in guest.given.values())
                if not runs and not self._is_owed(arrives=arrives):
                    return f"it sends an outcome of {parent[:80]}, which it does not run"
                continue
            place = (parent, outcome.call, outcome.start, outcome.start + len(outcome.values))
            if wrong := self._named(guest, outcome.task, place, arrives=arrives):
                return wrong
        return ""

    def _named(
        self,
        guest: Guest,
        attempt: wire.Attempt,
        place: tuple[str, int, int, int] | None,
        *,
        arrives: bool,
    ) -> str:
        """Judge an attempt that a worker names, and the items that it names with it (GU2)."""
        if 0 < attempt.epoch < self.epoch and self._is_owed(arrives=arrives):
            return ""  # a Hello names what is left of an attempt, and the rest of it comes with it
        given = guest.given.get(attempt)
        if given is not None:
            if place is None or given.covers(*place):
                return ""
            return f"it names items that attempt {_no(attempt)} was not given"
        return f"it names attempt {_no(attempt)}, which it was never given"

    def _is_owed(self, *, arrives: bool) -> bool:
        """Return whether a message may be one that an earlier broker has not acknowledged."""
        return arrives and self.epoch > 1


def _later_hello(*, arrives: bool) -> str:
    return "" if arrives else "it says again who it is, after something else"


def _no(attempt: wire.Attempt) -> str:
    return f"{attempt.epoch}.{attempt.no}"
