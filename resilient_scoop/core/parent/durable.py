"""A parent's own side of checkpoints: which blocks are open, and where it goes on from.

D1  A block is entered at the same place on every replay: (name, opening) is its identity.
D2  Only the innermost open block makes checkpoints: what is inside is over by then, and what is
    around it comes back first.
D3  A checkpoint takes no call number and no observation number, so it does not matter for a
    replay which of them were made.
D4  The counters never go back. What an older state makes anew under its old number is matched by
    digest, like everything else.
D5  Whatever generation the log holds can be fallen back to: those behind which something was
trimmed went with it. The beginning of a block can be, as long as it has trimmed nothing.
D6  A generation names the calls of which this process has not read everything: those that miss
    outcomes, and those whose results are in files that a living `Call` names. The journal keeps them.
D7  A future from before the block may be in its state: what settled the call on replay has been let
    go of by then, so the history is gone over once more.
D8  What this attempt has made itself under such a future's number must be the very same item, and
    what the history does not have then comes from nowhere: the future is refused, not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.call import Call
from resilient_scoop.core.parent.divergence import refuse, refuse_future
from resilient_scoop.ids import DIGEST_BYTES
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.parent.parent import Parent

Key = tuple[str, int]


class Block(msgspec.Struct):
    """An open block."""

    key: Key
    entry: int
    entry_observation: int
    outer: list[Key]
    base: int = 0  # the generation that its state goes on from
    gen: int = 0  # the last one that was made
    saved: int = 0  # how many checkpoints it has made that are durable


class Durable(msgspec.Struct):
    """What one attempt at a parent knows of its checkpoints."""

    open: list[Block] = []
    openings: dict[str, int] = {}
    known: dict[Key, int] = {}  # newest generation that is durable
    read: dict[Key, list[wire.Checkpoint]] = {}  # from the history
    dropped: Intervals = msgspec.field(default_factory=Intervals)
    trimmed_by: set[Key] = msgspec.field(default_factory=set)
    heads: int = 0  # pages seen
    lacked: bool = False  # it was said that dropped outcomes are missing
    again: bool = False  # the history is to be gone over again, behind its end
    skipped: Intervals = msgspec.field(
        default_factory=Intervals
    )  # calls that this attempt has not made
    sought: set[int] = msgspec.field(
        default_factory=set
    )  # calls that only the history can settle (D8)
    # Of this attempt, by number: calls with results in files, while anything can still read them.
    unread: WeakValueDictionary[int, Call] = msgspec.field(default_factory=WeakValueDictionary)

    # --- what the broker says -----------------------------------------------------------------

    def page(self, head: wire.History) -> None:
        """Take in what a page's head says of checkpoints."""
        self.heads += 1
        self.dropped, self.trimmed_by = Intervals(head.dropped), set(head.trimmed_by)
        for mark in head.checkpoints:
            self.note(mark.name, mark.opening, mark.gen)

    def take(self, record: wire.Checkpoint) -> None:
        """Take in a generation of the history."""
        found = self.read.setdefault((record.name, record.opening), [])
        if all(each.gen != record.gen for each in found):
            found.append(record)

    def lack(self, parent: Parent, call: Call) -> None:
        """A call is made whose outcomes were dropped: a checkpoint that covers it was not entered."""
        where = f"{ids.batch_path(parent.path, call.number)} ({parent.name_of(call.fn)})"
        if parent.policy.strict:
            refuse(parent, where, "a checkpoint that covers it", "the call itself")
        if not self.lacked:
            self.lacked = True
            parent.say(
                f"replay: {where} and others are covered by a checkpoint that the code does not "
                "reach any more; they are computed again"
            )

    def note(self, name: str, opening: int, gen: int) -> None:
        """A generation is durable."""
        key = (name, opening)
        self.known[key] = max(self.known.get(key, 0), gen)

    # --- blocks -------------------------------------------------------------------------------

    def is_open(self, name: str) -> bool:
        """Tell whether a block of this name is open."""
        return any(block.key[0] == name for block in self.open)

    def enter(self, parent: Parent, name: str) -> Block:
        """Open a block here (D1)."""
        opening = self.openings.get(name, 0)
        self.openings[name] = opening + 1
        outer = [block.key for block in self.open]
        block = Block((name, opening), parent.next_call, parent.next_observation, outer)
        self.open.append(block)
        return block

    def leave(self, block: Block) -> None:
        """Close a block, and what was left open inside of it."""
        if block in self.open:
            del self.open[self.open.index(block) :]

    def is_here(self, parent: Parent, block: Block) -> bool:
        """Tell whether all generations of a block are here that the log holds."""
        if not parent.replaying:
            return True
        newest = max((each.gen for each in self.read.get(block.key, ())), default=0)
        return self.heads > 0 and newest >= self.known.get(block.key, 0)

    def candidates(self, block: Block) -> list[wire.Checkpoint]:
        """Return the generations that can be gone on from, newest first (D5)."""
        return sorted(self.read.get(block.key, ()), key=lambda each: -each.gen)

    def can_begin(self, block: Block) -> bool:
        """Tell whether a block can begin without any checkpoint and find all its history."""
        return block.key not in self.trimmed_by

    def go_on(self, parent: Parent, block: Block, record: wire.Checkpoint) -> None:
        """Go on from a generation: everything before it is over (D4)."""
        block.base = block.gen = record.gen
        self.openings = dict(record.openings)
        jump(parent, record.calls, record.observations, record.pending)
        self.read.pop(block.key, None)

    def make(
        self, parent: Parent, block: Block, payload: bytes, pending: list[int],
        streams: tuple[int, int], code: bytes,
    ) -> int:  # fmt: skip
        """Put a checkpoint behind all that the parent has done; return its generation.

        `streams` are the script's positions in its output and its input, in bytes.
        """
        assert not parent.replaying, "a checkpoint is made behind the history"
        assert self.open[-1] is block, "D2"
        block.gen = max(block.gen, self.known.get(block.key, 0)) + 1
        put(
            parent,
            wire.Checkpoint(
                parent.path, parent.attempt, *block.key, block.gen, block.base, block.entry,
                block.entry_observation, parent.next_call, parent.next_observation, payload,
                pending, block.outer, dict(self.openings), streams[0], code, streams[1],
                self.held(parent, block),
            )
        )  # fmt: skip
        return block.gen

    def held(self, parent: Parent, block: Block) -> list[int]:
        """Return the calls of a block of which something may still be read from the journal (D6)."""
        calls = parent.calls.items()
        open_ = {number for number, call in calls if call.count and not call.abandoned}
        return sorted(each for each in open_.union(self.unread) if each >= block.entry)

    def is_saved(self, block: Block) -> bool:
        """Tell whether the last generation that was made is durable."""
        return self.known.get(block.key, 0) >= block.gen

    def verify(self, parent: Parent, block: Block) -> None:
        """Say that the last generation has been loaded back."""
        block.base = block.gen
        block.saved += 1
        put(parent, wire.Verified(parent.path, parent.attempt, *block.key, block.gen))


def revive(  # noqa: PLR0913 - a future's place
    parent: Parent, number: int, fn: bytes, fingerprint: bytes, index: int, digest: bytes, *,
    name: str = "",
) -> Call:  # fmt: skip
    """Wait again for an item of a call that was made before the checkpoint.

    Raises:
        StrangeFutureError: this attempt has made another call under this number (D8).
    """
    durable = parent.durable
    call = parent.calls.get(number)
    is_own = number not in durable.skipped and number not in durable.sought
    if call is not None and is_own and index < call.count:
        same = fingerprint == call.fingerprint or name == parent.name_of(call.fn)
        if not same or digest != call.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]:
            refuse_future(parent, number, index, name or parent.name_of(fn))
        return call
    if call is None:
        if is_own:
            durable.sought.add(number)
        call = Call(number, fn, fingerprint)
        call.last = True
        parent.calls[number] = call
    missing = index + 1 - call.count
    if missing > 0:
        call.count += missing
        call.digests += bytes(missing * DIGEST_BYTES)
    call.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest
    call.left.add(index, index + 1)
    for outcome in parent._stash.get(number, ()):  # noqa: SLF001
        parent._settle(call, outcome)  # noqa: SLF001
    if call.left and number < durable.open[-1].entry:
        look_again(parent)  # D7
    return call


# These are parts of `Parent`, apart from the rest of it: it has grown long enough.


def put(parent: Parent, frame: wire.Checkpoint | wire.Verified) -> None:
    """Send a frame behind all that the parent has done."""
    parent._seal()  # noqa: SLF001
    parent._frames.append(wire.encode(frame))  # noqa: SLF001


def jump(parent: Parent, calls: int, observations: int, pending: list[int]) -> None:
    """Go on from where a checkpoint was made; what came before is settled or `pending`."""
    if calls > parent.next_call:
        parent.durable.skipped.add(parent.next_call, calls)
        parent.next_call = calls
    parent.next_observation = max(parent.next_observation, observations)
    recorded, stash = parent._recorded, parent._stash  # noqa: SLF001
    while recorded and recorded[0].no < parent.next_observation:
        recorded.popleft()
    for number in [n for n in stash if n < parent.next_call and n not in pending]:
        del stash[number]


def look_again(parent: Parent) -> None:
    """Go over the history once more, from its beginning, when what is read of it now is at its end."""
    parent.durable.again = parent.replaying or parent.catching_up
    if not parent.durable.again:
        parent.catching_up, parent.after = True, 0


def end_look(parent: Parent) -> None:
    """The history is at its end: go over it once more, or refuse what was sought in vain (D8)."""
    durable = parent.durable
    if durable.again:
        look_again(parent)
        return
    for number in sorted(durable.sought):
        call = parent.calls.get(number)
        if call is not None and call.left:
            refuse_future(parent, number, next(iter(call.left))[0], parent.name_of(call.fn))
    durable.sought.clear()
