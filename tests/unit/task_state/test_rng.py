"""NumPy's global stream belongs to the running item, whenever NumPy is imported."""

# The global stream is what is tested here:
# ruff: noqa: NPY002

from __future__ import annotations

import random
import subprocess
import sys
import zlib

from resilient_scoop.task_state import rng

FIRST_USE_IN_AN_ITEM = """
from resilient_scoop.task_state import rng
number = 5
rng.watch_imports(lambda: number)
rng.seed(number)
import numpy as np
late = np.random.random()
rng.seed(number)
assert late == np.random.random()
"""

ANOTHER_ITEM_IMPORTS_IT_MEANWHILE = """
from resilient_scoop.task_state import rng
number = 5
rng.watch_imports(lambda: number)
rng.seed(number)
streams = rng.save()  # the item waits; another one runs
number = 6
rng.seed(number)
import numpy as np
np.random.random()
number = 5
rng.restore(streams)
late = np.random.random()
rng.seed(number)
assert late == np.random.random()
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_numpy_stream_of_the_item_that_imports_numpy_first_is_seeded() -> None:
    run(FIRST_USE_IN_AN_ITEM)


def test_the_numpy_stream_of_a_waiting_item_is_seeded_after_another_item_imported_numpy() -> None:
    run(ANOTHER_ITEM_IMPORTS_IT_MEANWHILE)


def test_both_global_streams_of_an_item_differ() -> None:
    """They are the same generator: the same seed would give the same numbers."""
    import numpy as np

    kept = rng.save()
    try:
        rng.seed(12345)
        assert random.random() != np.random.random()
    finally:
        rng.restore(kept)


def test_the_seed_of_numpys_stream_has_all_bits() -> None:
    import numpy as np

    kept = rng.save()
    try:
        drawn = set()
        for number in (5, 5 + (1 << 32), 5 + (1 << 63)):
            rng.seed(number)
            drawn.add(np.random.random())
        assert len(drawn) == 3
    finally:
        rng.restore(kept)


def test_a_run_of_an_earlier_version_keeps_its_streams() -> None:
    import numpy as np

    kept = rng.save()
    rng.follow(1)
    try:
        rng.seed(5 + (1 << 40))
        assert np.random.random() == np.random.RandomState(5).random()
    finally:
        rng.follow(rng.RULES)
        rng.restore(kept)


def seed_of(mark: str) -> int:
    return zlib.crc32(mark.encode())


def test_streams_of_both_kinds_are_saved_and_restored() -> None:
    book = rng.StreamBook()
    streams = [
        book.obtain(name, seed_of, numpy=numpy) for name in ("a", None) for numpy in (True, False)
    ]
    saved = book.save()
    first = [float(each.random()) for each in streams]
    book.restore(saved)
    assert [float(each.random()) for each in streams] == first
    assert len(set(first)) == 4
    assert book.obtain("a", seed_of, numpy=True) is streams[0]
    assert [book.mark_of(each) for each in streams[2:]] == [0, 1]


FORKED_CHILD = """
import os, random
from resilient_scoop.task_state import unseeded
unseeded.draw_from(lambda bits: 5)
first, second = random.Random().random(), random.Random().random()
assert first == second == random.Random(5).random()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, repr(random.Random().random()).encode())
    os._exit(0)
assert float(os.read(read, 100)) != first
import secrets, tempfile, threading
names = {next(tempfile._RandomNameSequence()) for _ in range(2)}
assert len(names) == 2
thread = threading.Thread(target=lambda: drawn.append(random.Random().random()))
drawn = []
thread.start()
thread.join()
assert drawn[0] != first
"""


def test_children_threads_and_the_standard_library_are_seeded_by_the_system() -> None:
    run(FORKED_CHILD)


BASE = """
import decimal, os, signal, sys, tempfile, warnings
from resilient_scoop.task_state import process_state
folder = os.getcwd()
process_state.take_base()
os.chdir(tempfile.gettempdir())
os.environ["MINE"] = "1"
warnings.simplefilter("ignore")
signal.setitimer(signal.ITIMER_REAL, 50)
mine = process_state.save()
assert (os.getcwd(), os.environ.get("MINE")) == (folder, None)
assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
os.environ["OTHER"] = "1"
process_state.restore(mine)
assert os.environ.get("MINE") == "1" and "OTHER" not in os.environ
assert os.getcwd() == os.path.realpath(tempfile.gettempdir())
assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
decimal.getcontext().prec = 3
process_state.fresh()
assert (os.getcwd(), decimal.getcontext().prec) == (folder, 28)
before = process_state.snapshot()
os.environ["IMPORTED"] = "1"
process_state.imported(before)
process_state.fresh()
assert os.environ["IMPORTED"] == "1"
gone = tempfile.mkdtemp()
os.chdir(gone)
os.rmdir(gone)
mine = process_state.save()
assert os.getcwd() == folder
process_state.restore(mine)
assert os.readlink("/proc/self/cwd").endswith("(deleted)")
"""


def test_the_state_of_the_process_is_restored() -> None:
    run(BASE)
