"""The guard of a script, closed while a worker imports it."""

from __future__ import annotations

import ast
import sys
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from resilient_scoop.identity import imported_values
from resilient_scoop.processes import main_guard, user_script
from resilient_scoop.processes.starting import ScriptSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _values_are_forgotten() -> Iterator[None]:
    """Drop the record of what the modules of a script held after their import."""
    yield
    imported_values.forget()


def names_after(text: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(main_guard.closed(textwrap.dedent(text).encode(), "script.py"), space)
    return space


@pytest.mark.parametrize(
    "test",
    [
        '__name__ == "__main__"',
        '"__main__" == __name__',
        '(__name__) == "__main__" and True',
        'not __name__ != "__main__"',
        '__name__ in ("__main__",)',
        '__name__.endswith("_main__") and not __name__.startswith("__mp")',
        'bool(__name__ == "__main__")',
    ],
)
def test_a_guard_is_closed_in_all_its_usual_forms(test: str) -> None:
    assert "ran" not in names_after(f"if {test}:\n    ran = 1\n")
    assert names_after(f"ran = 1 if {test} else 0\n")["ran"] == 0


def test_the_branch_for_imports_runs() -> None:
    assert names_after("if __name__ != '__main__':\n    a = 1\nelse:\n    b = 1\n").get("a") == 1
    found = names_after("""
        match __name__:
            case "__main__": kind = "script"
            case _: kind = "import"
        is_main = __name__ == "__main__"
    """)
    assert (found["kind"], found["is_main"]) == ("import", False)


def test_other_expressions_with_the_module_name_still_see_main() -> None:
    found = names_after("""
        name, text = __name__, f"{__name__}"
        class Thing:
            inner = __name__
            is_main = __name__ == "__main__"
        def is_main(): return __name__ == "__main__"
        lambdas = [lambda: __name__ == "__main__"]
        flags = [__name__ == "__main__" for _ in range(2)]
    """)
    assert (found["name"], found["text"], found["Thing"].inner) == ("__main__",) * 3
    assert found["Thing"].__module__ == found["is_main"].__module__ == "__main__"
    assert found["is_main"]()
    assert found["lambdas"][0]()
    assert (found["Thing"].is_main, found["flags"]) == (False, [False, False])


def test_file_and_line_numbers_stay_the_same() -> None:
    text = "\n\ndef fail():\n    raise ValueError\nif __name__ == '__main__':\n    fail()\n"
    code = main_guard.closed(text.encode(), "/some/script.py")
    fail = next(const for const in code.co_consts if hasattr(const, "co_name"))
    assert (code.co_filename, fail.co_firstlineno) == ("/some/script.py", 3)
    plain = compile(text, "/some/script.py", "exec", dont_inherit=True)
    assert fail in plain.co_consts


def test_the_whole_script_is_skipped_if_there_is_no_source() -> None:
    text = "class C: pass\nran = 0\nif __name__ == '__main__':\n    ran = 1\n"
    space: dict[str, Any] = {"__name__": "__main__", main_guard.NAME_OF_CODE: main_guard.SEEN}
    exec(main_guard.closed_code(compile(text, "script.pyc", "exec")), space)
    assert (space["ran"], space["C"].__module__) == (0, "__main__")


def test_a_script_too_deep_for_a_syntax_tree_is_skipped_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_deep(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(ast, "parse", too_deep)
    code = main_guard.closed(b"ran = 0\nif __name__ == '__main__':\n    ran = 1\n", "script.py")
    space: dict[str, Any] = {"__name__": "__main__", main_guard.NAME_OF_CODE: main_guard.SEEN}
    exec(code, space)
    assert space["ran"] == 0


def test_names_under_the_guard_are_missing_after_an_import() -> None:
    text = """
        import os
        both = 1
        try:
            if __name__ == "__main__":
                import json.decoder, re as regex
                def work(): inner = 1
                for each in range(3): both = each
        finally:
            done = 1
        if __name__ != "__main__":
            helper = 1
        else:
            with open("x") as file: class_ = 1
    """
    found = main_guard.names_under(ast.parse(textwrap.dedent(text)))
    assert found == {"json", "regex", "work", "each", "file", "class_"}


def test_pickles_of_old_journals_find_the_script(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "script.py"
    path.write_text("class Thing: pass\n")
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    user_script.import_for_workers(ScriptSpec(script=str(path), cwd=str(tmp_path)))
    assert "__rscoop_main__" not in sys.modules
    import pickle

    try:
        found = pickle.loads(b"c__rscoop_main__\nThing\n.")
    finally:
        sys.modules.pop("__rscoop_main__", None)
    assert found is sys.modules["__main__"].Thing
