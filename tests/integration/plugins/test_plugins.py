"""Real uses of libraries: the same answer as with Python's own map, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.plugins import cases
from tests.integration.plugins.cases import Case, Script
from tests.integration.runs import Place


def parameter(script: Script) -> object:
    """Return a script as a parameter."""
    marks = [
        pytest.mark.plugins,
        pytest.mark.skipif(not script.is_installed, reason=f"{script.title[0]} is not installed"),
    ]
    return pytest.param(script, id=script.name, marks=marks)


every_script = pytest.mark.parametrize("script", [parameter(each) for each in cases.ALL])


@pytest.fixture
def case(script: Script, tmp_path: Path) -> Callable[[str], Case]:
    def make(name: str) -> Case:
        folder = tmp_path / name
        folder.mkdir()
        return Case(script, Place(folder, folder / "state"))

    return make


@every_script
def test_a_script_gives_the_answer_of_the_builtin_map(case: Callable[[str], Case]) -> None:
    expected = case("plain").plain()

    answer, pids = case("run").run()

    assert answer == expected
    assert pids, "no call has left the process of the script"


@every_script
def test_a_script_gives_the_same_answer_if_a_worker_is_killed(
    case: Callable[[str], Case],
) -> None:
    assert case("killed").kill_worker() == case("plain").plain()


@every_script
def test_a_script_gives_the_same_answer_if_all_is_killed_and_resumed(
    case: Callable[[str], Case],
) -> None:
    answer, _ = case("resumed").kill_everything()

    assert answer == case("plain").plain()


@pytest.mark.real
@pytest.mark.parametrize(
    "script", [each for each in cases.ALL if each.name in cases.REAL], ids=lambda each: each.name
)
def test_a_script_without_new_libraries_survives_the_death_of_all_processes(
    case: Callable[[str], Case],
) -> None:
    ended = case("resumed")

    answer, _ = ended.kill_everything()

    assert answer == case("plain").plain()
    assert set(ended.calls)
