"""A script waits before text that bypasses `sys.stdout`."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from resilient_scoop.processes.launcher.shown_output import ShownOutput
from resilient_scoop.processes.origin import direct_output
from resilient_scoop.processes.origin.direct_output import InOrder


class Output:
    """The script's output, as far as it is requested."""

    is_recorded = True

    def __init__(self, due: int, position: int) -> None:
        self.due, self._position = due, position
        self.sent = 0

    def position(self) -> int:
        return self._position

    def send(self, _wait_s: float) -> None:
        self.sent += 1


@pytest.fixture
def shown(tmp_path: Path) -> ShownOutput:
    return ShownOutput(tmp_path / "shown", os.open(os.devnull, os.O_WRONLY))


def in_order(output: Output, tmp_path: Path) -> InOrder:
    return InOrder(cast("Any", output), tmp_path / "shown")


def display(shown: ShownOutput, data: bytes) -> None:
    shown.begin(data)
    shown.end()


def test_the_wait_ends_when_the_launcher_has_displayed_the_earlier_output(
    shown: ShownOutput, tmp_path: Path
) -> None:
    output = Output(due=3, position=5)
    waiting = in_order(output, tmp_path)
    threading.Timer(0.05, display, (shown, b"abc")).start()
    began = time.monotonic()
    waiting.wait()
    assert 0.04 < time.monotonic() - began < direct_output.WAIT_S
    waiting.wait()
    assert output.sent == 1  # there is nothing to wait for any more


def test_a_signal_also_waits_for_text_that_is_not_flushed(
    shown: ShownOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_output, "WAIT_S", 0.05)
    display(shown, b"abc")
    output = Output(due=3, position=5)
    waiting = in_order(output, tmp_path)
    waiting.wait()
    assert output.sent == 0
    waiting.wait(unflushed=True)
    assert output.sent == 1


def test_the_script_waits_for_a_slow_display_only_once(
    shown: ShownOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_output, "WAIT_S", 0.05)
    display(shown, b"a")
    output = Output(due=3, position=3)
    waiting = in_order(output, tmp_path)
    for _ in range(3):
        waiting.wait()
    assert output.sent == 1
    output.due = 4
    waiting.wait()
    assert output.sent == 2


def test_a_forked_child_waits_for_nothing(shown: ShownOutput, tmp_path: Path) -> None:
    output = Output(due=3, position=3)
    output.is_recorded = False
    in_order(output, tmp_path).wait()
    assert (output.sent, shown.count) == (0, 0)
