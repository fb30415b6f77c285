"""The end of a program, and what is prepared for it at the beginning."""

from __future__ import annotations

import subprocess
import sys


def test_begin_makes_full_collections_rarer_and_does_not_change_others() -> None:
    program = (
        "import gc; before = gc.get_threshold()\n"
        "from resilient_scoop.processes import program_end\n"
        "program_end.begin(); print(gc.get_threshold() == (*before[:2], 5 * before[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
