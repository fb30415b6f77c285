"""The output of the script and its tasks is shown in order, recorded, and not repeated by a resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from tests.integration.runs import RSCOOP, Place, finish, wait_until
from tests.integration.test_signals import rendered, terminal

pytestmark = pytest.mark.real

TALKS = """
import logging, os, sys, time, warnings
from resilient_scoop import futures
logging.basicConfig(level=logging.INFO, format="log: %(message)s")
def slow(x):
    time.sleep(0.02)
    return x
if __name__ == "__main__":
    print("start")
    logging.info("started")
    warnings.warn("careful")
    for g in range(8):
        print("generation", g)
        print(f"bar {g}\\r", end="", file=sys.stderr, flush=True)
        print("sum", sum(futures.map(slow, range(10))))
        logging.info("end of %d", g)
        if os.path.exists("wait") and g == 4:
            open("there", "w").close()
            time.sleep(60)
    os.system("echo from a child >&2")
"""


def kill_everything(place: Place) -> None:
    for pid in place.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it died with another process


def test_both_streams_are_shown_in_the_order_in_which_the_script_wrote_them(place: Place) -> None:
    place.write(TALKS)
    both = place.folder / "both"
    with both.open("w") as file:
        process = place.start("run", "-q", "-n", "2", "script.py", stdout=file, stderr=file)
        assert process.wait(30) == 0
    text = re.sub(r"bar \d\r", "", both.read_bytes().decode())
    text = re.sub(r".*UserWarning.*\n.*\n", "", text)
    wanted = ["start", "log: started"]
    for g in range(8):
        wanted += [f"generation {g}", "sum 45", f"log: end of {g}"]
    assert text.splitlines() == [*wanted, "from a child"]


def test_a_resume_repeats_no_standard_error_and_the_run_folder_has_all_of_it(
    place: Place,
) -> None:
    place.write(TALKS)
    (place.folder / "wait").touch()
    process = place.start("run", "-q", "-n", "2", "script.py")
    wait_until((place.folder / "there").exists, 20.0)
    kill_everything(place)
    first = finish(process)
    (place.folder / "wait").unlink()
    resumed = place.rscoop("resume", "-q")
    assert resumed.code == 0, str(resumed)
    place.assert_nothing_left()

    notes = re.findall(r"log: (.*)", first.err + resumed.err)
    # Output after the last call before the crash may be shown again
    assert [each for at, each in enumerate(notes) if notes.index(each) == at] == [
        "started", *(f"end of {g}" for g in range(8)),
    ]  # fmt: skip
    assert len(notes) <= 10
    assert (first.err + resumed.err).count("careful") == 2  # the line of the source is shown too
    recorded = place.rscoop("logs", "--errors").expect()
    assert [recorded.count(f"log: end of {g}\n") for g in range(3)] == [1, 1, 1]
    assert "from a child" in recorded


def test_a_terminal_shows_errors_and_progress_apart(place: Place) -> None:
    place.write("""
        import logging, os, sys, time
        from resilient_scoop import futures
        logging.basicConfig(level=logging.INFO, format="log: %(message)s")
        def slow(x): time.sleep(0.05); return x
        if __name__ == "__main__":
            assert sys.stderr.isatty() and os.isatty(1)
            for g in range(4):
                list(futures.map(slow, range(10)))
                logging.info("generation %d", g)
            for at in range(5):
                print(f"\\rbar {at}/4", end="", file=sys.stderr, flush=True)
                list(futures.map(slow, range(4)))
            print(file=sys.stderr)
            futures.progress(3, 4, label="round")
            list(futures.map(slow, range(30)))
            os.system("echo from a child; echo and its errors >&2")
            list(futures.map(slow, range(10)))
    """)
    screen = terminal(place, "run", "-n", "2", "script.py")
    *lines, last = [line for line in rendered(screen) if line]
    logged = [f"log: generation {g}" for g in range(4)]
    assert lines[:5] == [*logged, "bar 4/4"]
    assert sorted(lines[5:]) == ["and its errors", "from a child"]
    assert " finished in " in last
    assert "75 % | round 3/4 |" in screen


PRINTS = """
import os, sys, time
from resilient_scoop import futures
def evaluate(x):
    print("item", x, end="")
    print(" ends")
    if x == 1: print("a warning", file=sys.stderr)
    return x
def parent(x):
    print("parent begins")
    list(futures.map(evaluate, range(3)))
    print("parent ends its first map")
    if os.path.exists("wait"):
        open("there", "w").close()
        time.sleep(60)
    info = futures.task_info().worker
    return info.index, info.name, info.gpu
if __name__ == "__main__":
    print(futures.submit(parent, 1).result())
"""


def test_output_of_tasks_is_logged_once_with_time_and_origin(place: Place) -> None:
    place.environ["CUDA_VISIBLE_DEVICES"] = "3"
    place.write(PRINTS)
    (place.folder / "wait").touch()
    live = place.folder / "live"
    with live.open("w") as file:
        process = place.start("run", "-n", "1", "--task-output", "script.py", stderr=file)
    wait_until(lambda: "first map" in live.read_text(), 20.0)
    kill_everything(place)
    finish(process)
    assert "[w1 0.0[0].0[1] evaluate] item 1 ends\n" in live.read_text()
    (place.folder / "wait").unlink()
    assert place.rscoop("resume", "-q").expect() == "(0, 'w1', 0)\n"

    lines = place.rscoop("logs", "--tasks").expect().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[w1 ", line) for line in lines)
    texts = [line.partition(" ")[2] for line in lines]
    assert [text for text in texts if "first map" not in text] == [
        "[w1 0.0[0] parent] parent begins",
        "[w1 0.0[0].0[0] evaluate] item 0 ends",
        "[w1 0.0[0].0[1] evaluate] item 1 ends",
        "[w1 0.0[0].0[1] evaluate] a warning",
        "[w1 0.0[0].0[2] evaluate] item 2 ends",
    ]
    both = place.rscoop("logs")
    assert both.out == "(0, 'w1', 0)\n"
    assert "] parent begins" in both.err


NESTED = """
import os, sys, time
from resilient_scoop import futures
def leaf(x):
    time.sleep(0.01)
    if x == 7: raise ValueError(x)
    return x
def safe(x):
    try: return futures.submit(leaf, x).result()
    except ValueError: return 0
def parent(x):
    return sum(futures.map(safe, range(x, x + 6)))
if __name__ == "__main__":
    for g in range(4):
        print(g, sum(futures.map(parent, range(g, g + 4))), flush=True)
        if g == 1: open("half", "w").close()
"""
ITEMS = 4 * 4 * (1 + 6 + 6)
FAILED = sum(x <= 7 < x + 6 for g in range(4) for x in range(g, g + 4))


def assert_counts(place: Place, last_line: str) -> None:
    """Assert that all commands give the same, correct figures."""
    status = place.status()
    row = json.loads(place.rscoop("runs", "--json").expect())["runs"][-1]
    shown = place.rscoop("status").expect()
    assert (status["done"], status["total_known"], status["failed"]) == (ITEMS, ITEMS, FAILED)
    assert (row["done"], row["total_known"], row["failed"]) == (ITEMS, ITEMS, FAILED)
    assert f"{ITEMS}/{ITEMS} done ({FAILED} failed), 0 not yet" in shown
    work = {each["name"]: (each["done"], each["failed"]) for each in status["functions"]}
    assert work == {"parent": (16, 0), "safe": (96, 0), "leaf": (96 - FAILED, FAILED)}
    assert f"{ITEMS} results, {FAILED} of them failed" in last_line
    crashes, resubmitted = status["crashes"], status["resubmitted"]
    found = re.search(r"(\d+|nothing) resubmitted after (\d+) crash", last_line)
    said = (0, 0) if found is None else (int(found[2]), int(found[1].replace("nothing", "0")))
    assert (crashes, resubmitted) == said


def processes(place: Place, role: str) -> list[int]:
    mark = f" resilient_scoop.processes.entry {role} "
    return [pid for pid, words in place.processes().items() if mark in words]


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_all_figures_of_a_nested_run_agree_whichever_process_dies(place: Place) -> None:
    place.write(NESTED)
    for role, deaths in (("", 0), ("worker", 1), ("broker", 1), ("origin", 1), ("agent", 4)):
        process = place.start("run", "-n", "2", "script.py")
        if role:
            wait_until((place.folder / "half").exists, 20.0)
            os.kill(processes(place, role)[0], signal.SIGKILL)
        done = finish(process)
        done.expect()
        assert_counts(place, last_line(done.err))
        assert "from the journal" not in last_line(done.err), "it was not resumed"
        assert place.status()["crashes"] == deaths, role
        (place.folder / "half").unlink()


def test_all_figures_agree_after_everything_was_killed_and_resumed(place: Place) -> None:
    place.write(NESTED)
    process = place.start("run", "-n", "2", "script.py")
    wait_until((place.folder / "half").exists, 20.0)
    kill_everything(place)
    finish(process)
    before = place.status()
    resumed = place.rscoop("resume")
    assert f"{before['done']} results recovered, {before['in_flight']} in flight" in resumed.err
    assert f"{before['done']} from the journal" in last_line(resumed.err)
    assert_counts(place, last_line(resumed.err))


READ_IN_PART = """
import os, sys
from resilient_scoop import futures
def same(x): return x
if __name__ == "__main__":
    for n in range(int(sys.argv[1])):
        print("line", n, "." * 100, flush=len(sys.argv) > 2)
        if n % 50 == 0: list(futures.map(same, range(3)))
    open("end", "w").close()
"""


def test_the_script_ends_where_python_would_notice_that_the_reader_has_left(place: Place) -> None:
    place.write(READ_IN_PART)
    env = {k: v for k, v in place.env().items() if k != "PYTHONUNBUFFERED"}

    def piped(*args: str) -> tuple[int, str, str]:
        shell = '"$@" 2>errors | head -2; exit ${PIPESTATUS[0]}'
        command = ["bash", "-c", shell, "-", *RSCOOP, "run", "-q", "-n", "1", "script.py", *args]
        done = subprocess.run(
            command, cwd=place.folder, env=env, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert done.stdout.startswith("line 0 "), done.stdout
        assert done.stdout.count("\n") == 2
        return done.returncode, (place.folder / "errors").read_text(), done.stdout

    # Given less output than Python's own buffer, it is written when Python would write it
    code, output, _ = piped("20")
    assert (code, output) == (0, "")
    (place.folder / "end").unlink()

    # When there is more, the script gets the error, and a resume has the earlier results
    code, output, _ = piped("3000", "flush")
    assert code in {1, 120}, output
    assert "\nBrokenPipeError: [Errno 32] Broken pipe\n" in output
    assert not (place.folder / "end").exists()
    assert place.rscoop("resume", "-q", "last").expect().endswith(f"line 2999 {'.' * 100}\n")
    assert len(place.rscoop("logs", "--output", "last").expect().splitlines()) == 3000


def test_an_incomplete_line_of_a_task_survives_the_worker(place: Place) -> None:
    place.write("""
        import os
        from resilient_scoop import futures
        def half(x): print("half", x, end=""); return x
        def ends(x): os._exit(3)
        if __name__ == "__main__":
            print(sum(futures.map(half, range(2))))
            try: futures.submit(ends, 0).result()
            except Exception as error: print(error)
    """)
    out = place.rscoop("run", "-q", "-n", "1", "script.py").expect()
    assert "3 times: exit status 3" in out
    assert "rscoop resume --retry-failed" in out
    output = place.rscoop("logs", "--tasks", "last").expect()
    assert "half] half 0\n" in output
    assert "half] half 1\n" in output


def test_the_standard_streams_have_the_names_and_modes_of_python(place: Place) -> None:
    done = place.run("""
        import sys
        from resilient_scoop import futures
        def look(streams):
            return [(each.name, each.mode, each.buffer.name, each.buffer.mode) for each in streams]
        def task(_):
            return look((sys.stdout, sys.stderr))
        if __name__ == "__main__":
            print(look((sys.stdin, sys.stdout, sys.stderr)), *futures.map(task, [1]), sep="\\n")
    """)
    out = [(f"<{each}>", "w", f"<{each}>", "wb") for each in ("stdout", "stderr")]
    found = [("<stdin>", "r", "<stdin>", "rb"), *out]
    assert done.expect().splitlines() == [str(found), str(out)]


PAST_STDOUT = """
import os, pickle, subprocess, sys
from resilient_scoop import futures
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(os.write)) is os.write
    for at in range(3):
        print(f"{at} printed", flush=True)
        subprocess.run(["echo", f"{at} by a process"], check=True)
        print(f"{at} printed again")
        sys.stdout.flush()
        os.write(1, b"%d written\\n" % at)
        print(f"{at} flushed", flush=True)
        os.write(sys.stdout.fileno(), b"%d to its number\\n" % at)
        os.system(f"echo {at} by a shell")
        print(at, "in a fork:", flush=True)
        if os.fork() == 0:
            print(at, "forked", flush=True)
            os._exit(0)
        os.wait()
        print(at, "sum", sum(futures.map(abs, range(3))))
"""


def past_stdout() -> list[str]:
    """Return the output of `PAST_STDOUT` in the order of Python."""
    lines = (
        "printed", "by a process", "printed again", "written", "flushed", "to its number",
        "by a shell", "in a fork:", "forked", "sum 3",
    )  # fmt: skip
    return [f"{at} {line}" for at in range(3) for line in lines]


def test_printed_text_comes_before_text_that_bypasses_stdout(place: Place) -> None:
    assert place.run(PAST_STDOUT).expect().splitlines() == past_stdout()
    with (place.folder / "out").open("w") as out:
        place.rscoop("run", "-q", "-n", "2", "script.py", stdout=out).expect()
    assert (place.folder / "out").read_text().splitlines() == past_stdout()
    text = (place.folder / "script.py").read_text().replace(", flush=True", "")
    place.write(text.replace("sys.stdout.flush()", "pass"))
    screen = terminal(place, "run", "-q", "-n", "2", "script.py")
    assert [line for line in rendered(screen) if line] == past_stdout()


def test_the_last_line_of_a_script_that_kills_itself_is_shown(place: Place) -> None:
    done = place.run("""
        import os, signal
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(sum(futures.map(abs, range(3))))
            print("the last line")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert done.expect(70) == "3\nthe last line\n"
    # Reported when it is started again, and not at the last death
    assert done.err.count("it is started again and continues there") == 4
    assert done.err.count("was ended 5 times") == 1
