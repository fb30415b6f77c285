from __future__ import annotations

from chaos import recovery
from chaos.evidence import LedgerLine
from chaos.recovery import Recovery


def line(at_s: float, mark: str, path: str, host: str = "bob", pid: int = 7) -> LedgerLine:
    return LedgerLine(mark, path, pid, at_s, host)


LEDGER = [
    line(1.0, "start", "0.0[0]"), line(1.0, "start", "0.0[1]", pid=8),
    line(1.1, "start", "0.0[2]", "alice"), line(1.5, "end", "0.0[1]", pid=8),
    line(3.0, "start", "0.0[0]", "alice"), line(4.0, "end", "0.0[2]", "alice"),
    line(5.0, "start", "0.0[3]"),
]  # fmt: skip


def test_items_that_a_lost_worker_had_not_ended_count_as_interrupted() -> None:
    assert recovery.interrupted(LEDGER, 2.0, [], "bob") == {"0.0[0]"}
    assert recovery.interrupted(LEDGER, 1.2, [], "bob") == {"0.0[0]", "0.0[1]"}
    assert recovery.interrupted(LEDGER, 1.2, [8], "bob") == {"0.0[1]"}
    assert recovery.interrupted(LEDGER, 0.5, [], "bob") == set()


def test_items_that_make_calls_are_not_counted_as_interrupted() -> None:
    lines = [line(1.0, "start", "0.0[0]"), line(1.1, "start", "0.0[0].0[2]")]
    assert recovery.interrupted(lines, 2.0, [], "bob") == {"0.0[0].0[2]"}


def test_work_has_recovered_when_its_last_item_has_started_again() -> None:
    assert recovery.work_s(LEDGER, 2.0, {"0.0[0]"}) == 1.0
    assert recovery.work_s(LEDGER, 2.0, set()) is None


def test_a_host_has_recovered_when_it_starts_an_item() -> None:
    assert recovery.host_s(LEDGER, 3.0, "bob") == 2.0
    assert recovery.host_s(LEDGER, 5.0, "bob") is None


def test_the_table_has_a_line_for_each_kind() -> None:
    found = [
        Recovery("reboot", 1.0, 2.0),
        Recovery("reboot", 3.0, None),
        Recovery("sleep", None, None),
    ]
    head, reboot, sleep = recovery.table(found).splitlines()
    assert "count" in head
    assert reboot.split() == ["reboot", "2", "1.00", "s", "3.00", "s", "2.00", "s", "2.00", "s"]
    assert sleep.split() == ["sleep", "1", "-", "-", "-", "-"]
