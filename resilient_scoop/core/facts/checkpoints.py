"""The broker's side of checkpoints: existing generations, and the records that they make obsolete.

A generation is good when a process has loaded it back (`Verified`). Then everything that its *base*
covers is removed from the log, so that both can be used: the newest finds everything done since,
and the one before finds what was done between the two.

  C1  Nothing is trimmed but what the base of a verified generation covers: calls of the block that
      were made before it and are done, and are no pending future of any generation that is kept
      (nor held by one: C5).
  C2  Of a block, at most three generations are kept: the newest, its base, and the base's base.
      Those of a block inside of another go with what that one's base covers.
  C3  `Trimmed` is absolute and goes with the turn that decides it; the records are erased later, in
      bounded steps. With any of them there or not, the fold gives the same state.
  C4  A trimmed call that is made again (by a changed script) is a new call.
  C5  Of a call that is trimmed, the parent had read everything when it made each generation that is
      kept: no item was without an outcome there, and no result in a file was unread by a future that
      user code could reach. So neither the end of this broker nor the removal of files can take a
      result from a living parent, be it in the state or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilient_scoop.core.facts.generations import Generation, Key, generation_of, key_of
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.checkpoints import Mark, Trimmed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.wire.checkpoints import Checkpoint, Verified


def marks(parent: ParentFacts) -> list[Mark]:
    """Return the generations that a parent's log holds."""
    return [Mark(*key, kept.gen) for key, each in parent.blocks.items() for kept in each]


def is_new(parent: ParentFacts, record: Checkpoint) -> bool:
    """Return whether a generation is new."""
    return all(kept.gen < record.gen for kept in parent.blocks.get(key_of(record), ()))


def add(parent: ParentFacts, record: Checkpoint, seq: int) -> list[Generation]:
    """Add a generation; return those that it replaces, which must be erased."""
    block = parent.blocks.setdefault(key_of(record), [])
    # What lies between did not load, or was made by a history that has been given up.
    gone = [each for each in block if record.base < each.gen < record.gen]
    block[:] = [each for each in block if each not in gone]
    block.append(generation_of(record, seq))
    return gone


def newest(parent: ParentFacts) -> int:
    """Return the sequence number of a parent's latest checkpoint; 0 if there is none."""
    return max((kept.seq for block in parent.blocks.values() for kept in block), default=0)


class Superseded(NamedTuple):
    """What a verified generation makes obsolete; `after`: its records come after this one."""

    trimmed: Trimmed | None = None
    gone: Sequence[Generation] = ()
    after: int = 0


def supersede(parent: ParentFacts, verified: Verified) -> Superseded:
    """Return what a verified generation makes obsolete: history, and older generations (C1, C2)."""
    key = key_of(verified)
    block = parent.blocks.get(key, [])
    this = _find(block, verified.gen)
    if this is None:
        return Superseded()
    base = _find(block, this.base)
    gone = [each for each in block if each.gen < this.gen and each is not base]
    if base is None:
        _remove(parent, gone)
        return Superseded(None, gone)
    prior = _find(block, base.base)
    after = parent.record_before(base.entry - 1) if prior is None else prior.seq
    for (name, opening), other in parent.blocks.items():
        if opening < base.openings.get(name, 0):  # else it is opened after the base
            gone += [each for each in other if key in each.outer]
    _remove(parent, gone)
    trimmed, first = _trim(parent, key, base)
    return Superseded(trimmed, gone, min(after, parent.record_before(first)))


def _find(block: list[Generation], gen: int) -> Generation | None:
    return next((each for each in block if each.gen == gen), None)


def files(parents: Iterable[ParentFacts]) -> list[bytes]:
    """Return the files of states that the log names."""
    blocks = [block for parent in parents for block in parent.blocks.values()]
    return [kept.file for block in blocks for kept in block if kept.file]


def unnamed(parents: Iterable[ParentFacts], gone: Iterable[Generation]) -> list[bytes]:
    """Return the files of removed generations, except those that others also name."""
    names = {kept.file for kept in gone if kept.file}
    return sorted(names.difference(files(parents))) if names else []


def _remove(parent: ParentFacts, gone: list[Generation]) -> None:
    if gone:
        for key in list(parent.blocks):
            parent.blocks[key] = [each for each in parent.blocks[key] if each not in gone]
            if not parent.blocks[key]:
                del parent.blocks[key]


def _trim(parent: ParentFacts, key: Key, base: Generation) -> tuple[Trimmed | None, int]:
    """Return the record that trims what a generation covers, and its first new batch."""
    calls = Intervals([(base.entry, base.calls)])
    held = {call for block in parent.blocks.values() for one in block for call in one.held}
    for call in pending(parent).union(parent.batches, held):
        calls.discard(call, call + 1)
    fresh = [gap for low, high in calls for gap in parent.dropped.gaps(low, high)]
    gaps = parent.untold.gaps(base.entry_observation, base.observations)
    if not fresh and not gaps:
        return None, 0
    items = parent.dropped_items + sum(parent.items_within(low, high) for low, high in fresh)
    trimmed = Trimmed(
        parent.path,
        list(Intervals([*parent.dropped, *fresh])),
        list(Intervals([*parent.untold, *gaps])),
        items,
        [*(each for each in parent.trimmed_by if each in parent.blocks and each != key), key],
    )
    return trimmed, fresh[0][0] if fresh else base.calls


def pending(parent: ParentFacts) -> set[int]:
    """Return the calls whose futures some generation waits for."""
    return {call for block in parent.blocks.values() for one in block for call in one.pending}


def covered(parent: ParentFacts) -> Intervals:
    """Return the batches that a restarted parent does not make: all except those it waits for."""
    found = Intervals(parent.dropped)
    for block in parent.blocks.values():
        if block and block[-1].entry < block[-1].calls:
            found.add(block[-1].entry, block[-1].calls)
    for block in parent.blocks.values():
        for call in block[-1].pending if block else ():
            found.discard(call, call + 1)
    return found


def lost(parent: ParentFacts, verified: Verified) -> list[int]:
    """Return the calls that a generation waits for and that the journal does not know (repaired)."""
    this = _find(parent.blocks.get(key_of(verified), []), verified.gen)
    known = parent.batches
    return [
        call
        for call in (() if this is None else this.pending)
        if call not in known and (call in parent.dropped or call not in parent.finished)
    ]


def thin_index(parent: ParentFacts, dropped: Intervals) -> None:
    """Keep one entry for a run of trimmed batches: searched records are after it."""
    kept: list[tuple[int, int]] = []
    for each in parent.index:
        if kept and kept[-1][0] in dropped and each[0] in dropped:
            kept.pop()
        kept.append(each)
    parent.index = kept


def ask_again(parent: ParentFacts, call: int) -> bool:
    """Restore a batch that is called again; return whether it had been trimmed (C4)."""
    if call not in parent.dropped:
        return False
    parent.dropped.discard(call, call + 1)
    parent.finished.discard(call, call + 1)
    return True
