"""A script that changes between run and resume: decisions are kept, and a difference is reported once."""

from __future__ import annotations

import json
import shutil
from typing import Final

import pytest

from resilient_scoop.wire import messages as wire
from tests.integration.killed import killed_at, records
from tests.integration.runs import Done, Place

pytestmark = pytest.mark.real


def ledger(place: Place) -> int:
    path = place.folder / "ledger"
    return len(path.read_text().split()) if path.exists() else 0


def resume(place: Place, *args: str) -> Done:
    done = place.rscoop("resume", "-q", *args, "last")
    place.assert_nothing_left()
    return done


TWO_STEPS: Final = """
from resilient_scoop import futures
def work(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return x * x
if __name__ == "__main__":
    values = list(futures.map(work, range(30)))
    if not __import__("os").path.exists("go"): raise SystemExit(5)
    more = list(futures.map(work, range(30, 35)))
    print(sum(values), sum(more))
    if not __import__("os").path.exists("end"): raise SystemExit(6)
"""
OTHER: Final = TWO_STEPS.replace("return x * x", "return x + 1")
THIRD: Final = TWO_STEPS.replace("return x * x", "return x - 1")
SQUARES: Final = sum(x * x for x in range(30))
MORE: Final = sum(x + 1 for x in range(30, 35))


def test_results_that_are_kept_once_are_kept_at_every_later_resume(place: Place) -> None:
    place.run(TWO_STEPS).expect(5)
    place.write(OTHER)
    (place.folder / "go").touch()
    assert "work (30 results)" in resume(place).err
    done = resume(place, "--reuse-changed")
    assert done.expect(6) == f"{SQUARES} {MORE}\n"

    foretold = json.loads(place.rscoop("resume", "--dry-run", "--json", "last").expect())
    assert foretold["undecided"] == []
    counts = [(each["reused"], each["changed"]) for each in foretold["foretold"]["functions"]]
    assert counts == [(35, 0)]
    assert place.rscoop("replay", "last").code == 0

    again = resume(place)
    assert again.expect(6) == ""
    assert "work: 30 results of earlier code are kept, as decided on" in again.err
    assert "recomputed" not in again.err
    assert ledger(place) == 35

    (decided,) = place.status()["decisions"]
    assert (decided["function"], decided["keep"], decided["results"]) == ("work", True, 30)
    status = place.rscoop("status", "last").expect()
    assert "decided   work: 30 results of changed code are kept" in status

    strictly = resume(place, "--strict")
    strictly.expect(6)
    assert ledger(place) == 35


def test_a_decision_applies_to_one_change_and_can_be_changed(place: Place) -> None:
    place.run(TWO_STEPS).expect(5)
    place.write(OTHER)
    (place.folder / "go").touch()
    resume(place, "--reuse-changed=work").expect(6)

    place.write(THIRD)
    stopped = resume(place)
    stopped.expect(2)
    assert "work (35 results)" in stopped.err
    place.write(OTHER)
    resume(place).expect(6)

    again = resume(place, "--recompute-changed=work")
    assert f"{sum(x + 1 for x in range(30))} {MORE}" in again.expect(6)
    assert ledger(place) == 65
    (place.folder / "end").touch()
    last = resume(place)
    last.expect(0)
    assert "decided" not in last.err  # no results of other code are left
    assert ledger(place) == 65


def test_an_interrupted_recomputation_is_repeated(place: Place) -> None:
    place.run("""
        import os
        from resilient_scoop import futures
        def work(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            return x * x
        if __name__ == "__main__":
            print(sum(futures.map(work, range(30))))
            raise SystemExit(5)
    """).expect(5)
    text = """
        import os
        from resilient_scoop import futures
        def work(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            return x + 1
        if __name__ == "__main__":
            if not os.path.exists("go"): raise SystemExit(7)
            print(sum(futures.map(work, range(30))))
    """
    place.write(text)
    resume(place, "--recompute-changed").expect(7)  # ends before it reaches that call
    (place.folder / "go").touch()
    done = resume(place)
    assert done.expect(0) == f"{sum(x + 1 for x in range(30))}\n"
    assert "work: 30 results of earlier code are computed again, as decided on" in done.err
    assert ledger(place) == 60


def test_a_lambda_whose_results_are_kept_is_not_reported_again(place: Place) -> None:
    text = """
        import os
        from resilient_scoop import futures
        def main():
            print(list(futures.map(lambda x: x * 2, range(4))))
            raise SystemExit(6)
        if __name__ == "__main__": main()
    """
    place.run(text).expect(6)
    place.write(text.replace("x * 2", "x * 3"))
    first = resume(place, "--reuse-changed")
    assert (first.expect(6), first.err.count("replay:")) == ("", 0), first.err
    for flags in ((), ("--strict",)):
        later = resume(place, *flags)
        assert (later.expect(6), later.err.count("replay:")) == ("", 0), later.err
    (decided,) = place.status()["decisions"]
    assert (decided["function"], decided["keep"]) == ("main.<locals>.<lambda>", True)
    again = resume(place, "--recompute-changed")
    assert again.expect(6) == "[0, 3, 6, 9]\n"


def test_a_decision_about_one_function_applies_to_that_function(place: Place) -> None:
    text = """
        from resilient_scoop import futures
        def left(x): return x
        def right(x): return x + 0
        if __name__ == "__main__":
            print(list(futures.map(left, [1, 2])), list(futures.map(right, [1, 2])))
            raise SystemExit(6)
    """
    place.run(text).expect(6)
    place.write(text.replace("return x", "return -x"))
    done = resume(place, "--reuse-changed", "--recompute-changed=right")
    assert done.expect(6) == "[1, 2] [-1, -2]\n"


def test_a_decision_that_a_power_cut_damaged_is_requested_again(place: Place) -> None:
    place.run(TWO_STEPS).expect(5)
    place.write(OTHER)
    (place.folder / "go").touch()
    resume(place, "--reuse-changed").expect(6)
    path = place.runs()[0] / "decisions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    resume(place).expect(2)
    resume(place, "--reuse-changed").expect(6)
    resume(place).expect(6)
    assert [json.loads(line)["keep"] for line in path.read_text().split("\n")[-2:-1]] == [True]


def test_decisions_and_input_are_copied_with_a_fork_and_a_backup(place: Place) -> None:
    text = TWO_STEPS.replace("    values =", "    print(input())\n    values =")
    place.write(text)
    place.rscoop("run", "-q", "-n", "1", "script.py", stdin="told\n").expect(5)
    place.write(text.replace("return x * x", "return x + 1"))
    (place.folder / "go").touch()
    resume(place, "--reuse-changed").expect(6)
    place.rscoop("journal", "backup", "last", "copy").expect()
    forked = place.rscoop("fork", "last").expect().strip()
    done = place.rscoop("resume", "-q", forked)
    assert done.expect(6) == f"told\n{SQUARES} {MORE}\n"
    for run in place.runs():
        shutil.rmtree(run)
    place.rscoop("journal", "restore", "copy").expect()
    (place.folder / "end").touch()
    back = resume(place)
    assert back.expect() == ""
    assert "as decided on" in back.err
    assert ledger(place) == 35


VARYING: Final = """
import os, sys, time
from resilient_scoop import futures
def same(x): return x
if __name__ == "__main__":
    def has(name): return os.path.exists(name)
    print("first")
    print("second, another" if has("other") else "second")
    print("third", *futures.map(same, [1 if has("argument") else 0, 2, 3]))
    if not has("go"): raise SystemExit(5)
    print("fourth")
    if not has("end"): raise SystemExit(6)
    print("last")
"""


def test_output_that_differs_after_an_edit_replaces_the_recorded_one(place: Place) -> None:
    place.run(VARYING).expect(5)
    (place.folder / "other").touch()
    strictly = resume(place, "--strict")
    strictly.expect(70)
    assert "the journal has 'second', the code now has 'second, another'" in strictly.err
    once = resume(place)
    assert once.expect(5) == "second, another\nthird 0 2 3\n"
    assert once.err.count("replay: the script now writes 'second, another' where") == 1

    for flags in ((), ("--strict",)):
        again = resume(place, *flags)
        assert (again.expect(5), again.err.count("replay:")) == ("", 0), again.err
    (place.folder / "go").touch()
    further = resume(place)
    assert (further.expect(6), further.err.count("replay:")) == ("fourth\n", 0), further.err

    # back to the first output, which differs from the recorded one
    (place.folder / "other").unlink()
    back = resume(place)
    assert back.expect(6) == "second\nthird 0 2 3\nfourth\n"
    assert back.err.count("replay:") == 1
    assert place.rscoop("replay", "last").code == 0
    (place.folder / "end").touch()
    end = resume(place)
    assert (end.expect(0), end.err.count("replay:")) == ("last\n", 0), end.err
    shown = place.rscoop("logs", "last").expect().splitlines()
    assert shown == [
        "first", "second", "third 0 2 3", "second, another", "third 0 2 3", "fourth", "second",
        "third 0 2 3", "fourth", "last",
    ]  # fmt: skip


def test_an_argument_that_differed_is_reported_once_and_computed_once(place: Place) -> None:
    place.run(VARYING).expect(5)
    (place.folder / "argument").touch()
    once = resume(place)
    assert once.expect(5) == "third 1 2 3\n"
    assert once.err.count("its arguments differ from what is journaled") == 1
    for flags in ((), ("--strict",)):
        again = resume(place, *flags)
        assert (again.expect(5), again.err.count("replay:")) == ("", 0), again.err


def test_a_script_that_ends_earlier_than_before_is_reported(place: Place) -> None:
    place.run("print('one'); print('two'); raise SystemExit(5)").expect(5)
    place.write("print('one')")
    strictly = resume(place, "--strict")
    strictly.expect(70)
    assert "the journal has 'two', the code now has the end" in strictly.err
    done = resume(place)
    assert "replay: the script now ends where it wrote 'two' before" in done.err


def test_a_run_fails_although_its_script_catches_the_divergence(place: Place) -> None:
    place.run("print('one'); raise SystemExit(5)").expect(5)
    place.write("""
        try: print('other')
        except Exception: pass
        print('and on')
    """)
    for _ in range(2):
        strictly = resume(place, "--strict")
        strictly.expect(70)
        assert strictly.out == ""
    assert place.rscoop("logs", "last").expect() == "one\n"


def test_a_run_that_a_shorter_script_ended_is_replayed_to_the_same_end(place: Place) -> None:
    place.run("""
        from resilient_scoop import futures
        if __name__ == "__main__":
            for each in range(3):
                print(sum(futures.map(abs, range(each, 5))), futures.once(int, "7"))
            raise SystemExit(5)
    """).expect(5)
    longer = (place.folder / "script.py").read_text()
    place.write(longer.replace("range(3)", "range(2)").replace("raise SystemExit(5)", "pass"))
    resume(place).expect(0)

    done = place.rscoop("replay", "last")
    assert "2 batches" in done.expect(0)

    place.write(longer.replace("raise SystemExit(5)", "pass"))
    assert "expected   no such call" in place.rscoop("replay", "last").expect(1)


PALETTE: Final = """
import enum
from resilient_scoop import futures
class Color(enum.Enum):
    RED = 1
    BLUE = 2
    def code(self): return self.value * 10
def code(x): return max(Color, key=Color.code).value + x
if __name__ == "__main__":
    print(list(futures.map(code, [1])))
    raise SystemExit(5)
"""


def test_a_changed_member_of_an_enum_is_named_with_both_values(place: Place) -> None:
    place.run(PALETTE).expect(5)
    for old, new, named in (
        ("RED = 1", "RED = 3", "Color.RED 1 → 3;"),
        ("BLUE = 2", "BLUE = 2; GREEN = 9", "Color.GREEN not used → 9;"),
        ("    RED = 1\n", "", "Color.RED 1 → not used;"),
        ("value * 10", "value * 20", "Color.code, script.py:7;"),
    ):
        place.write(PALETTE.replace(old, new))
        assert f"code (1 result): {named} add --recompute-changed" in resume(place).err


AREAS: Final = """
from resilient_scoop import futures
class Square:
    sides = 4
    def __init__(self, size): self.size = size
    def area(self):
        return self.size ** 2
def area(shape): return shape.area()
if __name__ == "__main__":
    print(list(futures.map(area, [Square(2), Square(3)])))
    raise SystemExit(5)
"""


def test_an_edited_method_of_the_class_of_arguments_is_named_with_its_line(place: Place) -> None:
    place.run(AREAS).expect(5)
    place.write(AREAS.replace("size ** 2", "size * 3").replace("sides = 4", "sides = 5"))
    done = resume(place)
    assert done.expect(5) == "[6, 9]\n"
    assert (
        "Square.sides (script.py:4: sides = 4 → sides = 5), "
        "Square.area (script.py:6: return self.size ** 2 → return self.size * 3); calls that have"
    ) in done.err


def test_a_missing_module_that_a_function_imports_is_reported(place: Place) -> None:
    place.write("def scaled(x): return 2 * x\n", "lib/special.py")
    place.environ = {"PYTHONPATH": "lib"}
    place.run("""
        from resilient_scoop import futures
        def call(x):
            import special
            return special.scaled(x)
        if __name__ == "__main__":
            print(list(futures.map(call, [1])))
            raise SystemExit(5)
    """).expect(5)
    (place.folder / "lib" / "special.py").rename(place.folder / "lib" / "away.py")
    assert "special … → cannot be imported; add" in resume(place).err


FAILING: Final = """
import os, time
from resilient_scoop import futures
def work(x):
    if x == 3: raise ValueError(x)
    if os.path.exists("slow"): time.sleep(60)
    return x * x
if __name__ == "__main__":
    for x in range(6):
        call = futures.submit(work, x)
        if os.path.exists("slow"):
            open("held", "w").close()
        print(x, call.exception() or call.result())
    if not os.path.exists("end"): raise SystemExit(5)
"""


def test_the_last_line_counts_no_failure_of_code_that_was_replaced(place: Place) -> None:
    # Given a run of which one call has failed
    done = place.rscoop("run", "-n", "2", place.write(FAILING).name)
    assert "6 results, 1 of them failed" in done.err

    # When the function is mended, and its calls are computed again
    place.write(FAILING.replace("raise ValueError(x)", "return 0"))
    (place.folder / "end").touch()
    done = place.rscoop("resume", "--recompute-changed", "last")

    # Then no line says that a call has failed, as no other command does
    assert done.code == 0
    assert "6 results" in done.err
    assert "failed" not in done.err
    assert "no call in the journal has failed" in place.rscoop("failures", "last").expect()


def test_calls_in_flight_whose_function_was_edited_do_not_fail(place: Place) -> None:
    (place.folder / "slow").touch()
    killed_at(place, FAILING, "held")
    (place.folder / "slow").unlink()
    place.write(FAILING.replace("x * x", "x + 1"))
    (place.folder / "end").touch()

    done = place.rscoop("resume", "--recompute-changed", "last")

    assert done.expect().splitlines() == ["0 1", "1 2", "2 3", "3 3", "4 5", "5 6"]
    assert "6 results, 1 of them failed" in done.err
    failed = [item for each in records(place) if isinstance(each, wire.Outcomes)
              for item in each.items if item.failed]  # fmt: skip
    assert [item.call for item in failed] == [3]


PRECISE: Final = """
import decimal
from resilient_scoop import futures
decimal.getcontext().prec = 5
def third(x): return str(decimal.Decimal(x) / 3)
def more(x): return x + 1
if __name__ == "__main__":
    print(*futures.map(third, [1]), *futures.map(more, [1]))
    raise SystemExit(5)
"""


def test_edits_outside_of_functions_are_reported_with_changed_functions(place: Place) -> None:
    place.run(PRECISE).expect(5)
    place.write(PRECISE.replace("prec = 5", "prec = 7").replace("x + 1", "x + 2"))
    edit = "code was edited: a statement (script.py:4); rscoop knows no function"
    kept = "results of functions without a change are kept"

    refused = resume(place)
    refused.expect(2)
    assert "more (1 result)" in refused.err
    assert edit in refused.err
    assert kept in refused.err

    computed = resume(place, "--recompute-changed")
    assert computed.expect(5) == "0.33333 3\n"
    assert edit in computed.err
    assert kept in computed.err
