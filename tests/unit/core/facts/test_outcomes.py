"""Parts of an outcome, as separate outcomes."""

from __future__ import annotations

from resilient_scoop.core.facts.outcomes import parts_of, succeeded
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests


def outcome(*failed: int) -> wire.Outcome:
    """Return an outcome of items 10 to 14, which took 5 s."""
    values = [b"Vvalue%d" % index for index in range(10, 15)]
    return wire.Outcome(3, 10, FN, digests(*range(10, 15)), values, list(failed), 5.0)


def test_a_part_has_the_values_digests_and_failures_of_its_items_and_its_share_of_the_time() -> (
    None
):
    [part] = parts_of(outcome(2, 4), [(11, 13)])
    assert (part.call, part.start, part.values) == (3, 11, [b"Vvalue11", b"Vvalue12"])
    assert (part.digests, part.failed, part.spent_s) == (digests(11, 12), [1], 2.0)


def test_the_successful_items_of_an_outcome_with_failures_are_kept() -> None:
    found = succeeded(outcome(0, 2))
    assert [(each.start, len(each.values), each.failed) for each in found] == [
        (11, 1, []),
        (13, 2, []),
    ]


def test_an_outcome_whose_items_have_all_failed_is_dropped() -> None:
    assert succeeded(outcome(*range(5))) == []
