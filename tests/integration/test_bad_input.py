"""Mistakes of users: each message says what happened, to what, and what to do next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.integration.runs import RSCOOP, Place, finish, ledger, wait_until

pytestmark = pytest.mark.real


def limited(place: Place, limits: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `rscoop ARGS` from a shell with `ulimit LIMITS`."""
    return subprocess.run(
        ["bash", "-c", f'ulimit {limits}; exec "$@"', "-", *RSCOOP, *args],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=40,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_error_for_an_unknown_run_names_similar_ones(place: Place) -> None:
    place.write("print(1)")
    place.rscoop("run", "-q", "-n", "1", "--name", "evolution", "script.py").expect()
    for command in (["status"], ["resume"], ["logs"], ["attach"], ["cancel"]):
        done = place.rscoop(*command, "evolutoin")
        done.expect(2)
        assert "there is no run 'evolutoin'; did you mean evolution?" in done.err


def test_last_selects_no_run_if_there_is_none(place: Place) -> None:
    done = place.rscoop("resume", "last")
    done.expect(2)
    assert "no run" in done.err


def test_a_running_run_is_not_resumed(place: Place) -> None:
    place.write("""
        import time
        open("begun", "w").close()
        time.sleep(20)
    """)
    process = place.start("run", "-q", "-n", "1", "script.py")
    wait_until((place.folder / "begun").exists)
    refused = place.rscoop("resume", "last")
    refused.expect(73)
    assert f"process {process.pid} on {os.uname().nodename}" in refused.err
    process.terminate()
    finish(process).expect(143)
    place.assert_nothing_left()


def test_resume_reports_that_a_run_has_finished(place: Place) -> None:
    place.run("print('out')").expect()
    done = place.rscoop("resume", "last")
    assert done.expect(0) == ""
    assert "has finished" in done.err
    assert "rscoop logs" in done.err


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        (None, "can't open file", 2),
        ("def broken(:\n", "SyntaxError", 1),
        ("\x00\x01", "null bytes", 1),
        ("\x7fELF\x02\x01\x01", "SyntaxError", 1),
    ],
)
def test_an_invalid_script_leaves_no_run(
    place: Place, text: str | None, says: str, code: int
) -> None:
    if text is not None:
        place.write(text)
    done = place.rscoop("run", "-q", "script.py")
    done.expect(code)
    assert says in done.err
    assert place.runs() == []


COUNT = """
from resilient_scoop import futures
def work(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return x * x
if __name__ == "__main__":
    values = list(futures.map(work, range(30)))
    print(sum(values))
    if not __import__("os").path.exists("go"): raise SystemExit(5)
"""


def test_a_damaged_journal_is_named_with_advice(place: Place) -> None:
    place.run(COUNT).expect(5)
    data = place.runs()[0] / "journal" / "data.mdb"
    content = bytearray(data.read_bytes())
    for at in range(8192, len(content), 37):
        content[at] ^= 0x5A
    data.write_bytes(content)
    for command in (["resume", "-q"], ["status"], ["logs"]):
        done = place.rscoop(*command, "last")
        done.expect(74)
        assert "damaged" in done.err, done.err
        assert "rscoop journal" in done.err, done.err
        assert str(data.parent) in done.err, done.err
        assert "Traceback" not in done.err, done.err
    place.assert_nothing_left()


def test_other_versions_of_dependencies_are_reported_with_both_numbers(place: Place) -> None:
    place.run(COUNT).expect(5)
    path = place.runs()[0] / "run.json"
    info = json.loads(path.read_text())
    info["versions"]["dill"] = "0.1.0"
    info["python_version"] = "3.11.0"
    path.write_text(json.dumps(info))
    (place.folder / "go").touch()
    done = place.rscoop("resume", "-q", "last")
    done.expect()
    assert "dill was 0.1.0 when the run began and is " in done.err
    assert "Python was 3.11.0" in done.err


def test_a_resume_asks_about_results_whose_code_has_changed(place: Place) -> None:
    place.run(COUNT).expect(5)
    place.write(COUNT.replace("return x * x", "return x + 1"))
    (place.folder / "go").touch()

    stopped = place.rscoop("resume", "-q", "last")
    stopped.expect(2)
    assert "work (30 results)" in stopped.err
    assert "--recompute-changed" in stopped.err
    assert "--reuse-changed" in stopped.err
    assert len(ledger(place)) == 30
    foretold = place.rscoop("resume", "--dry-run", "last")
    assert "work: the code of 30 results has changed" in foretold.expect()

    again = place.rscoop("resume", "-q", "--recompute-changed=work", "last")
    assert again.expect() == f"{sum(x + 1 for x in range(30))}\n"
    assert "replay: the script now writes '465'" in again.err
    assert len(ledger(place)) == 60
    place.assert_nothing_left()


def test_results_of_changed_code_are_kept_on_request(place: Place) -> None:
    place.run(COUNT).expect(5)
    place.write(COUNT.replace("return x * x", "return x + 1"))
    (place.folder / "go").touch()
    kept = place.rscoop("resume", "-q", "--reuse-changed", "last")
    kept.expect()
    assert place.rscoop("logs", "last").expect() == f"{sum(x * x for x in range(30))}\n"
    assert len(ledger(place)) == 30


def test_comments_and_docstrings_do_not_count_as_changes_of_code(place: Place) -> None:
    place.run(COUNT).expect(5)
    place.write(
        COUNT.replace("def work(x):", "# moved\n\ndef other(): pass\ndef work(x):  # why\n")
        .replace("return x * x", '"""Square."""\n    return (x * x)')
        .replace('    with open("ledger"', '    with open( "ledger"')
        .replace('"""Square."""\n    ', "")
    )
    (place.folder / "go").touch()
    place.rscoop("resume", "-q", "last").expect()
    assert len(ledger(place)) == 30


def test_maps_reductions_and_methods_cause_no_false_alarm_at_a_resume(place: Place) -> None:
    place.run("""
        import functools, operator, os, random
        from resilient_scoop import futures
        class Model:
            def __init__(self, k): self.k = k
            def score(self, x): return self.k * x
            def __call__(self, x): return self.k + x
        def square(x): return x * x
        def total(n): return sum(futures.map(square, range(n)))
        def power(a, b): return a ** b
        if __name__ == "__main__":
            print(futures.mapReduce(square, operator.add, range(20)))
            print(futures.mapScan(square, operator.add, range(5)))
            print(list(futures.map(Model(2).score, [1])), list(futures.map(Model(2), [1])))
            print(list(futures.map(functools.partial(power, b=2), [3])), list(futures.map(len, ["a"])))
            print(list(futures.map(lambda x: -x, [1])), futures.submit(total, 4).result())
            if not os.path.exists("go"): raise SystemExit(5)
    """).expect(5)
    (place.folder / "go").touch()
    done = place.rscoop("resume", "-q", "last")
    done.expect()
    assert "changed" not in done.err
    assert "recomputed" not in done.err


def test_a_file_size_limit_keeps_finished_results_and_is_reported(place: Place) -> None:
    place.write("""
        from resilient_scoop import futures
        def work(x): return bytes(600_000)
        if __name__ == "__main__":
            print(sum(map(len, futures.map(work, range(60)))))
    """)
    with (place.folder / "errors").open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", 'ulimit -f 6000; exec "$@"', "-", *RSCOOP, "run", "-q", "-n", "2",
             "script.py"],
            cwd=place.folder, env=place.env(), stderr=file, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def errors() -> str:
        return (place.folder / "errors").read_text()

    wait_until(lambda: "larger than a file may be here (`ulimit -f`)" in errors(), 20, errors)
    assert "no file of the run may be larger than 6.1 MB" in place.rscoop("status", "last").expect()
    process.send_signal(signal.SIGINT)
    assert process.wait(8) == 130, errors()
    assert "rscoop resume" in errors()
    assert "Traceback" not in errors()
    place.assert_nothing_left()
    resumed = place.rscoop("resume", "-q", "last")
    assert resumed.expect() == "36000000\n"
    assert (
        "this shell's resource limits are used, because the run reached one of its own"
        in resumed.err
    )


def test_a_state_folder_that_cannot_be_written_is_named(place: Place) -> None:
    place.write("print(1)")
    done = place.rscoop("--state-dir", "/proc/nowhere", "run", "-q", "script.py")
    done.expect(2)
    assert "/proc/nowhere" in done.err
    assert "--state-dir" in done.err
    (place.folder / "file").touch()
    done = place.rscoop("--state-dir", "file", "run", "-q", "script.py")
    done.expect(2)
    assert "not a folder" in done.err


def test_few_descriptors_processes_or_memory_end_a_run_with_a_clear_message(place: Place) -> None:
    place.write("""
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(list(futures.map(abs, [-1])))
    """)
    for limits in ("-n 12", "-v 60000"):
        began = time.monotonic()
        done = limited(place, limits, "run", "-q", "-n", "2", "script.py")
        assert time.monotonic() - began < 25, limits
        if done.returncode:
            assert "Traceback" not in done.stderr, done.stderr
            assert "rscoop: " in done.stderr, limits
        else:
            assert done.stdout == "[1]\n"
        place.assert_nothing_left()
    assert limited(place, "-n 64", "run", "-q", "-n", "2", "script.py").stdout == "[1]\n"
