"""A script of some steps, and a run that stopped halfway, for the tests of replays and resumes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from resilient_scoop.runs import list_runs
from tests.integration.runs import Place, finish, ledger, wait_until

STEPS = """
    import os, time
    from resilient_scoop import futures
    def note(what):
        with open("ledger", "a") as file:
            file.write(what + "\\n")
    def work(x):
        note(f"work {x}")
        return x * 2
    def deep(n):
        return sum(futures.map(work, range(n)))
    if __name__ == "__main__":
        values = list(futures.map(work, range(6)))
        print("first", values)
        token = futures.once(os.urandom, 3).hex()
        print("token", len(token))
        order = sorted(futures.map_as_completed(work, values))
        print("second", order)
        print("deep", futures.submit(deep, 4).result())
"""

HALFWAY = """
    import os, time
    from resilient_scoop import futures
    def work(x):
        with open("ledger", "a") as file:
            file.write(f"{x}\\n")
        while x == 4 and not os.path.exists("paid"):
            time.sleep(0.02)  # until the other worker is in pay
        while x >= 5 and not os.path.exists("go"):
            time.sleep(0.02)
        return x * x
    def deep(n):
        first = list(futures.map(work, range(5)))
        return sum(first) + sum(futures.map(work, range(5, n)))
    @futures.task(idempotent=False)
    def pay(amount):
        with open("paid", "a") as file:
            file.write(f"{amount}\\n")
        while not os.path.exists("go"):
            time.sleep(0.02)
        return f"paid {amount}"
    if __name__ == "__main__":
        print(list(futures.map(work, range(4))))
        inner, bill = futures.submit(deep, 7), futures.submit(pay, 12)
        print(inner.result())
        print(bill.result())
"""


def stop_halfway(place: Place) -> None:
    """Kill all processes of a run at once, while it executes two items."""
    path = place.write(HALFWAY)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: "5" in ledger(place) and bool(ledger(place, "paid")))
    known = {"done": 0}

    def durable() -> bool:
        known.update(place.status())
        return known["done"] == 9

    wait_until(durable, 10.0, lambda: str(known))
    process.kill()
    finish(process)
    wait_until(lambda: not place.processes(), 5.0, lambda: f"left: {place.processes()}")
    # A killed process loses its command line, by which it is found above, before its locks.
    [run] = list_runs(place.state)
    wait_until(lambda: run.status().state == "stopped", 5.0, lambda: str(run.status()))


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"  # LMDB's table of readers
    }


def replayed(place: Place, *args: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(place.rscoop("replay", *args, "--json").expect(code))
    return report
