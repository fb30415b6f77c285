"""A full disk: the broker's machine, its notes, and the output of a worker."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from resilient_scoop.processes.broker import disk
from resilient_scoop.processes.broker.disk import Disk
from resilient_scoop.wire import messages as wire
from tests.unit.bench import ORIGIN, PLAIN, W1, W2, Bench, calls, granted, outcomes, part

RESULT = wire.NoRoom(5 << 20, "a result", "", result=True)


def test_no_item_is_granted_while_results_wait_for_space() -> None:
    # Given two workers that compute
    bench = Bench()
    root = bench.begin(W1, W2)
    first = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    (mine,), (other,) = granted(first, W1), granted(first, W2)

    # When one has no space for its result, then no new work is granted while the other is busy
    bench.tell(W1, RESULT)
    assert not granted(bench.tell(ORIGIN, *calls(part(1, 0, 4), attempt=root)), W2)

    # And when the other has ended, granting continues: the files of its arguments free space
    ended = outcomes(0, other.start, other.start + 1, task=wire.Attempt(1, other.no))
    actions = bench.tell(W2, ended)
    assert granted(actions, W2)
    assert not granted(actions, W1)

    # And when there is space, all is as before
    bench.tell(W1, wire.NoRoom(0))
    assert not bench.broker.membership.roomless.reported
    assert mine.start != other.start


def test_no_space_is_awaited_for_a_lost_worker() -> None:
    bench = Bench()
    bench.begin(W1, W2)
    bench.tell(W1, RESULT)
    bench.tell(W1, wire.Bye())
    assert not bench.broker.membership.roomless.reported


def test_a_full_disk_is_reported_once_with_its_free_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    full = Disk(str(tmp_path))
    assert full.look([], journal=False) == ""
    assert full.full() == ""
    text = full.look([RESULT], journal=False)
    assert text.startswith(f"no space left for a result of 5.2 MB in {tmp_path} (")
    assert full.look([RESULT], journal=True) == ""
    assert "2 processes wait" in full.full()
    assert full.look([], journal=False) == "", "it may be full again at once"
    now += disk.QUIET_S
    assert full.look([], journal=False) == "there is room for it again; the run continues"
    assert full.look([], journal=False) == ""


def test_a_file_size_limit_and_a_full_disk_give_different_reports(tmp_path: Path) -> None:
    mine = Disk(str(tmp_path))
    text = mine.look((), journal=True, reason=f"mdb_txn_commit: {os.strerror(errno.EFBIG)}")
    assert "larger than a file may be here (`ulimit -f`)" in text
    assert "`ulimit -f`" in mine.full()
    mine.look((), journal=False)
    assert "no space left for the journal" in mine.look((), journal=True, reason="No space left")
    assert mine.full().startswith("disk full, ")
