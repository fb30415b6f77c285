"""Journals of earlier versions are opened, found sound, and resumed.

See `tests/golden/make.py`, which made them.
"""

from __future__ import annotations

import json
import sys
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
    """A golden run, unpacked at the path of its script, and its output."""

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


def test_golden_journals_exist() -> None:
    assert FORMATS


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("kind", ["finished", "killed"])
def test_a_golden_journal_is_sound_and_can_be_read(place: Place, kind: str, number: str) -> None:
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
def test_a_finished_golden_run_is_recognized_as_finished(place: Place, number: str) -> None:
    unpacked(place, f"{number}-finished")
    done = place.rscoop("resume", "last")
    assert done.expect() == ""
    assert "has finished" in done.err


@pytest.mark.parametrize("number", FORMATS)
def test_a_killed_golden_run_continues_with_all_its_results(place: Place, number: str) -> None:
    golden = unpacked(place, f"{number}-killed")
    before = read_status(golden.run, golden.run.load()).done
    done = place.rscoop("resume", "last")
    assert done.expect() == "190\nend\n"
    assert f"{before} results recovered" in done.err
    assert "replay:" not in done.err  # no difference was found
    assert place.rscoop("logs", "last").expect() == golden.printed + "190\nend\n"
    assert check(golden.run.journal, Depth.CONTENTS).sound
    place.assert_nothing_left()


@pytest.mark.parametrize("number", FORMATS)
def test_a_golden_run_with_a_checkpoint_continues_from_it(place: Place, number: str) -> None:
    golden = unpacked(place, f"{number}-checkpointed")
    assert check(golden.run.journal, Depth.CONTENTS).problems == []
    assert list((golden.run.path / "checkpoints").iterdir())
    done = place.rscoop("resume", "last")
    assert done.expect() == "52411 700000\n"
    assert place.rscoop("logs", "last").expect() == golden.printed + "52411 700000\n"
    assert check(golden.run.journal, Depth.CONTENTS).sound
    place.assert_nothing_left()


def test_the_file_of_a_golden_state_is_checked(place: Place) -> None:
    golden = unpacked(place, f"{FORMATS[-1]}-checkpointed")
    for path in (golden.run.path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert check(golden.run.journal, Depth.STRUCTURE).sound
    assert check(golden.run.journal, Depth.CONTENTS).problems_total >= 1


def test_pickles_that_name_former_modules_are_read(place: Place) -> None:
    golden = unpacked(place, "1-deap")
    before = read_status(golden.run, golden.run.load()).done
    # `pathlib.Path`, which the function names, is in another module since Python 3.13.
    moved = ["--reuse-changed=evaluate"] if sys.version_info >= (3, 13) else []
    done = place.rscoop("resume", "last", *moved)
    assert done.expect() == "second 810.0\n"
    assert f"{before} results recovered" in done.err
    assert "replay:" not in done.err
    assert place.rscoop("logs", "last").expect() == golden.printed + "second 810.0\n"
