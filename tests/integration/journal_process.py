"""A separate Python process that works on a journal, for tests of crashes."""

from __future__ import annotations

import subprocess
import sys

PRELUDE = """
import os, sys
from pathlib import Path
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.errors import JournalError, JournalFullError
directory = Path(sys.argv[1])
def say(*words): print(*words, flush=True)
"""


def start(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def output_of(code: str, *arguments: object) -> list[str]:
    child = start(PRELUDE + code, *arguments)
    out, _ = child.communicate(timeout=60)
    return [*out.splitlines(), f"exit {child.returncode}"]
