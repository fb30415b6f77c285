"""Requests for checkpoints at the broker: every stage with every input, in virtual time."""

from __future__ import annotations

import pytest

from resilient_scoop.core.broker.handover import HandoverEvent, Stage
from resilient_scoop.core.events import Interrupt, Send, Tick
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    ORIGIN,
    PLAIN,
    W1,
    W2,
    Bench,
    calls,
    granted,
    outcomes,
    part,
    sent,
)
from tests.unit.handovers import KID, W3, anywhere, asked, checkpoint, opened, stops, with_kid


def test_origin_and_workers_are_asked_and_the_agent_is_not() -> None:
    bench = Bench()
    bench.begin(W1)
    actions = bench.feed(asked())
    number = bench.broker.handover.no
    for peer in (ORIGIN, W1):
        assert [each.no for each in sent(actions, peer, wire.CheckpointWanted)] == [number]
    assert not sent(actions, AGENT, wire.CheckpointWanted)


def test_the_run_stops_as_soon_as_no_open_block_is_known() -> None:
    bench = Bench()
    bench.begin(W1)
    assert stops(bench.feed(asked())) == []
    assert stops(bench.tell(ORIGIN, opened(bench))) == ["handed over"], "W1 holds no parent"
    assert bench.broker.handover.is_whole


def test_a_parent_is_waited_for_until_it_has_saved_and_the_stop_waits_for_the_commit() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.feed(asked())
    assert stops(bench.tell(ORIGIN, opened(bench, ROOT))) == []
    assert stops(bench.wait(20, vouched=[ORIGIN, W1])) == []
    actions = bench.tell(ORIGIN, checkpoint(ROOT, root))
    assert stops(actions) == ["handed over"]
    assert all(isinstance(a, Send) for a in actions if stops([a])), "after the record"
    assert (bench.broker.handover.named, bench.broker.handover.saved) == (1, 1)


def test_a_checkpoint_made_before_the_answer_does_not_count() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.feed(asked())
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root), opened(bench, ROOT))) == []
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root, 2))) == ["handed over"]


def test_a_hand_over_waits_for_all_parents_and_meanwhile_grants_work() -> None:
    bench = Bench()
    root, kid = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert bench.broker.handover.stage is Stage.ASKED, "W1 holds a parent"
    bench.tell(W1, opened(bench, KID))
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == []
    more = calls(part(1, 0, 1), parent=KID, attempt=kid)
    assert granted(bench.tell(W1, *more), W1)
    assert stops(bench.tell(W1, checkpoint(KID, kid))) == ["handed over"]


def test_a_parent_that_moves_to_a_process_which_has_answered_is_waited_for() -> None:
    # Given a request that one of two workers has answered, and the other one holds a parent
    bench = Bench()
    root, kid = with_kid(bench, W1, W2)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W2, opened(bench))

    # When the parent is handed to the first one, and opens its block there
    bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash", kid, 0))
    assert bench.broker.scheduler.lease_of(KID) is not None
    bench.tell(W2, opened(bench, KID))

    # Then its checkpoint is waited for
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == []
    lease = bench.broker.scheduler.lease_of(KID)
    assert lease is not None
    assert stops(bench.tell(W2, checkpoint(KID, lease.attempt))) == ["handed over"]


def below_the_kid(bench: Bench) -> tuple[wire.Attempt, wire.Attempt]:
    """Open a block in the script and in its child on the first worker; request checkpoints."""
    root, kid = with_kid(bench, W1, W2)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W2, opened(bench))
    bench.tell(W1, opened(bench, KID))
    return root, kid


def test_items_below_a_parent_that_has_saved_are_not_granted() -> None:
    bench = Bench()
    root, kid = below_the_kid(bench)
    bench.tell(ORIGIN, checkpoint(ROOT, root))
    actions = bench.tell(ORIGIN, *calls(part(1, 0, 5), attempt=root))
    assert not anywhere(actions)
    assert bench.broker.scheduler.ready == 0
    assert granted(bench.tell(W1, *calls(part(1, 0, 1), parent=KID, attempt=kid)), W2), "it waits"


def test_items_below_a_waiting_parent_are_granted_even_if_lower_parents_have_saved() -> None:
    bench = Bench()
    _, kid = below_the_kid(bench)
    bench.tell(W1, checkpoint(KID, kid))
    assert granted(bench.tell(W1, *calls(part(1, 0, 1), parent=KID, attempt=kid)), W2)


def test_a_parent_that_is_waited_for_starts_again_below_one_that_has_saved() -> None:
    bench = Bench()
    root, kid = below_the_kid(bench)
    bench.tell(ORIGIN, *calls(part(0, 1, 5), part(1, 0, 5), attempt=root))
    bench.tell(ORIGIN, checkpoint(ROOT, root))
    bench.tell(W2, wire.Bye())
    actions = bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash", kid, 0))
    actions += bench.arrive(W3)
    assert [t.start for t in granted(actions, W3) if t.parent == ROOT] == [0]


def test_held_back_items_are_granted_when_a_lower_parent_is_named() -> None:
    bench = Bench()
    root, kid = with_kid(bench, W1, W2)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(ORIGIN, checkpoint(ROOT, root))
    assert not anywhere(bench.tell(W1, *calls(part(1, 0, 1), parent=KID, attempt=kid)))
    assert anywhere(bench.tell(W1, opened(bench, KID)))


def test_items_queued_below_a_saved_parent_are_taken_back() -> None:
    bench = Bench()
    root, _ = below_the_kid(bench)
    assert len(granted(bench.tell(ORIGIN, *calls(part(1, 0, 4), attempt=root)), W2)) > 1
    actions = bench.tell(ORIGIN, checkpoint(ROOT, root))
    assert sent(actions, W2, wire.Retract)
    assert not sent(bench.tell(ORIGIN, *calls(part(2, 0, 1), attempt=root)), W2, wire.Retract)


def test_all_items_are_granted_if_the_run_continues() -> None:
    bench = Bench()
    root, _ = with_kid(bench, W1, W2)
    bench.feed(asked(hands_over=False))
    bench.tell(ORIGIN, opened(bench, ROOT), checkpoint(ROOT, root))
    bench.tell(W1, opened(bench, KID))
    bench.tell(ORIGIN, checkpoint(ROOT, root, 2))
    assert bench.broker.handover.saved == 1
    assert anywhere(bench.tell(ORIGIN, *calls(part(1, 0, 1), attempt=root)))


def test_a_parent_that_is_done_or_has_left_its_block_is_not_waited_for() -> None:
    bench = Bench()
    _, kid = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W1, opened(bench, KID))
    assert stops(bench.tell(ORIGIN, opened(bench))) == []
    assert stops(bench.tell(W1, outcomes(0, 0, 1, task=kid))) == ["handed over"]
    assert (bench.broker.handover.named, bench.broker.handover.saved) == (2, 0)
    assert bench.broker.handover.is_whole


def test_a_parent_whose_worker_dies_is_waited_for_in_its_next_attempt() -> None:
    bench = Bench()
    _, kid = with_kid(bench, W1, W2)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench))
    bench.tell(W2, opened(bench))
    bench.tell(W1, opened(bench, KID))
    actions = bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash", kid, 0))
    again = wire.Attempt(1, next(t.no for t in granted(actions, W2) if t.parent == ROOT))
    assert stops(actions) == []
    assert stops(bench.tell(W2, opened(bench, KID))) == []
    assert stops(bench.tell(W2, checkpoint(KID, again))) == ["handed over"]


def test_a_parent_that_has_saved_is_not_waited_for_again_when_its_next_holder_names_it() -> None:
    # Given a parent that has saved and whose worker dies, while another one is waited for
    bench = Bench()
    root, kid = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W1, opened(bench, KID))
    bench.tell(W1, checkpoint(KID, kid))
    bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash", kid, 0))

    # When its next holder names it, in its first answer
    assert granted(bench.arrive(W2), W2)
    bench.tell(W2, opened(bench, KID))

    # Then only the other one is waited for
    assert bench.broker.handover.awaited.waiting.keys() == {ROOT}
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == ["handed over"]
    assert bench.broker.handover.is_whole


def test_a_parent_that_was_taken_from_a_process_and_given_to_it_again_has_not_left_its_block() -> (
    None
):
    # Given a parent that is waited for, returned by its worker, and granted to the same one again
    bench = Bench()
    _, kid = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench))
    bench.tell(W1, opened(bench, KID))
    actions = bench.tell(W1, wire.Returned(kid, 0))
    again = wire.Attempt(1, next(t.no for t in granted(actions, W1) if t.parent == ROOT))

    # When the worker reports no open block any more, then this report is not about the next attempt
    assert stops(bench.tell(W1, opened(bench))) == []
    assert bench.broker.handover.awaited.waiting.keys() == {KID}
    assert stops(bench.tell(W1, opened(bench, KID))) == []
    assert stops(bench.tell(W1, checkpoint(KID, again))) == ["handed over"]


def test_a_parent_that_saves_after_the_wait_ended_holds_back_its_items() -> None:
    bench = Bench()
    _, kid = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W1, opened(bench, KID))
    bench.tell(W1, opened(bench))
    assert bench.broker.handover.awaited.waiting.keys() == {ROOT}
    bench.tell(W1, opened(bench, KID))
    bench.tell(W1, checkpoint(KID, kid))
    assert bench.broker.handover.awaited.through == {KID}


def test_messages_of_a_fenced_process_do_not_count() -> None:
    bench = Bench()
    _, kid = with_kid(bench, W1, W2)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench))
    bench.tell(W2, opened(bench))
    bench.tell(W1, opened(bench, KID))
    bench.tell(W1, wire.Stuck(kid, 0))  # the parent continues on another worker
    assert stops(bench.tell(W1, opened(bench))) == []
    assert KID in bench.broker.handover.awaited.waiting


def test_parents_that_open_a_block_later_are_not_waited_for() -> None:
    bench = Bench()
    root, _ = with_kid(bench, W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W1, opened(bench))
    bench.tell(W1, opened(bench, KID))
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == ["handed over"]


def test_a_parent_whose_first_call_arrives_during_the_request_is_waited_for() -> None:
    # Given a request that waits only for the script, since W1 holds a task without calls
    bench = Bench()
    root = bench.begin(W1)
    (task,) = granted(bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root)), W1)
    kid = wire.Attempt(1, task.no)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert bench.broker.handover.stage is Stage.WAITING

    # When the task's first call arrives, and the script saves, then the answer of W1 is waited for
    bench.tell(W1, wire.Parked(kid, 0), *calls(part(0, 0, 1), parent=KID, attempt=kid))
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == []
    assert stops(bench.tell(W1, opened(bench, KID))) == []
    assert stops(bench.tell(W1, checkpoint(KID, kid))) == ["handed over"]


def test_a_process_that_arrives_later_is_asked_too() -> None:
    bench = Bench()
    bench.begin(W1)
    bench.feed(asked())
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert sent(bench.arrive(W2), W2, wire.CheckpointWanted)


def test_the_run_stops_without_all_checkpoints_when_the_grace_ends() -> None:
    bench = Bench()
    bench.begin(W1)
    bench.feed(asked(grace_s=5.0))
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert stops(bench.wait(4)) == []
    assert stops(bench.wait(2)) == ["handed over"]
    assert not bench.broker.handover.is_whole
    assert bench.broker.handover.left == 1


def test_a_process_that_never_answers_is_waited_for_until_the_grace_ends() -> None:
    bench = Bench()
    bench.begin(W1)
    bench.feed(asked(grace_s=3.0))
    assert stops(bench.wait(4, vouched=[ORIGIN, W1])) == ["handed over"]
    assert not bench.broker.handover.is_whole


def test_nothing_stops_if_the_run_continues() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.feed(asked(hands_over=False))
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root))) == []
    assert bench.broker.handover.is_whole
    assert stops(bench.wait(9, vouched=[ORIGIN, W1])) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_request_that_is_over_drops_names_and_keeps_counts(*, whole: bool) -> None:
    # Given two parents, of which the nested one saves
    bench = Bench()
    root, kid = with_kid(bench, W1)
    bench.feed(asked(hands_over=False, grace_s=5.0))
    handover = bench.broker.handover
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.tell(W1, opened(bench, KID))
    bench.tell(W1, checkpoint(KID, kid))

    # When the script saves, too, or the time is over
    if whole:
        bench.tell(ORIGIN, checkpoint(ROOT, root))
    else:
        bench.wait(6, vouched=[ORIGIN, W1])

    # Then the counts are kept for the report, and the names are forgotten
    assert (handover.stage, handover.is_whole) == (Stage.OVER, whole)
    counts = (handover.named, handover.saved, handover.left)
    assert counts == ((2, 2, 0) if whole else (2, 1, 1))
    kept = [value for value in vars(handover).values() if isinstance(value, set | dict) and value]
    assert kept == []


def test_a_second_request_joins_the_first_and_can_shorten_its_time() -> None:
    bench = Bench()
    bench.begin(W1)
    bench.feed(asked(hands_over=False, grace_s=300.0))
    number = bench.broker.handover.no
    bench.tell(ORIGIN, opened(bench, ROOT))
    assert bench.feed(asked(grace_s=5.0)) == []
    assert bench.broker.handover.no == number
    assert stops(bench.wait(6, vouched=[ORIGIN, W1])) == ["handed over"]


def test_a_request_after_the_end_of_another_is_a_new_one() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.feed(asked(hands_over=False))
    stale = opened(bench, ROOT)
    bench.tell(ORIGIN, stale, checkpoint(ROOT, root))
    bench.feed(asked())
    assert stops(bench.tell(ORIGIN, stale)) == [], "the answer to another question"
    assert stops(bench.tell(ORIGIN, opened(bench, ROOT))) == []
    assert stops(bench.tell(ORIGIN, checkpoint(ROOT, root, 2))) == ["handed over"]


@pytest.mark.parametrize("stage", ["idle", "asked", "waiting", "over"])
def test_an_interrupt_stops_at_once_in_every_stage(stage: str) -> None:
    bench = Bench()
    root = bench.begin(W1)
    if stage != "idle":
        bench.feed(asked(hands_over=False))
    if stage in ("waiting", "over"):
        bench.tell(ORIGIN, opened(bench, ROOT))
    if stage == "over":
        bench.tell(ORIGIN, checkpoint(ROOT, root))
    assert bench.broker.handover.stage.name.lower() == stage
    assert stops(bench.feed(Interrupt("asked"))) == ["asked"]
    assert not bench.broker.handover.is_active
    assert stops(bench.feed(asked())) == [], "everybody is sent home already"


@pytest.mark.parametrize("stage", ["idle", "over"])
def test_answers_that_are_not_awaited_change_nothing(stage: str) -> None:
    bench = Bench()
    bench.begin(W1)
    if stage == "over":
        bench.feed(asked(hands_over=False))
        bench.tell(ORIGIN, opened(bench))
    bench.tell(ORIGIN, opened(bench, ROOT))
    bench.feed(Tick())
    assert bench.broker.handover.stage.name.lower() == stage
    assert not bench.broker.handover.awaited.waiting


KNOWN = {
    (Stage.IDLE, HandoverEvent.ASK): Stage.ASKED,
    (Stage.OVER, HandoverEvent.ASK): Stage.ASKED,
    (Stage.ASKED, HandoverEvent.ASK): Stage.ASKED,
    (Stage.WAITING, HandoverEvent.ASK): Stage.WAITING,
    (Stage.ASKED, HandoverEvent.ALL_ANSWERED): Stage.WAITING,
    (Stage.WAITING, HandoverEvent.ALL_SAVED): Stage.OVER,
    (Stage.ASKED, HandoverEvent.CUT_SHORT): Stage.OVER,
    (Stage.WAITING, HandoverEvent.CUT_SHORT): Stage.OVER,
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("step", HandoverEvent)
def test_every_event_in_every_stage_does_what_the_table_says(
    stage: Stage, step: HandoverEvent
) -> None:
    handover = Bench().broker.handover
    handover.stage = stage

    if (stage, step) in KNOWN:
        handover.step(step)
        assert handover.stage is KNOWN[stage, step]
    else:
        with pytest.raises(AssertionError, match=f"{stage.name} knows no {step.name}"):
            handover.step(step)
