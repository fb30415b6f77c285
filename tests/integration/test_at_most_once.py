"""`idempotent=False` in real runs: begun items never begin again, queued items run normally."""

from __future__ import annotations

import pytest

from tests.integration.killed import kill_all
from tests.integration.runs import Place, ledger, wait_until

pytestmark = pytest.mark.real

HEAD = """
import os, signal, sys, time
from pathlib import Path
from resilient_scoop import futures

def note(text):
    with open("ledger", "a") as file: file.write(f"{text}\\n")

def child(x):
    time.sleep(0.3)
    return x

def long(x):
    time.sleep(1.0)
    return x

once = futures.options(idempotent=False)
"""
BUSY = (
    HEAD
    + """
def pays(x):
    note(f"paid {x}")
    return futures.submit(child, x).result() + sum(futures.map(child, [x, x]))

if __name__ == "__main__":
    payments = [once.submit(pays, x) for x in range(3)]
    time.sleep(0.1)
    others = [futures.submit(long, x) for x in range(2)]
    print([each.result() for each in payments], [each.result() for each in others])
"""
)
QUEUED = (
    HEAD
    + """
def pay(x):
    note(f"paid {x}")
    if x == 0: os.kill(os.getpid() if sys.argv[1] == "worker" else os.getppid(), signal.SIGKILL)
    if x == 0: time.sleep(5)
    return x

def outcome(future):
    try: return future.result()
    except Exception as error: return type(error).__name__

if __name__ == "__main__":
    payments = [once.submit(pay, x) for x in range(4)]
    print([outcome(each) for each in payments])
"""
)


def test_a_parent_that_moves_to_another_worker_pays_once(place: Place) -> None:
    done = place.run(BUSY)

    assert done.expect() == "[0, 3, 6] [0, 1]\n", str(done)
    assert sorted(ledger(place)) == ["paid 0", "paid 1", "paid 2"]


def test_a_parent_is_not_run_again_by_always_replay(place: Place) -> None:
    done = place.run(BUSY, "--always-replay")

    assert done.expect() == "[0, 3, 6] [0, 1]\n", str(done)
    assert sorted(ledger(place)) == ["paid 0", "paid 1", "paid 2"]


@pytest.mark.parametrize("who", ["worker", "agent"])
def test_only_a_begun_item_is_lost_with_its_worker(place: Place, who: str) -> None:
    done = place.run(QUEUED, who, workers=1)

    assert done.expect() == "['WorkerLostError', 1, 2, 3]\n", str(done)
    assert sorted(ledger(place)) == ["paid 0", "paid 1", "paid 2", "paid 3"]


def test_a_resume_starts_queued_items_and_gives_up_begun_ones(place: Place) -> None:
    path = place.write(
        HEAD
        + """
def pay(x):
    note(f"paid {x}")
    if x == 0 and not Path("killed").exists():
        Path("killed").touch()
        time.sleep(60)
    return x

def outcome(future):
    try: return future.result()
    except Exception as error: return type(error).__name__

if __name__ == "__main__":
    print([outcome(each) for each in [once.submit(pay, x) for x in range(4)]])
"""
    )
    process = place.start("run", "-q", "-n", "1", path.name)
    wait_until((place.folder / "killed").exists)
    kill_all(place)
    process.communicate()

    done = place.rscoop("resume", "-q", "last")

    assert done.expect() == "['WorkerLostError', 1, 2, 3]\n", str(done)
    assert sorted(ledger(place)) == ["paid 0", "paid 1", "paid 2", "paid 3"]


def test_an_edit_before_a_payment_does_not_repeat_the_payment(place: Place) -> None:
    path = place.write(
        HEAD
        + """
def pay(x):
    note(f"paid {x}")
    return x

if __name__ == "__main__":
    # ADDED
    print(once.submit(pay, 5).result(), futures.submit(child, 1).result())
    if not Path("over").exists(): sys.exit(3)
"""
    )
    assert place.rscoop("run", "-q", "-n", "1", path.name).code == 3
    path.write_text(path.read_text().replace("# ADDED", "futures.submit(len, 'a').result()"))
    (place.folder / "over").touch()

    done = place.rscoop("resume", "-q", "last")

    assert done.code != 0, str(done)
    assert "idempotent=False and was started" in done.err
    assert ledger(place) == ["paid 5"]
    # And the run continues after the edit is undone
    path.write_text(path.read_text().replace("futures.submit(len, 'a').result()", ""))
    place.rscoop("resume", "-q", "last").expect()
    assert ledger(place) == ["paid 5"]
