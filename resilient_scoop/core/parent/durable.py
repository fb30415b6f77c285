"""A parent's side of checkpoints: which blocks are open, and from which generations they can continue.

D1  A block is entered at the same place on every replay: (name, opening) is its identity.
D2  Only the innermost open block makes checkpoints: inner blocks are closed by then, and outer ones are
    restored first.
D3  A checkpoint takes no call number and no observation number, so it does not matter for a
    replay which of them were made.
D4  The counters never go back. What an older state makes again under its old number is matched by
    digest, like everything else.
D5  Whatever generation the log holds can be fallen back to: those after which something was
    trimmed went with it. The beginning of a block can be, as long as it has trimmed nothing.
D6  A generation names the calls of which this process has not read everything: those that miss
    outcomes, and those whose results are in files that a living `Call` names (`ParentCalls.readable`). The
    journal keeps them.
D7  A future from before the block may be in its state: the outcomes that settled the call on replay have
    been dropped by then, so the history is read once more.
D8  What this attempt has made itself under such a future's number must be the very same item, and if the
    history lacks its outcome, no process will send it: the future is refused, not waited for.
"""

from __future__ import annotations

import msgspec

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire import messages as wire

Key = tuple[str, int]


class OpenBlock(msgspec.Struct):
    """An open block."""

    key: Key
    entry: int
    entry_observation: int
    outer: list[Key]
    base: int = 0  # the generation that its state continues from
    gen: int = 0  # the last one that was made
    saved: int = 0  # how many checkpoints it has made that are durable


class Durable(msgspec.Struct):
    """The checkpoints of one attempt at a parent."""

    open: list[OpenBlock] = []
    openings: dict[str, int] = {}
    known: dict[Key, int] = {}  # newest generation that is durable
    read: dict[Key, list[wire.Checkpoint]] = {}  # from the history
    dropped: Intervals = msgspec.field(default_factory=Intervals)  # calls without their outcomes
    trimmed_by: set[Key] = msgspec.field(default_factory=set)
    heads: int = 0  # pages seen

    def page(self, head: wire.History) -> None:
        """Record the checkpoints in the head of a page."""
        self.heads += 1
        self.dropped, self.trimmed_by = Intervals(head.dropped), set(head.trimmed_by)
        for mark in head.checkpoints:
            self.note(mark.name, mark.opening, mark.gen)

    def take(self, record: wire.Checkpoint) -> None:
        """Record a generation of the history."""
        found = self.read.setdefault((record.name, record.opening), [])
        if all(each.gen != record.gen for each in found):
            found.append(record)

    def note(self, name: str, opening: int, gen: int) -> None:
        """Record that a generation is durable."""
        key = (name, opening)
        self.known[key] = max(self.known.get(key, 0), gen)

    def is_open(self, name: str) -> bool:
        """Return whether a block of this name is open."""
        return any(block.key[0] == name for block in self.open)

    def enter(self, name: str, at_call: int, at_observation: int) -> OpenBlock:
        """Open a block here (D1)."""
        opening = self.openings.get(name, 0)
        self.openings[name] = opening + 1
        outer = [block.key for block in self.open]
        block = OpenBlock((name, opening), at_call, at_observation, outer)
        self.open.append(block)
        return block

    def leave(self, block: OpenBlock) -> None:
        """Close a block, and blocks left open inside it."""
        if block in self.open:
            del self.open[self.open.index(block) :]

    def has_newest(self, block: OpenBlock) -> bool:
        """Return whether the newest durable generation of a block has arrived."""
        newest = max((each.gen for each in self.read.get(block.key, ())), default=0)
        return self.heads > 0 and newest >= self.known.get(block.key, 0)

    def candidates(self, block: OpenBlock) -> list[wire.Checkpoint]:
        """Return the generations from which the block can continue, newest first (D5)."""
        return sorted(self.read.get(block.key, ()), key=lambda each: -each.gen)

    def can_begin(self, block: OpenBlock) -> bool:
        """Return whether a block can begin without any checkpoint and find all its history."""
        return block.key not in self.trimmed_by

    def continue_from(self, block: OpenBlock, record: wire.Checkpoint) -> None:
        """Continue from a generation: everything before it is over (D4)."""
        block.base = block.gen = record.gen
        self.openings = dict(record.openings)
        self.read.pop(block.key, None)

    def begin_generation(self, block: OpenBlock) -> int:
        """Number the next generation of a block."""
        assert self.open[-1] is block, "D2"
        block.gen = max(block.gen, self.known.get(block.key, 0)) + 1
        return block.gen

    def is_saved(self, block: OpenBlock) -> bool:
        """Return whether the last generation that was made is durable."""
        return self.known.get(block.key, 0) >= block.gen

    def verified(self, block: OpenBlock) -> None:
        """Record that the last generation has been loaded back."""
        block.base = block.gen
        block.saved += 1
