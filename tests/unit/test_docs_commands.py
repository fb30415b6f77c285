"""Commands, options, limits and names in the pages and the help texts are correct."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from resilient_scoop import futures
from resilient_scoop.cli.main import ALIASES, COMMANDS, cli
from resilient_scoop.futures._progress import RESUME_BYTES_MAX, TaskInfo, WorkerInfo
from resilient_scoop.processes.options import GRACE_S

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPAN = re.compile(r"`(rscoop [^`\n]*)`")
BLOCK = re.compile(r"^(?:    |\$ )(rscoop .*)$", re.MULTILINE)


def commands_of(text: str) -> Iterator[str]:
    yield from SPAN.findall(text)
    yield from BLOCK.findall(text)


def group(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, name
    return found


def leaves() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = group(name)
        yield name, command
        if isinstance(command, click.Group):
            for sub in command.list_commands(click.Context(command)):
                below = command.get_command(click.Context(command), sub)
                assert below is not None
                yield f"{name} {sub}", below


def check(text: str) -> None:
    """Assert that a command line names an existing command with existing options."""
    text = re.split(r"\s{3,}|[|;&>]| #", text)[0].replace("[=FUNCTION]", "").replace("…", "")
    words = shlex.split(text)[1:]
    while words and words[0] == "--state-dir":
        words = words[2:]
    if not words or words[0].startswith("-"):
        return
    assert words[0] in COMMANDS or words[0] in ALIASES, f"{text}: no command {words[0]!r}"
    command = group(words[0])
    if isinstance(command, click.Group) and len(words) > 1 and not words[1].startswith("-"):
        below = command.get_command(click.Context(command), words[1])
        assert below is not None, f"{text}: no command {words[1]!r}"
        command = below
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words[1:]:
        if word in {"SCRIPT", "-"} or word.endswith(".py"):
            break  # the rest belongs to the script
        if word.startswith("-") and word not in ("--help", "-h"):
            assert word.partition("=")[0] in known, f"{text}: no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    for text in commands_of(page.read_text()):
        check(text)


@pytest.mark.parametrize(("name", "command"), list(leaves()), ids=lambda each: str(each)[:20])
def test_the_examples_of_help_texts_exist_with_their_options(
    name: str, command: click.Command
) -> None:
    for line in (command.epilog or "").splitlines():
        if line.strip().startswith("rscoop "):
            check(line.strip())
    assert command.help, name
    if "0.3[17]" in (command.epilog or ""):
        assert "'0.3[17]'" in (command.epilog or ""), "brackets need quotes"


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(("name", "command"), list(leaves()), ids=lambda each: str(each)[:20])
def test_help_fits_its_terminal(name: str, command: click.Command, width: int) -> None:
    context = click.Context(command, info_name=f"rscoop {name}", terminal_width=width)
    for line in command.get_help(context).splitlines():
        fixed = line.startswith("      ") or "rscoop" in line or "   " in line.strip()
        assert fixed or len(line) <= max(width, 50), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_names_of_a_page_can_be_imported(page: Path) -> None:
    for name in re.findall(r"`futures\.(\w+)", page.read_text()):
        assert hasattr(futures, name), f"{page.name}: futures.{name}"


def test_the_page_lists_all_fields_of_task_info() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    [listed] = re.findall(r"`task_info\(\)` also has (.*?)\. It is None", page, re.DOTALL)
    names = {*re.findall(r"`(\w+)`", listed)} - {"index", "host", "gpu", "name"}
    assert names == {n for n in dir(TaskInfo) if not n.startswith("_")} - {"resume"}
    assert WorkerInfo.__struct_fields__ == ("index", "name", "host", "gpu")


def test_the_limits_on_the_pages_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    assert RESUME_BYTES_MAX == 1 << 20
    assert "It may have at most 1 MiB." in page
    assert GRACE_S == 300
    assert page.count("| 5 min |") == 4


def test_the_readme_names_all_commands_that_people_need() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "tools.md").read_text()
    for name in COMMANDS:
        if name not in ("completion", "version"):
            assert re.search(rf"`(rscoop )?{name}\b", text), name
