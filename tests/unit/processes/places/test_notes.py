"""Texts about hosts: what happened, to which host, and what is next."""

from __future__ import annotations

import typing
from math import inf

import pytest

from resilient_scoop.core import places
from resilient_scoop.processes.places.notes import given_up, named, text_of

NOTES: list[tuple[places.Note, str]] = [
    (
        places.NeverCame("ws1", "ws1: no Python there", "", 0.3),
        "host ws1 could not be started: no Python there; it is tried again at once",
    ),
    (
        places.NeverCame("ws1", "no Python there", "", inf),
        "host ws1 could not be started: no Python there",
    ),
    (
        places.UnitEnded("ws1", "it was killed", "one\n\ntwo\n", 15.0),
        "host ws1 has lost its agent: it was killed; it is tried again in 15s\n    one\n    two",
    ),
    (
        places.CannotTell("ws1", ""),
        "host ws1 cannot be reached: the reason is not known; it is tried again",
    ),
    (places.Came("ws1"), "host ws1 is connected"),
]


@pytest.mark.parametrize(("note", "text"), NOTES, ids=lambda each: str(each)[:20])
def test_a_note_says_what_happened_and_what_comes_next(note: places.Note, text: str) -> None:
    assert text_of(note, "r1") == text


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (places.Quarantined("ws1", 3, 600.0), ["ws1", "3 times", "10m00s", "Nothing is lost"]),
        (places.Unreached("ws1", has_come=False), ["firewall", "--tunnel", "--external-address"]),
        (places.Unreached("ws1", has_come=True), ["ws1", "cut", "stopped", "Nothing is lost"]),
        (places.TooFew(1, 3, ("b", "c"), 60.0), ["1 of at least 3 hosts", "b, c", "1m00s"]),
        (places.Unnamed("ws1"), ["ws1", "ends by itself"]),
        (places.NotStopped(("b", "c")), ["b, c", "rscoop hosts r1"]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_note_names_the_host_and_a_cure(note: places.Note, words: list[str]) -> None:
    text = text_of(note, "r1")
    assert [word for word in words if word not in text] == []


def test_every_note_has_a_text() -> None:
    kinds = set(typing.get_args(places.Note))
    assert {type(note) for note, _ in NOTES} | {
        places.Quarantined, places.Unreached, places.TooFew, places.Unnamed, places.NotStopped,
    } == kinds  # fmt: skip


def test_a_run_that_is_given_up_names_the_hosts_and_how_to_continue() -> None:
    text = given_up(places.GiveUp(0, 2, ("b", "c")), "r1")
    assert "0 of at least 2 hosts (--min-hosts) connected; missing: b, c" in text
    assert "rscoop resume r1" in text


def test_many_hosts_are_counted() -> None:
    assert named(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
