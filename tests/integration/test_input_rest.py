"""A standard input that a crash interrupted: a resume gets the rest, or stops and reports it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.integration.runs import RSCOOP, Done, Place, finish, wait_until

pytestmark = pytest.mark.real

ADDING: Final = """
import os, sys, time
from resilient_scoop import futures
def double(x): return 2 * x
if __name__ == "__main__":
    total = 0
    while line := sys.stdin.readline():
        total += futures.submit(double, int(line)).result()
        print("now", total)
        if line == "2\\n" and not os.path.exists("go"):
            open("go", "w").close()
            time.sleep(60)
    print("total", total)
"""


def killed(place: Place, stdin: int, data: bytes = b"", *, whole: bool = False) -> None:
    """Run the script on an input until it has read `2`, and kill all of it."""
    process = subprocess.Popen(
        [*RSCOOP, "run", "-q", "-n", "1", "script.py"], cwd=place.folder, env=place.env(),
        stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if process.stdin is not None:
        process.stdin.write(data)
        process.stdin.flush()
    wait_until((place.folder / "go").exists, 20)
    if whole:  # the launcher checks about once a second whether an input has ended
        wait_until(lambda: any((run / "input.json").exists() for run in place.runs()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    wait_until(lambda: not place.processes())


def resumed(place: Place, *args: str, stdin: bytes | Path = b"") -> Done:
    """Resume with an input: bytes for a pipe, or a file; None means /dev/null."""
    path = stdin if isinstance(stdin, Path) else Path(os.devnull)
    with path.open("rb") as file:
        process = subprocess.Popen(
            [*RSCOOP, "resume", "-q", *args, "last"], cwd=place.folder, env=place.env(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) and stdin else file,
        )  # fmt: skip
    done = finish(process, stdin.decode() if isinstance(stdin, bytes) else None)
    place.assert_nothing_left()
    return done


def test_the_rest_of_an_interrupted_pipe_is_requested_and_no_end_of_file_is_assumed(
    place: Place,
) -> None:
    place.write(ADDING)
    killed(place, subprocess.PIPE, b"1\n2\n")

    # A resume without an input stops, and changes nothing
    for _ in range(2):
        empty = resumed(place)
        assert empty.code == 75, str(empty)
        assert "cut short after 4 bytes, and this resume's standard input is empty" in empty.err
        assert "total" not in empty.out

    # A resume with the rest completes the input
    given = resumed(place, stdin=b"10\n")
    assert given.expect().split("\n")[-3:] == ["now 26", "total 26", ""]
    assert "the rest is read from this resume's standard input" in given.err


def test_end_of_input_option_declares_the_input_complete(place: Place) -> None:
    place.write(ADDING)
    killed(place, subprocess.PIPE, b"1\n2\n")
    assert resumed(place, "--end-of-input").expect().endswith("total 6\n")


@pytest.mark.parametrize("again", [False, True])
def test_a_file_continues_where_it_was_left(place: Place, *, again: bool) -> None:
    data = place.folder / "data"
    data.write_text("1\n2\n" + "3\n" * 40_000)  # more than one piece
    place.write(ADDING.replace("int(line)", "len(line)").replace('print("now", total)', "0"))
    text = (place.folder / "script.py").read_text()
    (place.folder / "script.py").write_text(
        text.replace("futures.submit(double, len(line)).result()", "double(len(line))")
    )
    with data.open("rb") as file:
        killed(place, file.fileno())
    done = resumed(place, stdin=data) if again else resumed(place)
    assert done.expect() == f"total {4 * 40_002}\n"
    assert "the script's input continues from" in done.err
    # It may have been killed before the first piece was in the journal.
    assert "at byte 65536" in done.err or "after 0 bytes" in done.err


def test_an_input_that_had_ended_needs_no_rest(place: Place) -> None:
    place.write(ADDING)
    data = place.folder / "data"
    data.write_text("1\n2\n")
    with data.open("rb") as file:
        killed(place, file.fileno(), whole=True)
    data.unlink()
    assert resumed(place).expect().endswith("total 6\n")


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_an_input_of_a_resume_is_not_read_if_the_input_of_the_script_had_ended(
    place: Place, kind: str
) -> None:
    place.write(ADDING)
    for name, text in (("input", "1\n2\n3\n"), ("other", "40\n50\n")):
        place.write(text, name)
    with (place.folder / "input").open("rb") as file:
        killed(place, file.fileno(), whole=True)
    done = resumed(place, stdin=place.folder / "other" if kind == "file" else b"40\n50\n")
    assert done.expect().endswith("now 12\ntotal 12\n")
    assert "had ended after 6 bytes: the standard input of this resume is not read" in done.err


def test_a_script_whose_file_had_ended_continues_to_read_another_file_and_this_is_reported(
    place: Place,
) -> None:
    place.write(ADDING.replace("time.sleep(60)", "raise SystemExit(5)"))
    for name, text in (("input", "1\n2\n"), ("other", "40\n50\n")):
        place.write(text, name)
    with (place.folder / "input").open("rb") as file:
        finish(place.start("run", "-q", "-n", "1", "script.py", stdin=file)).expect(5)
    done = resumed(place, stdin=place.folder / "other")
    assert done.expect().endswith("now 86\nnow 186\ntotal 186\n")
    assert f"had ended after 4 bytes; now it continues from {place.folder / 'other'}" in done.err
