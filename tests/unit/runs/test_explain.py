"""Paths as users type them, and the history of one item in the journal."""

from __future__ import annotations

import msgspec
import pytest

from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.errors import UsageError
from resilient_scoop.runs.explain import BatchStory, Story, parse_path
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    FN,
    ORIGIN,
    PLAIN,
    W1,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
)

NOW = wire.Attempt(1, 1)


@pytest.mark.parametrize("text", ["0", "0.3", "0.3[17]", "0.3[17].0", "0.3[17].0[2]", " 0.3 [17] "])
def test_a_path_is_accepted_as_it_is_displayed(text: str) -> None:
    assert parse_path(text) == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "1", "0.", "0.3[", "0.3[x]", "0.3[1][2]", "0[3]", "last", "0.3.4"]
)
def test_an_invalid_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not the path"):
        parse_path(text)


def story(*records: wire.Logged) -> Story:
    state = DurableState(b"r" * 16)
    state.defines[FN] = PLAIN
    story = Story(state, 1, 0)
    for record in records:
        story.visit(record)
    return story


def asked(salt: int = 0, *, fresh: bool = False) -> wire.Calls:
    return wire.Calls("0", NOW, [part(0, 0, 3, salt=salt, fresh=fresh)])


def test_an_item_s_events_are_shown_in_their_order() -> None:
    death = wire.Crashed("0", 0, 1, -11, "crash", digests(1), b"w", 1_700_000_000.0)
    other = wire.Crashed("0", 0, 2, -9, "oom", digests(2))
    found = story(asked(), death, other, outcomes(0, 0, 3))
    assert found.events == [
        "it was called: plain",
        "its worker died at 2023-11-14T22:13:20+00:00, SIGSEGV, while it was executing this call",
        "it was done, by the broker, after 0.00333 s",
    ]
    assert (found.outcome, found.failed) == (b"Vvalue1", False)


def test_the_reason_is_shown_for_an_item_that_is_called_again() -> None:
    found = story(asked(), outcomes(0, 0, 3), asked(4, fresh=True))
    assert found.events[-1] == "it was called again, to be computed again: its arguments differed"
    assert found.outcome is None
    same = story(asked(), outcomes(0, 0, 3), asked())
    assert same.outcome == b"Vvalue1"


def test_a_failed_item_beyond_the_end_of_a_shortened_batch_is_gone() -> None:
    cut = story(asked(), outcomes(0, 0, 3), wire.Calls("0", NOW, [part(0, 0, 1)]))
    assert cut.outcome is None
    assert cut.events[-1] == "its batch was made again, with fewer items"
    kept = story(asked(), outcomes(0, 0, 3), wire.Calls("0", NOW, [part(0, 0, 2)]))
    assert kept.outcome == b"Vvalue1"


def test_failures_beyond_the_end_of_a_shortened_batch_are_gone() -> None:
    batch = BatchStory(DurableState(b"r" * 16), 0)
    failed = wire.Outcome(0, 0, FN, digests(0, 1, 2), [b"X"] * 3, [0, 2])
    for record in (
        asked(), wire.Outcomes("0", [failed]), wire.Calls("0", NOW, [part(0, 0, 2)])
    ):  # fmt: skip
        batch.visit(record)
    assert batch.failed == {0}
    batch.visit(asked(fresh=True))
    assert batch.failed == set()


def test_a_death_is_shown_with_its_time() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN)
    (task,) = granted(bench.tell(ORIGIN, *calls(part(0, 0, 1), attempt=root)), W1)
    on_cpu = wire.Attempt(1, task.no)
    bench.tell(AGENT, wire.ProcessLost(W1, -11, "crash", on_cpu, 0, "0", 0, 1_700_000_000.0))
    (crashed,) = [each for each in bench.logged() if isinstance(each, wire.Crashed)]
    assert (crashed.exit, crashed.at) == (-11, 1_700_000_000.0)


def test_the_worker_of_an_item_is_described_in_words() -> None:
    ran = outcomes(0, 0, 3)
    worked = [msgspec.structs.replace(each, task=NOW) for each in ran.items]
    moved = [msgspec.structs.replace(each, pure=True) for each in ran.items]
    for items, who in ((worked, "by a worker"), (moved, "with the result of an equal call")):
        found = story(asked(), msgspec.structs.replace(ran, items=items))
        assert found.events[-1] == f"it was done, {who}, after 0.00333 s"
