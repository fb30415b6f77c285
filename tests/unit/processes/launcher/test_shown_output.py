"""The output that a killed launcher had displayed, and how its successor continues."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.processes.launcher.shown_output import ShownOutput

FIRST, SECOND = b"first line\n", b"second line\n"


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)


def display(shown: ShownOutput, out: int, piece: bytes) -> None:
    known = shown.begin(piece)
    os.write(out, piece[known:])
    shown.end()


def test_displayed_output_is_counted(tmp_path: Path, out: int) -> None:
    shown = ShownOutput(tmp_path / "shown", out)
    display(shown, out, FIRST)
    display(shown, out, SECOND)

    assert ShownOutput(tmp_path / "shown", out).count == len(FIRST + SECOND)


@pytest.mark.parametrize("written", [0, 4, len(SECOND)])
def test_a_piece_in_transit_is_displayed_once(tmp_path: Path, out: int, written: int) -> None:
    # Given a launcher that was killed while it displayed its second piece
    shown = ShownOutput(tmp_path / "shown", out)
    display(shown, out, FIRST)
    shown.begin(SECOND)
    os.write(out, SECOND[:written])

    # When its successor continues after the first
    successor = ShownOutput(tmp_path / "shown", out)
    assert successor.count == len(FIRST)
    display(successor, out, SECOND)

    # Then everything is displayed once
    assert (tmp_path / "out").read_bytes() == FIRST + SECOND
    assert successor.count == len(FIRST + SECOND)


def test_a_piece_is_found_after_output_of_other_programs_in_the_same_file(
    tmp_path: Path, out: int
) -> None:
    shown = ShownOutput(tmp_path / "shown", out)
    shown.begin(FIRST)
    os.write(out, b"rscoop: a note\n" + FIRST)

    assert ShownOutput(tmp_path / "shown", out).begin(FIRST) == len(FIRST)


def test_a_piece_is_displayed_again_if_the_output_cannot_be_checked(
    tmp_path: Path, out: int
) -> None:
    ours, theirs = os.pipe()
    shown = ShownOutput(tmp_path / "shown", theirs)
    shown.begin(FIRST)
    os.write(theirs, FIRST)

    for fd in (theirs, out):
        assert ShownOutput(tmp_path / "shown", fd).begin(FIRST) == 0
    os.close(ours)
    os.close(theirs)
