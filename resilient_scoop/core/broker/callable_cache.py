"""Which callables the broker keeps, in memory and in the journal: those in use, and the latest.

A lambda in a loop whose defaults or closure change is another callable each time; a month's run
defines millions. The memory is a cache over the journal's table, and of that table a record stays as
long as another record names it:

  CC1  A callable is dropped from memory only when its record is durable and no open batch names it.
  CC2  A message that names a dropped one is not handled before it was read back.
  CC3  A record is erased only when a round of eviction is over (CE1), no process has announced it since
       that round began, and neither LOG nor HISTORY names it, nor an open batch or a lease. These are
       searched after the commit of everything that was handled before the round was over; what is
       logged later was announced since the round began. A record that is being erased is not read
       back any more: its next `Define` would not be recorded.
  CC4  So each `Calls` of LOG and HISTORY finds its callables, at any moment and after any crash.

A search for obsolete callables starts only if the log has dropped something, and there are more
than `callables_max` callables, and twice as many as the last search left; a turn searches one page.

With a callable, everything else that is kept for it is dropped: which workers have it (they are sent
it again), measured durations.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.config import BrokerConfig
    from resilient_scoop.core.events import Change
    from resilient_scoop.core.ports import CallableUsers, EvictionRounds, Reader

_TABLE_AFTER = {Table.LOG: Table.HISTORY, Table.HISTORY: Table.DEFINE}


class _Search(msgspec.Struct):
    """Looks through LOG and HISTORY for callables, and then through DEFINE for those not found."""

    turn: int  # all turns up to this one must be durable first (CC3)
    known: int  # how many records there were
    table: Table = Table.LOG
    after: bytes | None = None
    named: set[bytes] = msgspec.field(default_factory=set)
    left: int = 0


class CallableCache:
    """Drops a broker's callables, reads them back, and erases those that nothing names."""

    def __init__(
        self,
        known: dict[bytes, wire.Define],
        users: CallableUsers,
        rounds: EvictionRounds,
        journal: Reader,
        config: BrokerConfig,
        *,
        has_dropped: bool,
    ) -> None:
        self._known = known  # by the broker, in memory
        self._users = users
        self._rounds = rounds
        self._journal = journal
        self._kept_max = config.callables_max
        self._page_bytes = config.sweep_bytes  # size of the page that is searched in a turn
        self._order: deque[tuple[int, bytes]] = deque(  # (turn that logged it, callable)
            (0, fn) for fn in known
        )
        self._full = self._kept_max  # with more callables than this, some are dropped
        self._durable = 0  # turns up to this one are durable
        self._records = len(known)
        self._left = 0  # records that the last search left
        self._dropped = has_dropped  # the log has dropped records since the last search
        self._search: _Search | None = None
        self._erased: dict[bytes, int] = {}  # by a turn that is not durable

    def recall(self, messages: Sequence[wire.Up]) -> None:
        """Read back dropped callables that messages name (CC2)."""
        known = self._known
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
        if fn in self._erased:
            return
        raw = self._journal.get(Table.DEFINE, fn)
        define = None if raw is None else wire.decode_up(raw)
        if isinstance(define, wire.Define):  # otherwise it is in this same bundle
            self._known[fn] = define
            self._order.append((0, fn))

    def end_turn(self, turn: int, changes: list[Change]) -> None:
        """Remember which callables a turn logs, and add the records that it erases."""
        for change in changes:
            if isinstance(change, Put):
                if change.table is Table.DEFINE:
                    self._order.append((turn, change.key))
                    self._records += 1
            elif change.table is Table.LOG:
                self._dropped = True
        if self._search is not None:
            gone = self._look(self._search)
            changes += [Erase(Table.DEFINE, fn) for fn in gone]
            self._erased.update((fn, turn) for fn in gone)
        elif self._dropped and self._is_due() and self._rounds.is_over:
            self._dropped = False
            self._rounds.begin_search()
            self._search = _Search(turn, self._records)

    def _is_due(self) -> bool:
        return self._records > max(self._kept_max, 2 * self._left)

    def release(self, durable: int) -> None:
        """Drop the oldest if there are too many, now that turns up to this one are durable (CC1)."""
        self._durable = durable
        if self._erased:
            self._erased = {fn: turn for fn, turn in self._erased.items() if turn > durable}
        known = self._known
        if len(known) <= self._full or not self._order or self._order[0][0] > durable:
            return
        used = self._users.callables_in_use()
        gone: set[bytes] = set()
        for _ in range(len(self._order)):
            turn, fn = self._order[0]
            if turn > durable or len(known) <= self._kept_max // 2:
                break
            self._order.popleft()
            if fn in used:
                self._order.append((turn, fn))
            elif fn in known:
                gone.add(fn)
                del known[fn]
        self._users.forget_callables(gone)
        # If most are in use, do not search at each commit.
        self._full = max(self._kept_max, 2 * len(known))

    def _look(self, search: _Search) -> list[bytes]:
        """Look at a page; return the callables whose records are obsolete (CC3)."""
        if self._durable < search.turn:
            return []
        table = search.table
        page = self._journal.read(table, b"", search.after, self._page_bytes)
        if page:
            search.after = page[-1][0]
            if table is Table.DEFINE:
                return self._obsolete(search, page)
            _note(search, page)
            return []
        if table is Table.DEFINE:
            self._end(search)
            return []
        search.table, search.after = _TABLE_AFTER[table], None
        if search.table is Table.DEFINE:
            search.named |= self._users.callables_in_use()
        return []

    def _obsolete(self, search: _Search, page: list[tuple[bytes, bytes]]) -> list[bytes]:
        kept = search.named, self._rounds.announced
        gone = [fn for fn, _ in page if not any(fn in each for each in kept)]
        search.left += len(page) - len(gone)
        for fn in gone:
            self._known.pop(fn, None)
        self._users.forget_callables(gone)
        return gone

    def _end(self, search: _Search) -> None:
        self._search = None
        self._rounds.end_search()
        self._left = search.left
        self._records += search.left - search.known
        self._order = deque(each for each in self._order if each[1] in self._known)


class _Named(LogVisitor):
    """Collects the callables that the records of a log name."""

    __slots__ = ("found",)

    def __init__(self, found: set[bytes]) -> None:
        self.found = found

    def asked(self, _parent: str, part: wire.Part, _offset: int) -> None:
        self.found.add(part.fn)


def _note(search: _Search, page: list[tuple[bytes, bytes]]) -> None:
    named = _Named(search.named)
    for _, raw in page:
        named.visit(wire.decode_logged(raw))
