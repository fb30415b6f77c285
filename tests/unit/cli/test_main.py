"""The command line on state folders of its own: run, resume, help, completion, `python -m`."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from resilient_scoop.cli import compat
from resilient_scoop.cli import resume as resume_module
from resilient_scoop.cli import run as run_module
from resilient_scoop.cli.base import parse_duration, size
from resilient_scoop.cli.main import COMMANDS, cli
from resilient_scoop.cli.script import find_module
from resilient_scoop.errors import JournalPlaceError, RscoopError, UsageError
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.runs import catalog
from resilient_scoop.runs.decisions import Decision
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.json_text import one_line
from tests.unit.cli_runs import ENDED, journaled, new, rscoop


@pytest.mark.parametrize(
    ("source", "reason", "code"),
    [
        (None, "can't open file", 2),
        (b"def\n", "SyntaxError: invalid syntax", 1),
        (b"\x7fELF\x00\x01", "Error", 1),
        (b"print('a\x00')", "null bytes", 1),
    ],
)
def test_a_script_that_cannot_run_is_refused_with_the_text_of_python_and_leaves_no_run(
    tmp_path: Path, source: bytes | None, reason: str, code: int
) -> None:
    script = tmp_path / "evolve.py"
    if source is not None:
        script.write_bytes(source)
    result = rscoop(tmp_path / "state", "run", str(script))
    assert reason in result.stderr
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
    """Replaces the launcher; keeps its arguments."""

    def __init__(self, raised: RscoopError | None = None) -> None:
        self.runs: list[tuple[RunDir, RunOptions]] = []
        self.raised = raised

    def __call__(self, run: RunDir, options: RunOptions, decisions: Sequence[Decision] = ()) -> int:
        self.runs.append((run, options))
        self.decisions = list(decisions)
        if self.raised is not None:
            raise self.raised
        return 3


def test_arguments_after_the_script_belong_to_the_script(
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


def test_a_folder_that_cannot_hold_a_journal_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = JournalPlaceError("/net", "it is on NFS", "take a local disk")
    monkeypatch.setattr(run_module, "start", Launches(refusal))
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "run", str(tmp_path / "evolve.py"))
    assert result.exit_code == 2
    assert "take a local disk" in result.stderr
    assert catalog.list_runs(tmp_path) == []


@pytest.mark.parametrize("name", ["", "last", "a/b", ".x", "-x", "a b"])
def test_a_name_that_looks_like_an_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a run"):
        catalog.check_name(name)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    launches = Launches()
    monkeypatch.setattr(resume_module, "start", launches)
    return launches


def test_resume_uses_the_arguments_of_the_first_start(tmp_path: Path, launches: Launches) -> None:
    run = journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    result = rscoop(tmp_path, "resume", "--reuse-changed", "last", "--recompute-changed=evaluate")
    assert result.exit_code == 3
    ((started, how),) = launches.runs
    assert started == run
    assert (how.workers, how.resume) == (2, True)
    assert (how.reuse_changed, how.recompute_changed) == (("*",), ("evaluate",))


def test_resume_names_packages_of_other_versions(tmp_path: Path, launches: Launches) -> None:
    run = journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    run.info.write_text(
        run.info.read_text().replace('"versions": {}', '"versions": {"numpy": "0"}')
    )
    assert "numpy was 0 when the run began" in rscoop(tmp_path, "resume", run.id).stderr


def test_resume_names_an_interpreter_of_another_environment(
    tmp_path: Path, launches: Launches
) -> None:
    run = journaled(new(tmp_path))
    (tmp_path / "evolve.py").write_text("")
    beside = str(Path(sys.executable).with_name("python-of-another-name"))
    for python, is_said in (("/conda/envs/lab/bin/python", True), (beside, False)):
        info = msgspec.structs.replace(run.load(), python=python)
        run.info.write_bytes(msgspec.json.encode(info))
        said = rscoop(tmp_path, "resume", run.id).stderr
        assert (f"the run began with {python}; this resume uses " in said) == is_said, said


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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(tmp_path: Path, name: str) -> None:
    result = rscoop(tmp_path, name, "--help")
    assert result.exit_code == 0
    assert "Usage: rscoop" in result.stdout


def test_a_script_without_run_gets_an_error_with_the_right_command(tmp_path: Path) -> None:
    result = rscoop(tmp_path, "evolve.py")
    assert result.exit_code == 2
    assert "rscoop run evolve.py" in result.stderr


def test_an_error_is_printed_as_one_line_and_exits_with_the_code_of_its_class(
    tmp_path: Path,
) -> None:
    result = rscoop(tmp_path, "status", "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("rscoop: there is no run 'nothing'")
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["status", "resume", "rm last", "journal verify", "why 0.3"])
def test_an_empty_list_of_runs_is_reported(tmp_path: Path, command: str) -> None:
    result = rscoop(tmp_path, *command.split())
    assert result.exit_code == 2
    assert result.stderr.startswith("rscoop: there are no runs in ")
    assert result.stderr.count("\n") == 1


def test_names_with_line_breaks_are_shown_on_one_line() -> None:
    assert one_line("a\nb\tc \x1b[2Jd\udcffé 日本") == "a\\nb\\tc \\x1b[2Jd\\xffé 日本"


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
def test_durations_are_accepted_in_usual_notations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_sizes_are_short() -> None:
    assert [size(each) for each in (0, 999, 1500, 12_000, 5 * 10**13)] == [
        "0 B", "999 B", "1.5 kB", "12 kB", "50.0 TB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scoop", "ours"),
    [
        ("-n 4 a.py -n 5", "run -n 4 a.py -n 5"),
        ("-n4 -vv a.py", "run -n 4 a.py"),
        ("-q -b 2 a.py", "run --quiet a.py"),
        ("--host localhost 127.0.0.1 -q -- a.py", "run -n 2 --quiet a.py"),
        ("--seed=3 --strict a.py", "run --seed=3 --strict a.py"),
        ("a.py", "run a.py"),
        ("--host far near far -n 3 a.py", "run -n 3 --host far:2 --host near:1 a.py"),
        ("--hostfile f --tunnel a.py", "run --hostfile f --tunnel a.py"),
        ("--hostfile f --external-hostname x --python-interpreter p a.py",
         "run --hostfile f --external-address x --python p a.py"),
        ("--hosts=far --rsh ssh --nice 0 a.py", "run --ssh system --host far:1 a.py"),
    ],
)  # fmt: skip
def test_the_command_of_scoop_that_starts_a_script_works(scoop: str, ours: str) -> None:
    assert compat.translate(scoop.split()) == ours.split()


def test_a_prolog_file_of_scoop_is_sourced() -> None:
    words = compat.translate(["--host", "far", "--prolog", "my file", "--", "a.py"])
    assert words == ["run", "--host", "far:1", "--prolog", ". 'my file'", "a.py"]


@pytest.mark.parametrize(
    ("scoop", "reason"),
    [
        ("--prolog f a.py", "source the file"),
        ("--profile a.py", "does not exist here"),
        ("-n", "needs a value"),
        ("--nice high a.py", "needs a number"),
        ("", "no script"),
    ],
)
def test_a_scoop_option_without_counterpart_is_refused_with_advice(scoop: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        compat.translate(scoop.split())
