"""The programs of `docs/plugins.md` run as written and print what the page says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from tests.integration.plugins.cases import ALL, ALWAYS_THERE, TIMEOUT_S
from tests.integration.runs import Place

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


def libraries(program: str) -> list[str]:
    """Return the modules that a program imports, except ours and Python's."""
    found = []
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return [name.partition(".")[0] for name in found]


def parameter(program: str, output: str) -> object:
    """Return a program as a parameter; mark it `real` if it needs only the libraries of all tests."""
    needed = libraries(program)
    missing = [each for each in dict.fromkeys(needed) if importlib.util.find_spec(each) is None]
    name = next((each for each in needed if each in ALWAYS_THERE), needed[0])
    is_usual = not {"resilient_scoop", "random", "asyncio", *ALWAYS_THERE}.issuperset(needed)
    marks = [
        pytest.mark.plugins if is_usual else pytest.mark.real,
        pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed"),
    ]
    return pytest.param(program, output, id=name, marks=marks)


@pytest.mark.parametrize(("program", "output"), [parameter(*each) for each in PROGRAMS])
def test_a_program_of_a_user_page_prints_the_output_on_the_page(
    program: str, output: str, place: Place
) -> None:
    place.write(program)

    done = place.rscoop("run", "-q", "-n", "2", "script.py", timeout_s=TIMEOUT_S)

    assert done.expect() == output
    place.assert_nothing_left()


@pytest.mark.plugins
def test_every_program_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python") > 15


@pytest.mark.real
def test_the_table_of_the_page_has_a_row_for_each_script_and_no_wrong_answer() -> None:
    rows = re.findall(
        r"^\| (\w+) \|.*\| (\w+) \| (\w+) \| (\w+) \| \d+ \|$", PAGE.read_text(), re.MULTILINE
    )

    assert [name for name, *_ in rows] == [script.name for script in ALL]
    assert {answer for _, *answers in rows for answer in answers} == {"same"}
