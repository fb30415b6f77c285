"""The failed calls in the log of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.runs.failed_items import failed_items
from resilient_scoop.runs.status import open_view
from resilient_scoop.wire import messages as wire
from tests.unit.cli_runs import FIRST, journaled, log, new, outcome, part


def failed(state: Path, *records: wire.Logged) -> list[tuple[str, int]]:
    """Return the paths of the failed items, with the number of their attempts."""
    run = journaled(new(state), *(log(seq, record) for seq, record in enumerate(records, 7)))
    view = open_view(run)
    assert view is not None
    with view:
        found, count = failed_items(view)
    assert count == len(found)
    return [(each.path, each.attempts) for each in found]


def test_a_failed_item_is_found(tmp_path: Path) -> None:
    assert failed(tmp_path) == [("0.0[7]", 1)]


def test_an_item_that_is_called_again_has_not_failed(tmp_path: Path) -> None:
    again = wire.Calls("0", FIRST, [part(0, 6, 4, last=True, fresh=True)])
    assert failed(tmp_path, again) == []


@pytest.mark.parametrize(("size", "count"), [(7, 0), (8, 1)])
def test_a_failed_item_beyond_the_end_of_a_shortened_batch_is_gone(
    size: int, count: int, tmp_path: Path
) -> None:
    shorter = wire.Calls("0", FIRST, [part(0, 0, size, last=True)])
    assert len(failed(tmp_path, shorter)) == count


def test_deaths_before_a_batch_was_shortened_do_not_count(tmp_path: Path) -> None:
    found = failed(
        tmp_path,
        wire.Calls("0", FIRST, [part(1, 0, 3, last=True)]),
        wire.Calls("0", FIRST, [part(1, 3, 2, last=True)]),
        wire.Crashed("0", 1, 3, -9, "oom", b"d" * 8),
        wire.Outcomes("0", [outcome(1, 3, 1, [0])]),
    )
    assert found == [("0.0[7]", 1), ("0.1[3]", 1)]
