"""A notebook with a session: what its cells define travels, and results outlive its kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

pytestmark = [pytest.mark.notebooks, pytest.mark.timeout(120)]

OPEN = """
import os, time
from resilient_scoop import Executor, Session
session = Session(run="trial", workers=2)
"""
WORK = """
def work(x):
    with open("ledger", "a") as file:
        file.write(f"{x}\\n")
    return x * 10
"""


POINT = """
scale = 3
class Point:
    def __init__(self, x): self.x = x
    def far(self): return self.x * scale
"""


class Notebook:
    """A notebook in a folder of its own."""

    def __init__(self, folder: Path, *cells: str) -> None:
        self.folder = folder
        make: Any = nbformat.v4
        self.file = make.new_notebook(cells=[make.new_code_cell(text) for text in cells])

    def execute(self) -> list[str]:
        """Execute all cells in a new kernel; return what each of them has shown."""
        client = NotebookClient(
            self.file, timeout=60, kernel_name="python3", allow_errors=True,
            resources={"metadata": {"path": str(self.folder)}},
        )  # fmt: skip
        client.execute()
        return [shown(cell) for cell in self.file.cells]

    def ledger(self) -> list[int]:
        """Return the arguments of the calls that workers have computed."""
        path = self.folder / "ledger"
        return sorted(map(int, path.read_text().split())) if path.exists() else []


def shown(cell: Any) -> str:
    """Return the text of a cell's outputs, with that of an error."""
    found = []
    for each in cell.outputs:
        found += [each.get("text", ""), each.get("ename", ""), each.get("evalue", "")]
        found += [each.get("data", {}).get(kind, "") for kind in ("text/plain", "text/html")]
    return "\n".join(text for text in found if text).strip()


def html_of(cell: Any) -> str:
    """Return the HTML of a cell's outputs."""
    return "".join(each.get("data", {}).get("text/html", "") for each in cell.outputs)


def wait_for(path: Path, lines: int = 1) -> None:
    """Wait until a file has so many lines."""
    until = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < until, path
        time.sleep(0.05)


def test_functions_and_classes_of_cells_travel_and_a_new_definition_counts(tmp_path: Path) -> None:
    notebook = Notebook(
        tmp_path,
        OPEN,
        POINT,
        "def moved(point, by): return Point(point.x + by)",
        "found = session.submit(moved, Point(2), 5).result()",
        "print(type(found) is Point, found.x, found.far())",
        "def work(x): return x + 1",
        "print(list(session.map(work, range(3))))",
        "def work(x): return x + 100",
        "print(list(session.map(work, range(3))))",
        "scale = 4\ndef scaled(x): return x * scale\nprint(session.submit(scaled, 2).result())",
        "scale = 5\nprint(session.submit(scaled, 2).result())",
        "with Executor(session=session) as executor: print(list(executor.map(lambda x: -x, [1, 2])))",
    )
    outputs = notebook.execute()
    assert outputs[4] == "True 7 21"
    assert outputs[6:9:2] == ["[1, 2, 3]", "[100, 101, 102]"]
    assert outputs[9:] == ["8", "10", "[-1, -2]"]


def test_results_outlive_a_kernel_that_is_killed(tmp_path: Path) -> None:
    notebook = Notebook(
        tmp_path,
        OPEN,
        WORK,
        "first = list(session.map(work, range(6)))",
        "if not os.path.exists('go'): os.kill(os.getpid(), 9)",
        "print(first, list(session.map(work, range(6, 9))))",
        "session.close()",
    )
    with pytest.raises(DeadKernelError):
        notebook.execute()
    assert notebook.ledger() == [0, 1, 2, 3, 4, 5]

    (tmp_path / "go").touch()
    outputs = notebook.execute()

    assert outputs[4] == "[0, 10, 20, 30, 40, 50] [60, 70, 80]"
    assert notebook.ledger() == list(range(9))


def test_an_interrupt_stops_waiting_and_not_the_run(tmp_path: Path) -> None:
    notebook = Notebook(
        tmp_path,
        OPEN,
        WORK.replace(
            "    return", "    while not os.path.exists('go'): time.sleep(0.05)\n    return"
        ),
        "open('pid', 'w').write(f'{os.getpid()}\\n')\ncalls = [session.submit(work, x) for x in range(4)]",
        "[call.result() for call in calls]",
        "open('go', 'w').close()\nprint([call.result() for call in calls], session.closed)",
        "session.close()",
    )

    def interrupt() -> None:
        wait_for(tmp_path / "pid")
        wait_for(tmp_path / "ledger", 2)
        time.sleep(0.5)  # the cell that waits has begun
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outputs = notebook.execute()
    thread.join()
    assert "KeyboardInterrupt" in outputs[3]
    assert outputs[4] == "[0, 10, 20, 30] False"
    assert notebook.ledger() == [0, 1, 2, 3]


def test_futures_without_a_session_are_told_to_open_one(tmp_path: Path) -> None:
    notebook = Notebook(
        tmp_path,
        "from resilient_scoop import futures\ndef work(x): return x + 1",
        "print(list(futures.map(work, range(3))))",
    )
    text = notebook.execute()[1]
    assert "[1, 2, 3]" in text
    assert "Session(" in text
    assert "rscoop run" not in text


def test_sessions_executors_and_futures_are_shown_escaped(tmp_path: Path) -> None:
    notebook = Notebook(
        tmp_path,
        OPEN,
        "class Bad(Exception): pass\ndef fails(): raise Bad('<script>')\nfails.__qualname__ = '<i>fails'",
        "session",
        "Executor(session=session)",
        "call = session.submit(fails)\ncall.exception()\ncall",
        "session.close()\nsession",
        "from resilient_scoop import runs\nruns.open_run(session.id)",
    )
    notebook.execute()
    tables = [html_of(cell) for cell in notebook.file.cells[2:]]
    for each in (tables[0], tables[1], tables[3], tables[4]):
        assert ">trial<" in each, each
    assert "&lt;i&gt;fails" in tables[2]
    assert "Bad: &lt;script&gt;" in tables[2]
    assert not any(tag in each for each in tables for tag in ("<b>", "<i>", "<script>"))


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_a_notebook_shows_the_progress_of_a_session(tmp_path: Path, *, has_tqdm: bool) -> None:
    hidden = "" if has_tqdm else "import sys; sys.modules['tqdm.auto'] = None"
    if has_tqdm:
        pytest.importorskip("tqdm")
    book = Notebook(
        tmp_path,
        hidden + OPEN.replace("workers=2", "workers=2, progress=True"),
        WORK + "print(sum(session.map(work, range(20))))\nsession.close()",
    )

    opened, computed = book.execute()

    assert "1900" in computed
    assert "20/20" in opened + computed
