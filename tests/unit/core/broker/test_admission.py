"""A message that no healthy process sends is refused before anything of it is handled."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_scoop.core.broker.admission import check
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, calls, digests, outcomes, part

NOW = wire.Attempt(1, 1)


def outcome(**more: Any) -> wire.Outcomes:
    fields: dict[str, Any] = {"call": 0, "start": 0, "digests": digests(0), "failed": []} | more
    made = wire.Outcome(
        fields["call"], fields["start"], FN, fields["digests"], [b"Vx"], fields["failed"], 0.0
    )
    return wire.Outcomes(ROOT, [made])


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([outcome(digests=b"short")], "outcome of 1 items with 5 bytes of digests"),
        ([outcome(start=-1)], "outcome of 1 items"),
        ([outcome(call=-1)], "outcome of 1 items"),
        ([outcome(failed=[1])], "a failed item is none of its items"),
        ([wire.Args([b"a"])], "arguments without calls"),
        ([wire.Calls(ROOT, NOW, [part(0, 0, 1)])], "calls without arguments"),
        (calls(part(0, 0, 1), parent="no path", attempt=NOW), "no path: 'no path'"),
        (
            [wire.Calls(ROOT, NOW, [part(0, 0, 2)]), wire.Args([b"a"])],
            "calls of 2 items with 1 arguments",
        ),
        (
            [wire.Calls(ROOT, NOW, [wire.Part(0, 0, 2, FN, b"", last=True)]), wire.Args([b"a"])],
            "part of 2 items, 0 bytes of digests",
        ),
        ([wire.Observed(ROOT, NOW, [])], "observations: 0 of '0'"),
        ([wire.Abandon("x", NOW, [0])], "calls given up: 1 of 'x'"),
        ([wire.Abandon(ROOT, NOW, [-1])], "calls given up: 1 of '0'"),
        ([wire.Unfit("x", 0, b"", "")], "no path: 'x'"),
        ([wire.OpenBlocks(1, [ROOT, "x"])], "no path: "),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_malformed_message_is_refused_with_the_reason(messages: list[wire.Up], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        check(messages)


def test_well_formed_messages_pass() -> None:
    check([*calls(part(0, 0, 2), attempt=NOW), outcomes(0, 0, 2), wire.OpenBlocks(1, [ROOT])])
