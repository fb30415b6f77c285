"""The calls of a parent: each item is settled once, by an outcome of the same item (P1)."""

from __future__ import annotations

import gc
from typing import Any

from resilient_scoop.core.parent.call import Call, Watch
from resilient_scoop.core.parent.calls import ParentCalls
from resilient_scoop.core.parent.judge import Judge, Policy
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests

OTHER = b"other function!!"


def made(**policy: Any) -> ParentCalls:
    return ParentCalls(Judge(ROOT, Policy(**policy), lambda _: None, lambda _: "m:f"))


def call(calls: ParentCalls, count: int, *, last: bool = True) -> Call:
    found = calls.begin(FN, FN)
    more(calls, found, count, last=last)
    return found


def more(calls: ParentCalls, to: Call, count: int, *, last: bool = True) -> wire.Part:
    start = to.count
    args = [b"arg"] * count
    return calls.add(to, digests(*range(start, start + count)), args, 3 * count, last=last)


def outcome(number: int, start: int, stop: int, **more: Any) -> wire.Outcome:
    fields: dict[str, Any] = {"salt": 0, "fingerprint": FN, "value": b"Vx"} | more
    marks = digests(*range(start, stop), salt=fields["salt"])
    values = [fields["value"]] * (stop - start)
    return wire.Outcome(number, start, fields["fingerprint"], marks, values, spent_s=stop - start)


def test_calls_are_numbered_in_the_order_in_which_they_are_made() -> None:
    calls = made()
    assert [calls.begin(FN, FN).number for _ in range(3)] == [0, 1, 2]
    assert list(calls.open) == [0, 1, 2]


def test_an_item_is_settled_once() -> None:
    calls = made()
    found = call(calls, 2)

    calls.settle(found, outcome(0, 0, 1, value=b"Vfirst"), recovering=False)
    calls.settle(found, outcome(0, 0, 1, value=b"Vsecond"), recovering=False)

    chunk = found.find(0)
    assert chunk is not None
    assert chunk.values == [b"Vfirst"]
    assert (calls.settled, calls.recovered, calls.arrivals) == (1, 0, 1)


def test_an_outcome_of_other_arguments_settles_nothing_and_is_doubted() -> None:
    calls = made()
    found = call(calls, 3)

    doubts = calls.settle(found, outcome(0, 0, 2, salt=1), recovering=False)

    assert [(each.low, each.high, each.what) for each in doubts] == [(0, 2, "its arguments differ")]
    assert doubts[0].took_s == 1.0
    assert list(found.left) == [(0, 3)]
    assert calls.moved.diverged


def test_an_outcome_that_fits_some_items_settles_only_those() -> None:
    calls = made()
    found = call(calls, 3)
    marks = digests(0) + digests(1, salt=5) + digests(2)
    mixed = wire.Outcome(0, 0, FN, marks, [b"Va", b"Vb", b"Vc"])

    doubts = calls.settle(found, mixed, recovering=False)

    assert [(each.low, each.high) for each in doubts] == [(1, 2)]
    assert list(found.left) == [(1, 2)]


def test_an_outcome_of_other_code_is_doubted_unless_its_results_are_reused() -> None:
    for reuse, left in ((), [(0, 1)]), (("m:f",), []):
        calls = made(reuse=reuse)
        found = call(calls, 1)

        doubts = calls.settle(found, outcome(0, 0, 1, fingerprint=OTHER), recovering=False)

        assert [each.what for each in doubts] == ["its code differs"] * len(left)
        assert list(found.left) == left


def test_an_outcome_of_items_that_are_not_made_yet_is_kept() -> None:
    calls = made()
    found = call(calls, 1, last=False)
    early = outcome(0, 0, 2)

    calls.settle(found, early, recovering=True)

    assert list(found.left) == []
    assert calls.ahead == {0: [early]}


def test_a_settled_call_is_dropped() -> None:
    calls = made()
    found = call(calls, 4)
    assert calls.under_way.in_messages > 0

    calls.settle(found, outcome(0, 0, 4), recovering=False)

    assert calls.open == {}
    assert calls.under_way.in_messages == 0


def test_items_that_the_history_settles_are_not_held_any_more() -> None:
    calls = made()
    found = calls.begin(FN, FN)
    calls.held.hold(more(calls, found, 3), [b"arg"] * 3)

    calls.settle(found, outcome(0, 0, 2), recovering=True)

    (part, args), = calls.held.take(0)  # fmt: skip
    assert (part.start, part.count, args) == (2, 1, [b"arg"])
    assert calls.recovered == 2


def test_arguments_are_kept_until_their_item_is_settled() -> None:
    calls = made()
    found = call(calls, 2)
    found.args = {0: b"a", 1: b"b"}

    calls.settle(found, outcome(0, 0, 1), recovering=True)

    assert found.args == {1: b"b"}


def test_a_watch_is_notified_of_its_calls_while_it_is_referenced() -> None:
    calls = made()
    first, second = call(calls, 1), call(calls, 1)
    watch: Watch | None = Watch()
    assert watch is not None
    watch.calls.add(first.number)
    calls.add_watch(watch)

    calls.settle(first, outcome(0, 0, 1), recovering=False)
    calls.settle(second, outcome(1, 0, 1), recovering=False)
    assert list(watch.arrived) == [0]

    watch = None
    gc.collect()
    calls.add_watch(other := Watch())
    assert [each() for each in calls.watches] == [other]


def test_an_unread_call_keeps_only_its_remaining_items() -> None:
    calls = made()
    found = call(calls, 4)
    calls.settle(found, outcome(0, 0, 1), recovering=False)

    calls.abandon(found)
    assert calls.abandoned() == [0]
    assert found.chunks == []

    calls.drop(found, 0, 4)
    assert (calls.open, calls.under_way.in_messages) == ({}, 0)


def test_a_checkpoint_names_calls_that_miss_outcomes_or_have_unread_files() -> None:
    calls = made()
    call(calls, 1)
    waiting, in_file, read = call(calls, 1), call(calls, 1), call(calls, 1)
    calls.settle(in_file, outcome(2, 0, 1, value=b"Bfile"), recovering=False)
    calls.settle(read, outcome(3, 0, 1, value=b"Bfile"), recovering=False)

    del read

    assert calls.readable(waiting.number) == [1, 2]


def test_skipping_to_a_checkpoint_drops_outcomes_except_pending_ones() -> None:
    calls = made()
    for number in range(4):
        calls.keep(outcome(number, 0, 1))

    calls.skip_to(3, [1])

    assert calls.next == 3
    assert sorted(calls.ahead) == [1, 3]
    assert list(calls.skipped) == [(0, 3)]


def test_a_revived_call_of_this_attempt_is_sought_in_the_history() -> None:
    calls = made()
    calls.skip_to(1, [])
    calls.next = 2

    covered = calls.revive(0, FN, FN, 2, digests(2))
    calls.revive(1, FN, FN, 0, digests(0))

    assert list(covered.left) == [(2, 3)]
    assert calls.sought == {1}
    assert calls.made_here(1, 0) is None


def test_a_call_of_this_attempt_is_known_as_its_own() -> None:
    calls = made()
    found = call(calls, 2)

    assert calls.made_here(0, 1) is found
    assert calls.made_here(0, 2) is None
    assert calls.made_here(7, 0) is None
