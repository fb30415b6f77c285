"""Checks of callables: a process that names a callable finds it, and unused callables are erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from resilient_scoop.core.worker.worker import Worker
    from tests.sim.shells import BrokerShell
    from tests.sim.world import World


class Callables:
    """Records which callables are named and erased."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.erased = 0
        self.recorded_max = 0
        self.held_max = 0  # known to one process
        self.rounds = 0

    def turned(self, shell: BrokerShell, changes: Sequence[Change]) -> None:
        """Check after a broker's turn that it knows every callable that new calls name."""
        for fn in _named(changes):
            if fn not in shell.broker.state.defines:
                raise Broken(f"DEFINED: calls name {fn!r}, which the broker does not know")
        for peer in shell.broker.members.peers.values():
            self.held_max = max(self.held_max, len(peer.functions))

    def committed(self, shell: BrokerShell, changes: Sequence[Change]) -> None:
        """Check after a commit that the records of all callables that new calls name exist."""
        for fn in _named(changes):
            if shell.journal.get(Table.DEFINE, fn) is None and self._is_open(shell, fn):
                raise Broken(f"DEFINED: calls name {fn!r}, whose record is not there")
        gone = [c for c in changes if isinstance(c, Erase) and c.table is Table.DEFINE]
        self.erased += len(gone)
        self.recorded_max = max(self.recorded_max, shell.journal.count(Table.DEFINE))
        if gone:
            self._check(shell)

    def opened(self, shell: BrokerShell) -> None:
        """Begin again after a broker has recovered."""
        self._check(shell)

    def forgot(self, worker: Worker) -> None:
        """Note that a process has received a `Forget`."""
        self.rounds += 1
        self.held_max = max(
            self.held_max, len(worker.callables.known), len(worker.callables.announced)
        )

    def _check(self, shell: BrokerShell) -> None:
        """Check that the log names no callable whose record is missing (CC4)."""
        for _, raw in shell.journal.scan(Table.LOG):
            record = wire.decode_logged(raw)
            if isinstance(record, wire.Calls):
                for part in record.parts:
                    if shell.journal.get(Table.DEFINE, part.fn) is None:
                        raise Broken(f"DEFINED: the log names {part.fn!r}, and it was erased")

    def _is_open(self, shell: BrokerShell, fn: bytes) -> bool:
        """Return whether the log still names a callable."""
        for _, raw in shell.journal.scan(Table.LOG):
            record = wire.decode_logged(raw)
            if isinstance(record, wire.Calls) and any(part.fn == fn for part in record.parts):
                return True
        return False


def _named(changes: Sequence[Change]) -> list[bytes]:
    found: dict[bytes, None] = {}
    for change in changes:
        if isinstance(change, Put) and change.table is Table.LOG:
            record = wire.decode_logged(change.value)
            if isinstance(record, wire.Calls):
                found.update((part.fn, None) for part in record.parts)
    return list(found)
