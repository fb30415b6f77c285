"""Commands for a stopped run before it is resumed: why, resolve, dry run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.halfway import HALFWAY, STEPS, contents, stop_halfway
from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real


def why(place: Place, path: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(place.rscoop("why", "last", path, "--json").expect(code))
    answer: dict[str, Any] = report["answer"]
    return answer


def test_why_shows_for_a_live_run_which_calls_run_and_which_wait_for_what(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    wait_until(lambda: place.status()["done"] == 9)

    assert why(place, "0.0[2]")["how"] == "done"
    assert why(place, "0.1[0]")["how"] == "waiting"
    assert "0.1[0].1 (2 of 2 not done)" in why(place, "0.1[0]")["text"]
    running = why(place, "0.1[0].1[0]")
    assert (running["how"], running["name"]) == ("running", "work")
    assert why(place, "0.2[0]")["how"] == "running"
    waiting = why(place, "0.1[0].1[1]")
    assert waiting["how"] == "ready"
    assert "is in 0.2[0]" in waiting["text"]
    assert why(place, "0.1")["how"] == "partly done"
    assert why(place, "0")["how"] == "running"
    assert why(place, "0.7", 1)["how"] == "unknown"

    (place.folder / "go").touch()
    finish(process).expect()
    assert why(place, "0.1[0].1[0]")["how"] == "gone"
    assert why(place, "0")["how"] == "done"


def test_why_shows_deaths_and_errors_without_unpickling(place: Place) -> None:
    place.run("""
        import os, signal
        from resilient_scoop import futures
        class Odd(Exception):
            def __reduce__(self):
                return (print, ("unpickled",))
        def fragile(x):
            if not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), signal.SIGSEGV)
            return x
        def wrong(x):
            raise Odd(f"no {x}")
        if __name__ == "__main__":
            print(futures.submit(fragile, 3).result())
            print(type(futures.submit(wrong, 4).exception()).__name__)
    """).expect()
    answer = why(place, "0.0[0]")
    assert answer["how"] == "done"
    deaths = [line for line in answer["history"] if "its worker died" in line]
    assert len(deaths) == 1
    assert "SIGSEGV" in deaths[0]
    assert " at 20" in deaths[0]
    answer = why(place, "0.1[0]")
    assert answer["how"] == "failed"
    assert "no 4" in answer["text"]
    assert "in wrong" in answer["traceback"]


def test_why_shows_what_was_recomputed_and_the_reason(place: Place) -> None:
    place.run(STEPS.replace('print("first"', 'raise SystemExit(5)\n        print("first"')).expect(
        5
    )
    place.write(STEPS.replace("x * 2", "x * 3"))
    place.rscoop("resume", "-q", "--recompute-changed", "last").expect()
    assert any("its code has changed" in line for line in why(place, "0.0[0]")["history"])


@pytest.mark.parametrize(
    ("verdict", "code", "last", "paid"),
    [
        (["--again"], 0, "paid 12", 2),
        (["--done", '"by hand"'], 0, "by hand", 1),
        (["--failed"], 1, "91", 1),
    ],
)
def test_an_item_in_doubt_can_be_resolved(
    place: Place, verdict: list[str], code: int, last: str, paid: int
) -> None:
    stop_halfway(place)
    assert why(place, "0.2[0]")["how"] == "in doubt"
    assert place.rscoop("resolve", "last").expect() == "0.2[0] pay\n"

    place.rscoop("resolve", "last", "0.2[0]", *verdict).expect()

    assert place.rscoop("resolve", "last").expect().startswith("nothing of run")
    (place.folder / "go").touch()
    done = place.rscoop("resume", "-q", "last")
    assert done.expect(code).splitlines()[-1] == last
    assert len(ledger(place, "paid")) == paid
    place.assert_nothing_left()


def test_a_resume_names_items_in_doubt_and_their_outcome(place: Place) -> None:
    stop_halfway(place)
    (place.folder / "go").touch()

    resumed = place.rscoop("resume", "last")

    resumed.expect(1)
    run = place.runs()[0].name
    assert f"resuming run {run}: 9 results recovered, 3 in flight" in resumed.err
    assert "1 in doubt, started and without an outcome: 0.2[0] (pay)" in resumed.err
    assert f"rscoop resolve {run} '0.2[0]' --again | --done JSON" in resumed.err
    again = place.rscoop("resume", "last")
    assert "results recovered" in again.err
    assert "in doubt" not in again.err


def test_an_item_that_ended_as_lost_can_be_resolved_after_all(place: Place) -> None:
    stop_halfway(place)
    (place.folder / "go").touch()
    place.rscoop("resume", "-q", "last").expect(1)
    assert why(place, "0.2[0]")["how"] == "failed"

    place.rscoop("resolve", "last", "0.2[0]", "--done", '"after all"').expect()
    assert place.rscoop("resume", "-q", "last").expect().splitlines()[-1] == "after all"

    over = place.rscoop("resolve", "last", "0.2[0]", "--again")
    over.expect(2)
    assert "finished run" in over.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0.2[0]"], "give one of"),
        (["0.2[0]", "--again", "--failed"], "give one of"),
        (["0.2[0]", "--done", "{"], "not JSON"),
        (["--again"], "needs the item"),
        (["0.0[0]", "--again"], "not in doubt"),
        (["0.1[0].1[1]", "--again"], "not in doubt"),
        (["0.9[0]", "--again"], "not known"),
        (["0.2", "--again"], "is not an item"),
        (["zero", "--again"], "is not the path"),
    ],
)
def test_an_invalid_verdict_is_refused(place: Place, words: list[str], says: str) -> None:
    stop_halfway(place)
    files = contents(place.runs()[0] / "journal")
    refused = place.rscoop("resolve", "last", *words)
    refused.expect(2)
    assert says in refused.err
    kept = contents(place.runs()[0] / "journal")
    assert {name: kept[name] for name in kept if name.startswith("blobs")} == {
        name: files[name] for name in files if name.startswith("blobs")
    }
    assert place.rscoop("resolve", "last").expect() == "0.2[0] pay\n"


def test_a_resume_of_a_finished_run_removes_the_leftovers_of_its_killed_launcher(
    place: Place,
) -> None:
    place.run(STEPS).expect()
    run = place.runs()[0]
    before = contents(run)
    (run / "code-before").mkdir()
    (run / "code-before" / "began").touch()
    (run / "code" / "half.tmp").touch()

    place.rscoop("resume", "last").expect()

    assert contents(run) == before
    place.assert_nothing_left()


def test_a_live_run_is_not_resolved(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: bool(ledger(place, "paid")))
    place.rscoop("resolve", "last", "0.2[0]", "--again").expect(73)
    (place.folder / "go").touch()
    finish(process).expect()


def test_a_dry_run_predicts_what_the_resume_does_and_changes_nothing(place: Place) -> None:
    stop_halfway(place)
    files = contents(place.folder)

    report = json.loads(place.rscoop("resume", "--dry-run", "--json", "last").expect())

    assert contents(place.folder) == files
    found = {each["name"]: each for each in report["foretold"]["functions"]}
    assert (found["work"]["reused"], found["work"]["in_flight"]) == (9, 2)
    assert found["work"]["needed_s"] > 0
    assert (found["pay"]["in_doubt"], found["deep"]["unmeasured"]) == (1, 1)
    text = place.rscoop("resume", "--dry-run", "last").expect()
    assert "1 idempotent=False item, to end with WorkerLostError" in text
    before = ledger(place)
    place.rscoop("resolve", "last", "0.2[0]", "--again").expect()
    (place.folder / "go").touch()
    place.rscoop("resume", "-q", "last").expect()
    assert len(ledger(place)) - len(before) == found["work"]["in_flight"]


def test_a_renamed_function_of_the_same_code_keeps_its_results(place: Place) -> None:
    text = """
        from resilient_scoop import futures
        def work(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            return x * x
        if __name__ == "__main__":
            print(sum(futures.map(work, range(9))))
            raise SystemExit(5)
    """
    place.run(text).expect(5)
    place.write(text.replace("work", "labor"))
    assert place.rscoop("resume", "-q", "last").expect(5) == ""
    assert len(ledger(place)) == 9


def test_a_dry_run_names_functions_that_do_not_exist_any_more(place: Place) -> None:
    stop_halfway(place)
    place.write(HALFWAY.replace("work", "labor").replace("x * x", "x + x"))
    report = json.loads(place.rscoop("resume", "--dry-run", "--json", "last").expect())
    assert [(each["name"], each["results"]) for each in report["missing"]] == [("__main__:work", 9)]
    text = place.rscoop("resume", "--dry-run", "last").expect()
    assert (
        "missing    work: the code no longer has this function; its 9 results are used only" in text
    )
