"""A fork of a real run shares the results before a call with its source."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.halfway import STEPS, replayed, stop_halfway
from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real


def test_a_fork_shares_results_before_its_point_and_computes_the_others(place: Place) -> None:
    done = place.run(STEPS, "x")
    done.expect()
    assert len(ledger(place)) == 16

    made = place.rscoop("fork", "--at", "0.1", "--name", "side", "last")
    fork = made.expect().strip()
    assert "6 results of 1 batch" in made.err
    resumed = place.rscoop("resume", "-q", "side")

    assert resumed.expect().split("token")[0] == done.out.split("token")[0]
    assert resumed.out.splitlines()[2:] == done.out.splitlines()[2:]
    assert len(ledger(place)) == 16 + 10
    assert {run.name for run in place.runs()} == {fork, place.runs()[0].name}
    first = replayed(place, place.runs()[0].name)
    assert first["clean"] is True
    assert replayed(place, fork)["clean"] is True
    place.assert_nothing_left()


def test_a_fork_of_a_whole_stopped_run_computes_nothing_again(place: Place) -> None:
    stop_halfway(place)
    before = ledger(place)
    place.rscoop("fork", "last").expect()
    (place.folder / "go").touch()
    resumed = place.rscoop("resume", "-q", "last")
    resumed.expect(1)  # items in doubt in the source are in doubt in the fork
    assert "WorkerLostError" in resumed.err
    assert sorted(ledger(place)[len(before) :]) == ["5", "6"]
    assert ledger(place, "paid") == ["12"]


def test_a_fork_asks_about_edits_outside_of_functions_as_its_source_does(place: Place) -> None:
    text = """
        import decimal
        from resilient_scoop import futures
        decimal.getcontext().prec = 5
        def third(x): return str(decimal.Decimal(x) / 3)
        if __name__ == "__main__":
            print(*futures.map(third, [1]))
            raise SystemExit(5)
    """
    place.run(text).expect(5)
    place.rscoop("fork", "last", "--name", "first").expect()
    place.rscoop("fork", "first", "--name", "second").expect()
    place.write(text.replace("prec = 5", "prec = 7"))

    for name in ("first", "second"):
        refused = place.rscoop("resume", name)
        refused.expect(2)
        assert "code was edited: a statement (script.py:4)" in refused.err
    assert place.rscoop("resume", "second", "--reuse-changed").expect(5) == "0.33333\n"


@pytest.mark.parametrize(
    ("at", "why"), [("0.9", "has made 3 batches"), ("0.1[0].0", "cannot be forked at")]
)
def test_a_fork_at_a_missing_call_leaves_nothing_behind(place: Place, at: str, why: str) -> None:
    place.run(STEPS).expect()
    refused = place.rscoop("fork", "--at", at, "last")
    refused.expect(2)
    assert why in refused.err
    assert len(place.runs()) == 1


def test_a_fork_outlives_the_run_whose_large_results_it_shares(place: Place) -> None:
    large = """
        from resilient_scoop import futures
        def make(x):
            open("ledger", "a").write(f"{x}\\n")
            return bytes([x]) * 3_000_000
        if __name__ == "__main__":
            print(sum(len(set(each)) for each in futures.map(make, range(4))))
    """
    place.run(large).expect()
    fork = place.rscoop("fork", "last").expect().strip()
    (first,) = [run for run in place.runs() if run.name != fork]
    shutil.rmtree(first)
    assert place.rscoop("resume", "-q", fork).expect() == "4\n"
    assert len(ledger(place)) == 4


DROPPING = """
    import os, random
    from resilient_scoop import futures
    def large(x):
        return bytes([x % 256]) * 1_200_000
    def parent(n):  # its results, which are files, are dropped when it ends
        return sum(len(each) for each in futures.map(large, range(n, n + 3)))
    def small(x):
        return x
    if __name__ == "__main__":
        for _ in range(20):
            print(sum(futures.map(small, range(500))), flush=True)
        round = 0
        while not os.path.exists("stop"):
            print(sum(futures.map(parent, range(round, round + 4))), flush=True)
            round += 4
"""


def test_a_fork_of_a_live_run_keeps_files_that_the_run_removes_meanwhile(place: Place) -> None:
    script = place.write(DROPPING)
    live = place.start("run", "-q", "-n", "2", "--name", "live", script.name)
    wait_until(lambda: len(place.runs()) == 1 and (place.runs()[0] / "payloads").is_dir(), 20)

    forks = [place.rscoop("fork", "live").expect().strip() for _ in range(6)]

    assert live.poll() is None
    (place.folder / "stop").touch()
    finish(live, "", 30).expect()
    for fork in forks:
        place.rscoop("journal", "verify", fork).expect()
    assert list(place.runs()[0].glob(".*")) == []
