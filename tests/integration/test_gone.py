"""A run whose folder is moved or deleted ends and reports it."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

IDLE = """
    import time
    from pathlib import Path
    from resilient_scoop import futures
    def nap(x):
        Path(f"napping{x}").touch()
        while not Path("go").exists(): time.sleep(0.02)
        return x
    if __name__ == "__main__":
        print(sum(futures.map(nap, range(2))))
"""


@pytest.mark.parametrize("gone", ["", "journal"])
def test_a_run_whose_folder_is_deleted_ends_within_seconds(place: Place, gone: str) -> None:
    path = place.write(IDLE)
    process = place.start("run", "-n", "2", path.name)
    wait_until((place.folder / "napping1").exists)
    (run,) = place.runs()

    shutil.rmtree(run / gone)

    done = finish(process, timeout_s=10.0)
    done.expect(74)
    assert f"{run}" in done.err
    assert done.err.count("was deleted or moved during its run") == 1
    wait_until(lambda: not place.processes(), 5.0, lambda: f"left: {place.processes()}")


def test_a_run_whose_folder_is_moved_ends_and_is_resumed_at_the_new_path(place: Place) -> None:
    path = place.write(IDLE)
    process = place.start("run", "-n", "2", path.name)
    wait_until((place.folder / "napping1").exists)
    (run,) = place.runs()

    moved = run.rename(place.folder / run.name)

    finish(process, timeout_s=10.0).expect(74)
    wait_until(lambda: not place.processes(), 5.0, lambda: f"left: {place.processes()}")
    (place.folder / "go").touch()
    assert place.rscoop("resume", "-q", str(moved)).expect() == "1\n"
