"""NumPy's global stream belongs to the running item, whenever NumPy comes in."""

from __future__ import annotations

import subprocess
import sys

FIRST_USE_IN_AN_ITEM = """
from resilient_scoop.adapters import rng
number = 5
rng.watch_imports(lambda: number)
rng.seed(number)
import numpy as np
late = np.random.random()
rng.seed(number)
assert late == np.random.random()
"""

ANOTHER_ITEM_IMPORTS_IT_MEANWHILE = """
from resilient_scoop.adapters import rng
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


def test_an_item_that_uses_numpy_first_finds_its_stream_seeded() -> None:
    run(FIRST_USE_IN_AN_ITEM)


def test_an_item_that_waited_finds_its_stream_seeded_though_another_brought_numpy_in() -> None:
    run(ANOTHER_ITEM_IMPORTS_IT_MEANWHILE)
