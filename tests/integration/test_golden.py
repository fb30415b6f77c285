"""Journals that earlier versions left: opened, found sound, and continued with.

See `tests/golden/make.py`, which made them.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import read_status
from tests.integration.runs import Place

pytestmark = pytest.mark.real

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted({path.name.split("-")[1] for path in GOLDEN.glob("format-*.tar.gz")})


@dataclass
class Golden:
    """A golden run, unpacked where its script is found, and what it had printed."""

    run: RunDir
    place: Place
    printed: str


def unpacked(place: Place, which: str) -> Golden:
    told = json.loads((GOLDEN / f"format-{which}.json").read_text())
    run = place.state / "runs" / told["run"]
    run.mkdir(mode=0o700, parents=True)
    with tarfile.open(GOLDEN / f"format-{which}.tar.gz") as tar:
        tar.extractall(run, filter="data")
    for folder in (run, run / "journal"):
        folder.chmod(0o700)
    (run / "logs").mkdir()
    info = json.loads((run / "run.json").read_text())
    info["script"], info["cwd"] = str(GOLDEN / told["script"]), str(GOLDEN)
    info["argv"] = [str(place.folder / "go")]
    (run / "run.json").write_text(json.dumps(info))
    (place.folder / "go").touch()
    return Golden(RunDir(run), place, told["printed"])


def test_there_are_some() -> None:
    assert FORMATS


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("kind", ["finished", "killed"])
def test_it_is_whole_and_can_be_read(place: Place, kind: str, number: str) -> None:
    golden = unpacked(place, f"{number}-{kind}")
    assert check(golden.run.journal, Depth.CONTENTS).problems == []
    figures = read_status(golden.run, golden.run.load())
    assert figures.done >= 130
    assert figures.failed == 1
    assert figures.output_bytes == len(golden.printed)
    assert (figures.ended is not None) == (kind == "finished")
    assert place.rscoop("logs", "last").expect() == golden.printed
    place.rscoop("journal", "export", "last").expect()


@pytest.mark.parametrize("number", FORMATS)
def test_a_finished_one_is_known_to_be_so(place: Place, number: str) -> None:
    unpacked(place, f"{number}-finished")
    done = place.rscoop("resume", "last")
    assert done.expect() == ""
    assert "has finished" in done.err


@pytest.mark.parametrize("number", FORMATS)
def test_a_killed_one_continues_with_all_that_it_had(place: Place, number: str) -> None:
    golden = unpacked(place, f"{number}-killed")
    before = read_status(golden.run, golden.run.load()).done
    done = place.rscoop("resume", "last")
    assert done.expect() == "190\nend\n"
    assert f"{before} results recovered" in done.err
    assert "replay:" not in done.err  # nothing was found to be other than it was
    assert place.rscoop("logs", "last").expect() == golden.printed + "190\nend\n"
    assert check(golden.run.journal, Depth.CONTENTS).sound
    place.assert_nothing_left()


@pytest.mark.parametrize("number", FORMATS)
def test_a_checkpointed_one_continues_behind_its_checkpoint(place: Place, number: str) -> None:
    golden = unpacked(place, f"{number}-checkpointed")
    assert check(golden.run.journal, Depth.CONTENTS).problems == []
    assert list((golden.run.path / "checkpoints").iterdir())
    done = place.rscoop("resume", "last")
    assert done.expect() == "52411 700000\n"
    assert place.rscoop("logs", "last").expect() == golden.printed + "52411 700000\n"
    assert check(golden.run.journal, Depth.CONTENTS).sound
    place.assert_nothing_left()


def test_the_file_of_a_state_is_looked_at(place: Place) -> None:
    golden = unpacked(place, f"{FORMATS[-1]}-checkpointed")
    for path in (golden.run.path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert check(golden.run.journal, Depth.STRUCTURE).sound
    assert check(golden.run.journal, Depth.CONTENTS).problems_total >= 1


def test_pickles_that_name_modules_by_former_names_are_read(place: Place) -> None:
    golden = unpacked(place, "1-deap")
    before = read_status(golden.run, golden.run.load()).done
    done = place.rscoop("resume", "last")
    assert done.expect() == "second 810.0\n"
    assert f"{before} results recovered" in done.err
    assert "replay:" not in done.err
    assert place.rscoop("logs", "last").expect() == golden.printed + "second 810.0\n"
