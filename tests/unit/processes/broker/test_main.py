"""What a broker takes from the journal when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from resilient_scoop.core.events import PYTHON_KEY, Put, Table
from resilient_scoop.core.facts.fold import apply
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.ids import ROOT
from resilient_scoop.journal.journal import Journal
from resilient_scoop.processes.broker.main import MINOR, forget_of_another_python
from resilient_scoop.wire import messages as wire
from tests.unit.bench import RUN, part

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("began_with", "recorded", "forgotten"),
    [
        (f"{MINOR}.9", None, 0),
        ("3.1.4", None, 2),
        ("3.1.4", MINOR, 0),
        (f"{MINOR}.9", "3.1", 2),
    ],
)
def test_items_in_flight_under_another_minor_version_of_python_are_forgotten(
    tmp_path: Path, began_with: str, recorded: str | None, forgotten: int
) -> None:
    journal = Journal.create(tmp_path / "journal", RUN)
    if recorded is not None:
        journal.commit([Put(Table.META, PYTHON_KEY, recorded.encode())])
    state = DurableState(RUN)
    apply(state, wire.Calls(ROOT, wire.Attempt(1, 1), [part(0, 0, 2)]), 1, [b"a", b"b"])

    assert forget_of_another_python(journal, state, began_with) == forgotten
    assert state.parent(ROOT).batches[0].undone.count() == 2 - forgotten
    assert journal.get(Table.META, PYTHON_KEY) == MINOR.encode()
    journal.close(clean=True)
