"""The tools that show a resume before it happens, on real runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    return Place(tmp_path, state_dir)


STEPS = """
    import os, time
    from resilient_scoop import futures
    def note(what):
        with open("ledger", "a") as file:
            file.write(what + "\\n")
    def work(x):
        note(f"work {x}")
        return x * 2
    def deep(n):
        return sum(futures.map(work, range(n)))
    if __name__ == "__main__":
        values = list(futures.map(work, range(6)))
        print("first", values)
        token = futures.once(os.urandom, 3).hex()
        print("token", len(token))
        order = sorted(futures.map_as_completed(work, values))
        print("second", order)
        print("deep", futures.submit(deep, 4).result())
"""

HALFWAY = """
    import os, time
    from resilient_scoop import futures
    def work(x):
        with open("ledger", "a") as file:
            file.write(f"{x}\\n")
        while x == 4 and not os.path.exists("paid"):
            time.sleep(0.02)  # until the other worker is in pay
        while x >= 5 and not os.path.exists("go"):
            time.sleep(0.02)
        return x * x
    def deep(n):
        first = list(futures.map(work, range(5)))
        return sum(first) + sum(futures.map(work, range(5, n)))
    @futures.task(idempotent=False)
    def pay(amount):
        with open("paid", "a") as file:
            file.write(f"{amount}\\n")
        while not os.path.exists("go"):
            time.sleep(0.02)
        return f"paid {amount}"
    if __name__ == "__main__":
        print(list(futures.map(work, range(4))))
        inner, bill = futures.submit(deep, 7), futures.submit(pay, 12)
        print(inner.result())
        print(bill.result())
"""


def ledger(place: Place, name: str = "ledger") -> list[str]:
    path = place.folder / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def stop_halfway(place: Place) -> None:
    """Kill a run, all at once, while two of its items are on the CPU."""
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    known = {"done": 0}

    def durable() -> bool:
        known.update(place.status())
        return known["done"] == 9

    wait_until(durable, 10.0, lambda: str(known))
    process.kill()
    finish(process)
    wait_until(lambda: not place.processes(), 5.0, lambda: f"left: {place.processes()}")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"  # LMDB's table of readers
    }


def replayed(place: Place, *args: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(place.rscoop("replay", *args, "--json").expect(code))
    return report


# --- replay -----------------------------------------------------------------------------------


def test_a_finished_run_replays_clean_and_computes_nothing(place: Place) -> None:
    place.run(STEPS).expect()
    before, files = ledger(place), contents(place.runs()[0])

    report = replayed(place, "last")

    assert report["clean"] is True
    (script,) = report["parents"]
    assert (script["complete"], script["calls"], script["items"]) == (True, 3, 13)
    assert script["observations"] > 1
    assert ledger(place) == before
    assert contents(place.runs()[0]) == files
    place.assert_nothing_left()


@pytest.mark.parametrize(
    ("old", "new", "what", "where", "expected", "found"),
    [
        ("range(6)", "range(7)", "call", "0.0", "work, 6 items", "work, 7 items"),
        ("(deep, 4)", "(deep, 5)", "arguments", "0.2[0]", "another argument", "5"),
        ('print("second"', 'print("third"', "output", "0", "'second", "'third"),
        ("futures.once(os.urandom, 3)", "os.urandom(3)", "observation", "0", "`once`", "`arrivals`"),
        ("x * 2", "x * 3", "code", "0.0[0]", "work as it was", "work with other code"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named_with_its_line(  # noqa: PLR0913, PLR0917
    place: Place, old: str, new: str, what: str, where: str, expected: str, found: str
) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace(old, new))

    report = replayed(place, "last", code=1)

    difference = report["parents"][-1]["difference"]
    assert (difference["what"], difference["path"]) == (what, where)
    assert difference["expected"].startswith(expected)
    assert difference["found"].startswith(found)
    assert difference["place"]["file"] == str(place.folder / "script.py")
    assert difference["place"]["text"] in STEPS.replace(old, new)
    told = place.rscoop("replay", "last")
    assert f"script.py:{difference['place']['line']}" in told.expect(1)


def test_changed_tasks_may_be_reused(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace("x * 2", "x * 3"))
    assert replayed(place, "--reuse-changed", "last")["clean"] is True
    assert replayed(place, "--reuse-changed=work", "last", code=1)["clean"] is False  # deep uses it


def test_a_script_that_ends_otherwise_differs(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace('print("deep", futures.submit(deep, 4).result())', "1 / 0"))
    report = replayed(place, "last", code=1)
    difference = report["parents"][0]["difference"]
    assert difference["what"] == "end"
    assert difference["expected"] == "call 0.2 of deep, 1 item"
    assert difference["found"] == "ZeroDivisionError: division by zero"
    assert difference["place"]["text"] == "1 / 0"


def test_a_stopped_run_replays_up_to_where_its_history_ends_nested_parents_too(
    place: Place,
) -> None:
    stop_halfway(place)
    before = ledger(place)

    report = replayed(place, "last")

    assert report["clean"] is True
    script, nested = report["parents"]
    assert "waits for 0.1[0]" in script["stands"]
    assert (nested["path"], nested["name"], nested["items"]) == ("0.1[0]", "deep", 5)
    assert "waits for 0.1[0].1[0]" in nested["stands"]
    assert ledger(place) == before

    place.write(HALFWAY.replace("futures.map(work, range(5, n))", "futures.map(work, range(6, n))"))
    report = replayed(place, "--reuse-changed", "last", code=1)
    assert report["parents"][-1]["path"] == "0.1[0]"
    assert report["parents"][-1]["difference"]["path"] == "0.1[0].1[0]"


def test_no_handler_of_the_script_sees_the_end_of_its_history(place: Place) -> None:
    place.run(STEPS).expect()
    guarded = STEPS.replace("    if __name__", "    def main():").replace('"__main__":', "") + """
    if __name__ == "__main__":
        try:
            main()
        except BaseException as error:
            note(f"saw {error!r}")
        finally:
            note("finally")
"""  # fmt: skip
    guarded = guarded.replace("def main(): ==", "def main():").replace("range(6)", "range(7)")
    place.write(guarded)
    before = ledger(place)
    assert replayed(place, "last", code=1)["clean"] is False
    assert ledger(place) == before


def test_a_copied_run_replays_with_the_code_of_another_folder(place: Place) -> None:
    place.run(STEPS).expect()
    copy, code = place.folder / "kept", place.folder / "checkout"
    shutil.copytree(place.runs()[0], copy)
    shutil.rmtree(place.runs()[0])
    code.mkdir()
    shutil.move(place.folder / "script.py", code / "script.py")

    assert replayed(place, f"{copy}", "--code", "checkout")["clean"] is True

    text = (code / "script.py").read_text()
    (code / "script.py").write_text(text.replace("range(6)", "range(5)"))
    assert replayed(place, f"{copy}", "--code", "checkout", code=1)["clean"] is False
    nowhere = place.rscoop("replay", f"{copy}", "--code", "nowhere")
    nowhere.expect(2)
    assert "there is no such folder" in nowhere.err


def test_a_live_run_replays_so_far_and_goes_on_undisturbed(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    wait_until(lambda: place.status()["done"] == 9)
    assert replayed(place, "last")["clean"] is True
    (place.folder / "go").touch()
    assert finish(process).expect() == "[0, 1, 4, 9]\n91\npaid 12\n"
    assert ledger(place, "paid") == ["12"]
    assert replayed(place, "last")["clean"] is True


def test_a_script_that_ends_its_own_process_is_told(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace("token = futures", "os._exit(7)\n        token = futures"))
    done = place.rscoop("replay", "last")
    done.expect(2)
    assert "exit status 7" in done.err


# --- fork -------------------------------------------------------------------------------------


def test_a_fork_shares_what_lies_before_and_computes_the_rest(place: Place) -> None:
    done = place.run(STEPS, "x")
    done.expect()
    assert len(ledger(place)) == 16

    made = place.rscoop("fork", "--at", "0.1", "--name", "side", "last")
    fork = made.expect().strip()
    assert "6 results of 1 call" in made.err
    resumed = place.rscoop("resume", "-q", "side")

    assert resumed.expect().split("token")[0] == done.out.split("token")[0]
    assert resumed.out.splitlines()[2:] == done.out.splitlines()[2:]
    assert len(ledger(place)) == 16 + 10
    assert {run.name for run in place.runs()} == {fork, place.runs()[0].name}
    first = replayed(place, place.runs()[0].name)
    assert first["clean"] is True
    assert replayed(place, fork)["clean"] is True
    place.assert_nothing_left()


def test_a_fork_of_all_that_a_stopped_run_has_computes_nothing_again(place: Place) -> None:
    stop_halfway(place)
    before = ledger(place)
    place.rscoop("fork", "last").expect()
    (place.folder / "go").touch()
    resumed = place.rscoop("resume", "-q", "last")
    resumed.expect(1)  # what was in doubt in the one is in doubt in the other
    assert "WorkerLostError" in resumed.err
    assert sorted(ledger(place)[len(before) :]) == ["5", "6"]
    assert ledger(place, "paid") == ["12"]


@pytest.mark.parametrize(("at", "why"), [("0.9", "has made 3 calls"), ("0.1[0].0", "no place to")])
def test_a_fork_at_no_call_leaves_nothing_behind(place: Place, at: str, why: str) -> None:
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


# --- why and resolve --------------------------------------------------------------------------


def why(place: Place, path: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(place.rscoop("why", "last", path, "--json").expect(code))
    answer: dict[str, Any] = report["answer"]
    return answer


def test_why_tells_of_a_live_run_who_runs_what_and_who_waits_for_whom(place: Place) -> None:
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


def test_why_tells_of_deaths_and_of_errors_without_unpickling(place: Place) -> None:
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


def test_why_tells_what_was_recomputed_and_why(place: Place) -> None:
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
def test_what_became_of_an_item_in_doubt_can_be_said(
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


def test_a_resume_says_what_is_in_doubt_and_what_becomes_of_it(place: Place) -> None:
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
    assert "has finished" in over.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0.2[0]"], "say one of"),
        (["0.2[0]", "--again", "--failed"], "say one of"),
        (["0.2[0]", "--done", "{"], "no JSON"),
        (["--again"], "name the item"),
        (["0.0[0]", "--again"], "not in doubt"),
        (["0.1[0].1[1]", "--again"], "not in doubt"),
        (["0.9[0]", "--again"], "not known"),
        (["0.2", "--again"], "is no item"),
        (["zero", "--again"], "names no future"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused(
    place: Place, words: list[str], says: str
) -> None:
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


def test_a_live_run_is_not_resolved(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: bool(ledger(place, "paid")))
    place.rscoop("resolve", "last", "0.2[0]", "--again").expect(73)
    (place.folder / "go").touch()
    finish(process).expect()


# --- dry run ----------------------------------------------------------------------------------


def test_a_dry_run_foretells_what_the_resume_then_does_and_changes_nothing(place: Place) -> None:
    stop_halfway(place)
    files = contents(place.folder)

    told = json.loads(place.rscoop("resume", "--dry-run", "--json", "last").expect())

    assert contents(place.folder) == files
    found = {each["name"]: each for each in told["foretold"]["functions"]}
    assert (found["work"]["reused"], found["work"]["in_flight"]) == (9, 2)
    assert found["work"]["needed_s"] > 0
    assert (found["pay"]["in_doubt"], found["deep"]["unmeasured"]) == (1, 1)
    text = place.rscoop("resume", "--dry-run", "last").expect()
    assert "1 idempotent=False item, to end as WorkerLostError" in text
    before = ledger(place)
    place.rscoop("resolve", "last", "0.2[0]", "--again").expect()
    (place.folder / "go").touch()
    place.rscoop("resume", "-q", "last").expect()
    assert len(ledger(place)) - len(before) == found["work"]["in_flight"]


def test_a_dry_run_names_functions_that_are_not_there_any_more(place: Place) -> None:
    stop_halfway(place)
    place.write(HALFWAY.replace("work", "labor"))
    told = json.loads(place.rscoop("resume", "--dry-run", "--json", "last").expect())
    assert [(each["name"], each["results"]) for each in told["missing"]] == [("__main__:work", 9)]
    text = place.rscoop("resume", "--dry-run", "last").expect()
    assert "missing    work: the code has no such function any more; its 9 results count" in text


# --- determinism ------------------------------------------------------------------------------


def test_an_audit_names_each_place_once_and_leaves_tasks_and_once_alone(place: Place) -> None:
    path = place.write("""
        import datetime, os, random, socket, subprocess, time, uuid
        from resilient_scoop import futures
        def leaf(x):
            time.time(), uuid.uuid4()
            with open("leaf", "w") as file:
                file.write("x")
            return x
        def parent(n):
            time.monotonic()  # before it is known to be one
            return sum(futures.map(leaf, range(n)))
        def clock():
            return datetime.datetime.now()  # now
        if __name__ == "__main__":
            clock(), clock()
            uuid.uuid4()  # uuid
            random.random(), random.Random(3)
            random.Random()  # chance
            os.urandom(3)  # urandom
            futures.once(time.time), futures.once(uuid.uuid4)
            print(futures.submit(parent, 3).result(), list(futures.map(leaf, range(3))))
            with open("out", "w") as file:  # write
                file.write("x")
            open("out").close()
            subprocess.run(["true"])  # process
            socket.socket(socket.AF_UNIX).connect_ex("/nonexistent")  # socket
    """)
    done = place.rscoop("run", "-q", "-n", "2", "--audit", path.name)
    done.expect()
    text = (place.folder / "script.py").read_text().splitlines()
    told = [line for line in done.err.splitlines() if "audit:" in line]
    lines = {int(line.split("script.py:")[1].split(",")[0]): line for line in told}
    assert len(lines) == len(told)
    marks = {text[number - 1].partition("# ")[2] for number in lines}
    assert marks == {
        "before it is known to be one", "now", "uuid", "chance", "urandom", "write", "process",
        "socket",
    }  # fmt: skip
    kept = place.status()["audit"]
    assert sorted(each["line"] for each in kept) == sorted(lines)
    assert {each["kind"] for each in kept} == {
        "clock", "uuid", "chance", "write", "process", "socket",
    }  # fmt: skip


def test_every_parent_is_replayed_at_every_wait_where_asked(place: Place) -> None:
    text = STEPS.replace("        return sum(futures.map(work, range(n)))", (
        "        note('deep')\n"
        "        return sum(futures.submit(work, x).result() for x in range(n))"
    )).replace("        values = list", "        note('main')\n        values = list")  # fmt: skip
    plain = place.run(text)
    plain.expect()
    assert (ledger(place).count("main"), ledger(place).count("deep")) == (1, 1)
    (place.folder / "ledger").unlink()

    place.environ["RSCOOP_ALWAYS_REPLAY"] = "1"
    again = place.run(text)

    assert again.expect() == plain.out
    assert ledger(place).count("main") > 3
    assert ledger(place).count("deep") > 3
    works = [line for line in ledger(place) if line.startswith("work")]
    assert len(works) == 16  # nothing was computed twice
    assert "died" not in again.err


def test_what_differs_in_a_replay_shows_at_once_where_parents_are_always_replayed(
    place: Place,
) -> None:
    place.environ["RSCOOP_ALWAYS_REPLAY"] = "1"
    done = place.run("""
        import os
        from resilient_scoop import futures
        def work(x):
            return x
        if __name__ == "__main__":
            for _ in range(3):
                futures.submit(work, os.getpid()).result()
            print("end")
    """)
    assert done.expect(70) == ""
    assert "its arguments differ" in done.err
