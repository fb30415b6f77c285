"""The findings of the audit in this process, with a session that only has a running future."""

# The clocks of all kinds that a user may call, called as a user calls them:
# ruff: noqa: DTZ005, DTZ011, ICN001, PLW0108, TID251

from __future__ import annotations

import datetime
import os
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resilient_scoop.processes import audit as module
from resilient_scoop.processes.audit import Audit
from resilient_scoop.runs.audit_findings import AuditTail, read_findings


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return made(tmp_path, is_remote=False)


def made(tmp_path: Path, *, is_remote: bool) -> Audit:
    (tmp_path / "logs").mkdir(exist_ok=True)
    context = SimpleNamespace(parent=object(), work=None, path="0")
    settings = SimpleNamespace(run_dir=str(tmp_path), node="alice", is_remote=is_remote)
    session: Any = SimpleNamespace(settings=settings, context=context)
    return Audit(session)


def seen(audit: Audit, *actions: Callable[[], object]) -> list[tuple[str, str]]:
    """Run code under the profiler; return (kind, call) of each finding."""
    before = sys.getprofile()
    sys.setprofile(audit._profile)
    try:
        for action in actions:
            action()
    finally:
        sys.setprofile(before)
    return [(each.kind, each.call) for each in read_findings(audit.file.parent)]


@pytest.mark.parametrize(
    ("action", "kind", "call"),
    [
        (lambda: time.time(), "clock", "time.time"),
        (lambda: time.perf_counter_ns(), "clock", "time.perf_counter_ns"),
        (lambda: datetime.datetime.now(), "clock", "datetime.now"),
        (lambda: datetime.date.today(), "clock", "date.today"),
        (lambda: os.urandom(2), "chance", "os.urandom"),
        (lambda: random.Random(), "chance", "random.__init__"),
        (lambda: random.SystemRandom().random(), "chance", "random.random"),
        (lambda: uuid.uuid4(), "uuid", "uuid.uuid4"),
        (lambda: uuid.uuid1(), "uuid", "uuid.uuid1"),
    ],
)
def test_varying_calls_are_found(
    audit: Audit, action: Callable[[], object], kind: str, call: str
) -> None:
    assert (kind, call) in seen(audit, action)


def test_repeatable_calls_are_not_reported(audit: Audit) -> None:
    same = (
        lambda: random.Random(3), lambda: time.sleep(0), lambda: datetime.date(2024, 1, 1),
        lambda: random.random(), lambda: sorted([2, 1]),
    )  # fmt: skip
    assert seen(audit, *same) == []


def test_a_position_is_reported_once_with_its_line(audit: Audit) -> None:
    def clock() -> float:
        return time.time()  # here

    seen(audit, clock, clock, clock)
    (found,) = read_findings(audit.file.parent)
    assert (found.function, found.file, found.parent) == ("clock", __file__, "0")
    assert found.text == "return time.time()  # here"
    assert f"{__file__}:{found.line}" in found.message


def test_a_finding_in_a_library_is_reported_at_its_caller(audit: Audit) -> None:
    import tempfile

    seen(audit, lambda: tempfile.mkdtemp(dir=audit.file.parent))
    assert {each.file for each in read_findings(audit.file.parent)} <= {__file__}


def test_a_task_without_calls_is_not_checked_and_a_parent_is(audit: Audit) -> None:
    leaf: Any = SimpleNamespace(parent=None, work=object(), path="0.0[0]")
    audit.session.context = leaf
    assert seen(audit, lambda: time.time()) == []

    parent: Any = SimpleNamespace(parent=None, work=object(), path="0.0[1]")
    audit.session.context = parent
    assert seen(audit, lambda: time.monotonic()) == []
    parent.parent = object()
    audit._became_parent()
    assert seen(audit) == [("clock", "time.monotonic")]


def test_written_files_and_read_files_are_distinguished() -> None:
    writes = [("f", "w", 0), ("f", "r+", 0), ("f", "xb", 0), ("f", None, os.O_WRONLY | os.O_CREAT)]
    reads = [
        ("f", "r", 0),
        ("f", "rb", 0),
        ("f", None, os.O_RDONLY),
        (os.devnull, "w", 0),
        (3, "w", 0),
    ]
    assert [module._writes(*each) for each in (*writes, *reads)] == [True] * 4 + [False] * 5


def test_findings_are_read_as_they_arrive_and_an_incomplete_line_is_left_for_later(
    audit: Audit,
) -> None:
    tail = AuditTail(audit.file.parent)
    assert tail.new() == []
    seen(audit, lambda: time.time())
    data = audit.file.read_bytes()
    audit.file.write_bytes(data[:-5])
    assert tail.new() == []
    audit.file.write_bytes(data + data)
    assert len(tail.new()) == 1
    assert tail.new() == []


def test_findings_of_other_hosts_are_read_too_and_each_position_once(
    audit: Audit, tmp_path: Path
) -> None:
    there = made(tmp_path, is_remote=True)
    assert there.file.name == "alice:audit.jsonl"
    (tmp_path / "logs" / "x:y:audit.jsonl").write_text("not ours")
    tail = AuditTail(tmp_path / "logs")
    for each in (there, audit, there):
        seen(each, lambda: time.time())
        assert len(tail.new()) == (each is there and not audit.file.exists())
    AuditTail.start(tmp_path / "logs")
    assert not there.file.exists()
    assert read_findings(tmp_path / "logs") == []
