"""Checks of growth: what may remain at a run's end, in its broker and in its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import ids
from resilient_scoop.core.broker.holdback import available
from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.core.broker.scheduler import Scheduler
    from tests.sim.shells import BrokerShell
    from tests.sim.world import World


class Leftovers:
    """Records which calls of a script's earlier attempts are no longer waited for."""

    def __init__(self, world: World) -> None:
        self.world = world
        # By attempt of the root: calls that an earlier attempt made, and that are not in the
        # checkpoint.
        self.forgotten: dict[wire.Attempt, set[int]] = {}

    def went_on(self, path: str, attempt: wire.Attempt, record: wire.Checkpoint) -> None:
        """Note that a parent continues from a generation.

        Of the covered calls, it waits only for futures in the state.
        """
        if path == ids.ROOT:
            calls = set(range(record.entry, record.calls)).difference(record.pending)
            self.forgotten.setdefault(attempt, set()).update(calls)

    def _forgotten(self, broker: Broker) -> set[Batch]:
        """Return the calls that are not waited for: their attempt is dead, and had them only in memory."""
        attempt = None if broker.ended is None else broker.ended.attempt
        calls = set() if attempt is None else self.forgotten.get(attempt, set())
        return {batch for batch in _undone(broker.state) if batch.call in calls}

    def check(self, shell: BrokerShell) -> None:
        """Check that only records of the root and of forgotten calls are left."""
        state, scheduler = shell.broker.state, shell.broker.scheduler
        forgotten = self._forgotten(shell.broker)
        left: dict[str, Any] = {
            "parents": [path for path in state.parents if path not in ids.SCRIPTS],
            "batches": [batch.call for batch in _undone(state) if batch not in forgotten],
            "kids": list(state.kids),
            "kid items": list(state.kid_items),
            "arguments": state.args_bytes - sum(batch.size() for batch in forgotten),
            "ready": scheduler.ready - sum(_available(scheduler, each) for each in forgotten),
            "leases": [
                no for no, each in scheduler.leases.items() if each.batch.facts not in forgotten
            ],
            "progress": list(state.progress.batches) or list(shell.journal.scan(Table.PROGRESS)),
            "crashes": [p.path for p in state.parents.values() if _blames(p, forgotten)],
            "open batches": [each for each in scheduler.batches if not _stands(state, each)],
            "questions": list(shell.broker.questions.open),
            "loads": [p.name for p in scheduler.workers.values() if _is_loaded(p, forgotten)],
        }
        # A script may give up a call and end at once, so that no turn could settle it.
        shell.broker.abandonments.settle()
        left["given up"] = list(shell.broker.abandonments.open)
        if self.world.edited:
            # Calls that the script made before it was changed need not be waited for.
            left = {"arguments": [] if left["batches"] else left["arguments"]}
        if any(left.values()):
            raise Broken(f"growth: left at the end {left}")
        ours = tuple(ids.log_prefix(shell.broker.state.run, path) for path in ids.SCRIPTS)
        strangers = [key for key, _ in shell.journal.scan(Table.LOG) if not key.startswith(ours)]
        if strangers and not self.world.edited:
            raise Broken(f"growth: {len(strangers)} records of futures that are done")


def _undone(state: DurableState) -> list[Batch]:
    """Return the script's calls with items to do; the end of other calls may not have been reported."""
    scripts = [state.parents[path] for path in ids.SCRIPTS if path in state.parents]
    return [batch for each in scripts for batch in each.batches.values() if batch.undone]


def _stands(state: DurableState, facts: Batch) -> bool:
    parents = state.parents.values()
    return any(parent.batches.get(facts.call) is facts for parent in parents)


def _available(scheduler: Scheduler, facts: Batch) -> int:
    batch = scheduler.batches.get(facts)
    return 0 if batch is None else available(batch, 0, 1 << 62)


def _blames(parent: ParentFacts, forgotten: set[Batch]) -> bool:
    """Return whether a parent still records deaths or intents of awaited items."""
    deaths = any(parent.batches.get(call) not in forgotten for call, _ in parent.crashes)
    return deaths or bool(parent.intents)


def _is_loaded(peer: Peer, forgotten: set[Batch]) -> bool:
    """Return whether the broker counts a worker as busy with an awaited item."""
    busy = sum(each.busy() for each in peer.leases.values() if each.batch.facts in forgotten)
    return peer.items != busy or (not busy and peer.load_s > 1e-9)
