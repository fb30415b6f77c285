"""The programs in the pages for users run as written and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

PAGE = Path(__file__).parent.parent.parent / "docs" / "checkpoints.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_a_user_page_prints_the_output_on_the_page(
    program: str, output: str, tmp_path: Path, state_dir: Path
) -> None:
    place = Place(tmp_path, state_dir)
    place.write(program)

    assert place.rscoop("run", "-q", "-n", "2", "--seed", "1", "script.py").expect() == output
    place.assert_nothing_left()


def test_the_program_of_the_readme_prints_what_python_prints(place: Place) -> None:
    text = (PAGE.parent.parent / "README.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = place.write(program.replace("2_000", "200").replace("20_000", "2_000"))
    plain = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=place.folder
    )

    done = place.rscoop("run", "-n", "2", script.name)

    assert done.expect() == plain.stdout
    first, last = done.err.splitlines()
    assert re.fullmatch(r"rscoop: run \w{8}: script\.py on 2 workers; .*", first)
    assert re.match(r"rscoop: run \w{8} finished in [\d.]+ s: 200 results", last)
    for command in re.findall(r"^\$ (rscoop .*)$", text, re.MULTILINE):
        assert command.split()[1] in ("run", "runs", "resume")
    place.assert_nothing_left()


def test_the_program_that_reads_a_run_prints_the_results_of_the_run(place: Place) -> None:
    [program] = re.findall(
        r"```python\n(.*?)```", (PAGE.parent / "tools.md").read_text(), re.DOTALL
    )
    place.run("""
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(list(futures.map(abs, range(-3, 0))))
    """).expect()
    reader = place.write(program, name="reader.py")
    environ = {**os.environ, "RSCOOP_STATE_DIR": str(place.state)}
    read = subprocess.run(
        [sys.executable, reader], capture_output=True, text=True, check=True, env=environ
    )
    first, *items, value, deaths = read.stdout.splitlines()
    assert first == "finished 3 3 0"
    assert [line.split()[:3] for line in items] == [[f"0.0[{i}]", "abs", "done"] for i in range(3)]
    assert (value, deaths) == ("1", "0")


def programs_about_sessions() -> list[tuple[str, str]]:
    """Return the programs of the page about sessions, and their output."""
    text = (PAGE.parent / "sessions.md").read_text()
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)


def test_the_program_with_coroutines_prints_the_output_on_the_page(place: Place) -> None:
    _, (program, output) = programs_about_sessions()
    assert place.run(program).expect() == output


def test_the_program_with_a_session_finds_its_results_when_it_is_started_again(
    place: Place,
) -> None:
    (program, output), _ = programs_about_sessions()
    counted = program.replace("return x", "open('ledger', 'a').write('x'); return x")
    script = place.write(counted)
    environ = {**os.environ, "RSCOOP_STATE_DIR": str(place.state)}

    first, again = (
        subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=True, env=environ,
            cwd=place.folder,
        )
        for _ in range(2)
    )  # fmt: skip

    assert first.stdout == again.stdout == output
    assert (place.folder / "ledger").read_text() == "x" * 101, "each call was computed once"
    place.assert_nothing_left()


def test_every_program_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python") == 6
