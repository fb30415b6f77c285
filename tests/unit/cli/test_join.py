"""What `rscoop join` shows of its agent's messages."""

from __future__ import annotations

import io
import json

import pytest

from resilient_scoop.cli import join

RENEWED = "the keys of the run were renewed. To take part again: rscoop invite, rscoop join"


@pytest.mark.parametrize(
    ("whys", "is_left", "text"),
    [
        ([RENEWED, ""], False, RENEWED),
        ([""], False, "the run does not need this host any more"),
        ([""], True, "this host has left the run"),
    ],
)
def test_the_end_of_an_agent_is_explained_once(
    capsys: pytest.CaptureFixture[str],
    whys: list[str],
    is_left: bool,  # noqa: FBT001
    text: str,
) -> None:
    leave = join._Leave(io.BytesIO())
    leave.is_asked = is_left
    shown = join._Shown("r1", leave)
    shown.take("noise of a login shell\n")
    for why in whys:
        shown.take(f"{join._MARK}{json.dumps({'state': 'ended', 'why': why})}\n")
    assert capsys.readouterr().err == f"rscoop: {text}\n"
    assert shown.refused == ""


def test_a_refusal_is_kept_for_the_exit_code() -> None:
    shown = join._Shown("r1", join._Leave(io.BytesIO()))
    shown.take(f"{join._MARK}{json.dumps({'state': 'refused', 'why': 'no'})}\n")
    assert shown.refused == "no"
