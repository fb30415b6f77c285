"""Requests for checkpoints to all processes: which are asked and awaited, and when the request is over.

`Stage` says how far it is, and `_NEXT` what leads from one stage to another.

  H1  A parent is waited for from the first answer that names it until a later checkpoint of it arrives,
      or its holder reports that it has left its blocks, or it is done. The death of its holder does not
      end the wait: another attempt will reach its block, too.
  H2  Later answers of a process add no parents: else a stream of short-lived parents would never end. The
      exception is a parent that made calls before the request, and was handed to this process since: its
      former process may not have answered.
  H3  A process that arrives during a request is asked as well. Right after a restart the request is not
      over before the workers and the script have arrived. A parent that has made no call yet is not
      waited for: nothing of it could be lost. If its first call arrives during the request, the answer
      of its process is waited for, too: on another host, the parent may have called before it was asked.
  H4  A new number is above all numbers of earlier epochs, so that a late answer cannot be confused.
  H5  Before a hand-over, an item is held back if a parent above it has saved, and no parent that is
      waited for is above it or is the item itself: its result would be lost or late. A parent that has
      not saved gets all items below it, even if others of those have saved: it may need their results
      to reach its commit.

All of this is volatile: after a restart the request is sent to the new broker again.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from resilient_scoop import ids
from resilient_scoop.core.facts.checkpoints import newest
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.attempt import Attempt

if TYPE_CHECKING:
    from resilient_scoop.core.broker.holdback import Awaited
    from resilient_scoop.core.broker.leases import Lease, Peer
    from resilient_scoop.core.broker.members import Members
    from resilient_scoop.core.broker.outbox import Outbox
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.core.events import AskCheckpoints
    from resilient_scoop.ids import PeerId

_ASKS_MAX = 1 << 24  # in one epoch


class Stage(Enum):
    """The stages of a request."""

    IDLE = auto()  # no process is asked
    ASKED = auto()  # origin and workers were asked; not all holders of a parent have answered
    WAITING = auto()  # all known holders had answered; not every named parent has saved
    OVER = auto()  # every named parent has saved or need not save, or the time was over


class HandoverEvent(Enum):
    """The events that change the stage."""

    ASK = auto()
    ALL_ANSWERED = auto()
    ALL_SAVED = auto()
    CUT_SHORT = auto()  # the grace is over, or the run stops


_NEXT: Final = {
    Stage.IDLE: {HandoverEvent.ASK: Stage.ASKED},
    Stage.ASKED: {
        HandoverEvent.ASK: Stage.ASKED,  # it joins the running one, and may shorten the time
        HandoverEvent.ALL_ANSWERED: Stage.WAITING,
        HandoverEvent.CUT_SHORT: Stage.OVER,
    },
    Stage.WAITING: {
        HandoverEvent.ASK: Stage.WAITING,  # the same request
        HandoverEvent.ALL_SAVED: Stage.OVER,
        HandoverEvent.CUT_SHORT: Stage.OVER,
    },
    Stage.OVER: {HandoverEvent.ASK: Stage.ASKED},  # under a new number
}
"""What is not listed is an error."""


class Handover:
    """The requested checkpoints in one epoch of the broker."""

    def __init__(
        self, scheduler: Scheduler, members: Members, outbox: Outbox, awaited: Awaited, epoch: int
    ) -> None:
        self.state = scheduler.state
        self.scheduler = scheduler
        self.members = members
        self.outbox = outbox
        self.awaited = awaited
        self.stage = Stage.IDLE
        self.no = epoch * _ASKS_MAX
        self.until = 0.0
        self.named = 0  # parents with an open block
        self.saved = 0  # how many of them have saved
        self.is_whole = False  # the request is over, and no process was left out
        self._late = 0  # parents still waited for when it was over
        self._has_changed = False  # the set of held-back items may have changed
        self._asked: set[PeerId] = set()
        # The last answer of each process, with the attempts: a parent that was removed from a
        # process and granted to it again has not left its block.
        self._open: dict[PeerId, dict[str, Attempt | None]] = {}
        self._unsaved: dict[str, int] = {}  # named and not waited for any more, as `waiting`
        self._since = (0, Attempt(0, 0))  # the last record before the request, and the last attempt

    @property
    def is_active(self) -> bool:
        """Whether a parent is waited for."""
        return self.stage in (Stage.ASKED, Stage.WAITING)

    @property
    def left(self) -> int:
        """How many parents are waited for, or were when it was over."""
        return len(self.awaited.waiting) + self._late

    def step(self, step: HandoverEvent) -> None:
        """Go to the next stage."""
        known = _NEXT[self.stage]
        assert step in known, f"{self.stage.name} knows no {step.name}"
        self.stage = known[step]

    def ask(self, wanted: AskCheckpoints, now: float) -> None:
        """Start a request under a new number (H4), or join the running one."""
        until, was_active = now + wanted.grace_s, self.is_active
        self.step(HandoverEvent.ASK)
        if was_active:
            first = wanted.hands_over and not self.awaited.hands_over
            self.until = until if first else min(self.until, until)
            self.awaited.hands_over = self.awaited.hands_over or wanted.hands_over
            self._has_changed = True
            return
        self.no, self.is_whole = self.no + 1, False
        self.awaited.hands_over, self.until = wanted.hands_over, until
        self.named = self.saved = self._late = 0
        self._since = self.state.seq, self.scheduler.last_attempt

    def next_no(self) -> int:
        """Return the number of a request to single processes, whose answers are not counted here."""
        if not self.is_active:  # else all were asked under this number
            self.no += 1
        return self.no

    def answered(self, peer: Peer, answer: wire.OpenBlocks) -> None:
        """Handle the report which parents of a process have an open block."""
        if answer.no != self.no or not self.is_active:
            return
        before = self._open.get(peer.id)
        known_as = before or {}
        blocks = {
            path: known_as[path] if path in known_as else self._attempt(peer, path)
            for path in answer.parents
        }
        self._open[peer.id] = blocks
        if before is None:  # H2
            for path in blocks:
                known = path in self.awaited.waiting or path in self.awaited.through
                if not known and self._holds(peer, path):
                    self._name(path)
            return
        for path in blocks.keys() - before.keys():
            if self._was_moved(path, blocks[path]):
                self._name(path)
        for path in before.keys() - blocks.keys():
            held = self._attempt(peer, path)
            if path in self.awaited.waiting and held is not None and held == before[path]:
                self._settle(path)

    def _name(self, path: str) -> None:
        """Wait for a parent (H1)."""
        self._unsaved.pop(path, None)
        self.awaited.waiting[path] = self.state.seq
        self.named += 1
        self.scheduler.release()  # it may be below a parent that has saved
        self._has_changed = True

    def _was_moved(self, path: str, held: Attempt | None) -> bool:
        """Return whether a parent made calls before the request, and was handed out since (H2)."""
        noted = (
            path in self.awaited.waiting or path in self.awaited.through or path in self._unsaved
        )
        parent = self.state.parents.get(path)
        if noted or held is None or parent is None or not parent.index:
            return False
        seq, attempt = self._since
        later = (held.epoch, held.no) > (attempt.epoch, attempt.no)
        return later and parent.index[0][1] <= seq

    def settle(self, now: float, *, recovering: bool, stopping: bool) -> bool:
        """Advance; return whether the run is to stop now, handed over."""
        if not self.is_active:
            return False
        self._ask_newcomers()
        for path in [p for p in self.awaited.waiting if self._saved(p) > self.awaited.waiting[p]]:
            self._settle(path)
        for path in [p for p in self._unsaved if self._saved(p) > self._unsaved[p]]:
            del self._unsaved[path]
            self._pass(path)
        for path in [p for p in self.awaited.waiting if self._is_done(p)]:
            self._settle(path)
        if self.stage is Stage.ASKED and not recovering and self._all_answered():
            self.step(HandoverEvent.ALL_ANSWERED)
        all_saved = self.stage is Stage.WAITING and not self.awaited.waiting
        whole = all_saved and self._all_answered()
        if whole or stopping or now >= self.until:
            self.step(HandoverEvent.ALL_SAVED if whole else HandoverEvent.CUT_SHORT)
            self.is_whole, self._late = whole, len(self.awaited.waiting)
            self._forget()
            return self.awaited.hands_over
        return False

    def _forget(self) -> None:
        """Drop the records of single parents and processes, because the request is over."""
        for noted in (
            self.awaited.waiting,
            self.awaited.through,
            self._asked,
            self._open,
            self._unsaved,
        ):
            noted.clear()

    def to_take_back(self) -> list[Lease]:
        """Return, once, leases whose workers must return items that have not started (H5)."""
        if not (self._has_changed and self.awaited.through):
            return []
        self._has_changed = False
        found = []
        for lease in self.scheduler.leases.values():
            exempt = (
                self.awaited.held_back_except(lease.batch)
                if lease.busy() and not lease.retracting
                else None
            )
            if exempt is not None and lease.busy() > sum(index in lease.left for index in exempt):
                found.append(lease)
        return found

    def _settle(self, path: str) -> None:
        """Stop waiting for a parent (H1)."""
        before = self.awaited.waiting.pop(path)
        if self._saved(path) > before:
            self._pass(path)
        else:
            self._unsaved[path] = before
            self._has_changed = True

    def _pass(self, path: str) -> None:
        self.saved += path not in self.awaited.through
        self.awaited.through.add(path)
        self._has_changed = True

    def _saved(self, path: str) -> int:
        """Return the place of a parent's latest checkpoint in the log."""
        parent = self.state.parents.get(path)
        return 0 if parent is None else newest(parent)

    def _is_done(self, path: str) -> bool:
        place = ids.parse_item(path)
        if place is None:
            return False  # the script: the run ends with it
        batch = self.state.batch(*place[:2])
        return batch is None or place[2] not in batch.undone

    def _holds(self, peer: Peer, path: str) -> bool:
        """Return whether a process runs the parent now."""
        return self._attempt(peer, path) is not None

    def _attempt(self, peer: Peer, path: str) -> Attempt | None:
        """Return the attempt at a parent that a process holds, if any."""
        if path in ids.SCRIPTS:
            root = self.members.root
            return root[0] if root is not None and root[1] == peer.id else None
        lease = self.scheduler.lease_of(path)
        return lease.attempt if lease is not None and lease.peer is peer else None

    def _ask_newcomers(self) -> None:
        """Request checkpoints of processes that have come since (H3)."""
        for peer in self.members.peers.values():
            if peer.role != "agent" and peer.id not in self._asked:
                self._asked.add(peer.id)
                self.outbox.send(peer.id, wire.encode(wire.CheckpointWanted(self.no)))

    def _all_answered(self) -> bool:
        """Return whether all processes that hold a parent have answered; the others need not."""
        return all(
            peer.id in self._open or not self._holds_any(peer)
            for peer in self.members.peers.values()
        )

    def _holds_any(self, peer: Peer) -> bool:
        if self._holds(peer, ids.ROOT):
            return True
        return any(
            self.state.kids_within(lease.batch.parent.path, lease.batch.call, low, high)
            for lease in peer.leases.values()
            for low, high in lease.left
        )
