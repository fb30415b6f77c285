"""The run folder, ids, selection, and the lock of a run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_scoop.errors import (
    JournalFormatError,
    RunBusyError,
    RunNotFoundError,
    UsageError,
)
from resilient_scoop.runs import catalog
from resilient_scoop.runs.folder import RunDir, RunInfo

NOW = catalog.EPOCH_S + 90_000_000.0


def info(run_id: str, name: str | None = None) -> RunInfo:
    return RunInfo(
        id=run_id, uuid="00" * 16, name=name, script="/work/evolve.py", cwd="/work",
        python="/usr/bin/python3", python_version="3.11.7", seed=2**64 - 1, workers=4,
        created_at=NOW, host="here", user="me",
    )  # fmt: skip


def described(name: str | None = None) -> Callable[[str], RunInfo]:
    return lambda run_id: info(run_id, name)


def new(state: Path, name: str | None = None, after_s: float = 0) -> RunDir:
    return catalog.create(state, described(name), NOW + after_s)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(st.integers(0, 10**12), st.integers(1, 10**9))
def test_ids_sort_by_age(start_ms: int, later_ms: int) -> None:
    first = catalog.new_id(catalog.EPOCH_S + start_ms / 1000)
    second = catalog.new_id(catalog.EPOCH_S + (start_ms + later_ms) / 1000)
    assert first <= second
    assert later_ms == 1 or first < second
    assert len(first) == catalog.ID_LENGTH


def test_an_id_has_no_characters_that_look_alike() -> None:
    assert not set("ilou") & set(catalog.ALPHABET)
    assert len(set(catalog.ALPHABET)) == 32


def test_many_runs_of_one_second_have_different_ids(tmp_path: Path) -> None:
    runs = [new(tmp_path) for _ in range(50)]
    assert names_in(tmp_path / "runs") == [run.id for run in runs]  # in their order
    assert catalog.select(tmp_path, "last").id == runs[-1].id


def test_a_new_run_is_private_and_has_a_description(tmp_path: Path) -> None:
    run = new(tmp_path, "trial")
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert run.load() == info(run.id, "trial")
    assert run.journal.is_dir()
    assert run.logs.is_dir()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.path.chmod(0o770)
    with pytest.raises(UsageError, match="pickles"):
        run.load()


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: run.path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="belongs to user"):
        run.load()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"id": 3}', b"[]"])
def test_a_damaged_description_is_named(tmp_path: Path, content: bytes) -> None:
    run = new(tmp_path)
    run.info.write_bytes(content)
    with pytest.raises(JournalFormatError, match=r"run\.json"):
        run.load()


def test_a_newer_format_is_refused_naming_both(tmp_path: Path) -> None:
    run = new(tmp_path)
    run.info.write_text(run.info.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(JournalFormatError, match=r"format 9 .* up to 1"):
        run.load()


def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(UsageError, match=r"not a folder.*--state-dir"):
        new(tmp_path / "state")


def test_a_state_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(UsageError, match="--state-dir"):
        new(Path("/proc/rscoop"))


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    def refuse(_: str) -> RunInfo:
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="No space left"):
        catalog.create(tmp_path, refuse, NOW)
    assert names_in(tmp_path / "runs") == []


def test_sockets_have_a_separate_folder_that_is_removed_with_them(tmp_path: Path) -> None:
    run = new(tmp_path)
    folder = run.make_socket_dir()
    assert folder.parent == run.path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    run.remove_socket_dir()
    assert not folder.exists()


def test_a_run_can_be_locked_once(tmp_path: Path) -> None:
    run = new(tmp_path)
    assert not run.is_held()
    with run.hold():
        assert run.is_held()
        holder = run.holder()
        assert holder is not None
        assert holder.pid == os.getpid()
        with pytest.raises(RunBusyError, match=str(os.getpid())), run.hold():
            pass
    assert not run.is_held()
    assert run.holder() is None


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    run = new(tmp_path)
    code = (
        "import sys, pathlib; from resilient_scoop.runs.folder import RunDir\n"
        "with RunDir(pathlib.Path(sys.argv[1])).hold():\n    print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        holder = run.holder()
        assert holder is not None
        assert holder.pid == child.pid
        child.kill()
        child.wait()
    assert not run.is_held()
    with run.hold():
        pass


def test_a_live_run_is_not_removed(tmp_path: Path) -> None:
    run = new(tmp_path)
    with run.hold(), pytest.raises(RunBusyError):
        catalog.remove(run)
    catalog.remove(run)
    assert names_in(tmp_path / "runs") == []


def test_no_state_folder_means_no_runs(tmp_path: Path) -> None:
    assert catalog.list_runs(tmp_path / "nothing") == []


def test_a_damaged_run_does_not_spoil_the_list(tmp_path: Path) -> None:
    good, bad = new(tmp_path), new(tmp_path, after_s=1)
    bad.info.unlink()
    (tmp_path / "runs" / ".new-abc").mkdir()
    first, second = catalog.list_runs(tmp_path)
    assert (first.run, first.problem) == (good, None)
    assert second.info is None
    assert "run.json" in str(second.problem)


def test_a_run_is_selected_by_id_prefix_or_name(tmp_path: Path) -> None:
    old, newer = new(tmp_path, "trial"), new(tmp_path, after_s=40_000_000)
    assert catalog.select(tmp_path, old.id) == old
    assert catalog.select(tmp_path, old.id.upper()) == old
    assert catalog.select(tmp_path, old.id[:4]) == old
    assert catalog.select(tmp_path, "trial") == old
    assert catalog.select(tmp_path, "last") == newer
    assert catalog.select(tmp_path, str(newer.path)) == newer


def test_a_name_of_several_runs_means_the_newest(tmp_path: Path) -> None:
    new(tmp_path, "trial")
    newer = new(tmp_path, "trial", after_s=5)
    assert catalog.select(tmp_path, "trial") == newer


def test_an_ambiguous_prefix_lists_the_runs_that_match(tmp_path: Path) -> None:
    runs = [new(tmp_path), new(tmp_path, after_s=1)]
    with pytest.raises(UsageError) as caught:
        catalog.select(tmp_path, runs[0].id[:3])
    assert all(run.id in str(caught.value) for run in runs)
    assert "evolve.py" in str(caught.value)


def test_the_error_for_an_unknown_run_names_similar_ones(tmp_path: Path) -> None:
    new(tmp_path, "evolution")
    with pytest.raises(RunNotFoundError, match="did you mean evolution"):
        catalog.select(tmp_path, "evolutiom")
    with pytest.raises(RunNotFoundError):
        catalog.select(tmp_path, "")
    with pytest.raises(RunNotFoundError, match=r"there are no runs in .*/empty"):
        catalog.select(tmp_path / "empty", "last")


def test_a_folder_of_runs_that_others_may_change_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(0o775)
    with pytest.raises(UsageError, match=r"\(mode 775\): chmod go-w .*/runs, or choose"):
        new(tmp_path)


def test_runs_of_the_same_id_are_distinguished_by_number_and_folder(tmp_path: Path) -> None:
    made = catalog.create(tmp_path / "state", described(), NOW)
    was = made.load()
    assert made.key(was).startswith(f"{made.id}-")
    other = msgspec.structs.replace(was, uuid="f" * 32)
    link = tmp_path / "link"
    link.symlink_to(made.path.parent)
    keys = {
        made.key(was),
        made.key(other),  # another run, begun at the same moment
        RunDir(tmp_path / made.id).key(was),  # a copy of this run, restored elsewhere
        RunDir(link / made.id).key(was),  # the same folder
    }
    assert len(keys) == 3


def test_a_run_is_removed_although_an_earlier_one_of_its_id_was_removed_partly(
    tmp_path: Path,
) -> None:
    run = new(tmp_path)
    rest = run.path.with_name(f".gone-{run.id}")
    (rest / "journal").mkdir(parents=True)
    catalog.remove(run)
    assert not run.path.exists()
    assert catalog.remove_rests(tmp_path) == 1
    assert names_in(tmp_path / "runs") == []


def test_a_restore_by_another_host_is_not_touched(tmp_path: Path) -> None:
    new(tmp_path)
    runs, here = tmp_path / "runs", os.uname().nodename
    names = {
        "alive": f".restore-{os.getpid()}@{here}-a", "dead": f".restore-99999999@{here}-b",
        "elsewhere": ".restore-99999999@another-host-c", "of before": ".restore-99999999@another-d",
    }  # fmt: skip
    for name in names.values():
        (runs / name).mkdir()
    os.utime(runs / names["of before"], (NOW, NOW))
    assert catalog.remove_rests(tmp_path) == 2
    left = [name for name in names_in(runs) if name.startswith(".restore-")]
    assert left == sorted([names["alive"], names["elsewhere"]])


def test_a_command_for_display_can_be_typed_again() -> None:
    with_arguments = msgspec.structs.replace(
        info("r1"), script="/a/s.py", argv=["--alpha", "a b", "1\n"]
    )
    assert with_arguments.command == "s.py --alpha 'a b' '1\\n'"
    assert msgspec.structs.replace(with_arguments, argv=[]).command == "s.py"
