"""The command line on state folders of its own, with journals written as a broker writes them."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resilient_scoop import ids
from resilient_scoop.adapters.journal import Journal
from resilient_scoop.cli import compat
from resilient_scoop.cli import resume as resume_module
from resilient_scoop.cli import run as run_module
from resilient_scoop.cli.base import parse_duration, size
from resilient_scoop.cli.main import COMMANDS, cli
from resilient_scoop.cli.script import find_module
from resilient_scoop.cli.start import Start
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.errors import JournalDamagedError, JournalPlaceError, RscoopError, UsageError
from resilient_scoop.runtime import rundirs
from resilient_scoop.runtime.figures import OutputTail, open_view, read_figures
from resilient_scoop.runtime.rundir import RunDir, RunInfo
from resilient_scoop.wire import messages as wire

NOW = rundirs.EPOCH_S + 90_000_000.0
RUN = bytes(range(16))
FIRST = wire.Attempt(1, 0)
FN = b"f" * 16


def rscoop(state: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["--state-dir", str(state), *args])


def new(state: Path, name: str | None = None, after_s: float = 0) -> RunDir:
    def describe(run_id: str) -> RunInfo:
        return RunInfo(
            id=run_id, uuid=RUN.hex(), name=name, script=str(state / "evolve.py"),
            argv=["--generations", "3"], cwd=str(state), python="python3", python_version="3.11.7",
            seed=7, workers=2, created_at=NOW + after_s, host=os.uname().nodename, user="me",
        )  # fmt: skip

    return rundirs.create(state, describe, NOW + after_s)


def log(sequence: int, record: wire.Logged) -> Put:
    key = ids.log_prefix(RUN, record.parent) + sequence.to_bytes(8, "big")
    return Put(Table.LOG, key, wire.encode(record))


def output(offset: int, data: bytes) -> Put:
    record = wire.Output(FIRST, offset, data)
    return Put(Table.OUTPUT, offset.to_bytes(8, "big"), wire.encode(record))


def part(call: int, start: int, count: int, *, last: bool, fresh: bool = False) -> wire.Part:
    return wire.Part(call, start, count, FN, b"d" * 8 * count, last, fresh)


def outcome(call: int, start: int, count: int, failed: list[int] | None = None) -> wire.Outcome:
    digests = b"d" * 8 * count
    return wire.Outcome(call, start, b"p" * 16, digests, [b"v"] * count, failed or [], 0.5)


STORY: list[Change] = [
    Put(
        Table.DEFINE, FN,
        wire.encode(wire.Define(FN, b"p" * 16, "evolve:evaluate", b"code", wire.Options())),
    ),
    log(1, wire.Calls("0", FIRST, [part(0, 0, 10, last=True)])),
    log(2, wire.Outcomes("0", [outcome(0, 0, 6), outcome(0, 6, 4, [1])])),
    log(3, wire.Calls("0", FIRST, [part(1, 0, 8, last=True)])),
    log(4, wire.Outcomes("0", [outcome(1, 0, 3)])),
    log(5, wire.Crashed("0", 1, 3, -11, "crash", b"d" * 8)),
    log(6, wire.Crashed("0", 1, 3, -9, "oom", b"d" * 8)),
    output(0, b"generation 0\n"),
    output(13, b"generation 1\n"),
]  # fmt: skip
ENDED = Put(Table.META, b"ended", wire.encode(wire.RunEnded(FIRST, 0, failed=False)))
RAISED = Put(
    Table.META, b"ended", wire.encode(wire.RunEnded(FIRST, 1, failed=True, message="ValueError"))
)


def journaled(run: RunDir, *changes: Change) -> RunDir:
    journal = Journal.create(run.journal, RUN)
    journal.commit([*STORY, *changes])
    journal.close(clean=True)
    return run


# --- figures ---


def test_figures_count_what_the_journal_holds(tmp_path: Path) -> None:
    run = journaled(new(tmp_path))
    found = read_figures(run, run.load())
    assert (found.done, found.total_known, found.in_flight, found.failed) == (13, 18, 5, 1)
    assert (found.crashes, found.resubmitted, found.output_bytes) == (2, 1, 26)
    assert [(b.path, b.name, b.done, b.total) for b in found.batches] == [("0.1", "evaluate", 3, 8)]
    assert found.batches_done == 1
    assert found.ended is None
    assert found.journal_bytes > 0


def test_items_that_are_computed_again_are_not_done(tmp_path: Path) -> None:
    again = log(7, wire.Calls("0", FIRST, [part(0, 5, 5, last=True, fresh=True)]))
    found = read_figures(run := journaled(new(tmp_path), again), run.load())
    assert (found.done, found.failed) == (8, 0)
    assert found.batches_done == 0


def test_a_run_without_a_journal_has_done_nothing(tmp_path: Path) -> None:
    run = new(tmp_path)
    assert read_figures(run, run.load()).total_known == 0


def test_a_tail_of_the_output_goes_on_where_it_was(tmp_path: Path) -> None:
    view = open_view(journaled(new(tmp_path)))
    assert view is not None
    with view:
        tail = OutputTail(shown_bytes=20)
        assert b"".join(tail.pieces(view)) == b"tion 1\n"[1:]
        assert b"".join(tail.pieces(view)) == b""


# --- run ---


@pytest.mark.parametrize(
    ("source", "said", "code"),
    [
        (None, "can't open file", 2),
        (b"def\n", "SyntaxError: invalid syntax", 1),
        (b"\x7fELF\x00\x01", "Error", 1),
        (b"print('a\x00')", "null bytes", 1),
    ],
)
def test_a_script_that_cannot_run_is_refused_as_python_says_it_and_leaves_no_run(
    tmp_path: Path, source: bytes | None, said: str, code: int
) -> None:
    script = tmp_path / "evolve.py"
    if source is not None:
        script.write_bytes(source)
    result = rscoop(tmp_path / "state", "run", str(script))
    assert said in result.stderr
    assert str(script) in result.stderr or b"\x00" in (source or b"")
    assert result.exit_code == code
    assert not (tmp_path / "state").exists()


def test_a_folder_is_run_as_python_runs_it(tmp_path: Path) -> None:
    result = rscoop(tmp_path, "run", str(tmp_path))
    assert "can't find '__main__' module" in result.stderr
    assert result.exit_code == 1


def test_a_module_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "package" / "work.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert find_module("package.work", tmp_path).module == "package.work"
    result = rscoop(tmp_path, "run", "-m", "package")
    assert "'package' is a package and cannot be directly executed" in result.stderr
    result = rscoop(tmp_path, "run", "-m", "package.nothing")
    assert "No module named package.nothing" in result.stderr


class Launches:
    """Stands where the launcher is called; keeps what it was given."""

    def __init__(self, raised: RscoopError | None = None) -> None:
        self.runs: list[tuple[RunDir, Start]] = []
        self.raised = raised

    def __call__(self, run: RunDir, how: Start) -> int:
        self.runs.append((run, how))
        if self.raised is not None:
            raise self.raised
        return 3


def test_what_follows_the_script_is_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = Launches()
    monkeypatch.setattr(run_module, "start", launches)
    monkeypatch.setenv("RSCOOP_WORKERS", "5")
    (tmp_path / "evolve.py").write_text("")
    monkeypatch.chdir(tmp_path)
    result = rscoop(
        tmp_path, "run", "--seed", "9", "--name", "trial", "evolve.py", "-n", "3", "--", "--help"
    )
    assert result.exit_code == 3
    ((run, how),) = launches.runs
    info = run.load()
    assert info.argv == ["-n", "3", "--", "--help"]
    assert (info.script, info.cwd) == (str(tmp_path / "evolve.py"), str(tmp_path))
    assert (info.seed, info.name, info.workers, how.workers) == (9, "trial", 5, 5)
    assert "msgspec" in info.versions
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_a_place_that_can_hold_no_journal_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = JournalPlaceError("/net", "it is on NFS", "take a local disk")
    monkeypatch.setattr(run_module, "start", Launches(refusal))
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "run", str(tmp_path / "evolve.py"))
    assert result.exit_code == 2
    assert "take a local disk" in result.stderr
    assert rundirs.list_runs(tmp_path) == []


@pytest.mark.parametrize("name", ["", "last", "a/b", ".x", "-x", "a b"])
def test_a_name_that_could_be_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a run"):
        run_module.check_name(name)


# --- resume ---


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    launches = Launches()
    monkeypatch.setattr(resume_module, "start", launches)
    return launches


def test_resume_goes_on_with_what_the_run_was_started_with(
    tmp_path: Path, launches: Launches
) -> None:
    run = journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "resume", "--reuse-changed", "last", "--recompute-changed=evaluate")
    assert result.exit_code == 3
    ((started, how),) = launches.runs
    assert started == run
    assert (how.workers, how.resume) == (2, True)
    assert (how.reuse_changed, how.recompute_changed) == (("*",), ("evaluate",))


def test_resume_says_what_is_installed_otherwise(tmp_path: Path, launches: Launches) -> None:
    run = journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    run.info.write_text(
        run.info.read_text().replace('"versions": {}', '"versions": {"numpy": "0"}')
    )
    assert "numpy was 0 when the run began" in rscoop(tmp_path, "resume", run.id).stderr


def test_a_dry_run_starts_nothing(tmp_path: Path, launches: Launches) -> None:
    journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "resume", "--dry-run", "last")
    assert launches.runs == []
    assert result.stdout.splitlines()[2].split() == [
        "evaluate", "13", "-", "1", "5", "-", "1.5s", "0.58s",
    ]  # fmt: skip


def test_a_finished_run_is_not_started_again(tmp_path: Path, launches: Launches) -> None:
    journaled(new(tmp_path), ENDED)
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "resume", "last")
    assert (result.exit_code, launches.runs) == (0, [])


def test_a_live_run_is_not_resumed(tmp_path: Path, launches: Launches) -> None:
    run = new(tmp_path)
    with run.hold():
        assert rscoop(tmp_path, "resume", "last").exit_code == 73


def test_contradicting_flags_are_refused(tmp_path: Path) -> None:
    new(tmp_path)
    result = rscoop(tmp_path, "resume", "last", "--reuse-changed", "--recompute-changed")
    assert result.exit_code == 2


# --- looking ---


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    stopped = journaled(new(tmp_path, "trial"))
    finished = journaled(new(tmp_path, after_s=1), ENDED)
    failed = journaled(new(tmp_path, after_s=2), RAISED)
    damaged = new(tmp_path, after_s=3)
    damaged.info.write_text("{")
    live = new(tmp_path, after_s=4)
    for _ in range(2):  # the second time from what was kept of the first
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
        said = next(line for line in only.stderr.splitlines() if line.startswith(run.id))
        assert re.search(r"format (is )?9.* up to 1", said)
    assert (
        "newer-format" in rscoop(tmp_path, "gc", "--all", "--older-than", "0s", "--dry-run").stdout
    )
    with pytest.raises(UsageError, match=rf"{described.id}  \(newer-format\)"):
        rundirs.select(tmp_path, described.id[:4])


def test_status_tells_what_is_and_what_to_do(tmp_path: Path) -> None:
    run = journaled(new(tmp_path, "trial"))
    text = rscoop(tmp_path, "status", "trial").stdout
    assert f"run {run.id} (trial): stopped" in text
    assert "evolve.py --generations 3" in text
    assert "13/18 done, 1 raised, 5 not yet" in text
    assert "0.1 evaluate: 3/8" in text
    assert f"rscoop resume {run.id}" in text
    report = json.loads(rscoop(tmp_path, "status", "last", "--json").stdout)
    assert (report["schema"], report["state"], report["seed"]) == (1, "stopped", 7)
    assert report["batches"][0]["path"] == "0.1"


def test_a_failed_run_tells_why(tmp_path: Path) -> None:
    journaled(new(tmp_path), RAISED)
    assert "failed, exit code 1: ValueError" in rscoop(tmp_path, "status", "last").stdout


@pytest.mark.parametrize(
    ("end", "code"), [(None, 75), (ENDED, 0), (RAISED, 1)], ids=["stopped", "finished", "failed"]
)
def test_attach_to_a_dead_run_prints_what_there_is(
    tmp_path: Path, end: Put | None, code: int
) -> None:
    journaled(new(tmp_path), *([end] if end else []))
    result = rscoop(tmp_path, "attach", "last")
    assert result.stdout == "generation 0\ngeneration 1\n"
    assert result.exit_code == code


def test_logs_are_the_scripts_output_or_a_processes(tmp_path: Path) -> None:
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


# --- gc ---


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
    assert [entry.run for entry in rundirs.list_runs(tmp_path)] == [stopped, live]
    rscoop(tmp_path, "gc", "--older-than", "0s", "--all", "--keep", "1")
    assert [entry.run for entry in rundirs.list_runs(tmp_path)] == [live]


# --- journal ---


def test_a_sound_journal_is_told_from_a_damaged_one(tmp_path: Path) -> None:
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
        read_figures(run, run.load())
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


# --- the rest ---


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(tmp_path: Path, name: str) -> None:
    result = rscoop(tmp_path, name, "--help")
    assert result.exit_code == 0
    assert "Usage: rscoop" in result.stdout


def test_a_script_without_run_is_answered_with_the_command(tmp_path: Path) -> None:
    result = rscoop(tmp_path, "evolve.py")
    assert result.exit_code == 2
    assert "rscoop run evolve.py" in result.stderr


def test_errors_are_one_line_and_the_code_of_their_class(tmp_path: Path) -> None:
    result = rscoop(tmp_path, "status", "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("rscoop: there is no run 'nothing'")
    assert result.stdout == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_every_shell(tmp_path: Path, shell: str) -> None:
    result = rscoop(tmp_path, "completion", shell)
    assert "_RSCOOP_COMPLETE" in result.stdout


def test_runs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new(tmp_path, "trial")
    environment = {
        "_RSCOOP_COMPLETE": "bash_complete", "COMP_WORDS": "rscoop status tr", "COMP_CWORD": "2",
        "RSCOOP_STATE_DIR": str(tmp_path),
    }  # fmt: skip
    result = CliRunner(env=environment).invoke(cli, [], prog_name="rscoop")
    assert "plain,trial" in result.stdout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("30d", 2592000), ("01:00:05", 3605), ("1.5h", 5400),
     ("", None), ("5", None), ("5x", None)],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_sizes_are_short() -> None:
    assert [size(each) for each in (0, 999, 1500, 12_000, 5 * 10**13)] == [
        "0 B", "999 B", "1.5 kB", "12 kB", "50.0 TB",
    ]  # fmt: skip


# --- python -m ---


@pytest.mark.parametrize(
    ("scoop", "ours"),
    [
        ("-n 4 a.py -n 5", "run -n 4 a.py -n 5"),
        ("-n4 -vv a.py", "run -n 4 a.py"),
        ("-q -b 2 a.py", "run --quiet a.py"),
        ("--host localhost 127.0.0.1 -q -- a.py", "run -n 2 --quiet a.py"),
        ("--seed=3 --strict a.py", "run --seed=3 --strict a.py"),
        ("a.py", "run a.py"),
    ],
)
def test_scoops_way_to_start_a_script_works(scoop: str, ours: str) -> None:
    assert compat.translate(scoop.split()) == ours.split()


@pytest.mark.parametrize(
    ("scoop", "said"),
    [
        ("--host far a.py", "one host"),
        ("--hostfile f a.py", "one host"),
        ("--prolog f a.py", "source the file"),
        ("-n", "needs a value"),
        ("--nice high a.py", "needs a number"),
        ("", "no script"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_what_to_do(scoop: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compat.translate(scoop.split())
