"""Futures that outlive commits: each future that user code can still reach gives its result."""

from __future__ import annotations

import pytest

from resilient_scoop.core.events import Table
from resilient_scoop.journal.view import JournalView
from resilient_scoop.wire import messages as wire
from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Place

pytestmark = pytest.mark.real


COMMON = """
import sys, time
from pathlib import Path
import numpy
from resilient_scoop import checkpoint, futures
def big(x): return bytes([x]) * 3_000_000
def late(x):
    while not Path("go").exists(): time.sleep(0.01)
    return x * x
def fails(x): raise ValueError(f"no {x}")
def size(data): return len(data)
def rounds(s, upto):
    while s.gen < upto:
        list(futures.map(size, [b"x"] * 5))
        s.gen += 1
        s.commit()
def wait_here():
    Path("now").touch()
    time.sleep(60)
"""

LIVING = """
def hold(upto):
    with checkpoint.durable(gen=0) as s:
        held, failed, several = futures.submit(big, 7), futures.submit(fails, 1), futures.map(big, range(4))
        small = futures.submit(size, b"12")
        next(several)
        coming = futures.map_as_completed(big, range(4))
        next(coming)
        waiting = futures.submit(late, 5)
        rounds(s, upto // 2)
        Path("go").touch()
        rounds(s, upto)
        told = [len(held.result()), [len(each) for each in several], [len(each) for each in coming]]
        return told + [repr(failed.exception()), small.result(), waiting.result()]
if __name__ == "__main__":
    print(hold(10))
    Path("go").unlink()
    print(list(futures.map(hold, [12])))
"""


def test_unread_results_of_a_living_parent_stay_readable(place: Place) -> None:
    """Also below the script."""
    output = [3000000, [3000000] * 3, [3000000] * 3, "ValueError('no 1')", 2, 25]

    out = place.run(COMMON + LIVING, workers=3).expect().splitlines()

    assert out == [str(output), str([output])]


PASSED_ON = """
import os
if __name__ == "__main__":
    files = lambda: len(list(Path(os.environ["RSCOOP_STATE_DIR"]).glob("runs/*/payloads/res-*")))
    last, most = None, 0
    with checkpoint.durable(gen=0) as s:
        while s.gen < 20:
            if last is not None: last.result()
            last = futures.submit(big, s.gen)
            s.gen += 1
            s.commit()
            most = max(most, files())
        print(len(last.result()), most < 12)
"""


def test_files_of_results_that_were_read_are_removed_while_others_stay(place: Place) -> None:
    assert place.run(COMMON + PASSED_ON).expect() == "3000000 True\n"


STORED = """
def nest(k):
    with checkpoint.durable(gen=0, f=None) as s:
        if s.gen == 0:
            s.f = futures.submit(big, k)
            size(b"")
        rounds(s, 6)
        if k == 3 and not Path("go").exists(): Path("nested").touch()
        futures.submit(late, 1).result()
        return len(s.f.result())
if __name__ == "__main__":
    before, early, wrong = futures.submit(late, 5), futures.submit(big, 3), futures.submit(fails, 2)
    kids = [futures.submit(nest, k) for k in (2, 3)]
    with checkpoint.durable(gen=0, waits=before, large=early, wrong=wrong, kids=kids) as s:
        del before, early, wrong, kids
        rounds(s, 5)
        if not Path("go").exists():
            while not Path("nested").exists(): time.sleep(0.01)
            if sys.argv[1:]: Path("go").touch(); time.sleep(1)
            wait_here()
        rounds(s, 9)
        print(s.waits.result(), len(s.large.result()), repr(s.wrong.exception()))
        print([each.result() for each in s.kids])
"""


@pytest.mark.parametrize("done_behind", [(), ("done",)], ids=["done before", "done behind"])
def test_futures_made_before_the_block_work_after_a_restart(
    place: Place, done_behind: list[str]
) -> None:
    """Whether they ended before the last commit, after it, or after the resume."""
    killed_at(place, COMMON + STORED, "now", *done_behind, workers=4)
    (place.folder / "go").touch()

    output = ["25 3000000 ValueError('no 2')", "[3000000, 3000000]"]
    assert resumed(place).expect().splitlines() == output


BACK = """
if __name__ == "__main__":
    with checkpoint.durable(gen=0, pad=lambda: numpy.zeros(200_000), f=None, lengths=list) as s:
        if s.gen == 0:
            s.f = [futures.submit(big, 1), futures.submit(late, 3), futures.submit(fails, 3)]
        while s.gen < 12:
            list(futures.map(size, [b"x"] * 5))
            s.gen += 1
            s.pad[:] = s.gen
            if s.gen == 8:
                Path("go").touch()
                s.lengths = [len(s.f[0].result()), s.f[1].result(), repr(s.f[2].exception())]
                s.f = None
            s.commit()
            if s.gen == 8 and sys.argv[1:]: wait_here()
    print(s.gen, s.lengths)
"""


def test_an_older_generation_finds_the_results_of_its_futures(place: Place) -> None:
    """The newest generation, which has read them, is damaged; the one before still waits for them."""
    killed_at(place, COMMON + BACK, "now", "wait", workers=3)
    files = (place.runs()[-1] / "checkpoints").iterdir()
    max(files, key=lambda each: each.stat().st_mtime_ns).write_bytes(b"nothing")
    script = place.folder / "script.py"
    script.write_text(script.read_text().replace("and sys.argv[1:]", "and False"))

    done = resumed(place)

    assert done.expect().splitlines() == ["12 [3000000, 9, \"ValueError('no 3')\"]"]
    assert "falling back to checkpoint 7" in done.err


LOST = """
import os
if __name__ == "__main__":
    f = futures.submit(big, 1)
    while not f._call.find(0): futures.once(int), time.sleep(0.05)
    for path in Path(os.environ["RSCOOP_STATE_DIR"]).glob("runs/*/payloads/res-*"): path.unlink()
    for _ in range(2):
        try: print(f.result())
        except Exception as error: print(type(error).__name__, f.exception() is error, f.done())
"""


def test_a_result_that_cannot_be_read_is_an_error_each_time(place: Place) -> None:
    done = place.run(COMMON + LOST)

    assert done.expect().splitlines() == ["UnpicklingFailedError True True"] * 2


RETRIED = """
import os
def work(x):
    with open("ledger", "a") as file: file.write(f"{x} ")
    while x == 13 and not os.path.exists("saved"): time.sleep(0.01)
    if x % 2 and not os.path.exists("mended"): raise OSError(f"no {x}")
    return x
def tried(x):
    try: return futures.submit(work, x).result()
    except OSError as error: return str(error)
if __name__ == "__main__":
    with checkpoint.durable(gen=0, told=list, f=None) as s:
        while s.gen < 4:
            s.told.append(tried(s.gen))
            s.f = futures.submit(work, 10 + s.gen)
            if s.gen < 3: futures.wait([s.f])
            s.gen += 1
            s.commit()
    Path("saved").touch()
    print(s.told, repr(s.f.exception()))
    print(futures.submit(work, 5).result())
"""


def test_failures_that_a_checkpoint_covers_are_not_computed_again(place: Place) -> None:
    """Except failures after it: of the last future in the state, and of calls after the block."""
    place.run(COMMON + RETRIED).expect(1)
    (place.folder / "ledger").unlink()
    (place.folder / "mended").touch()

    done = resumed(place, "-q", "--retry-failed")

    assert done.expect().splitlines() == ["[0, 'no 1', 2, 'no 3'] None", "5"]
    assert (place.folder / "ledger").read_text().split() == ["13", "5"]


LAMBDAS = """
    import os, sys
    from resilient_scoop import checkpoint, futures

    def known():
        from resilient_scoop.processes.here import Process
        machine = Process.session.machine
        return len(machine.callables.known) + len(machine.callables.announced)

    if __name__ == "__main__":
        most = 0
        with checkpoint.durable(gen=0, total=0) as s:
            while s.gen < 350:
                k = s.gen
                done = [futures.submit(lambda x, k=k, j=j: x + j + k, 1) for j in range(8)]
                s.total += sum(each.result() for each in done)
                most = max(most, known())
                s.gen += 1
                if s.gen % 5 == 0:
                    s.commit()
                if s.gen == 180:
                    open("there", "a").close()
        print(s.total, max(most, max(futures.map(lambda x: known(), range(8)))))
"""


def test_different_lambdas_of_a_loop_are_erased(place: Place) -> None:
    # Given a loop whose callable is another one in each generation, and that is killed halfway
    killed_at(place, LAMBDAS, "there")

    done = resumed(place)

    # Then it ends, and neither its processes nor the journal have kept them all
    total, most = map(int, done.expect().split()[-2:])
    assert total == sum(1 + j + k for k in range(350) for j in range(8))
    assert most < 2 * 1500
    with JournalView.open(place.runs()[-1] / "journal") as view:
        assert view.count(Table.DEFINE) < 2200
        defined = {key for key, _ in view.scan(Table.DEFINE)}
        records = [wire.decode_logged(raw) for _, raw in view.scan(Table.LOG)]
    parts = [part for each in records if isinstance(each, wire.Calls) for part in each.parts]
    assert {part.fn for part in parts} <= defined
