"""The display of a run: bytes through pipes, and a clock that the test sets."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from resilient_scoop.runs.display import (
    Display,
    Rate,
    RemainingTime,
    RunProgress,
    columns,
    duration,
    progress_line,
)

CLEAR = b"\r\x1b[2K"


@dataclass
class Screen:
    """A display whose streams and clock the test controls."""

    tty: bool = True
    now: float = 100.0
    out: io.BytesIO = field(default_factory=io.BytesIO)
    err: io.BytesIO = field(default_factory=io.BytesIO)
    quiet: bool = False

    def __post_init__(self) -> None:
        self.display = Display(
            self.out, self.err, "abc12345", self.tty, quiet=self.quiet, clock=lambda: self.now
        )


def test_output_passes_byte_for_byte() -> None:
    screen = Screen(tty=False)
    screen.display.output(b"a\xff\x00")
    screen.display.output(b"b\n")
    assert screen.out.getvalue() == b"a\xff\x00b\n"
    assert screen.err.getvalue() == b""


def test_a_note_is_one_line_with_the_name_of_the_program() -> None:
    screen = Screen(tty=False)
    screen.display.note("worker w1 lost (SIGKILL)")
    assert screen.err.getvalue() == b"rscoop: worker w1 lost (SIGKILL)\n"


def test_a_note_begins_a_line_after_an_incomplete_one_of_standard_error() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    display = Display(out, err, "run", tty=False)
    for text in (b"no end", b" of a line", b"a line\n"):
        display.error(text)
        display.note("news")
    assert err.getvalue() == (
        b"no end\nrscoop: news\n of a line\nrscoop: news\na line\nrscoop: news\n"
    )


def test_the_live_line_is_cleared_for_output_and_drawn_again() -> None:
    screen = Screen()
    screen.display.progress(RunProgress(done=3, running=2, workers=2))
    before = len(screen.err.getvalue())
    screen.display.output(b"hello\n")
    after = screen.err.getvalue()[before:]
    assert after.startswith(
        CLEAR + CLEAR + b"0s | 2 running on 2 workers | 3 results | run abc12345"
    )
    screen.display.close()
    assert screen.err.getvalue().endswith(CLEAR)


def test_the_live_line_is_drawn_at_most_ten_times_a_second() -> None:
    screen = Screen()
    for done in range(50):
        screen.now += 0.01
        screen.display.progress(RunProgress(done=done))
    assert screen.err.getvalue().count(CLEAR) <= 6


def test_an_unchanged_snapshot_is_not_drawn_again() -> None:
    screen = Screen()
    screen.display.progress(RunProgress(done=1))
    drawn = screen.err.getvalue()
    screen.now += 10
    screen.display.progress(RunProgress(done=1))
    assert screen.err.getvalue() == drawn


def test_without_a_terminal_there_is_one_plain_line_a_minute() -> None:
    screen = Screen(tty=False)
    for _ in range(1300):
        screen.now += 0.1
        screen.display.progress(RunProgress(done=7))
    lines = screen.err.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(b"rscoop: run abc12345: 0s | no worker yet | 7 results")
    assert b"\x1b" not in screen.err.getvalue()


def test_quiet_leaves_out_progress_but_no_notes() -> None:
    screen = Screen(quiet=True)
    screen.display.progress(RunProgress(done=1))
    screen.display.note("disk full")
    assert screen.err.getvalue() == b"rscoop: disk full\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_no_line_is_drawn_over_an_incomplete_line_of_the_script(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with os.fdopen(os.dup(theirs), "wb", buffering=0) as stream:
        display = Display(stream, stream, "abc12345", tty=True, clock=lambda: 0.0)
        display.output(b"working... ")
        display.progress(RunProgress(done=1))
        assert os.read(ours, 1000) == b"working... "
        display.output(b"done\n")
        end = b"done\r\n" + CLEAR
        seen = b""
        # a read of a terminal returns the available bytes, not one write
        while len(seen) < len(end):
            seen += os.read(ours, 1000)
        assert seen.startswith(end)


def test_the_live_line_never_wraps(terminal: tuple[int, int]) -> None:
    import fcntl
    import struct
    import termios

    ours, theirs = terminal
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 30, 0, 0))
    with os.fdopen(os.dup(theirs), "wb", buffering=0) as stream:
        Display(stream, stream, "abc12345", tty=True).progress(
            RunProgress(elapsed_s=65, done=10**12, batch="x" * 99, workers=3)
        )
        line = os.read(ours, 1000).removeprefix(CLEAR)
    assert line == b"1m05s"


def test_the_live_line_is_not_drawn_while_a_pipe_is_full(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    read, write = os.pipe()
    now = 100.0
    with (
        os.fdopen(write, "wb") as out,
        os.fdopen(os.dup(theirs), "wb") as err,
    ):
        display = Display(out, err, "abc12345", tty=True, clock=lambda: now)
        at = RunProgress(done=3, running=2, workers=2)
        display.progress(at)
        assert os.read(ours, 4096).startswith(CLEAR)
        display.output(b"hello\n")
        assert os.read(ours, 4096) == CLEAR  # the reader of the pipe may now write here
        display.progress(at)
        now += 0.2
        display.progress(at)
        assert os.read(ours, 4096).count(CLEAR) == 1
        display.close()
    os.close(read)


def test_a_slow_reader_on_a_non_blocking_pipe_gets_every_byte() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    data = os.urandom(1 << 20)
    got = bytearray()

    def drain() -> None:
        while chunk := os.read(read, 65536):
            got.extend(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    with os.fdopen(write, "wb", buffering=0) as stream:
        Display(stream, io.BytesIO(), "r", tty=False).output(data)
    reader.join()
    os.close(read)
    assert bytes(got) == data


def test_the_run_continues_when_the_reader_goes_away() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stream:
        display = Display(stream, io.BytesIO(), "r", tty=False)
        display.output(b"x")
        display.output(b"y")


def test_the_rate_is_computed_from_the_last_seconds() -> None:
    rate = Rate(window_s=10)
    for second in range(100):
        rate.add(second, second * 5)
    assert rate.add(100, 500) == pytest.approx(5)
    later = [rate.add(second, 500) for second in range(101, 120)]
    assert later[0] > later[5] > later[-1] == 0


def test_the_rate_begins_again_when_the_count_falls() -> None:
    rate = Rate()
    rate.add(0, 1000)
    assert rate.add(1, 10) == 0
    assert rate.add(2, 20) == 10


def test_remaining_time_is_shown_only_if_the_total_is_known() -> None:
    course = RemainingTime()
    assert course.eta_s(0, "0.0 f", 0.1) is None  # no result of it yet
    assert course.eta_s(2, "0.0 f", 0.5) is None  # too few results
    assert course.eta_s(10, "0.0 f", 0.6) == pytest.approx(8)
    assert course.eta_s(20, "0.1 g", 0.2) is None  # another call
    assert course.eta_s(30, "0.1 g", None) is None
    assert "left" not in progress_line(RunProgress(done=1))
    assert "2s left of this call" in progress_line(RunProgress(batch="0.0 f", batch_eta_s=2))


def test_progress_of_the_script_is_shown_first() -> None:
    at = RunProgress(
        elapsed_s=125, label="generation 15/60", share=0.25, eta_s=300, batch="0.15 evaluate",
        batch_done=30, batch_total=120, workers=2, running=2, rate_per_s=12.34, done=1500,
    )  # fmt: skip
    assert progress_line(at) == (
        "2m05s | 25 % | generation 15/60 | 0.15 evaluate 30/120 | 5m00s left | "
        "2 running on 2 workers | 12.3/s | 1500 results"
    )


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (79, "2m05s | 25 % | generation 15/60 | 0.15 evaluate 30/120 | 5m00s left"),
        (39, "2m05s | 25 % | generation 15/60"),
        (12, "2m05s | 25 %"),
    ],
)
def test_a_narrow_line_leaves_out_whole_parts(width: int, line: str) -> None:
    at = RunProgress(
        elapsed_s=125, label="generation 15/60", share=0.25, eta_s=300, batch="0.15 evaluate",
        batch_done=30, batch_total=120, workers=2, running=2, rate_per_s=12.34, done=1500,
        crashes=1, resubmitted=4,
    )  # fmt: skip
    line_shown = progress_line(at, width, "run abc12345")
    assert len(line_shown) <= width
    assert line_shown == line


def test_wide_letters_count_for_two_columns() -> None:
    at = RunProgress(elapsed_s=5, label="世代 1/60", share=0.5)
    assert columns("世代 1/60") == 9
    assert progress_line(at, 22, "run abc12345") == "5s | 50 % | 世代 1/60"
    assert progress_line(at, 20, "run abc12345") == "5s | 50 %"


def test_losses_are_shown_if_there_are_any() -> None:
    assert "crash" not in progress_line(RunProgress())
    assert "2 crashes, 5 resubmitted" in progress_line(RunProgress(crashes=2, resubmitted=5))


def test_durations_are_shown_in_usual_notation() -> None:
    spoken = [duration(each) for each in (0.4, 59, 61, 3900, 90000)]
    assert spoken == ["0s", "59s", "1m01s", "1h05m", "1d01h"]


def test_the_line_shows_the_number_of_connected_hosts() -> None:
    line = progress_line(RunProgress(running=3, workers=4, hosts_there=1, hosts=2))
    assert "3 running on 4 workers, 1 of 2 hosts" in line
    assert "no worker yet, 0 of 2 hosts" in progress_line(RunProgress(hosts=2))
    assert "host" not in progress_line(RunProgress(running=3, workers=4))
