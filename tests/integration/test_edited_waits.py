"""A recorded answer to a wait counts only for that wait: an edited script may wait for other futures."""

from __future__ import annotations

import pytest

from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
    import os, time
    from resilient_scoop import futures
    def nap(x):
        time.sleep(x / 10)
        return x * x
    def broken(x):
        raise ValueError(x)
    def hold():
        futures.submit(nap, 0).result()  # what was recorded before it is in the journal
        if not os.path.exists("go"):
            open("held", "w").close()
            time.sleep(60)
    if __name__ == "__main__":
        fs = [futures.submit(nap, x) for x in (3, 0, 1)]
        {line}
        hold()
        print(sum(f.result() for f in fs))
"""
LATE = "\n        except TimeoutError: print('late')"
EDITS = {
    "more futures": (
        "print(*map(len, futures.wait(fs[:2])))",
        "print(*map(len, futures.wait(fs)))",
        "3 0",
    ),
    "other futures": (
        "print(*map(len, futures.wait(fs[:2])))",
        "print(*map(len, futures.wait(fs[2:], return_when='FIRST_COMPLETED')))",
        "1 0",
    ),
    "other futures as they are completed": (
        "print([f.result() for f in futures.as_completed(fs[:1])])",
        "print([f.result() for f in futures.as_completed(fs[1:2])])",
        "[0]",
    ),
    "the first or all": (
        "print(len(futures.wait(fs, return_when='FIRST_COMPLETED').done) in (1, 2))",
        "print(len(futures.wait(fs, return_when='FIRST_EXCEPTION').done))",
        "3",
    ),
    "no time limit for several": (
        "print(len(futures.wait(fs, timeout=0).done) < 3)",
        "print(len(futures.wait(fs).done))",
        "3",
    ),
    "another future with a time limit": (
        f"try: fs[0].result(timeout=0){LATE}",
        "time.sleep(1); print(fs[1].result(timeout=0))",
        "0",
    ),
    "another future that is asked": (
        "print(fs[0].done())",
        "time.sleep(1); print(fs[1].done())",
        "True",
    ),
    "another future that is canceled": (
        "gs = [futures.submit(nap, 3) for _ in range(8)]; print(gs[7].cancel())",
        "gs = [futures.submit(nap, 3) for _ in range(8)]; time.sleep(1); print(gs[0].cancel())",
        "False",
    ),
    "no time limit as they come": (
        f"try: list(futures.map_as_completed(nap, [3], timeout=0)){LATE}",
        "print(list(futures.map_as_completed(nap, [3])))",
        "[9]",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_wait_that_was_edited_gets_its_own_answer(place: Place, name: str) -> None:
    before, after, answer = EDITS[name]
    killed_at(place, SCRIPT.replace("{line}", before), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", after))

    done = resumed(place)

    assert done.expect().splitlines() == [answer, "10"]
    assert place.rscoop("replay", "last").expect()


def test_a_strict_run_refuses_an_answer_to_another_wait(place: Place) -> None:
    before, after, _ = EDITS["more futures"]
    killed_at(place, SCRIPT.replace("{line}", before), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", after))

    done = place.rscoop("resume", "last", "--strict")

    assert done.code == 70
    assert "`settled`" in done.err


def test_an_edit_that_waits_with_a_time_limit_keeps_the_recorded_answer(place: Place) -> None:
    killed_at(place, SCRIPT.replace("{line}", EDITS["more futures"][0]), "held")
    (place.folder / "go").touch()
    place.write(SCRIPT.replace("{line}", "print(*map(len, futures.wait(fs[:2], timeout=9)))"))

    done = resumed(place)

    assert done.expect().splitlines() == ["10"]
    assert " answer " not in done.err
