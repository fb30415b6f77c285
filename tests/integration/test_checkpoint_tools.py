"""The tools on runs with checkpoints, whose covered history is erased."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.integration.halfway import contents, replayed
from tests.integration.killed import kill_all, records, resumed
from tests.integration.runs import Place, wait_until

pytestmark = pytest.mark.real

RUN = """
import os, random, sys, time
from pathlib import Path
import numpy
from resilient_scoop import checkpoint, futures

def work(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return x + 1
def late(x):
    while not Path("go").exists(): time.sleep(0.02)
    return x * 100
def deep(n):
    with checkpoint.durable("deep", total=0, gen=0) as s:
        while s.gen < n:
            if s.gen == 8:
                Path("deep").touch()
                futures.submit(late, 2).result()
            s.total += sum(futures.map(work, [1000 + s.gen, 2000 + s.gen]))
            s.gen += 1
            s.commit()  # the last thing in the loop: what stood after it would be skipped
    return s.total

if __name__ == "__main__":
    print("first", list(futures.map(work, [0, 1])))
    with checkpoint.durable(data=lambda: numpy.zeros(100_000), gen=0, waiting=None) as s:
        while s.gen < 12:
            if s.gen == 1: s.waiting = futures.submit(late, 7), futures.submit(deep, 9)
            if s.gen == 9:
                sys.stdout.flush()
                while not Path("deep").exists(): time.sleep(0.01)
                (last,) = futures.map(work, [99])
                Path("now").touch()
                futures.submit(late, 1).result()
            s.data[s.gen], _ = futures.map(work, [100 + s.gen, 200 + s.gen])
            drawn = futures.once(os.urandom, 2)
            print(s.gen, s.data.sum(), random.random())
            s.gen += 1
            s.commit()
    print("waited", [each.result() for each in s.waiting])
    with checkpoint.durable("second", n=0) as s:
        while s.n < 4:
            list(futures.map(work, [500 + s.n]))
            s.n += 1
            s.commit()
    print("end", random.random())
"""


def ledger(place: Place) -> list[str]:
    return (place.folder / "ledger").read_text().split()


def halfway(place: Place) -> str:
    """Leave a run that was killed after its ninth checkpoint; return what it should print."""
    calm = Place(place.folder, place.folder / "calm")
    (place.folder / "go").touch()
    whole = calm.run(RUN, workers=4).expect()
    (place.folder / "ledger").rename(place.folder / "whole")
    for name in ("go", "now", "deep"):
        (place.folder / name).unlink()
    process = place.start("run", "-q", "-n", "4", "script.py")
    wait_until((place.folder / "now").exists)
    kill_all(place)
    process.communicate()
    return whole


def words(text: str) -> list[str]:
    """Return the lines without random numbers, which differ between runs because their seeds differ."""
    return [line.rpartition(" ")[0] for line in text.splitlines()]


def test_a_replay_begins_at_the_checkpoint_and_writes_nothing(place: Place) -> None:
    halfway(place)
    files, done = contents(place.runs()[0]), ledger(place)

    report = replayed(place, "last")

    assert report["clean"] is True
    script, nested = report["parents"]
    assert script["items"] < 10, "what the checkpoint covers is not replayed"
    assert "has no outcome in the journal" in script["stands"]
    assert nested["name"] == "deep"
    assert contents(place.runs()[0]) == files
    assert ledger(place) == done

    # The replay of a finished run reaches the end, and another end is a difference
    (place.folder / "go").touch()
    resumed(place).expect()
    report = replayed(place, "last")
    assert report["clean"] is True, report
    assert report["parents"][0]["complete"] is True
    place.write(RUN.replace('print("end"', 'print("END"'))
    report = replayed(place, "last", code=1)
    assert report["parents"][0]["difference"]["what"] == "output"


def test_a_replay_reports_a_block_that_is_no_longer_entered(place: Place) -> None:
    halfway(place)
    place.write(RUN.replace("checkpoint.durable(data", 'checkpoint.durable("other", data'))
    report = replayed(place, "last", code=1)
    difference = report["parents"][0]["difference"]
    assert difference["what"] == "call"
    assert difference["expected"] == "a checkpoint that covers it"


@pytest.mark.parametrize("which", ["last", "8"])
def test_a_fork_continues_from_a_checkpoint_independently(place: Place, which: str) -> None:
    whole = halfway(place)
    first = place.runs()[0]
    before = contents(first)
    made = place.rscoop("fork", "--at-checkpoint", which, "--name", "side", "last", "--json")
    report = json.loads(made.expect())
    assert report["checkpoint"] == (9 if which == "last" else 8)
    assert report["covered"] > 8
    assert contents(first) == before
    assert replayed(place, "side")["clean"] is True
    (place.folder / "go").touch()
    done = ledger(place)
    shutil.rmtree(first)

    # The whole output is the new run's; the states' files are its own
    forked = place.rscoop("resume", "-q", "side")
    place.assert_nothing_left()
    assert words(forked.expect()) == words(whole)
    again = ledger(place)[len(done) :]
    assert ("108" in again) == (which == "8"), "the ninth generation"
    assert not {"0", "100", "107", "1000"} & set(again)
    assert replayed(place, "side")["clean"] is True


def test_a_fork_of_everything_continues_at_the_same_point_as_the_run(place: Place) -> None:
    whole = halfway(place)
    place.rscoop("fork", "last").expect()
    done = ledger(place)
    (place.folder / "go").touch()
    assert words(place.rscoop("resume", "-q", "last").expect()) == words(whole)
    assert not {"108", "99", "1000"} & set(ledger(place)[len(done) :])


def test_a_fork_at_an_erased_call_is_refused_with_the_possible_points(place: Place) -> None:
    halfway(place)
    refusals = {
        ("--at-checkpoint", "3"): "there are 8 and 9 of block 'main'",
        ("--at-checkpoint", "x"): "a number, or `last`; there are 8 and 9",
        ("--at-checkpoint", "9", "--block", "other"): "checkpoint 9 of block 'other' is not",
        ("--at-checkpoint", "9", "--at", "0.5"): "cannot be used together",
        ("--at", "0.5"): "--at-checkpoint with one of 8 and 9 of block 'main'",
    }
    errors = ""
    for arguments, reason in refusals.items():
        refused = place.rscoop("fork", *arguments, "last")
        refused.expect(2)
        errors = refused.err
        assert reason in " ".join(errors.split()), errors
    assert len(place.runs()) == 1
    possible = errors.replace("\n", " ").split("from 0.")[1].split()[0]
    made = place.rscoop("fork", "--at", f"0.{possible}", "last")
    made.expect()

    # If there are several blocks, one must be named
    (place.folder / "go").touch()
    assert words(place.rscoop("resume", "last").expect())[-1] == "end"
    ambiguous = place.rscoop("fork", "--at-checkpoint", "last", "last")
    ambiguous.expect(2)
    assert "name the block with --block" in ambiguous.err
    report = json.loads(
        place.rscoop("fork", "--at-checkpoint", "3", "--block", "second", "last", "--json").expect()
    )
    assert report["checkpoint"] == 3


def test_trimmed_items_count_as_done(place: Place) -> None:
    halfway(place)
    status = place.status()
    assert status["done"] == len(ledger(place))
    assert any(type(each).__name__ == "Trimmed" for each in records(place))
    why = json.loads(place.rscoop("why", "last", "0.4[0]", "--json").expect())["answer"]
    assert why["how"] == "done"
    assert "checkpoint of 0 (9 of block 'main') covers it" in why["text"]
    call = json.loads(place.rscoop("why", "last", "0.4", "--json").expect())["answer"]
    assert (call["how"], call["text"]) == ("done", why["text"])
    forecast = json.loads(place.rscoop("resume", "--dry-run", "last", "--json").expect())[
        "foretold"
    ]
    reused = sum(each["reused"] for each in forecast["functions"])
    in_flight = sum(each["in_flight"] for each in forecast["functions"])
    assert forecast["covered"] + reused == len(ledger(place))
    assert in_flight >= 2
    assert "results by checkpoints" in place.rscoop("resume", "--dry-run", "last").expect()


def test_the_files_of_states_are_checked_copied_and_removed(place: Place) -> None:
    whole = halfway(place)
    run = place.runs()[0]
    place.rscoop("journal", "verify", "--depth", "contents", "last").expect()
    place.rscoop("journal", "stats", "last").expect()
    assert '"Checkpoint"' in place.rscoop("journal", "export", "last").expect().replace("'", '"')

    place.rscoop("journal", "backup", "last", "copy").expect()
    assert len(list((place.folder / "copy" / "checkpoints").iterdir())) >= 2

    newest = max((run / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    newest.unlink()
    done = place.rscoop("journal", "verify", "last")
    done.expect(74)
    assert newest.name in done.out
    (place.folder / "go").touch()
    assert words(resumed(place).expect())[-1] == "end"

    shutil.rmtree(run)
    place.rscoop("journal", "restore", "copy").expect()
    assert words(place.rscoop("resume", "last").expect())[-1] == "end"
    assert words(place.rscoop("logs", "last").expect()) == words(whole)


def test_a_parent_that_is_replayed_at_every_wait_continues_from_its_checkpoint(
    place: Place,
) -> None:
    whole = halfway(place)
    (place.folder / "go").touch()
    (place.folder / "ledger").unlink()
    again = Place(place.folder, place.folder / "again")
    path = again.write(RUN)
    env = {**again.env(), "RSCOOP_ALWAYS_REPLAY": "1"}
    done = again.rscoop("run", "-q", "-n", "4", path.name, env=env)
    again.assert_nothing_left()
    assert words(done.expect()) == words(whole)
    assert sorted(ledger(place)) == sorted((place.folder / "whole").read_text().split())
