"""The command line shows failures, functions and tables of stored runs, and removes a run."""

from __future__ import annotations

import json
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from resilient_scoop import ids
from resilient_scoop.cli.main import cli
from resilient_scoop.cli.tables import GAP, Column, fit
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.payload import payload
from resilient_scoop.payload.preview import preview
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.lifetimes import Lives, ran_s
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.tally import TALLY_KEY, FunctionWork, Tally, encode_tally
from tests.unit.cli_runs import ENDED, FIRST, RUN, journaled, log, new, part, rscoop


@dataclass
class Point:
    """A class of the user's."""

    x: int
    y: int


def raising(error: Exception) -> None:
    raise error


def failure(error: Exception) -> bytes:
    with pytest.raises(type(error)) as raised:
        raising(error)
    return payload.dumps_exception(raised.value, "worker w1")


def with_failures(run: RunDir) -> RunDir:
    """Journal a call whose first and last items have failed, the last one again after a retry."""
    calls = wire.Calls("0", FIRST, [part(2, 0, 3, last=True)])
    again = wire.Calls("0", FIRST, [part(2, 0, 1, last=False, fresh=True)])
    values = [failure(KeyError("k")), b"v", failure(ValueError("bad\nmore"))]
    digests = b"d" * 8 * 3
    outcome = wire.Outcome(2, 0, b"p" * 16, digests, values, [0, 2], 0.5)
    args = wire.Args([payload.dumps(each) for each in (1, 2, Point(3, 4))])
    at = ids.log_prefix(RUN, "0") + (10).to_bytes(8, "big")
    changes: list[Change] = [
        log(10, calls), Put(Table.ARGS, at, wire.encode(args)),
        log(11, wire.Outcomes("0", [outcome])), log(12, again),
    ]  # fmt: skip
    return journaled(run, *changes)


def test_failures_show_arguments_and_traceback_without_importing_them(tmp_path: Path) -> None:
    run = with_failures(new(tmp_path))
    report = json.loads(rscoop(tmp_path, "failures", "--json").stdout)
    found = {each["path"]: each for each in report["failures"]}
    # The first item was made again, and an item of an earlier call is not one of our pickles
    assert "0.2[0]" not in found
    assert found["0.2[2]"]["call"] == "evaluate(Point(x=3, y=4))"
    assert (found["0.2[2]"]["type"], found["0.2[2]"]["message"]) == ("ValueError", "bad\nmore")
    assert "raise error" in found["0.2[2]"]["traceback"]
    text = rscoop(tmp_path, "failures", run.id).stdout
    assert "0.2[2] evaluate(Point(x=3, y=4)): ValueError: bad\n    Traceback" in text


def test_a_run_without_failures_says_so(tmp_path: Path) -> None:
    new(tmp_path)
    assert "no call in the journal has failed" in rscoop(tmp_path, "failures").stdout


class Exploding:
    """This must not be unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch exploded",)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, "a", {"k": (None, 2.5)}], "[1, 'a', {'k': (None, 2.5)}]"),
        (Path("/x"), "PosixPath('/x')"),
        ({3, 4}, "{3, 4}"),
        (Point(1, 2), "Point(x=1, y=2)"),
        ("x" * 999, "'" + "x" * 298 + "…"),
    ],
)
def test_pickled_values_are_displayed(value: object, text: str) -> None:
    assert preview(payload.dumps(value)) == text


def test_displaying_a_value_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert preview(pickle.dumps(Exploding(), 5)) == "system('touch exploded')"
    assert not (tmp_path / "exploded").exists()


def test_status_has_a_table_of_functions_that_includes_erased_records(tmp_path: Path) -> None:
    tally = Tally(
        gone=30, functions={"leaf": FunctionWork(30, 2, 3.0)}, crashes=4, resubmitted=9, retried=5
    )
    journaled(new(tmp_path), Put(Table.META, TALLY_KEY, encode_tally(tally)))
    report = json.loads(rscoop(tmp_path, "status", "--json").stdout)
    assert (report["done"], report["total_known"], report["failed"]) == (43, 48, 3)
    assert (report["crashes"], report["resubmitted"], report["retried"]) == (4, 9, 5)
    assert "  retries   5\n" in rscoop(tmp_path, "status").stdout
    work = {each["name"]: (each["done"], each["failed"]) for each in report["functions"]}
    assert work == {"leaf": (28, 2), "evaluate": (12, 1)}
    failures = rscoop(tmp_path, "failures")
    assert "leaf: 2 failed calls of tasks that have ended" in failures.stdout
    text = rscoop(tmp_path, "status").stdout
    assert "  function  done  failed   mean  total" in text
    assert "  leaf        28       2  100ms     3s" in text
    row = json.loads(rscoop(tmp_path, "runs", "--json").stdout)["runs"][0]
    assert (row["done"], row["total_known"], row["failed"]) == (43, 48, 3)


def test_commands_use_the_newest_run_if_none_is_named(tmp_path: Path) -> None:
    journaled(new(tmp_path))
    newest = journaled(new(tmp_path, after_s=5), ENDED)
    assert f"run {newest.id}" in rscoop(tmp_path, "status").stdout
    assert rscoop(tmp_path, "logs").stdout == "generation 0\ngeneration 1\n"
    assert rscoop(tmp_path, "why", "0.1").stdout.startswith("0.1 evaluate: partly done")
    assert rscoop(tmp_path, "why").stdout.startswith("0 the script: done")
    assert rscoop(tmp_path, "resolve").exit_code == 0
    assert "is the ID of an item" in rscoop(tmp_path, "why", "0.1", "0.2").stderr
    for command in ("journal verify", "replay", "attach", "resume", "cancel", "checkpoint", "fork"):
        assert "[RUN]" in rscoop(tmp_path, *command.split(), "--help").stdout


def test_a_backup_of_the_newest_run_needs_only_its_target(tmp_path: Path) -> None:
    run = journaled(new(tmp_path), ENDED)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    words = ["--state-dir", str(tmp_path), "journal", "backup", str(tmp_path / "copy.tar")]
    result = CliRunner(env=environment).invoke(cli, words)
    assert f"saved run {run.id}" in result.stdout


def test_the_last_runs_are_listed_with_their_durations(tmp_path: Path) -> None:
    *_, run = [journaled(new(tmp_path, after_s=each), ENDED) for each in range(3)]
    life = Lives(run.path, 1000.0)
    life.end(1065.0)
    Lives(run.path, 5000.0).end(5060.0)
    rows = json.loads(rscoop(tmp_path, "runs", "--last", "2", "--json").stdout)["runs"]
    assert [row["ran_s"] for row in rows] == [None, 125.0]
    assert "2m05s" in rscoop(tmp_path, "runs", "--last", "1").stdout
    assert ran_s(run.path, now=5600.0) == 665.0


def test_rm_removes_the_named_runs_unless_they_are_live(tmp_path: Path) -> None:
    stopped, live = journaled(new(tmp_path, "old")), journaled(new(tmp_path, after_s=1))
    with live.hold():
        assert rscoop(tmp_path, "rm", "last").exit_code == 73
    assert f"removed {stopped.id}" in rscoop(tmp_path, "rm", "old").stdout
    assert (stopped.path.exists(), live.path.exists()) == (False, True)
    assert rscoop(tmp_path, "rm").exit_code == 2


def test_reading_a_run_does_not_change_its_time(tmp_path: Path) -> None:
    run = journaled(new(tmp_path), ENDED)
    old = time.time() - 90 * 86400  # noqa: TID251 - files have wall clock times
    for path in (run.path, *run.path.rglob("*")):
        os.utime(path, (old, old))
    for command in ("runs", "status", "logs", "why", "failures", "attach", "resolve"):
        assert rscoop(tmp_path, command).exit_code == 0
    with run.hold():
        pass
    assert rscoop(tmp_path, "gc").stdout.startswith(f"removed {run.id}")


def test_no_color_turns_colors_off(tmp_path: Path) -> None:
    journaled(new(tmp_path), ENDED)
    words = ["--state-dir", str(tmp_path), "runs"]
    assert "\x1b[" in CliRunner().invoke(cli, words, color=True).stdout
    plain = CliRunner(env={"NO_COLOR": "1"}).invoke(cli, words, color=True).stdout
    assert "\x1b[" not in plain


@pytest.mark.parametrize("words", ["rscoop run ev", "rscoop run script.py da", "rscoop status ./x"])
def test_file_names_are_completed(words: str, tmp_path: Path) -> None:
    environment = {
        "_RSCOOP_COMPLETE": "bash_complete", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1), "RSCOOP_STATE_DIR": str(tmp_path),
    }  # fmt: skip
    result = CliRunner(env=environment).invoke(cli, [], prog_name="rscoop")
    assert result.stdout == f"file,{words.rpartition(' ')[2]}\n"


def test_a_table_fits_its_terminal() -> None:
    columns = [Column("ID"), Column("NAME", rank=1, is_cut=True), Column("SIZE", rank=2)]
    rows = [("2q403gs3", "a-rather-long-name-of-a-run", "3.1 MB"), ("2q403gsx", "-", "1 kB")]
    for width in (None, 80, 40, 24, 12):
        _, lines = fit(columns, rows, width)
        assert all(len(GAP.join(line)) <= (width or 80) for line in lines), width
    assert fit(columns, rows, 40)[1][1] == ["2q403gs3", "a-rather-long-name-of…", "3.1 MB"]
    assert fit(columns, rows, 12)[0] == [0]
