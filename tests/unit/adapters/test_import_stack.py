"""The stack of a worker whose import of the script takes very long, and how it is shown."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from resilient_scoop.adapters import import_stack
from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.runs.executing import ExecutingProcess

HANGS = """
from resilient_scoop.adapters import import_stack
import_stack.tell_when_asked()
print("here", flush=True)
import hanging
"""


def test_the_stack_of_a_process_that_hangs_in_an_import_is_shown(tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\n\ndef wait():\n    time.sleep(100)\n\nwait()\n")
    log = tmp_path / "w1.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", HANGS], cwd=tmp_path, stdout=subprocess.PIPE, stderr=file
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        until = time.monotonic() + 10
        while "hanging.py" not in import_stack.place(process.pid, log):
            assert time.monotonic() < until
        text = import_stack.describe("w1", process.pid, log, "run-7")
    finally:
        process.kill()
        process.communicate()
    assert f'for 60 s, at "{hanging}", line 4. If the import hangs: stop the run' in text
    assert text.endswith("`rscoop resume run-7`")
    assert import_stack.place(process.pid, tmp_path / "no.log") == ""


def test_a_record_shows_how_long_the_start_takes_and_the_present_line_of_the_script() -> None:
    record = FlightRecord.create("w1")
    assert 0 < record.starts_s < 60
    record.ready()
    assert record.starts_s == 0
    record.reach(7)
    assert record.reached == 7
    record.close()


def test_a_long_import_is_reported_and_a_short_one_is_not() -> None:
    short = ExecutingProcess("w2", 4711, "", 0.0, imports_s=2.0)
    assert not short.trouble
    assert short.text == "w2 imports the script (2.0 s)"
    long = ExecutingProcess("w2", 4711, "", 0.0, imports_s=75.0)
    assert long.trouble.startswith(
        "worker w2 (process 4711) has been importing the script for 75 s; "
    )
    assert "`rscoop logs --worker w2`" in long.trouble
