"""Programs that put objects other than modules into `sys.modules`."""

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


def test_entries_that_are_not_modules_do_not_change_the_answer(place: Place) -> None:
    assert place.run(SCRIPT).expect() == ANSWER


def test_a_resume_compares_code_beside_entries_that_are_not_modules(place: Place) -> None:
    text = SCRIPT + "        if not __import__('os').path.exists('go'): raise SystemExit(3)\n"
    assert place.run(text).expect(3) == ANSWER
    (place.folder / "go").touch()

    done = place.rscoop("resume", "-q", "last")

    assert done.expect() == ""
    assert place.status()["done"] == 14
    place.assert_nothing_left()


MADE = """
    import importlib, sys, types
    from resilient_scoop import futures

    def make(name, text):
        sys.modules[name] = module = types.ModuleType(name)
        exec(text, vars(module))
        return module

    early = make("early", "K = 3")

    def by_early(x):
        import early as again
        return again.K + early.K + x
    def by_import(x):
        import made
        return made.K + x
    def by_from(x):
        from made.sub import K
        return K + x
    def by_name(x): return made.K + x
    def by_entry(x): return sys.modules["made"].K + x
    def by_text(x): return importlib.import_module("made").K + x
    def by_dict(x): return BOX["m"].K + x
    def by_unnamed(x): return unnamed.K + x
    def by_object(x):
        import space
        return space.K + x
    def by_replaced(x):
        import json
        return json.K + x
    def by_late(x):
        import late
        return late.K + x
    BOX = {}

    def show(function):
        try: print(function.__name__, *futures.map(function, [1]), function(1))
        except Exception as error:
            print(function.__name__, type(error).__name__, str(error).partition("because ")[2])

    if __name__ == "__main__":
        show(by_import)
        made = make("made", "K = 5; __path__ = []; fn = lambda x: x")
        made.sub = make("made.sub", "K = 7")
        BOX["m"], unnamed = made, types.ModuleType("unnamed")
        unnamed.K, sys.modules["space"] = 1, types.SimpleNamespace(K=2)
        for function in (by_early, by_import, by_from, by_name, by_entry, by_text, by_dict): show(function)
        for function in (by_unnamed, by_object): show(function)
        make("json", "K = 5")
        show(by_replaced)
        show(by_late)
"""


def test_a_function_that_uses_a_module_made_under_the_guard_is_refused(place: Place) -> None:
    place.write("import sys, types\nsys.modules['late'] = types.SimpleNamespace(K=9)\n", "late.py")

    first, early, *refused, late = place.run(MADE).expect().splitlines()

    assert first.startswith("by_import ModuleNotFoundError")  # as in the script
    assert early == "by_early 7 7"
    assert late == "by_late 10 10"  # a worker that imports it has it too
    names = {
        "by_import": "made", "by_from": "made.sub", "by_name": "made", "by_entry": "made",
        "by_text": "made", "by_dict": "made", "by_unnamed": "unnamed", "by_object": "space",
        "by_replaced": "json",
    }  # fmt: skip
    assert refused == [
        f"{function} MeaningError a worker does not have the script's value of the module {name}: the "
        "script has made it after its import: make it at the top level of the script, so that each worker "
        "makes it, too"
        for function, name in names.items()
    ]
