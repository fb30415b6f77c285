"""The broker keeps the newest progress of running items, only for the same call, and for a limited time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core.broker.exchange import Exchange
from resilient_scoop.core.events import Action, Erase, GrantStored, Put, Table
from resilient_scoop.core.facts.fold import apply
from resilient_scoop.core.facts.progress import SCRIPT
from resilient_scoop.ids import ROOT
from resilient_scoop.runs.reports import items_text, script_text
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    FN,
    ORIGIN,
    PLAIN,
    RUN,
    W1,
    W2,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
)


def progress(attempt: wire.Attempt, done: int, index: int = 0, **more: Any) -> wire.Progress:
    """Return a progress message of an item of the root's call 0."""
    salt, fn = more.pop("salt", 0), more.pop("fn", FN)
    digest = digests(index, salt=salt)
    payload = b"at %d" % done
    return wire.Progress(ROOT, attempt, 0, index, fn, digest, done, 10, payload, **more)


def running(*workers: bytes, items: int = 1) -> tuple[Bench, wire.Attempt]:
    bench = Bench()
    root = bench.begin(W1, W2)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, items), attempt=root))
    tasks = [task for worker in (W1, W2) for task in granted(actions, worker)]
    (first,) = [task for task in tasks if task.start == 0]
    return bench, wire.Attempt(1, first.no)


def holder(bench: Bench) -> Any:
    """Return the holder of item 0."""
    leases = bench.broker.scheduler.leases.values()
    (lease,) = [x for x in leases if 0 in x.left and x.batch.parent.path == ROOT]
    return lease.peer.id


def kept(bench: Bench) -> list[bytes]:
    """Return the payloads in the journal."""
    found = [wire.decode_up(raw) for (t, _), raw in bench.journal.items() if t is Table.PROGRESS]
    return [message.payload for message in found if isinstance(message, wire.Progress)]


class _Journal:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.bench.journal.get((table, key))

    def read(self, *_: Any) -> list[tuple[bytes, bytes]]:
        return []


def handed_out(bench: Bench, actions: Sequence[Action]) -> list[wire.Task]:
    """Return the tasks of the grants that wait for the commit, as the workers get them."""
    exchange = Exchange(bench.broker, RUN[:8], print)
    tasks: list[wire.Task] = []
    for stored in [action for action in actions if isinstance(action, GrantStored)]:
        mail = exchange._carry_out(stored, _Journal(bench))
        grant = wire.decode_down(mail.frames[-1])
        assert isinstance(grant, wire.Grant)
        tasks += grant.tasks
    return tasks


def die(bench: Bench, attempt: wire.Attempt) -> list[Action]:
    return bench.tell(AGENT, wire.ProcessLost(holder(bench), -9, "crash", attempt, 0))


def test_the_next_attempt_of_an_item_gets_its_last_payload() -> None:
    # Given an item that has reported progress twice
    bench, attempt = running()
    bench.tell(holder(bench), progress(attempt, 1))
    actions = bench.tell(holder(bench), progress(attempt, 2))

    # Then one record is kept, and no commit is forced for it
    (put,) = [action for action in actions if isinstance(action, Put)]
    assert (put.table, put.forced) == (Table.PROGRESS, False)
    assert kept(bench) == [b"at 2"]

    # When its worker dies, then the next worker gets the record, as the second attempt
    (task,) = handed_out(bench, die(bench, attempt))
    assert (task.resume, task.tries) == (b"at 2", 1)


def test_progress_is_kept_after_all_processes_were_killed() -> None:
    bench, attempt = running()
    bench.tell(holder(bench), progress(attempt, 3))

    # When a new broker begins on the journal, and no process is left
    other = bench.again(adopt=False)
    other.arrive(ORIGIN)
    actions = other.arrive(W1)

    (task,) = handed_out(other, actions)
    assert (task.resume, task.tries) == (b"at 3", 1)


def test_progress_is_erased_in_the_commit_of_the_outcome() -> None:
    bench, attempt = running()
    bench.tell(holder(bench), progress(attempt, 1))

    actions = bench.tell(holder(bench), outcomes(0, 0, 1, task=attempt))

    assert Table.PROGRESS in [a.table for a in actions if isinstance(a, Erase)]
    assert not kept(bench)
    assert not bench.broker.state.progress.batches


def test_progress_of_another_call_is_ignored() -> None:
    bench, attempt = running()
    for stray in (
        progress(attempt, 1, salt=1),
        progress(attempt, 1, fn=b"another function"),
        progress(attempt, 1, index=5),
        wire.Progress("0.0[0]", attempt, 0, 0, FN, digests(0), 1, 2, b"payload"),
    ):
        bench.tell(holder(bench), stray)
    assert not kept(bench)


def test_progress_is_erased_when_another_call_replaces_the_item() -> None:
    # Given a progress report, and a parent that comes back and makes another call
    bench, attempt = running()
    bench.tell(holder(bench), progress(attempt, 1))
    bench.tell(AGENT, wire.ProcessLost(ORIGIN, -9, "crash"))
    bench.arrive(ORIGIN)
    assert bench.broker.members.root is not None
    root = bench.broker.members.root[0]

    bench.tell(ORIGIN, *calls(part(0, 0, 1, salt=9), attempt=root))

    assert not kept(bench)


def test_progress_is_kept_when_the_same_call_is_made_again() -> None:
    bench, attempt = running()
    bench.tell(holder(bench), progress(attempt, 1))
    bench.broker.state.forget_item(bench.broker.state.parents[ROOT].batches[0], 0)
    part_again = part(0, 0, 1)

    apply(bench.broker.state, wire.Calls(ROOT, attempt, [part_again]), 99, [b"arg0"])

    assert not bench.broker.state.progress.stale
    assert bench.broker.state.progress.within(ROOT, 0)


def test_an_older_attempt_does_not_overwrite_a_later_one() -> None:
    # Given an item whose worker counts as lost, and that runs again
    bench, first = running()
    one = holder(bench)
    bench.tell(one, progress(first, 5))
    (task,) = handed_out(bench, die(bench, first))
    second = wire.Attempt(1, task.no)
    bench.tell(holder(bench), progress(second, 6, tries=1))

    # When the last report of the lost worker arrives late
    bench.tell(one, progress(first, 9))

    assert kept(bench) == [b"at 6"]


def test_the_last_progress_of_a_dead_worker_counts() -> None:
    bench, attempt = running()
    one = holder(bench)
    die(bench, attempt)

    bench.tell(one, progress(attempt, 7))

    assert kept(bench) == [b"at 7"]


def test_an_item_with_a_history_replays_without_its_progress() -> None:
    bench, attempt = running()
    path = "0.0[0]"
    bench.tell(
        holder(bench), progress(attempt, 1), *calls(part(0, 0, 1), parent=path, attempt=attempt)
    )

    actions = die(bench, attempt)

    tasks = [*granted(actions, W1), *granted(actions, W2)]
    assert [(task.replay, task.resume) for task in tasks if task.parent == ROOT] == [(True, b"")]


def test_an_item_with_progress_is_granted_alone() -> None:
    # Given a broker that knows that items are short, and one of many items with progress
    bench, attempt = running(items=1)
    bench.broker.scheduler.measure(FN, 1000, 0.1)
    bench.tell(holder(bench), outcomes(0, 0, 1, task=attempt))
    assert bench.broker.members.root is not None
    root = bench.broker.members.root[0]
    actions = bench.tell(ORIGIN, *calls(part(1, 0, 200), attempt=root))
    slices = [(task.start, len(task.args)) for w in (W1, W2) for task in granted(actions, w)]
    assert max(count for _, count in slices) > 10
    lease = next(x for x in bench.broker.scheduler.leases.values() if 3 in x.left)
    digest = lease.batch.facts.digests_of(3, 4)
    message = wire.Progress(ROOT, lease.attempt, 1, 3, FN, digest, 1, None, b"here")
    bench.tell(lease.peer.id, message)

    # When its worker is lost
    actions = bench.tell(AGENT, wire.ProcessLost(lease.peer.id, -9, "asked"))
    actions += bench.arrive(lease.peer.id)

    alone = handed_out(bench, actions)
    assert [(task.start, len(task.args), task.resume) for task in alone] == [(3, 1, b"here")]


def test_progress_of_the_script_is_kept_until_the_run_ends() -> None:
    bench, _ = running()
    assert bench.broker.members.root is not None
    root = bench.broker.members.root[0]
    script = wire.Progress("", root, 0, 0, b"", b"", 120, 500, label="generation")

    bench.tell(W1, script)  # not sent by the present process of the script
    assert not bench.broker.state.progress.batches
    bench.tell(ORIGIN, script)
    assert script_text(bench.broker.state.progress.batches[SCRIPT][0]) == "generation 120/500"

    bench.tell(ORIGIN, wire.RunEnded(root, 0, failed=False))
    assert not bench.broker.state.progress.batches


def test_the_progress_line_names_one_item_and_counts_more() -> None:
    bench, attempt = running(items=2)
    bench.tell(holder(bench), progress(attempt, 1))
    assert items_text(bench.broker.state.progress) == "0.0[0] 1/10"

    (other,) = [x for x in bench.broker.scheduler.leases.values() if 1 in x.left]
    bench.tell(other.peer.id, progress(other.attempt, 8, index=1))
    assert items_text(bench.broker.state.progress) == "2 items at 45 %"
