"""A visitor of LOG is called for each record."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import calls, digests, outcomes, part

NOW = wire.Attempt(1, 1)


class Listener(LogVisitor):
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in vars(LogVisitor) and name not in ("visit", "__slots__"):
            return lambda *args: self.calls.append((name, *map(str, args[1:] or ("",))))
        return found


def methods_called(record: wire.Logged) -> list[str]:
    listener = Listener()
    listener.visit(record)
    return [each[0] for each in listener.calls]


@pytest.mark.parametrize(
    ("record", "method"),
    [
        (outcomes(0, 0, 2), "ended"),
        (wire.Observed(ROOT, NOW, [wire.Observation(0, "done", 0, b"")]), "observed"),
        (wire.Crashed(ROOT, 0, 1, -9, "crash", digests(1)), "died"),
        (wire.Intent(ROOT, 0, 1, 1, digests(1)), "began"),
        (wire.Abandoned(ROOT, 0, [(1, 2)]), "given_up"),
        (wire.Trimmed(ROOT, [(0, 1)], [], 3, []), "trimmed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_visitor_calls_the_method_for_the_kind_of_a_record(record: Any, method: str) -> None:
    assert methods_called(record) == [method]


def test_the_visitor_reports_the_items_of_a_part_then_its_end_then_renewed_items() -> None:
    record, _ = calls(part(0, 2, 4, fresh=True), part(1, 0, 3, last=False), attempt=NOW)
    assert isinstance(record, wire.Calls)
    listener = Listener()

    listener.visit(record)

    assert [(name, args[-2:]) for name, *args in listener.calls if name != "asked"] == [
        ("cut_off", ["0", "4"]),
        ("renewed", ["2", "4"]),
    ]
    assert [name for name, *_ in listener.calls] == ["asked", "cut_off", "renewed", "asked"]
    assert [args[-1] for name, *args in listener.calls if name == "asked"] == ["0", "2"]
