"""Which callables the broker keeps in memory: those in use, and the latest.

A lambda in a loop whose defaults or closure change is another callable each time; a month's run
defines millions. Their records stay in the journal (a replay needs them), so that memory is a cache
over it:

  D1  A callable is let go only when its record is durable and no open batch names it.
  D2  A message that names one that was let go is not handled before it was read back.

What it let go of, all else that is kept per callable goes with: what workers are known to have (they
are sent it again), measured durations.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from resilient_scoop.core.events import Put, Table
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.core.broker import Broker
    from resilient_scoop.core.events import Change

KEPT_MAX = 1000
"""About 1 MB of them; half as many are let go at a time, so that looking who is in use is rare."""


class Defines:
    """Lets go of a broker's callables, and brings them back."""

    def __init__(
        self, broker: Broker, find: Callable[[bytes], bytes | None], kept_max: int = KEPT_MAX
    ) -> None:
        self._broker = broker
        self._find = find  # the record of a callable, from the journal
        self._kept_max = kept_max
        self._order: deque[tuple[int, bytes]] = deque(  # (turn that logged it, callable)
            (0, fn) for fn in broker.state.defines
        )

    def recall(self, messages: Sequence[wire.Up]) -> None:
        """Read back what messages name and was let go (D2)."""
        known = self._broker.state.defines
        for message in messages:
            named: Sequence[wire.Part | wire.Held] = ()
            if isinstance(message, wire.Calls):
                named = message.parts
            elif isinstance(message, wire.Hello):
                named = message.held
            for each in named:
                if each.fn not in known:
                    self._recall(each.fn)

    def _recall(self, fn: bytes) -> None:
        raw = self._find(fn)
        define = None if raw is None else wire.decode_up(raw)
        if isinstance(define, wire.Define):  # else it comes in this very bundle
            self._broker.state.defines[fn] = define
            self._order.append((0, fn))

    def note(self, turn: int, changes: Sequence[Change]) -> None:
        """Remember which turn logs which callables."""
        for change in changes:
            if isinstance(change, Put) and change.table is Table.DEFINE:
                self._order.append((turn, change.key))

    def let_go(self, durable: int) -> None:
        """Let go of the oldest if there are too many, now that turns up to this one are durable."""
        broker = self._broker
        known = broker.state.defines
        if len(known) <= self._kept_max or not self._order or self._order[0][0] > durable:
            return
        used = self._in_use()
        gone: set[bytes] = set()
        for _ in range(len(self._order)):
            turn, fn = self._order[0]
            if turn > durable or len(known) <= self._kept_max // 2:
                break
            self._order.popleft()
            if fn in used:
                self._order.append((turn, fn))
            elif known.pop(fn, None) is not None:
                gone.add(fn)
                broker.scheduler.estimates.pop(fn, None)
        for peer in broker.ledger.peers.values():
            peer.functions -= gone

    def _in_use(self) -> set[bytes]:
        broker = self._broker
        used = {
            piece.fn
            for parent in broker.state.parents.values()
            for batch in parent.batches.values()
            for piece in batch.pieces
        }
        return used | {lease.fn for lease in broker.scheduler.leases.values()}
