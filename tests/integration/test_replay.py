"""Replays of real runs name the first difference, and code whose results vary."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.halfway import HALFWAY, STEPS, contents, replayed, stop_halfway
from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real


def test_a_finished_run_replays_without_difference_and_computes_nothing(place: Place) -> None:
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
        ("futures.once(os.urandom, 3)", "os.urandom(3)", "observation", "0", "`once`", "`arrivals 0.1`"),
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
    done = place.rscoop("replay", "last")
    assert f"script.py:{difference['place']['line']}" in done.expect(1)


def test_results_of_changed_tasks_may_be_reused_in_a_replay(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace("x * 2", "x * 3"))
    assert replayed(place, "--reuse-changed", "last")["clean"] is True
    assert replayed(place, "--reuse-changed=work", "last", code=1)["clean"] is False  # deep uses it


def test_a_script_that_ends_differently_is_reported(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace('print("deep", futures.submit(deep, 4).result())', "1 / 0"))
    report = replayed(place, "last", code=1)
    difference = report["parents"][0]["difference"]
    assert difference["what"] == "end"
    assert difference["expected"] == "call 0.2 of deep, 1 item"
    assert difference["found"] == "ZeroDivisionError: division by zero"
    assert difference["place"]["text"] == "1 / 0"


def test_the_replay_of_a_stopped_run_reaches_the_end_of_its_history_also_in_nested_parents(
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


def test_no_handler_of_the_script_notices_the_end_of_its_history(place: Place) -> None:
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


def test_a_live_run_is_replayed_so_far_and_continues_undisturbed(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    wait_until(lambda: place.status()["done"] == 9)
    assert replayed(place, "last")["clean"] is True
    (place.folder / "go").touch()
    assert finish(process).expect() == "[0, 1, 4, 9]\n91\npaid 12\n"
    assert ledger(place, "paid") == ["12"]
    assert replayed(place, "last")["clean"] is True


def test_a_script_that_ends_its_own_process_is_reported(place: Place) -> None:
    place.run(STEPS).expect()
    place.write(STEPS.replace("token = futures", "os._exit(7)\n        token = futures"))
    done = place.rscoop("replay", "last")
    done.expect(2)
    assert "exit status 7" in done.err


def test_an_audit_names_each_position_once_and_ignores_tasks_and_once(place: Place) -> None:
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
            random.Random()
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
    findings = [line for line in done.err.splitlines() if "audit:" in line]
    lines = {int(line.split("script.py:")[1].split(",")[0]): line for line in findings}
    assert len(lines) == len(findings)
    marks = {text[number - 1].partition("# ")[2] for number in lines}
    assert marks == {
        "before it is known to be one", "now", "uuid", "urandom", "write", "process",
        "socket",
    }  # fmt: skip
    kept = place.status()["audit"]
    assert sorted(each["line"] for each in kept) == sorted(lines)
    assert {each["kind"] for each in kept} == {
        "clock", "uuid", "chance", "write", "process", "socket",
    }  # fmt: skip


def test_every_parent_is_replayed_at_every_wait_on_request(place: Place) -> None:
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
    # At each wait: a result that is there before the script asks for it needs none.
    assert ledger(place).count("main") > 1
    assert ledger(place).count("deep") > 1
    works = [line for line in ledger(place) if line.startswith("work")]
    assert len(works) == 16  # nothing was computed twice
    assert "died" not in again.err


def test_a_replay_difference_shows_at_once_with_always_replay(
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
