"""Programs that put other things than modules into `sys.modules`."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
    import sys

    class Slots:
        __slots__ = ("a",)

    class Raises:
        def __getattr__(self, name): raise RuntimeError(name)

    class Settings:
        def __init__(self): self.rate = 4

    sys.modules["blocked"] = None
    sys.modules["slots"] = Slots()
    sys.modules["raises"] = Raises()
    sys.modules["text"] = "a text"
    sys.modules["settings"] = Settings()

    from resilient_scoop import futures
    import settings

    def work(x):
        try: import blocked
        except ImportError: return x + settings.rate

    def made(n):
        def inner(x): return x + n
        return inner

    class Thing:
        def __init__(self, value): self.value = value

    if __name__ == "__main__":
        print(list(futures.map(work, range(4))))
        print(list(futures.map(made(3), range(4))))
        settings.rate = 10
        print(list(futures.map(work, range(4))))
        print(list(futures.map(lambda thing: thing.value, [Thing(1), Thing(2)])))
"""
ANSWER = "[4, 5, 6, 7]\n[3, 4, 5, 6]\n[10, 11, 12, 13]\n[1, 2]\n"


def test_entries_that_are_no_modules_change_no_answer(place: Place) -> None:
    assert place.run(SCRIPT).expect() == ANSWER


def test_a_resume_compares_code_beside_entries_that_are_no_modules(place: Place) -> None:
    text = SCRIPT + "        if not __import__('os').path.exists('go'): raise SystemExit(3)\n"
    assert place.run(text).expect(3) == ANSWER
    (place.folder / "go").touch()

    done = place.rscoop("resume", "-q", "last")

    assert done.expect() == ""
    assert place.status()["done"] == 14
    place.assert_nothing_left()
