"""Stores checkpoints, and erases records that they make obsolete, a page of the log at a time.

KP1  Only a parent's one writer makes or verifies its checkpoints (LE1).
KP2  A record is erased only if all that it holds was trimmed, and it is older than the `Trimmed`
    record that says so. That record stays until its sweep is done, and the newest stays for good.

The generations of a block, oldest first, of which n is the newest and made from a state of b; what is not
listed changes nothing:

  none          the first one is saved           1
  ... b, n      one is saved on n                ... b, n, n + 1
  ... b, n      one is saved on b                ... b, n + 1 (n did not load)
  ... b, n      n is verified: it was loaded     b, n, and what b covers is trimmed
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, assert_never

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import Discard, Erase, Sweep, Swept, Table
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.fold import apply
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.core.broker.ledger import Ledger
    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.core.facts.parent import ParentFacts


class _Job(msgspec.Struct):
    """The sweep for one `Trimmed` record of a parent."""

    parent: ParentFacts
    seq: int
    calls: Intervals
    observed: Intervals
    after: int  # sequence number of the last checked record

    def covers(self, record: wire.Logged) -> bool:
        """Return whether everything in a record was trimmed."""
        match record:
            case wire.Calls(parts=parts):
                return all(part.call in self.calls for part in parts)
            case wire.Outcomes(items=items):
                return all(item.call in self.calls for item in items)
            case wire.Observed(observations=observations):
                return all(each.no in self.observed for each in observations)
            case wire.Crashed(call=call) | wire.Intent(call=call) | wire.Abandoned(call=call):
                return call in self.calls
            case wire.Checkpoint() | wire.Trimmed():
                return False
            case _:
                assert_never(record)

    def outdoes(self, other: _Job) -> bool:
        """Return whether this sweep erases everything that the other one erases."""
        return (
            self.parent is other.parent
            and all(self.calls.covers(*span) for span in other.calls)
            and all(self.observed.covers(*span) for span in other.observed)
        )


class CheckpointKeeper:
    """Keeps the checkpoints of all parents."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.state = ledger.state
        self.outbox = ledger.outbox
        self.halted = ""  # why a future cannot continue
        self._jobs: deque[_Job] = deque()
        self._asked = False
        # Unfinished sweeps of an earlier epoch start again, from the beginning.
        self._left = [p for p in ledger.state.parents.values() if p.trims]

    @property
    def is_sweeping(self) -> bool:
        """Whether there is something to erase."""
        return bool(self._jobs or self._left)

    def checkpoint(self, peer: Peer, record: wire.Checkpoint, raw: bytes) -> None:
        """Record a checkpoint of the parent's one writer (KP1), and confirm it when it is durable."""
        ledger = self.ledger
        if not ledger.current(peer, record.parent, record.attempt):
            return
        parent = ledger.state.parent(record.parent)
        change = apply(ledger.state, record, ledger.state.seq + 1)
        if change.is_new:
            ledger.log(parent, raw)
            self._erase(parent, change.gone)
        saved = wire.Saved(record.parent, record.name, record.opening, record.gen)
        self.outbox.send(peer.id, wire.encode(saved))

    def verified(self, peer: Peer, record: wire.Verified) -> None:
        """Handle a verified checkpoint: drop what its base covers."""
        ledger = self.ledger
        if not ledger.current(peer, record.parent, record.attempt):
            return
        parent = ledger.state.parent(record.parent)
        lost = checkpoints.lost(parent, record)
        if lost:
            where = ids.batch_path(record.parent, lost[0])
            self.halted = (
                f"checkpoint {record.gen} of block {record.name!r} of {record.parent} waits for future "
                f"{where}[0], which is not in the journal: the journal was damaged; start a new run"
            )
            return
        found = checkpoints.supersede(parent, record)
        self._erase(parent, found.gone)
        if found.trimmed is not None:
            ledger.record(found.trimmed, forced=False)
            self._plan(parent, ledger.state.seq, found.after)

    def halt(self, peer: Peer, halted: wire.Halted) -> None:
        """Record why a future cannot continue."""
        if self.ledger.current(peer, halted.parent, halted.attempt):
            self.halted = self.halted or halted.reason

    def _erase(self, parent: ParentFacts, gone: Sequence[Generation]) -> None:
        actions = self.outbox.actions
        actions += [Erase(Table.LOG, _key(parent, kept.seq)) for kept in gone]
        actions += [
            Discard(name) for name in checkpoints.unnamed(self.state.parents.values(), gone)
        ]

    def _plan(self, parent: ParentFacts, seq: int, after: int) -> None:
        trimmed = parent.trims[seq]
        job = _Job(parent, seq, Intervals(trimmed.calls), Intervals(trimmed.observed), after)
        for other in list(self._jobs):
            if job.outdoes(other):
                self._jobs.remove(other)
                job.after = min(job.after, other.after)
                self._forget_trim(other)
        for old in [s for s in parent.trims if s < seq and all(j.seq != s for j in self._jobs)]:
            self._forget(parent, old)
        self._jobs.append(job)

    def _forget_trim(self, job: _Job) -> None:
        if job.seq in job.parent.trims and job.seq != max(job.parent.trims):
            self._forget(job.parent, job.seq)

    def _forget(self, parent: ParentFacts, seq: int) -> None:
        del parent.trims[seq]
        self.outbox.actions.append(Erase(Table.LOG, _key(parent, seq)))

    def sweep(self) -> None:
        """Request the next page to check, one at a time."""
        if self._asked:
            return
        while self._left:
            parent = self._left.pop()
            for seq in sorted(parent.trims):
                self._plan(parent, seq, 0)
        while self._jobs:
            job = self._jobs[0]
            if self.state.parents.get(job.parent.path) is job.parent:
                self._asked = True
                parent = job.parent
                sweep = Sweep(parent.path, parent.prefix, job.seq, job.after)
                self.outbox.actions.append(sweep)
                return
            self._jobs.popleft()  # the parent is done, and its records are gone

    def swept(self, page: Swept) -> None:
        """Erase the obsolete records of a page (KP2)."""
        self._asked = False
        job = next((each for each in self._jobs if each.parent.path == page.parent), None)
        if job is None or self.state.parents.get(page.parent) is not job.parent:
            return
        actions = self.outbox.actions
        for seq, record in page.records:
            if seq < job.seq and job.covers(record):
                key = _key(job.parent, seq)
                actions.append(Erase(Table.LOG, key))
                if isinstance(record, wire.Calls):
                    actions.append(Erase(Table.ARGS, key))
                elif isinstance(record, wire.Outcomes):
                    self.state.tally.uncount(job.parent, record)
        if page.seq != job.seq:
            return  # a newer job replaced it, and begins at its own place
        job.after = page.upto
        if page.last:
            self._jobs.remove(job)
            self._forget_trim(job)


def _key(parent: ParentFacts, seq: int) -> bytes:
    return ids.record_key(parent.prefix, seq)
