"""The commands that compact, repair, back up and restore a journal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tarfile
from pathlib import Path

import pytest

from resilient_scoop.core.events import INPUT_KEY, Put, Table
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import data_file, read_generation
from resilient_scoop.journal.repair import repair
from resilient_scoop.runs import executing
from resilient_scoop.runs.recorded_streams import recorded_input
from resilient_scoop.wire.messages import (
    Attempt,
    Checkpoint,
    Input,
    Observation,
    Observed,
    Output,
    Trimmed,
    encode,
)
from tests.integration.runs import Place, wait_until

pytestmark = pytest.mark.real

SCRIPT = """
import os, random, sys, time
from resilient_scoop import futures

def work(n):
    if n >= 400 and not os.path.exists(sys.argv[1]):
        time.sleep(60)
    return [random.random(), b"x" * (1_500_000 if n % 100 == 0 else 10)]

if __name__ == "__main__":
    print("begin", flush=True)
    for part in range(5):
        found = list(futures.map(work, range(100 * part, 100 * part + 100)))
        print(part, sum(first for first, _ in found), sum(len(rest) for _, rest in found), flush=True)
"""


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    return Place(tmp_path, state_dir, {"XDG_CONFIG_HOME": str(tmp_path / "config")})


def killed(place: Place) -> Path:
    """Return the folder of a run that was killed when four of five maps were done."""
    place.write(SCRIPT)
    process = place.start(
        "run", "-q", "-n", "2", "--seed", "5", "script.py", str(place.folder / "go")
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("3 "):
        assert process.poll() is None
    for pid in place.processes():
        with contextlib.suppress(ProcessLookupError):  # it ended with the launcher
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not place.processes())
    (run,) = place.runs()
    return run


def undisturbed(place: Place) -> str:
    """Return what an undisturbed run prints."""
    (place.folder / "go").touch()
    other = Place(place.folder, place.folder / "other", place.environ)
    out = other.rscoop("run", "-q", "-n", "2", "--seed", "5", "script.py", str(place.folder / "go"))
    return out.expect()


def test_a_run_restored_from_a_backup_elsewhere_continues(place: Place) -> None:
    # Given a run that was killed, and two copies of it
    run = killed(place)
    for target in ("copy.tar", "copy"):
        report = json.loads(place.rscoop("journal", "backup", "last", target, "--json").expect())
        assert report["id"] == run.name
        assert report["files"] >= 7  # two files of the journal, run.json, shown, four results
    again = place.rscoop("journal", "backup", "last", "copy")
    assert again.code == 74
    assert "there already" in again.err
    key = place.folder / "config" / "rscoop" / "backup.key"
    assert key.stat().st_mode & 0o777 == 0o600

    # When they are restored at other places, then they continue like an undisturbed run
    expected = undisturbed(place)
    done_lines = expected.splitlines(keepends=True)
    for number, target in enumerate(("copy.tar", "copy")):
        other = Place(place.folder, place.folder / f"back-{number}", place.environ)
        assert run.name in other.rscoop("journal", "restore", target).expect()
        assert other.rscoop("journal", "restore", target).code == 2
        done = other.rscoop("resume", "last")
        assert "400 results recovered" in done.err
        shown = done.expect()  # only the output that had not been shown when everything was killed
        assert expected.endswith(shown)
        assert shown in {"".join(done_lines[-1:]), "".join(done_lines[-2:])}
        assert other.rscoop("logs", "last").expect() == expected
        other.assert_nothing_left()


def test_a_copy_that_continues_does_not_affect_the_live_run(place: Place) -> None:
    # Given a live run, and a copy of it with the same id
    place.write(SCRIPT)
    words = ("run", "-q", "-n", "2", "--seed", "5", "script.py", str(place.folder / "go"))
    process = place.start(*words)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("3 "):
        assert process.poll() is None
    (key,) = place.keys()
    wait_until(
        lambda: (
            sum(each.name[0] == "w" and bool(each.path) for each in executing.processes(key)) == 2
        )
    )
    alive = place.processes()
    place.rscoop("journal", "backup", "last", "copy").expect()
    other = Place(place.folder, place.folder / "back", place.environ)
    other.rscoop("journal", "restore", "copy").expect()
    (place.folder / "go").touch()

    # When the copy is continued to its end
    other.rscoop("resume", "last").expect()
    other.assert_nothing_left()

    # Then the run still has all its processes, and ends normally
    assert place.processes() == alive
    for pid, words_of in alive.items():
        if " worker " in words_of:
            os.kill(pid, signal.SIGKILL)  # they sleep; later calls end at once
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("4 ")
    place.assert_nothing_left()


class Elsewhere(Place):
    """A place at which copies are restored."""

    def assert_refused(self, target: str, word: str, code: int = 74) -> None:
        done = self.rscoop("journal", "restore", target)
        assert done.code == code, done
        assert word in done.err
        assert self.runs() == []
        assert not list(self.state.glob("runs/.*"))


def test_a_changed_copy_is_refused_before_any_file_in_it_is_opened(place: Place) -> None:
    run = killed(place)
    place.rscoop("journal", "backup", "last", "copy").expect()
    place.rscoop("journal", "backup", "last", "copy.tar").expect()
    elsewhere = Elsewhere(place.folder, place.folder / "elsewhere", place.environ)
    refused = elsewhere.assert_refused
    copy = place.folder / "copy"
    for name in ("journal/data.mdb", "run.json", next((copy / "payloads").iterdir()).name):
        path = copy / name if (copy / name).exists() else copy / "payloads" / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        refused("copy", "is not what was saved")
        path.write_bytes(before + b"more")
        refused("copy", "is not what was saved")
        path.unlink()
        refused("copy", "missing")
        path.symlink_to(run / "run.json")
        refused("copy", "missing")
        path.unlink()
        path.write_bytes(before)
    manifest = copy / "manifest.json"
    before = manifest.read_bytes()
    manifest.write_bytes(before.replace(run.name.encode(), b"aaaaaaaa"))
    refused("copy", "signature does not match")
    manifest.write_bytes(before)

    # files that it does not name are left out
    with tarfile.open(place.folder / "copy.tar", "a") as tar:
        tar.add(place.folder / "script.py", "../../evil.py")
    elsewhere.rscoop("journal", "restore", "copy.tar").expect()
    assert not list(elsewhere.state.rglob("evil.py"))


def test_restore_refuses_a_folder_without_manifest_or_key(place: Place) -> None:
    killed(place)
    place.rscoop("journal", "backup", "last", "copy").expect()
    elsewhere = Elsewhere(place.folder, place.folder / "elsewhere", place.environ)
    refused = elsewhere.assert_refused
    (place.folder / "text").write_text("not a backup")
    refused("text", "not a backup")
    refused("nothing", "no such file")
    key = place.folder / "config" / "rscoop" / "backup.key"
    key.chmod(0o644)
    refused("copy", "chmod 600", 2)
    key.unlink()
    refused("copy", "is missing, so a forged backup", 2)
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    refused("copy", "another key")


def test_a_repaired_run_continues_to_the_same_answer(place: Place) -> None:
    # Given a killed run with a page of its journal overwritten
    run = killed(place)
    data = bytearray(data_file(run / "journal").read_bytes())
    for at in range(8 * 4096, len(data) - 4096, 4096):
        if at // 4096 % 3 == 0:
            data[at : at + 4096] = b"\x5a" * 4096
    data_file(run / "journal").write_bytes(data)

    # Then this is reported, with advice
    refused = place.rscoop("resume", "last")
    assert refused.code == 74
    assert "journal repair" in refused.err
    verified = place.rscoop("journal", "verify", "last")
    assert verified.code == 74
    assert f"journal repair {run.name}" in verified.out

    # When it is repaired, then the rest is computed again
    repaired = place.rscoop("journal", "repair", "last").expect()
    assert "lost: " in repaired
    assert "computes again" in repaired
    assert (run / "journal.aside-1" / "data.mdb").exists()
    assert place.rscoop("journal", "verify", "last").code == 0
    expected = undisturbed(place)
    assert place.rscoop("resume", "last").code == 0
    assert place.rscoop("logs", "last").expect() == expected
    place.assert_nothing_left()


def test_a_repair_of_a_sound_run_loses_nothing_even_without_its_second_file(
    place: Place,
) -> None:
    run = killed(place)
    place.rscoop("journal", "compact", "last").expect()
    assert read_generation(run / "journal").data == "compact-1"
    (run / "journal" / "generation.json").unlink()
    report = json.loads(place.rscoop("journal", "repair", "last", "--json").expect())
    assert report["lost"] == []
    assert report["kept"]["log"] > 0
    expected = undisturbed(place)
    place.rscoop("resume", "last").expect()
    assert place.rscoop("logs", "last").expect() == expected


def test_records_after_a_gap_are_removed(tmp_path: Path) -> None:
    from resilient_scoop.journal.repair import repair

    journal = Journal.create(tmp_path / "journal", b"r" * 16)
    attempt = Attempt(1, 1)
    output = {at: encode(Output(attempt, at, b"12345")) for at in (0, 5, 15)}
    journal.commit([Put(Table.OUTPUT, at.to_bytes(8, "big"), raw) for at, raw in output.items()])
    reads = {no: encode(Input(attempt, no, b"source..", b"line")) for no in (0, 1, 3)}
    journal.commit(
        [Put(Table.META, INPUT_KEY + no.to_bytes(8, "big"), raw) for no, raw in reads.items()]
    )
    journal.close(clean=True)
    found = repair(tmp_path / "journal", tmp_path / "new")
    assert found.lost == [
        "table output: a gap at byte 10; what follows is dropped",
        "table meta: read 2 of the script's input; what it read next is dropped",
    ]
    with Journal.view(tmp_path / "new") as view:
        assert [int.from_bytes(key, "big") for key, _ in view.scan(Table.OUTPUT)] == [0, 5]
        assert [read.no for read in recorded_input(view)] == [0, 1]


def observed(number: int, *, parent: str = "0") -> bytes:
    return encode(Observed(parent, Attempt(1, 1), [Observation(number, "done", 0, b"")]))


def test_observations_are_kept_up_to_a_gap_or_after_a_checkpoint(tmp_path: Path) -> None:
    # Given parents with observations: one with a gap, one trimmed, one with a checkpoint
    checkpoint = Checkpoint("0.2[0]", Attempt(1, 1), "c", 0, 1, 0, 0, 0, 5, 5, b"state")
    records = {
        "gap": [observed(0), observed(1), observed(3), observed(4)],
        "trimmed": [
            encode(Checkpoint("0.1[0]", Attempt(1, 1), "c", 0, 1, 0, 0, 0, 4, 3, b"state")),
            encode(Trimmed("0.1[0]", [(0, 4)], [(0, 3)], 4, [])), observed(3, parent="0.1[0]"),
        ],
        "checkpoint": [
            observed(0, parent="0.2[0]"), observed(2, parent="0.2[0]"),
            encode(checkpoint), observed(5, parent="0.2[0]"),
        ],
    }  # fmt: skip
    journal = Journal.create(tmp_path / "journal", b"r" * 16)
    journal.commit(
        [
            Put(Table.LOG, b"%s-%d" % (name.encode(), number), raw)
            for name, frames in records.items()
            for number, raw in enumerate(frames)
        ]
    )
    journal.close(clean=True)

    # When the journal is repaired, then unusable records are left out, and reported
    found = repair(tmp_path / "journal", tmp_path / "new")
    assert sorted(text[:60] for text in found.lost) == [
        "table log: the answers that 0 got before number 3 are incomp",
        "table log: the answers that 0.2[0] got before number 2 are i",
    ]
    with Journal.view(tmp_path / "new") as view:
        kept = [key.decode() for key, _ in view.scan(Table.LOG)]
    assert kept == [
        "checkpoint-0", "checkpoint-2", "checkpoint-3", "gap-0", "gap-1", "trimmed-0", "trimmed-1",
        "trimmed-2",
    ]  # fmt: skip


def test_a_live_run_can_be_compacted_and_not_repaired(place: Place) -> None:
    place.write(SCRIPT)
    process = place.start("run", "-q", "-n", "2", "script.py", str(place.folder / "go"))
    assert process.stdout is not None
    while not process.stdout.readline().startswith("3 "):
        assert process.poll() is None
    (run,) = place.runs()
    for _ in range(2):
        place.rscoop("journal", "compact", "last").expect()
    assert read_generation(run / "journal").data == "compact-2"
    assert place.rscoop("journal", "repair", "last").code == 73
    assert place.status()["done"] == 400
    (place.folder / "go").touch()
    for pid, words in place.processes().items():
        if " worker " in words:
            os.kill(pid, signal.SIGKILL)  # they sleep; later calls end at once
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("4 ")
    assert check(run / "journal", Depth.CONTENTS).sound
    place.assert_nothing_left()


def test_a_run_of_a_newer_format_is_refused_by_every_command_of_the_journal(place: Place) -> None:
    run = killed(place)
    info = run / "run.json"
    info.write_text(info.read_text().replace('"format": 1', '"format": 9'))
    for words in ("verify", "stats", "export", "repair", "compact"):
        done = place.rscoop("journal", words, "last")
        assert "it has format 9 and this version reads up to 1" in done.err, (words, str(done))
        assert done.code == 74
