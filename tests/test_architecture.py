"""`docs/architecture.md` and the glossary describe the present tree: each path and name in them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "resilient_scoop"
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text()
GLOSSARY = (CHECKOUT / "docs" / "glossary.md").read_text()
TERMS_MAX = 25

NAMED = re.findall(r"`([\w/]+\.py)`(?: \(((?:`[\w.]+`(?:, )?)+)\))?", ARCHITECTURE)
"""Files, each with the names in parentheses after it: "`core/link.py` (`Link`)"."""
FOLDERS = set(re.findall(r"`([\w/]+/)`", ARCHITECTURE))


def names_in(path: Path) -> set[str]:
    """Return what a module defines at its top level, and its classes' methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize(("path", "names"), NAMED)
def test_a_file_in_the_architecture_exists_and_defines_the_names_beside_it(
    path: str, names: str
) -> None:
    assert (PACKAGE / path).is_file()
    assert set(re.findall(r"`([\w.]+)`", names)) <= names_in(PACKAGE / path)


def test_each_folder_in_the_architecture_exists() -> None:
    beside = {"code/"}  # in the run folder
    known = {CHECKOUT, PACKAGE, *PACKAGE.iterdir()}
    assert [
        each for each in FOLDERS - beside if not any((room / each).is_dir() for room in known)
    ] == []


def test_the_architecture_lists_each_room() -> None:
    [table] = re.findall(r"\| room \|.*?\n\n", ARCHITECTURE, re.DOTALL)
    rooms = {path.parent.name + "/" for path in PACKAGE.glob("*/__init__.py")}
    assert [room for room in rooms if f"`{room}`" not in table] == []


def test_the_architecture_answers_at_least_twelve_questions() -> None:
    _, _, answers = ARCHITECTURE.partition("| question |")
    rows = [line for line in answers.splitlines() if "? |" in line]
    assert len(rows) >= 12
    assert [row for row in rows if ".py`" not in row] == []


def test_the_readme_links_the_architecture_and_the_glossary() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    assert "(docs/architecture.md)" in readme
    assert "(docs/glossary.md)" in readme
    assert "(glossary.md)" in ARCHITECTURE


def test_the_glossary_defines_each_term_once() -> None:
    terms = re.findall(r"^\| ([\w ]+) \| \S", GLOSSARY, re.MULTILINE)[1:]
    assert len(terms) == len(set(terms)) <= TERMS_MAX


def test_each_link_of_the_list_of_decisions_leads_to_a_page_of_that_title() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    links = re.findall(
        r"^- \[(\d{4})\]\((\S+)\): (.+)$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert links
    for number, name, title in links:
        assert (folder / name).read_text().startswith(f"# {number}: {title}\n"), name
