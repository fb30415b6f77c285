"""The programs in the pages for users, run as they stand there: they print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

PAGE = Path(__file__).parent.parent.parent / "docs" / "checkpoints.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_page_prints_what_the_page_says(
    program: str, output: str, tmp_path: Path, state_dir: Path
) -> None:
    place = Place(tmp_path, state_dir)
    place.write(program)

    assert place.rscoop("run", "-q", "-n", "2", "--seed", "1", "script.py").expect() == output
    place.assert_nothing_left()


def test_every_program_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python") == 6
