"""The journal and its double in memory pass the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import InvariantError, JournalError, JournalFullError
from resilient_scoop.journal import journal as journal_module
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN
from resilient_scoop.journal.committer import Committer
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.store import JournalStore
from resilient_scoop.journal.write import (
    KEY_BYTES_MAX,
    Gone,
    Puts,
    write,
)
from tests.fakes import Failure, MemoryCommitter, MemoryJournal

RUN = b"r" * 16
AnyJournal = Journal | MemoryJournal


def log(*keys: bytes, value: bytes = b"v") -> list[Change]:
    return [Put(Table.LOG, key, value + key) for key in keys]


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


class World:
    """A journal, and what can happen to it."""

    def __init__(self, kind: str, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.patch = patch
        self.journal: AnyJournal = (
            MemoryJournal(RUN) if kind == "memory" else Journal.create(directory, RUN)
        )

    def reopen(self) -> AnyJournal:
        """End the process without closing the journal, and open the journal again."""
        if isinstance(self.journal, MemoryJournal):
            self.journal = self.journal.crash()
        else:
            self.journal.close(clean=False)
            self.journal = Journal.open(self.directory, run=RUN)
        return self.journal

    def fail_next(self, failure: Failure) -> None:
        if isinstance(self.journal, MemoryJournal):
            self.journal.fail_next(failure)
        else:
            self.patch.setattr(journal_module, "write", failing(failure))


def failing(failure: Failure) -> Callable[..., Gone]:
    """Return a `write` that fails once as LMDB does, at its commit."""
    code = {Failure.NO_SPACE: 28}.get(failure, 5)
    left = [1]

    def failing_write(store: JournalStore, steps: list[Puts | Erase], **how: bool) -> Gone:
        if not left or failure is Failure.IO_ERROR_BUT_WRITTEN:
            done = write(store, steps, **how)
            if not left:
                return done
        left.clear()
        error = lmdb.DiskError("mdb_txn_commit")
        setattr(error, "code", code)  # noqa: B010 - as LMDB itself does
        raise error

    return failing_write


@pytest.fixture(params=["lmdb", "memory"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    world = World(request.param, tmp_path / "journal", monkeypatch)
    yield world
    world.journal.close(clean=False)


def test_committed_records_are_read_in_key_order(world: World) -> None:
    world.journal.commit(log(b"b", b"c", b"a"))
    assert world.journal.read(Table.LOG) == [(b"a", b"va"), (b"b", b"vb"), (b"c", b"vc")]
    assert world.journal.get(Table.LOG, b"b") == b"vb"
    assert world.journal.count(Table.LOG) == 3


def test_committed_records_survive_a_crash(world: World) -> None:
    world.journal.commit(log(b"a", b"b"))
    assert world.reopen().read(Table.LOG) == [(b"a", b"va"), (b"b", b"vb")]


def test_tables_do_not_see_each_other(world: World) -> None:
    world.journal.commit([Put(Table.LOG, b"k", b"log"), Put(Table.ARGS, b"k", b"args")])
    world.journal.commit([Erase(Table.ARGS, b"")])
    assert world.journal.get(Table.LOG, b"k") == b"log"
    assert world.journal.get(Table.ARGS, b"k") is None


def test_a_record_put_and_erased_in_one_commit_does_not_exist(world: World) -> None:
    put = Put(Table.ARGS, b"key", b"args")
    world.journal.commit([put, Erase(Table.ARGS, b"key")])
    assert world.journal.get(Table.ARGS, b"key") is None
    world.journal.commit([put])
    world.journal.commit([Erase(Table.ARGS, b"key"), put])  # the order is kept
    assert world.journal.get(Table.ARGS, b"key") == b"args"
    world.journal.commit([put, Erase(Table.ARGS, b"ke")])
    assert world.journal.get(Table.ARGS, b"key") is None


def test_a_new_journal_knows_its_run_and_generation(world: World) -> None:
    assert world.journal.get(Table.META, b"run") == RUN
    assert world.journal.generation == 1
    assert world.reopen().generation == 2


def test_missing_records_read_as_nothing(world: World) -> None:
    assert world.journal.get(Table.LOG, b"k") is None
    assert world.journal.read(Table.LOG, b"k") == []
    assert list(world.journal.scan(Table.EVENT)) == []


def test_a_read_returns_the_keys_with_the_prefix_that_follow_a_key(world: World) -> None:
    world.journal.commit(log(b"a1", b"b1", b"b2", b"b3", b"c1"))
    read = world.journal.read
    assert [key for key, _ in read(Table.LOG, b"b")] == [b"b1", b"b2", b"b3"]
    assert [key for key, _ in read(Table.LOG, b"b", b"b1")] == [b"b2", b"b3"]
    assert [key for key, _ in read(Table.LOG, b"b", b"b11")] == [b"b2", b"b3"]
    assert [key for key, _ in read(Table.LOG, b"b", b"a")] == [b"b1", b"b2", b"b3"]
    assert read(Table.LOG, b"b", b"b3") == []


def test_a_page_ends_with_the_record_that_fills_it(world: World) -> None:
    world.journal.commit([Put(Table.LOG, number(i), b"x" * 10) for i in range(5)])
    assert len(world.journal.read(Table.LOG, limit_bytes=1)) == 1
    assert len(world.journal.read(Table.LOG, limit_bytes=20)) == 2
    assert len(world.journal.read(Table.LOG, limit_bytes=21)) == 3


def test_a_scan_yields_every_record_across_pages(world: World) -> None:
    world.journal.commit([Put(Table.LOG, number(i), b"x" * 1000) for i in range(9000)])
    assert [key for key, _ in world.journal.scan(Table.LOG)] == [number(i) for i in range(9000)]


def test_changes_to_a_table_are_applied_in_their_order(world: World) -> None:
    world.journal.commit(
        [
            *log(b"a1", b"a2", value=b"old"),
            Erase(Table.LOG, b"a"),
            *log(b"a2", value=b"first"),
            *log(b"a2", value=b"last"),
            *log(b"a0"),
        ]
    )
    assert world.journal.read(Table.LOG) == [(b"a0", b"va0"), (b"a2", b"lasta2")]


def test_an_erasure_takes_what_begins_with_its_prefix_only(world: World) -> None:
    world.journal.commit(log(b"a", b"ab", b"ac", b"b", b"\xff", b"\xff\xff"))
    world.journal.commit([Erase(Table.LOG, b"ab"), Erase(Table.LOG, b"\xff")])
    assert [key for key, _ in world.journal.read(Table.LOG)] == [b"a", b"ac", b"b"]


@pytest.mark.parametrize("size_bytes", [0, 1, 5000, BLOB_BYTES_MIN, BLOB_BYTES_MIN + 1, 5 << 20])
def test_a_payload_of_any_size_comes_back(world: World, size_bytes: int) -> None:
    payload = bytes(range(251)) * (size_bytes // 251 + 1)
    world.journal.commit([Put(Table.CONST, b"k", payload[:size_bytes])])
    assert world.reopen().get(Table.CONST, b"k") == payload[:size_bytes]
    assert world.journal.read(Table.CONST) == [(b"k", payload[:size_bytes])]


@pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1)])
def test_a_key_that_does_not_fit_is_refused_and_nothing_is_written(
    world: World, key: bytes
) -> None:
    with pytest.raises(ValueError, match="a key of"):
        world.journal.commit([*log(b"a"), Put(Table.LOG, key, b"v")])
    world.journal.commit([*log(b"b"), Put(Table.LOG, b"k" * KEY_BYTES_MAX, b"v")])
    assert world.journal.count(Table.LOG) == 2


def test_a_commit_without_space_writes_nothing_and_the_journal_stays_usable(world: World) -> None:
    world.journal.commit(log(b"a"))
    world.fail_next(Failure.NO_SPACE)
    with pytest.raises(JournalFullError, match="no room"):
        world.journal.commit([Erase(Table.LOG, b"a"), *log(b"b")])
    assert world.journal.read(Table.LOG) == [(b"a", b"va")]
    world.journal.commit(log(b"b"))
    assert world.reopen().count(Table.LOG) == 2


@pytest.mark.parametrize("failure", [Failure.IO_ERROR, Failure.IO_ERROR_BUT_WRITTEN])
def test_a_journal_writes_nothing_after_a_disk_error(world: World, failure: Failure) -> None:
    world.journal.commit(log(b"a"))
    world.fail_next(failure)
    for key in (b"b", b"c"):
        with pytest.raises(JournalError) as caught:
            world.journal.commit(log(key))
        assert not isinstance(caught.value, JournalFullError)
    keys = [key for key, _ in world.reopen().read(Table.LOG)]
    assert keys == [b"a"] + [b"b"] * (failure is Failure.IO_ERROR_BUT_WRITTEN)


def test_a_closed_journal_refuses_commits(world: World) -> None:
    world.journal.close(clean=True)
    with pytest.raises(InvariantError):
        world.journal.commit(log(b"a"))


@pytest.mark.parametrize("kind", ["thread", "memory"])
def test_a_committer_commits_turns_in_order(world: World, kind: str) -> None:
    if isinstance(world.journal, MemoryJournal) and kind == "memory":
        committer: Committer | MemoryCommitter = MemoryCommitter(world.journal)
    else:
        committer = Committer(world.journal, lambda: None)
    for turn in range(1, 100):
        committer.put(turn, log(number(turn % 7), value=number(turn)))
    assert committer.flush(30.0)
    assert (committer.committed, committer.queued_bytes) == (99, 0)
    assert world.journal.get(Table.LOG, number(1)) == number(99) + number(1)
    committer.close()
