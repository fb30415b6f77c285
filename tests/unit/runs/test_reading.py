"""An outcome that is computed again does not count any more: `Run.outcome` agrees with `Run.items`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.errors import UsageError
from resilient_scoop.runs import Run, reading
from resilient_scoop.wire import messages as wire
from tests.unit.bench import calls, outcomes, part

ATTEMPT = wire.Attempt(1, 1)


class Info:
    id = "2qn9aaaa"


@pytest.mark.parametrize(
    "again", [None, part(0, 1, 2, fresh=True), part(0, 0, 1)], ids=["once", "again", "shorter"]
)
def test_an_item_that_is_computed_again_or_truncated_has_no_outcome(
    again: wire.Part | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked = [calls(part(0, 0, 2), attempt=ATTEMPT)[0], outcomes(0, 0, 2)]
    if again is not None:
        asked.append(calls(again, attempt=ATTEMPT)[0])
    monkeypatch.setattr(reading, "records", lambda _: iter(asked))
    monkeypatch.setattr(reading, "names_of_functions", lambda _: {})

    @contextmanager
    def view(_: Run) -> Iterator[object]:
        yield object()

    monkeypatch.setattr(Run, "_view", view)
    info: Any = Info()
    folder: Any = tmp_path
    run = Run(folder, info)

    assert not run.outcome("0.0[0]").failed
    if again is not None:
        with pytest.raises(UsageError, match="has no outcome"):
            run.outcome("0.0[1]")
    else:
        assert not run.outcome("0.0[1]").failed
