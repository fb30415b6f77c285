"""Reports to a launcher that does not read for some time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from resilient_scoop.processes.broker import report_pipe
from resilient_scoop.processes.broker.report_pipe import ReportPipe

ROOM = 1 << 16
"""Bytes that a pipe holds."""


class Launcher:
    """The other end of a pipe."""

    def __init__(self) -> None:
        self.fd, self.theirs = os.pipe()
        self.pipe = ReportPipe(self.theirs)

    def fill(self) -> None:
        while self.pipe.offer(b"x" * 4095 + b"\n"):
            pass

    def hear(self, size: int = ROOM) -> list[bytes]:
        """Read; return the lines, without those that only fill the pipe."""
        text = os.read(self.fd, size)
        return [line for line in text.split(b"\n") if line.strip(b"x")]

    def end(self) -> None:
        os.close(self.fd)
        self.fd = -1


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    for fd in (made.fd, made.theirs):
        if fd >= 0:
            os.close(fd)


def test_a_note_waits_for_space_in_the_pipe_and_a_report_is_left_out(launcher: Launcher) -> None:
    launcher.fill()
    launcher.pipe.keep(b"a note\n")
    assert not launcher.pipe.offer(b"a report\n")
    launcher.pipe.keep(b"another\n")
    assert launcher.hear() == []
    assert launcher.pipe.offer(b"a later report\n")
    assert launcher.hear() == [b"a note", b"another", b"a later report"]


def test_a_line_that_fits_partly_is_continued(launcher: Launcher) -> None:
    launcher.fill()
    launcher.hear(8192)
    assert launcher.pipe.offer(b"y" * 10_000 + b"\n")  # longer than what a pipe accepts at once
    assert not launcher.pipe.offer(b"left out\n")
    text = b""
    while b"\n" not in text.lstrip(b"x\n"):
        text += os.read(launcher.fd, ROOM)
        launcher.pipe.flush()
    assert text.lstrip(b"x\n") == b"y" * 10_000 + b"\n"


def test_the_last_report_waits_until_the_launcher_reads(launcher: Launcher) -> None:
    launcher.fill()
    launcher.pipe.keep(b"the run has ended\n", is_final=True)
    ending = threading.Thread(target=launcher.pipe.finish)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    assert launcher.hear() == []
    ending.join(5.0)
    assert not ending.is_alive()
    assert launcher.hear() == [b"the run has ended"]


def test_the_last_report_does_not_wait_for_an_ended_launcher(launcher: Launcher) -> None:
    launcher.fill()
    launcher.pipe.keep(b"the run has ended\n", is_final=True)
    ending = threading.Thread(target=launcher.pipe.finish)
    ending.start()
    launcher.end()
    ending.join(5.0)
    assert not ending.is_alive()
    assert launcher.pipe.is_broken


def test_only_final_reports_wait_without_a_limit(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_pipe, "UNSENT_MAX", 10)
    launcher.fill()
    for text in (b"first one\n", b"second\n"):
        launcher.pipe.keep(text)
    launcher.pipe.keep(b"last\n", is_final=True)
    launcher.hear()
    assert launcher.pipe.flush()
    assert launcher.hear() == [b"first one", b"last"]
