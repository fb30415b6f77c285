"""What the import of the user's modules in a worker may do to files."""

from __future__ import annotations

import builtins
import io
import os
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.processes import imported_files

MKDIR = os.mkdir


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    imported_files._State.kept.clear()
    imported_files._State.mark = None


def imported(text: str, *, survey: bool = False) -> dict[str, Any]:
    """Execute the top level of a script, as a worker does."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with imported_files.left_whole(survey=survey):
        exec(textwrap.dedent(text), names)
    return names


def say(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("mode", ["w", "a", "x", "w+", "wt"])
def test_a_text_file_keeps_its_content_and_gets_what_tasks_write(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "out"
    path.write_text("of the script\n")
    out = imported(f"OUT = open('out', '{mode}'); OUT.write('of the import\\n')")["OUT"]
    assert (out.name, out.mode, out.encoding) == ("out", mode, "UTF-8")
    assert path.read_text() == "of the script\n"
    out.write("of a task\n")
    imported_files.flush(say)
    assert path.read_text() == "of the script\nof a task\n"
    out.close()
    assert path.read_text() == "of the script\nof a task\n"


def test_a_missing_file_is_made_when_the_import_closes_it_and_not_by_a_survey(
    tmp_path: Path,
) -> None:
    text = """
        with open("made", "w") as file:
            file.write("text")
        import pathlib
        BACK = pathlib.Path("made").read_text() if {back} else None
    """
    imported(text.format(back=False), survey=True)
    assert list(tmp_path.iterdir()) == []
    assert imported(text.format(back=True))["BACK"] == "text"
    (tmp_path / "made").write_text("of the script")
    assert imported(text.format(back=True))["BACK"] == "of the script"


def test_a_binary_file_that_is_written_and_read_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"12345678")
    data = imported("""
        DATA = open("data", "w+b")
        DATA.write(b"abcd")
        DATA.seek(7)
        DATA.write(b"yz")
        DATA.flush()
    """)["DATA"]
    assert (tmp_path / "data").read_bytes() == b"12345678z"
    data.seek(0)
    data.write(b"task")
    imported_files.flush(say)
    assert (tmp_path / "data").read_bytes() == b"task5678z"
    data.close()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("open('out', 'rw')", ValueError),
        ("open('out', 'w', 0)", ValueError),
        ("open('out', 'wb', encoding='utf-8')", ValueError),
        ("open('none/out', 'w')", FileNotFoundError),
        ("open('.', 'w')", IsADirectoryError),
        ("open(None, 'w')", TypeError),
        ("open('o\\0ut', 'w')", ValueError),
        ("import os; os.remove()", TypeError),
        ("import os; os.mkdir('none/folder')", FileNotFoundError),
        ("open('file', 'w').close(); import os; os.mkdir('file')", FileExistsError),
    ],
)
def test_a_wrong_call_fails_as_in_python(call: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        imported(call)


def test_functions_are_those_of_python_afterwards() -> None:
    before = (builtins.open, io.open, os.open, os.mkdir, os.remove, os.replace)
    names = imported("""
        from os import remove
        import os
        kept, made = open, os.mkdir
    """)
    assert (builtins.open, io.open, os.open, os.mkdir, os.remove, os.replace) == before
    assert before[0] is io.open
    assert names["kept"] is not None


def test_an_import_removes_and_renames_only_what_it_has_made(tmp_path: Path) -> None:
    for name in ("kept", "final"):
        (tmp_path / name).write_text("of the script")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "result").write_text("of the script")
    imported("""
        import os, pathlib, shutil, tempfile
        shutil.rmtree("folder")
        os.mkdir("folder")
        os.makedirs("folder/own")
        os.rmdir("folder/own")
        os.remove("kept")
        os.rename("kept", "moved")
        pathlib.Path("draft").write_text("of the import")
        os.replace("draft", "final")
        pathlib.Path("draft").write_text("of the import")
        os.replace("draft", "second")
        with tempfile.TemporaryDirectory() as place:
            pathlib.Path(place, "a").write_text("x")
        GONE = not os.path.exists(place)
        assert GONE
    """)
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*")}
    assert sorted(found) == ["final", "folder", "folder/result", "kept", "second"]
    assert found["final"].read_text() == "of the script"


def test_an_import_makes_what_is_missing_after_the_script_has_had_its_turn(tmp_path: Path) -> None:
    (tmp_path / "sock").mkdir()
    imported_files.wait_for_script(str(tmp_path))
    made: list[bool] = []

    def script() -> None:
        made.append(os.path.lexists("folder"))
        MKDIR("folder")
        (tmp_path / "sock" / "imported").touch()

    thread = threading.Timer(0.2, script)
    thread.start()
    imported("import os; os.mkdir('folder')")
    thread.join()
    assert made == [False]
