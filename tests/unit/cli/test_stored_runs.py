"""The command line shows stored runs: figures, runs, status, logs, gc, journal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from resilient_scoop.core.events import Put
from resilient_scoop.errors import JournalDamagedError, UsageError
from resilient_scoop.journal.place import data_file
from resilient_scoop.runs import catalog
from resilient_scoop.runs.status import OutputTail, open_view, read_status
from resilient_scoop.wire import messages as wire
from tests.unit.cli_runs import ENDED, FIRST, RAISED, journaled, log, new, part, rscoop


def test_figures_count_the_records_of_the_journal(tmp_path: Path) -> None:
    run = journaled(new(tmp_path))
    found = read_status(run, run.load())
    assert (found.done, found.total_known, found.in_flight, found.failed) == (13, 18, 5, 1)
    assert (found.crashes, found.resubmitted, found.output_bytes) == (2, 1, 26)
    assert [(b.path, b.name, b.done, b.total) for b in found.batches] == [("0.1", "evaluate", 3, 8)]
    assert found.batches_done == 1
    assert found.ended is None
    assert found.journal_bytes > 0


def test_items_that_are_computed_again_are_not_done(tmp_path: Path) -> None:
    again = log(7, wire.Calls("0", FIRST, [part(0, 5, 5, last=True, fresh=True)]))
    found = read_status(run := journaled(new(tmp_path), again), run.load())
    assert (found.done, found.failed) == (8, 0)
    assert found.batches_done == 0


def test_a_run_without_a_journal_has_done_nothing(tmp_path: Path) -> None:
    run = new(tmp_path)
    assert read_status(run, run.load()).total_known == 0


def test_a_tail_of_the_output_continues_where_it_was(tmp_path: Path) -> None:
    view = open_view(journaled(new(tmp_path)))
    assert view is not None
    with view:
        tail = OutputTail(shown_bytes=20)
        assert b"".join(tail.pieces(view)) == b"tion 1\n"[1:]
        assert b"".join(tail.pieces(view)) == b""


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    stopped = journaled(new(tmp_path, "trial"))
    finished = journaled(new(tmp_path, after_s=1), ENDED)
    failed = journaled(new(tmp_path, after_s=2), RAISED)
    damaged = new(tmp_path, after_s=3)
    damaged.info.write_text("{")
    live = new(tmp_path, after_s=4)
    for _ in range(2):  # the second time from what the first call has cached
        with live.hold():
            rows = json.loads(rscoop(tmp_path, "runs", "--json").stdout)["runs"]
        assert [(row["id"], row["state"]) for row in rows] == [
            (stopped.id, "stopped"), (finished.id, "finished"), (failed.id, "failed"),
            (damaged.id, "damaged"), (live.id, "running"),
        ]  # fmt: skip
        assert (rows[0]["done"], rows[0]["total_known"], rows[0]["name"]) == (13, 18, "trial")
    table = rscoop(tmp_path, "ls")
    assert "13/18" in table.stdout
    assert "run.json" in table.stderr
    only = rscoop(tmp_path, "runs", "--state", "failed", "--json")
    assert [row["id"] for row in json.loads(only.stdout)["runs"]] == [failed.id]


def test_a_run_of_a_newer_format_is_not_called_damaged(tmp_path: Path) -> None:
    described = new(tmp_path)
    described.info.write_text('{"format": 9, "id": ["of another shape"]}')
    journal = journaled(new(tmp_path, after_s=1))
    second = journal.journal / "generation.json"
    second.write_text(second.read_text().replace('"format":1', '"format":9'))

    only = rscoop(tmp_path, "runs", "--state", "newer-format")

    for run in (described, journal):
        assert f"{run.id}  " in only.stdout
        errors = next(line for line in only.stderr.splitlines() if line.startswith(run.id))
        assert re.search(r"format (is )?9.* up to 1", errors)
    assert (
        "newer-format" in rscoop(tmp_path, "gc", "--all", "--older-than", "0s", "--dry-run").stdout
    )
    with pytest.raises(UsageError, match=rf"{described.id}  \(newer-format\)"):
        catalog.select(tmp_path, described.id[:4])


def test_status_shows_the_state_and_the_next_step(tmp_path: Path) -> None:
    run = journaled(new(tmp_path, "trial"))
    text = rscoop(tmp_path, "status", "trial").stdout
    assert f"run {run.id} (trial): stopped" in text
    assert "evolve.py --generations 3" in text
    assert "13/18 done (1 failed), 5 not yet" in text
    assert "0.1 evaluate: 3/8" in text
    assert f"rscoop resume {run.id}" in text
    report = json.loads(rscoop(tmp_path, "status", "last", "--json").stdout)
    assert (report["schema"], report["state"], report["seed"]) == (1, "stopped", 7)
    assert report["batches"][0]["path"] == "0.1"


def test_status_of_a_failed_run_shows_the_reason(tmp_path: Path) -> None:
    journaled(new(tmp_path), RAISED)
    assert "failed, exit code 1: ValueError" in rscoop(tmp_path, "status", "last").stdout


@pytest.mark.parametrize(
    ("end", "code"), [(None, 75), (ENDED, 0), (RAISED, 1)], ids=["stopped", "finished", "failed"]
)
def test_attach_to_a_dead_run_prints_its_output_so_far(
    tmp_path: Path, end: Put | None, code: int
) -> None:
    journaled(new(tmp_path), *([end] if end else []))
    result = rscoop(tmp_path, "attach", "last")
    assert result.stdout == "generation 0\ngeneration 1\n"
    assert result.exit_code == code


def test_logs_show_the_output_of_the_script_or_the_log_of_a_process(tmp_path: Path) -> None:
    run = journaled(new(tmp_path))
    (run.logs / "w1.log").write_text("one\n")
    (run.logs / "w1-2.log").write_text("two\n")
    (run.logs / "w11.log").write_text("other\n")
    assert rscoop(tmp_path, "logs", "last").stdout == "generation 0\ngeneration 1\n"
    assert rscoop(tmp_path, "logs", "last", "--worker", "w11").stdout == "other\n"
    both = rscoop(tmp_path, "logs", "last", "--worker", "w1").stdout
    assert sorted(both.splitlines()) == ["w1-2: two", "w1: one"]
    unknown = rscoop(tmp_path, "logs", "last", "--worker", "w5")
    assert unknown.exit_code == 2
    assert "w1, w1-2, w11" in unknown.stderr


def test_cancel_of_a_dead_run_has_nothing_to_do(tmp_path: Path) -> None:
    new(tmp_path)
    result = rscoop(tmp_path, "cancel", "last")
    assert (result.exit_code, "not live" in result.stderr) == (0, True)


def test_gc_removes_old_finished_runs_only(tmp_path: Path) -> None:
    stopped = journaled(new(tmp_path))
    finished = journaled(new(tmp_path, after_s=1), ENDED)
    live = journaled(new(tmp_path, after_s=2), ENDED)
    with live.hold():
        assert "would remove" in rscoop(tmp_path, "gc", "--older-than", "0s", "--dry-run").stdout
        assert finished.path.exists()
        assert rscoop(tmp_path, "gc").stdout.startswith("0 of 3 runs")
        result = rscoop(tmp_path, "gc", "--older-than", "0s")
    assert "1 of 3 runs" in result.stdout
    assert [entry.run for entry in catalog.list_runs(tmp_path)] == [stopped, live]
    rscoop(tmp_path, "gc", "--older-than", "0s", "--all", "--keep", "1")
    assert [entry.run for entry in catalog.list_runs(tmp_path)] == [live]


def test_verify_distinguishes_a_sound_journal_from_a_damaged_one(tmp_path: Path) -> None:
    run = journaled(new(tmp_path))
    assert rscoop(tmp_path, "journal", "verify", "last").exit_code == 0
    data = run.journal / "data.mdb"
    content = bytearray(data.read_bytes())
    at = content.find(b"generation 1")
    content[at] ^= 1
    data.write_bytes(bytes(content))
    result = rscoop(tmp_path, "journal", "verify", "last", "--json")
    assert result.exit_code == 74
    assert not json.loads(result.stdout)["sound"]
    with pytest.raises(JournalDamagedError):
        read_status(run, run.load())
    assert rscoop(tmp_path, "status", "last").exit_code == 74


def test_stats_and_export_show_the_records(tmp_path: Path) -> None:
    journaled(new(tmp_path))
    tables = json.loads(rscoop(tmp_path, "journal", "stats", "last", "--json").stdout)["tables"]
    assert {each["table"]: each["records"] for each in tables}["log"] == 6
    lines = rscoop(tmp_path, "journal", "export", "last", "--table", "log").stdout.splitlines()
    records = [json.loads(line)["record"] for line in lines]
    assert [record["type"] for record in records][:2] == ["Calls", "Outcomes"]
    assert records[0]["parent"] == "0"
    everything = rscoop(tmp_path, "journal", "export", "last").stdout.splitlines()
    assert all(json.loads(line)["table"] for line in everything)


@pytest.mark.parametrize("data", [b"", b"\x93garbage" * 4096])
def test_a_journal_without_readable_records_is_reported_as_not_repairable(
    tmp_path: Path, data: bytes
) -> None:
    run = journaled(new(tmp_path))
    data_file(run.journal).write_bytes(data)
    before = {path.name for path in run.path.iterdir()} | {"lock"}
    result = rscoop(tmp_path, "journal", "repair", run.id)
    assert result.exit_code == 74
    assert "no record of it can be read" in result.stderr
    assert f"`rscoop rm {run.id}`" in result.stderr
    assert "aside" not in result.stderr
    assert {path.name for path in run.path.iterdir()} <= before


def test_an_empty_list_of_runs_in_a_state_is_reported(tmp_path: Path) -> None:
    assert "no runs in" in rscoop(tmp_path, "runs", "--state", "failed").stderr
    journaled(new(tmp_path))
    errors = rscoop(tmp_path, "runs", "--state", "failed", "--state", "running").stderr
    assert errors.startswith("no runs that are failed or running in ")
