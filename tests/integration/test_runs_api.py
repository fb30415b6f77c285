"""`resilient_scoop.runs` reads live, killed, finished and failed runs."""

from __future__ import annotations

from collections import Counter

import pytest

from resilient_scoop import runs
from resilient_scoop.errors import RunNotFoundError, UsageError
from resilient_scoop.runs import Run
from tests.integration.halfway import HALFWAY, stop_halfway
from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real

SCRIPT = """
    import sys
    from resilient_scoop import futures
    class Point:
        def __init__(self, x):
            self.x = x
    def square(x):
        if x == 3:
            raise ValueError(f"no {x}")
        return x * x
    def point(x):
        return Point(x)
    def nested(n):
        return sum(futures.map(square, range(n)))
    if __name__ == "__main__":
        print([f.exception() or f.result() for f in [futures.submit(square, i) for i in range(5)]])
        print(futures.submit(nested, 3).result(), list(futures.map(bytes, [2_000_000])) != [])
        futures.submit(point, 4).result()
        sys.exit(7)
"""


def only_run(place: Place) -> Run:
    (run,) = runs.list_runs(place.state)
    return run


def test_a_finished_run_is_read_completely(place: Place) -> None:
    path = place.write(SCRIPT)
    place.rscoop("run", "-q", "-n", "2", "--keep-history", "--name", "trial", path.name).expect(7)
    run = only_run(place)

    assert runs.open_run("last", place.state).id == run.id
    assert runs.open_run("trial", place.state).folder == run.folder
    assert (run.script, run.name, run.arguments) == ("script.py", "trial", [])
    status = run.status()
    assert (status.state, status.exit_code) == ("failed", 7)
    assert (status.done, status.total, status.failed, status.in_flight) == (11, 11, 1, 0)
    assert {f.name: (f.done, f.failed) for f in status.functions}["square"] == (7, 1)

    items = {item.path: item for item in run.items()}
    assert Counter(item.state for item in items.values()) == {"done": 10, "failed": 1}
    assert items["0.3[0]"].state == "failed"
    assert [item.path for item in run.items("0.5[0]")] == [
        "0.5[0].0[0]",
        "0.5[0].0[1]",
        "0.5[0].0[2]",
    ]
    assert [item.path for item in run.items("0.3")] == ["0.3[0]"]
    assert items["0.5[0]"].seconds is None, "it made calls"
    assert all(item.seconds for item in items.values() if item.path != "0.5[0]")

    assert run.outcome("0.2[0]").value() == 4
    assert run.outcome("0.6[0]").value() == bytes(2_000_000)
    failed = run.outcome("0.3[0]")
    assert failed.failed
    assert "ValueError: no 3" in failed.error()
    with pytest.raises(ValueError, match="no 3"):
        failed.value()
    with pytest.raises(Exception, match="Point"):
        run.outcome("0.7[0]").value()  # its class belongs to the script, which is not imported here

    ended = Counter(event.path for event in run.events() if event.kind in ("done", "failed"))
    assert ended == dict.fromkeys(items, 1)


def test_a_missing_run_or_item_is_refused_by_name(place: Place) -> None:
    assert runs.list_runs(place.state) == []
    with pytest.raises(UsageError):
        runs.open_run("last", place.state)
    place.run(SCRIPT).expect(7)
    run = only_run(place)
    with pytest.raises(RunNotFoundError):
        runs.open_run("nonesuch", place.state)
    for path, says in [
        ("0.99[0]", "has no outcome"),
        ("0.1", "is not the path"),
        ("x[y]", "is not the"),
    ]:
        with pytest.raises(UsageError, match=says):
            run.outcome(path)


def test_a_live_run_is_read_while_it_continues(place: Place) -> None:
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    run = only_run(place)
    wait_until(lambda: run.status().done == 9)
    assert run.status().state == "running"
    states = {item.path: item.state for item in run.items()}
    assert states["0.0[3]"] == "done"
    assert states["0.2[0]"] == "in flight"
    assert [event.path for event in run.events() if event.kind == "began"] == ["0.2[0]"]
    (place.folder / "go").touch()
    finish(process).expect()
    assert run.status().state == "finished"
    assert {item.state for item in run.items()} == {"done"}


def test_the_figures_of_a_killed_run_can_be_read(place: Place) -> None:
    stop_halfway(place)
    run = only_run(place)
    assert run.status().state == "stopped"
    assert Counter(item.state for item in run.items()) == {"done": 9, "in flight": 4}
    with pytest.raises(UsageError, match="has no outcome"):
        run.outcome("0.2[0]")
