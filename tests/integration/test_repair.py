"""A repair of a run whose files are lost reports everything that it drops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.ids import log_prefix
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.repair import repair
from resilient_scoop.wire.messages import (
    Attempt,
    Checkpoint,
    Output,
    decode_logged,
    decode_up,
    encode,
)
from tests.integration.halfway import replayed
from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

LOOP = """
import sys
from pathlib import Path
import numpy
from resilient_scoop import checkpoint, futures

def work(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return x + 1

def loop(first, stop):
    with checkpoint.durable("deep" if first else "main", data=lambda: numpy.zeros(100_000), gen=0) as s:
        while s.gen < 20:
            s.gen, = [n - first for n in futures.map(work, [first + s.gen])]
            s.data[s.gen] = s.gen
            if not first: print(s.gen)
            if s.gen == stop and not Path("go").exists():
                Path("now").touch()
                while True: pass
            s.commit()
    return s.data.sum()

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("deep", futures.submit(loop, 100, 15).result())
    print("end", loop(0, 15 if len(sys.argv) == 1 else 0))
"""
DEEP = [f"{n}" for n in range(100, 120)]
SCRIPT = [f"{n}" for n in range(20)]


def files(place: Place) -> list[Path]:
    """Return the files of the checkpoints, the oldest first."""
    folder = place.runs()[-1] / "checkpoints"
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def repaired(place: Place) -> list[str]:
    """Repair the last run; check that all commands then find it sound; return what was lost."""
    assert place.rscoop("journal", "verify", "last").code == 74
    report = json.loads(place.rscoop("journal", "repair", "last", "--json").expect())
    place.rscoop("journal", "verify", "--depth", "contents", "last").expect()
    place.rscoop("journal", "backup", "last", str(place.folder / "copy")).expect()
    place.rscoop("resume", "--dry-run", "last").expect()
    (place.folder / "go").touch()  # without it the script loops forever, also in a replay
    assert replayed(place, "last")["clean"] is True
    lost: list[str] = report["lost"]
    return lost


def counted(text: str, whose: str) -> int:
    """Return how many results are lost; the last trimmed ones may not have been erased yet."""
    count = int(text.partition(" ")[0])
    assert text.startswith(f"{count} results of {count} calls of {whose}: they were dropped when ")
    assert 11 <= count <= 13
    return count


@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_a_lost_checkpoint_is_dropped_and_the_one_before_is_used(place: Place, damage: str) -> None:
    before = killed_at(place, LOOP, "now")
    path = files(place)[-1]
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(b"x" * path.stat().st_size)
        # only the sizes are checked
        assert "is sound" in place.rscoop("journal", "verify", "last").expect()
        path.write_bytes(b"x")

    (lost,) = repaired(place)

    why = "No such file or directory" if damage == "lost" else "is not"
    assert lost.startswith("checkpoint 14 of block 'main' of 0: the file "), lost
    assert why in lost or damage == "lost"
    assert lost.endswith("checkpoint 13 is used")
    done = resumed(place)
    assert (before + done.expect()).split() == [*(str(n) for n in range(1, 21)), "end", "210.0"]
    assert ledger(place) == SCRIPT, (
        "nothing is computed again: the one before finds what came since"
    )


def test_results_that_no_checkpoint_covers_any_more_are_recomputed_and_reported(
    place: Place,
) -> None:
    before = killed_at(place, LOOP, "now")
    for path in files(place):
        path.unlink()

    *dropped, again = repaired(place)

    assert [text.partition(":")[0] for text in dropped] == [
        f"checkpoint {gen} of block 'main' of 0" for gen in (13, 14)
    ]
    assert all(text.endswith("its block starts from the beginning") for text in dropped)
    count = counted(again, "the script, from 0.0 on")
    done = resumed(place)
    assert (before + done.expect()).split() == [*(str(n) for n in range(1, 21)), "end", "210.0"]
    assert ledger(place) == [*SCRIPT[:15], *SCRIPT[:count], *SCRIPT[15:]]
    assert replayed(place, "last")["clean"] is True


def test_results_of_a_task_that_no_checkpoint_covers_are_recomputed(place: Place) -> None:
    killed_at(place, LOOP, "now", "nested")
    for path in files(place):
        path.unlink()

    *dropped, again = repaired(place)

    assert len(dropped) == 2
    count = counted(again, "0.0[0], from 0.0[0].0 on")
    assert resumed(place).expect().splitlines()[0] == "deep 210.0"
    assert ledger(place) == [*DEEP[:15], *DEEP[:count], *DEEP[15:], *SCRIPT]


BIG = """
import sys, time
from pathlib import Path
import numpy
from resilient_scoop import futures, shared

def big(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return numpy.full(200_000, x)

if __name__ == "__main__":
    shared.setConst(table=numpy.arange(200_000))
    total = sum(int(each[0]) for each in futures.map(big, range(4)))
    print(total, int(shared.getConst("table")[-1]))
    while not Path("go").exists():
        Path("now").touch()
        time.sleep(0.02)
    print("end")
"""


def test_results_and_constants_whose_files_are_lost_are_computed_again(place: Place) -> None:
    before = killed_at(place, BIG, "now")
    results = sorted((place.runs()[-1] / "payloads").glob("res-*"))
    assert len(results) >= 4
    for path in results:
        path.unlink()

    lost = repaired(place)

    kinds = sorted(text.partition(":")[0] for text in lost)
    assert kinds[-4:] == [f"the result of 0.0[{n}]" for n in range(4)]
    assert (before + resumed(place).expect()).splitlines() == ["6 199999", "end"]
    assert sorted(ledger(place)) == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_lost_output_before_a_checkpoint_is_replaced_by_a_note_and_the_run_continues(
    place: Place,
) -> None:
    # Given a run whose journal lacks a piece of the script's output before its checkpoint
    killed_at(place, LOOP, "now")
    journal = Journal.open(place.runs()[-1] / "journal")
    (first, raw), *_ = journal.scan(Table.OUTPUT)
    piece = decode_up(raw)
    assert isinstance(piece, Output)
    journal.commit([Erase(Table.OUTPUT, first)])
    journal.close(clean=True)
    (place.folder / "go").touch()

    # When it is repaired, then the loss is reported, and the rest is kept
    report = json.loads(place.rscoop("journal", "repair", "last", "--json").expect())
    size = len(piece.data)
    assert report["lost"] == [f"table output: {size} bytes at byte 0; a line marks the place"]
    resumed(place).expect()
    shown = place.rscoop("logs", "last").expect()
    whole = "".join(f"{n}\n" for n in range(1, 21)) + "end 210.0\n"
    assert shown[size:] == whole[size:]


def test_a_checkpoint_is_dropped_if_its_pending_call_is_lost(tmp_path: Path) -> None:
    # Given a checkpoint whose state holds a future that is not in the journal
    kept = Checkpoint("0", Attempt(1, 1), "main", 0, 1, 0, 0, 0, 4, 0, b"state")
    waiting = Checkpoint("0", Attempt(1, 1), "main", 0, 2, 1, 0, 0, 6, 0, b"state", pending=[5])
    prefix = log_prefix(b"r" * 16, "0")
    journal = Journal.create(tmp_path / "journal", b"r" * 16)
    journal.commit(
        [
            Put(Table.LOG, prefix + seq.to_bytes(8, "big"), encode(record))
            for seq, record in enumerate((kept, waiting), 1)
        ]
    )
    journal.close(clean=True)

    found = repair(tmp_path / "journal", tmp_path / "new")

    assert found.lost == [
        (
            "checkpoint 2 of block 'main' of 0: it waits for 0.5, which the journal lacks; "
            "checkpoint 1 is used"
        )
    ]
    with Journal.view(tmp_path / "new") as view:
        assert [decode_logged(raw) for _, raw in view.scan(Table.LOG)] == [kept]
