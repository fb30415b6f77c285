"""Results found by function and arguments, after the script's calls have moved.

If a value is inserted at the start of a sweep, or a call is added before others, items get other
places than in the journal. The result of an item may be taken from another place if it depends only
on its function and arguments. (See decision 0042.)

  V1  Only results of calls that were proven to draw no random numbers and to call nothing unknown count
      (`Outcome.pure`, set by the worker that ran them), and none that failed. All others are bound
      to their place, which their random streams are seeded from (SAME-ANSWER).
  V2  Function and arguments are the same by their digests, in full; arguments that cannot be compared
      never are (NO-WRONG).
  V3  Nothing is looked for as long as every outcome of the history fits its place: an ordinary replay
      pays nothing. Otherwise the outcomes of calls that the script has not made yet are searched too,
      once.
  V4  A found result is sent to the broker after the call that needs it, as if a worker had just computed
      it. The broker counts it as any outcome, and the parent is told when it is durable. So the journal has
      it under its new place, and the next replay finds it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resilient_scoop.core.parent.call import Call

_NOT_COMPARED = bytes(ids.DIGEST_BYTES)
_KEY_BYTES = 8
_FRAME_BYTES = 1 << 19
_ITEM_BITS = 32


class Moved(msgspec.Struct):
    """Outcomes of one parent's history that may be used for items at other positions."""

    runs: list[wire.Outcome] = []
    index: dict[int, int] = {}  # start of a digest -> run and item
    indexed: int = 0  # runs that are in it
    fingerprints: set[bytes] = msgspec.field(default_factory=set)
    has_stash: bool = False
    diverged: bool = False  # an outcome of the history did not fit its position
    is_reported: bool = False  # that a single call keeps its result

    def note(self, outcome: wire.Outcome) -> None:
        """Record an outcome of the history that does not fit its position: it may fit another one."""
        if outcome.pure and not (self.runs and self.runs[-1] is outcome):
            self.runs.append(outcome)
            self.fingerprints.add(outcome.fingerprint)

    def note_ahead(self, stash: dict[int, list[wire.Outcome]]) -> None:
        """Record known outcomes of calls that are not made yet, once something has moved (V3)."""
        if not self.has_stash and self.runs:
            self.has_stash = True
            for outcomes in list(stash.values()):
                for outcome in outcomes:
                    self.note(outcome)

    def clear(self) -> None:
        """Drop everything: the script is far beyond its history."""
        self.runs, self.index, self.indexed, self.fingerprints = [], {}, 0, set()

    def found(self, call: Call, part: wire.Part) -> list[wire.Outcome]:
        """Return outcomes for those items of a part whose results are known from another position."""
        if call.fingerprint not in self.fingerprints:
            return []
        self._grow()
        groups: list[list[tuple[int, wire.Outcome, int]]] = []  # runs of neighbors that are found
        for at in range(part.count):
            where = self._find(call.fingerprint, ids.digests_of(part.digests, at, at + 1))
            if where is not None:
                if not groups or groups[-1][-1][0] != at - 1:
                    groups.append([])
                groups[-1].append((at, *where))
        return [
            wire.Outcome(
                part.call, part.start + group[0][0], call.fingerprint,
                ids.digests_of(part.digests, group[0][0], group[-1][0] + 1),
                [source.values[item] for _, source, item in group],
                spent_s=sum(source.spent_s / len(source.values) for _, source, _ in group),
                pure=True,
            )
            for group in groups
        ]  # fmt: skip

    def _find(self, fingerprint: bytes, digest: bytes) -> tuple[wire.Outcome, int] | None:
        place = self.index.get(int.from_bytes(digest[:_KEY_BYTES], "big"))
        if place is None or digest == _NOT_COMPARED:
            return None
        run, item = self.runs[place >> _ITEM_BITS], place & ((1 << _ITEM_BITS) - 1)
        same = ids.digests_of(run.digests, item, item + 1) == digest
        return (run, item) if same and run.fingerprint == fingerprint else None

    def _grow(self) -> None:
        for number in range(self.indexed, len(self.runs)):
            run = self.runs[number]
            failed = set(run.failed)
            for item in range(len(run.values)):
                if item not in failed:
                    key = ids.digests_of(run.digests, item, item + 1)[:_KEY_BYTES]
                    self.index[int.from_bytes(key, "big")] = number << _ITEM_BITS | item
        self.indexed = len(self.runs)


def frames_of(path: str, outcomes: Iterable[wire.Outcome]) -> Iterator[bytes]:
    """Return the frames that send outcomes to the broker."""
    items: list[wire.Outcome] = []
    size = 0
    for outcome in outcomes:
        items.append(outcome)
        size += sum(map(len, outcome.values))
        if size >= _FRAME_BYTES:
            yield wire.encode(wire.Outcomes(path, items))
            items, size = [], 0
    if items:
        yield wire.encode(wire.Outcomes(path, items))
