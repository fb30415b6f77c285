"""Rounds of `Forget` and `Forgotten`, in which all processes forget callables that were sent by value.

A lambda in a loop whose defaults or closure change is another callable each time. So when there are
enough new ones, the broker starts a round: origin and workers forget the callables that they do not use,
and announce again those that they call; the round is over when all of them have answered. A callable that
no process has announced since its start is announced again before its next use, so its record can be
erased (`core.broker.callable_cache`).

The phases of the rounds (`_NEXT`), by what happens:

    phase      BEGIN    ALL_ANSWERED  SEARCH     SEARCHED
    IDLE       RUNNING  -             -          -
    RUNNING    RUNNING  OVER          -          -
    OVER       RUNNING  -             SEARCHING  -
    SEARCHING  -        -             -          OVER

BEGIN starts the next round, under a new number, also while one is running. SEARCH and SEARCHED are the
start and the end of the search for records that can be erased. The search uses what the last round has
found, so no round begins meanwhile. What is not listed is an error.

  CE1  After a round, every callable that a process may name in valid calls, and that was not announced
       by a `Define` since the round began, is preceded by its `Define`. For each process:
       - it was asked, and has answered. The answer comes after all its calls, and after the callables that
         it announced again; a link keeps the order.
       - it has said Hello since. After a Hello it announces everything: its broker may be a new one.
       - it was considered lost, and is asked when it sends again: the attempts of its parents are
         fenced, and grants to it come after the question. A silent origin that has kept its role
         continues, so it is waited for.
       - it is dead, and its calls do not count.
  CE2  A callable that a worker is not known to have (`Peer.functions`) is sent with the grant. A question
       is an `Offer`: grants that are decided later come after it. Grants that were decided before may come
       later: the callables of all leases are kept.
  CE3  A round's number rises over all epochs: an answer to an earlier broker does not count.
  CE4  A round starts when there are more new callables than `kept_max` (or they are large), and more than
       were only announced again since the last round: so callables in use, however many, are announced
       again once per as many new ones.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.core.broker.members import Members
    from resilient_scoop.core.broker.outbox import Outbox
    from resilient_scoop.ids import PeerId

KEPT_BYTES_MAX = 16 << 20


class RoundPhase(Enum):
    """The phases of the last round."""

    IDLE = auto()  # there was no round in this epoch
    RUNNING = auto()  # not all processes have answered
    OVER = auto()
    SEARCHING = auto()  # over, and its result is being used


class RoundEvent(Enum):
    """What changes the phase."""

    BEGIN = auto()
    ALL_ANSWERED = auto()
    SEARCH = auto()
    SEARCHED = auto()


_NEXT: Final[dict[RoundPhase, dict[RoundEvent, RoundPhase]]] = {
    RoundPhase.IDLE: {RoundEvent.BEGIN: RoundPhase.RUNNING},
    RoundPhase.RUNNING: {
        RoundEvent.BEGIN: RoundPhase.RUNNING,
        RoundEvent.ALL_ANSWERED: RoundPhase.OVER,
    },
    RoundPhase.OVER: {
        RoundEvent.BEGIN: RoundPhase.RUNNING,
        RoundEvent.SEARCH: RoundPhase.SEARCHING,
    },
    RoundPhase.SEARCHING: {RoundEvent.SEARCHED: RoundPhase.OVER},
}


class CallableEviction:
    """The rounds of one epoch of the broker; the part of a process is `core.worker.callables`."""

    def __init__(self, members: Members, outbox: Outbox, epoch: int, kept_max: int) -> None:
        self.members = members
        self.outbox = outbox
        self.kept_max = kept_max
        self.phase = RoundPhase.IDLE
        self.number = epoch << 32  # CE3
        self.waiting: set[PeerId] = set()  # processes that have not answered
        self.announced: set[bytes] = set()  # announced since the last round began
        self._new = self._new_bytes = 0  # of these, how many were new

    @property
    def is_over(self) -> bool:
        """Whether there was a round, and all have answered, and its result is not being used."""
        return self.phase is RoundPhase.OVER

    def enter(self, event: RoundEvent) -> None:
        """Continue as the table says."""
        after = _NEXT[self.phase]
        assert event in after, f"the rounds are {self.phase.name} at {event.name}"
        self.phase = after[event]

    def begin_search(self) -> None:
        """Use the result of the last round from now on: no other round may begin."""
        self.enter(RoundEvent.SEARCH)

    def end_search(self) -> None:
        """Record that the search has ended."""
        self.enter(RoundEvent.SEARCHED)

    def hear(self, fn: bytes, new_bytes: int) -> None:
        """Count a callable that a process has announced; `new_bytes` is 0 if it was known."""
        self.announced.add(fn)
        if new_bytes:
            self._new += 1
            self._new_bytes += new_bytes

    def tend(self, *, stopping: bool) -> None:
        """Stop waiting for lost processes, and begin a round if one is due."""
        if self.waiting:
            self.waiting = {each for each in self.waiting if self._counts(each)}
            self._end_if_answered()
        if self.phase is RoundPhase.SEARCHING or stopping:
            return
        many = self._new > self.kept_max or self._new_bytes > KEPT_BYTES_MAX
        if many and 2 * self._new > len(self.announced):  # CE4
            self._begin()

    def answered(self, peer: PeerId, no: int) -> None:
        """Handle the answer of a process that has forgotten its callables."""
        if no == self.number:
            self.waiting.discard(peer)
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self.phase is RoundPhase.RUNNING and not self.waiting:
            self.enter(RoundEvent.ALL_ANSWERED)

    def _begin(self) -> None:
        members = self.members
        self.enter(RoundEvent.BEGIN)
        self.number += 1
        self.announced.clear()
        self._new = self._new_bytes = 0
        for peer in members.peers.values():
            if peer.role != "agent":
                self.waiting.add(peer.id)
                self.ask(peer)
        if members.root is not None and members.root[1] not in members.peers:
            self.waiting.add(members.root[1])
            self.outbox.offer(members.root[1], wire.encode(wire.Forget(self.number, [])))
        self._end_if_answered()

    def ask(self, peer: Peer) -> None:
        """Ask a process to forget: in a round, or because it counted as lost and sends again."""
        if peer.role != "agent":
            keep = {lease.fn for lease in peer.leases.values()}
            peer.functions &= keep  # CE2
            self.outbox.offer(peer.id, wire.encode(wire.Forget(self.number, sorted(keep))))

    def _counts(self, peer: PeerId) -> bool:
        return peer in self.members.peers or self.members.is_root(peer)
