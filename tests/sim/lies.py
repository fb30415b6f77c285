"""Lies of a simulated host: messages that a modified or broken process there could send with its own key.

Each lie contains `MARK`, or would have an effect that other checks detect: a record with the mark,
an end of the script, a lost origin.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.core.link import Link
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken
from tests.sim.checkers import RUN

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from tests.sim.grid import Grid
    from tests.sim.world import World

MARK = b"\xa6L13!!!"
_NEVER = 1 << 40


class Liar:
    """The lies of hosts."""

    def __init__(self, world: World, grid: Grid) -> None:
        self.world = world
        self.grid = grid
        self.rng = random.Random(f"lies of {world.seed}")

    def lie(self, node: int) -> None:
        """Make a process of a host lie."""
        shell = self.world.broker
        if shell is None or not shell.alive or not shell.open:
            return
        there = self.grid.processes(node)
        if not there:
            return
        process = self.rng.choice(there)
        self.grid.liars.add(node)
        self.grid.disturb(node)
        link: Link = process.machine.link  # type: ignore[attr-defined]
        kinds = self._of_agents() if process.name.startswith("agent") else self._of_workers()
        which = self.rng.choice(kinds)
        self.world.note(f"lie {which.__name__}", process)
        if which == self._theft:
            self._steal(node, shell.broker)
            return
        messages = which(shell.broker, node)
        if messages and link.epoch == shell.epoch:
            frames = [wire.encode(message) for message in messages]
            self.world.send_up(process.id, link.pack(frames), kept=False)
            # A lie that is lost with this broker is not repeated to the next one, which could not detect
            # it: grants are not journaled (`core.broker.guests`).
            link.unacked[link.sent] = []

    def _of_workers(self) -> list[Callable[[Broker, int], list[wire.Up]]]:
        return [
            self._outcome, self._outcome, self._outcome_of_others, self._progress, self._output,
            self._end, self._origin, self._elsewhere, self._calls, self._checkpoint, self._death,
            self._theft, self._returned,
        ]  # fmt: skip

    def _of_agents(self) -> list[Callable[[Broker, int], list[wire.Up]]]:
        return [self._death, self._vouches, self._outcome, self._theft, self._blames]

    def _item(self, broker: Broker) -> tuple[str, int, int, bytes, bytes] | None:
        """Return an item that is not done: parent, call, index, fingerprint, digest."""
        for batch in broker.scheduler.batches.values():
            for start, _ in batch.facts.undone:
                piece = batch.facts.piece_at(start)
                if piece is not None:
                    digest = batch.facts.digests_of(start, start + 1)
                    fingerprint = broker.state.fingerprint(piece.fn)
                    return batch.parent.path, batch.call, start, fingerprint, digest
        return None

    def _false(self, broker: Broker, attempt: wire.Attempt) -> list[wire.Up]:
        item = self._item(broker)
        if item is None:
            return []
        parent, call, index, fingerprint, digest = item
        outcome = wire.Outcome(call, index, fingerprint, digest, [b"V" + MARK], task=attempt)
        return [wire.Outcomes(parent, [outcome])]

    def _outcome(self, broker: Broker, node: int) -> list[wire.Up]:
        return self._false(broker, wire.Attempt(broker.epoch, _NEVER))

    def _outcome_of_others(self, broker: Broker, node: int) -> list[wire.Up]:
        others = [
            lease.attempt
            for lease in broker.scheduler.leases.values()
            if lease.peer.host != f"h{node}"
        ]
        return self._false(broker, others[0]) if others else []

    def _progress(self, broker: Broker, node: int) -> list[wire.Up]:
        item = self._item(broker)
        if item is None:
            return []
        parent, call, index, fingerprint, digest = item
        never = wire.Attempt(broker.epoch, _NEVER)
        return [wire.Progress(parent, never, call, index, fingerprint, digest, 1, 2, MARK)]

    def _output(self, broker: Broker, node: int) -> list[wire.Up]:
        root = broker.members.root
        return [] if root is None else [wire.Output(root[0], broker.state.output_bytes, MARK)]

    def _end(self, broker: Broker, node: int) -> list[wire.Up]:
        root = broker.members.root
        return [] if root is None else [wire.RunEnded(root[0], 0, failed=False)]

    def _origin(self, broker: Broker, node: int) -> list[wire.Up]:
        return [wire.Hello("origin", f"h{node}", "origin", 1)]

    def _elsewhere(self, broker: Broker, node: int) -> list[wire.Up]:
        return [wire.Hello("worker", "n0", "w", 1)]

    def _calls(self, broker: Broker, node: int) -> list[wire.Up]:
        root = broker.members.root
        if root is None:
            return []
        part = wire.Part(1 << 20, 0, 1, bytes(16), bytes(ids.DIGEST_BYTES), last=True)
        return [wire.Calls(ids.ROOT, root[0], [part]), wire.Args([MARK])]

    def _checkpoint(self, broker: Broker, node: int) -> list[wire.Up]:
        root = broker.members.root
        if root is None:
            return []
        return [wire.Checkpoint(ids.ROOT, root[0], "lie", 0, 1, 0, 0, 0, 0, 0, MARK)]

    def _returned(self, broker: Broker, node: int) -> list[wire.Up]:
        return [wire.Returned(wire.Attempt(broker.epoch, _NEVER), 0)]

    def _vouches(self, broker: Broker, node: int) -> list[wire.Up]:
        others = [peer for peer in broker.members.peers.values() if peer.host != f"h{node}"]
        return [wire.Alive([others[0].id])] if others else []

    def _death(self, broker: Broker, node: int) -> list[wire.Up]:
        root = broker.members.root
        return [] if root is None else [wire.ProcessLost(root[1], -9, "crash")]

    def _blames(self, broker: Broker, node: int) -> list[wire.Up]:
        item = self._item(broker)
        if item is None:
            return []
        never = wire.Attempt(broker.epoch, _NEVER)
        return [wire.ProcessLost(b"Wnobody..", -9, "crash", never, item[2], item[0], item[1])]

    def _theft(self, broker: Broker, node: int) -> list[wire.Up]:
        raise AssertionError("it is sent under another identity")

    def _steal(self, node: int, broker: Broker) -> None:
        """Use the identity of a process of another host that the broker knows."""
        known = [peer for peer in broker.members.peers.values() if peer.host != f"h{node}"]
        alive = [peer.id for peer in known if self.world.process(peer.id) is not None]
        if alive:
            link = Link(RUN[:8], broker.epoch)
            frames = link.pack([wire.encode(wire.Hello("worker", f"h{node}", "w", 1))])
            self.world.arrive_as(PeerId(self.rng.choice(alive)), frames, f"h{node}")

    def committed(self, changes: Sequence[Change]) -> None:
        """Check that no record comes from a lie."""
        for change in changes:
            if isinstance(change, Put):
                if MARK in change.value:
                    raise Broken(f"GU4: a lie is recorded in {change.table.name}")
                if change.table is Table.LOG:
                    record = wire.decode_logged(change.value)
                    if isinstance(record, wire.Crashed) and record.incarnation == b"Wnobody..":
                        raise Broken("GU4: a death that was made up is recorded")
