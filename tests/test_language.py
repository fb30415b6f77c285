"""Phrases that readers would have to read twice stay out of code, documentation and tests.

Each entry says what to write instead. Names of guarantees are in capitals, so they do not match.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
CODE = [
    path
    for room in ("resilient_scoop", "tests", "chaos", "benchmarks", "examples")
    for path in sorted((CHECKOUT / room).rglob("*.py"))
    if "golden" not in path.parts and path != Path(__file__)
]
PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CHANGELOG.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
]
PAGES += sorted(CHECKOUT.glob("*/README.md"))

BANNED = {
    r"for (the )?eyes": "for display",
    r"nobody('s)?": "no process, no one",
    r"anew": "again",
    r"again and again": "repeatedly",
    r"for ever": "forever",
    r"(go|goes|gone|going|went) on": "continue",
    r"(give|gives|giving|gave) way": "yield",
    r"(let|lets|letting) go": "release, drop",
    r"in vain": "without success",
    r"(come|comes|came) of": "result, follow from",
    r"(come|comes|came) to nothing": "fail",
    r"(has|have) not come to": "has not reached",
    r"superfluous": "obsolete",
    r"tell whether": "return whether",
    r"it is said": "it is reported",
    r"(tell|tells|told) apart": "distinguish",
    r"(became|becomes|become) of": "the result, the state of",
    r"(come|comes|came) to (its|their) end": "end, finish",
    r"one behind the other": "one after the other",
    r"(pile|piles|piled|piling) up": "accumulate",
}
"""What not to write, as a pattern of whole words -> what to write instead."""

PATTERN = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)


def advice(found: str) -> str:
    return next(say for turn, say in BANNED.items() if re.fullmatch(turn, found, re.IGNORECASE))


def problems(text: str, line: int) -> Iterator[str]:
    for number, each in enumerate(text.splitlines(), line):
        for found in PATTERN.findall(each):
            if found[0].upper() != found[0]:
                yield f"line {number}: not {found[0]!r}, but: {advice(found[0])}"


def prose(path: Path) -> Iterator[tuple[str, int]]:
    """Yield comments, strings and names of tests with their lines; of tests, no strings of data."""
    source = path.read_text()
    if not PATTERN.search(source.replace("_", " ")):
        return  # most have none: tokens take long
    is_test = "resilient_scoop" not in path.relative_to(CHECKOUT).parts
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_text = token.type == tokenize.STRING and not (is_test and '"""' not in token.string)
        if token.type == tokenize.COMMENT or is_text:
            yield token.string, token.start[0]
        elif token.type == tokenize.NAME and token.string.startswith("test_"):
            yield token.string.replace("_", " "), token.start[0]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_code_avoids_banned_phrases(path: Path) -> None:
    assert [found for text, line in prose(path) for found in problems(text, line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_a_page_avoids_banned_phrases(page: Path) -> None:
    assert list(problems(page.read_text(), 1)) == []


def test_the_lint_finds_a_banned_phrase_and_names_its_replacement() -> None:
    assert list(problems("It is for eyes only.", 7)) == ["line 7: not 'for eyes', but: for display"]
    assert list(problems("NOBODY-IN, everybody, ongoing", 1)) == []
