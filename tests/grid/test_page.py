"""The commands of the page for users work as written, on a desk with three workstations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import command, grid, rounds
from chaos.command import Place
from chaos.grid import Grid, GridResult
from chaos.lab import DESK, Lab
from tests.integration.runs import wait_until

pytestmark = [pytest.mark.grid, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs" / "grid.md"
COMMANDS = re.findall(r"^ +\$ (.*)$", PAGE.read_text(), re.MULTILINE)
COMING_AND_GOING = re.findall(
    r"^\| `(rscoop (?:invite|drain|revoke) .*?)` \|", PAGE.read_text(), re.MULTILINE
)
RUN = "rscoop run --hostfile hosts.txt ea.py"


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Iterator[Place]:
    """A folder that all hosts see; its commands run on the desk."""
    with rounds.staged(GridResult(0, Path(), []), tmp_path, lab.shared) as made:
        place = Grid(lab, tmp_path, slow=12.0).settle(made)
        place.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        place.environ["COLUMNS"] = "150"
        yield place


def typed(place: Place, text: str) -> str:
    """Type a command; return what it prints."""
    done = subprocess.run(
        [*place.entering, "bash", "-c", text], env=place.environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def states(place: Place) -> dict[str, str]:
    lines = typed(place, "rscoop hosts").splitlines()[1:]
    return {
        words[0]: words[1]
        for words in map(str.split, lines)
        if len(words) > 5 and words[0][-1] != ":"
    }


def test_the_commands_of_the_page_work_as_written(lab: Lab, place: Place) -> None:
    script = rounds.script_of("plain_ea")
    (place.root / "ea.py").write_text(script.read_text())
    before, after = COMMANDS[: COMMANDS.index(RUN)], COMMANDS[COMMANDS.index(RUN) + 1 :]
    assert len(COMING_AND_GOING) == 3
    printed = {text: typed(place, text) for text in before}
    assert printed["ssh alice hostname"] == "alice\n"
    assert printed["rscoop doctor --hostfile hosts.txt"].count(" ok ") == 3
    with place.out.open("wb") as out, place.err.open("wb") as err:
        run = subprocess.Popen(
            [*place.entering, "bash", "-c", f"exec {RUN}"],
            env=place.environ,
            stdout=out,
            stderr=err,
        )
    wait_until(lambda: list(states(place).values()) == ["up"] * 3 if place.run() else False, 30.0)
    for text in (*after, *COMING_AND_GOING):
        typed(place, text)
    python = sys.executable
    joined = lab.start(
        "carol",
        [python, "-m", "resilient_scoop", "join", "ticket"],
        env=place.environ,
        cwd=place.root,
    )
    wanted = {"alice": "up", "bob": "drained", "carol": "revoked", "dave": "up"}
    wait_until(lambda: states(place) == wanted, 20.0, lambda: str(states(place)))
    assert run.wait(60) == 0, place.err.read_text()
    assert joined.wait(10) == 0
    assert place.output() == grid.serial_output(script)
    assert command.ask(place, "status")[0] == 0
    wait_until(lambda: not any(lab.processes(name) for name in (DESK, *lab.hosts)), 5.0)
