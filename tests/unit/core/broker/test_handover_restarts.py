"""Requests for checkpoints at a new broker, and in the processes that are asked."""

from __future__ import annotations

from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker.checkpoint_requests import CheckpointRequests
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    ORIGIN,
    PLAIN,
    W1,
    Bench,
    part,
)
from tests.unit.handovers import KID, asked, checkpoint, opened, stops, with_kid


def test_a_new_broker_waits_for_the_workers_and_uses_higher_numbers_than_the_old_one() -> None:
    bench = Bench()
    root, kid = with_kid(bench, W1)
    bench.feed(asked())
    old = opened(bench, ROOT)
    after = bench.again()
    after.feed(asked())
    assert after.broker.handover.no > old.no
    after.tell(AGENT, wire.Hello("agent", "n0", "a", 1, incarnations=[ORIGIN, W1]))
    after.arrive(ORIGIN, waiting=[wire.Waiting(ROOT, root)])
    after.tell(ORIGIN, old)
    assert stops(after.tell(ORIGIN, opened(after))) == [], "W1 may hold parents"
    held = wire.Held(kid, ROOT, 0, PLAIN.fn, [(0, 1)], part(0, 0, 1).digests)
    after.arrive(W1, held=[held], waiting=[wire.Waiting(KID, kid)])
    assert stops(after.tell(W1, opened(after, KID))) == []
    assert stops(after.tell(W1, checkpoint(KID, kid))) == ["handed over"]


def test_a_new_broker_waits_for_the_script_whichever_host_arrives_first() -> None:
    bench = Bench()
    root, _ = with_kid(bench, W1)
    after = bench.again()
    after.feed(asked())
    after.tell(AGENT, wire.Hello("agent", "n0", "a", 1, incarnations=[W1]))
    after.arrive(W1)
    assert stops(after.tell(W1, opened(after))) == [], "the origin may come from another host"
    after.arrive(ORIGIN, waiting=[wire.Waiting(ROOT, root)])
    assert stops(after.tell(ORIGIN, opened(after, ROOT))) == []
    assert stops(after.tell(ORIGIN, checkpoint(ROOT, root))) == ["handed over"]


def test_a_process_answers_once_and_again_when_it_changes() -> None:
    parent = Parent(ROOT, wire.Attempt(1, 1))
    asked_here, parents = CheckpointRequests(), {ROOT: parent}
    assert asked_here.answer(parents) == []
    block = parent.enter_block("block")
    asked_here.hear(wire.CheckpointWanted(7))
    asked_here.hear(wire.CheckpointWanted(7))
    assert asked_here.count == 1
    assert asked_here.answer(parents) == [wire.encode(wire.OpenBlocks(7, [ROOT]))]
    assert asked_here.answer(parents) == []
    parent.durable.leave(block)
    assert asked_here.answer(parents) == [wire.encode(wire.OpenBlocks(7, []))]
    asked_here.meet()
    assert asked_here.answer(parents) == []
    asked_here.hear(wire.CheckpointWanted(9))
    assert asked_here.count == 2
    assert asked_here.answer(parents) == [wire.encode(wire.OpenBlocks(9, []))]
