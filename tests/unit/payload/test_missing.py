"""Errors of loading a value: caused by what this process lacks, or by the value itself."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop import errors
from resilient_scoop.payload import payload
from resilient_scoop.payload.missing import in_a_line, is_missing_module, is_missing_name

MODULE = """
class Value: pass
def function(x): return x
def outer():
    captured = 1
    return lambda: captured + len(name_of())
def name_of(): return "n"
"""


class Raising:
    """Raises an error of user code while it is unpickled."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _rebuild, (self.error,)


def _rebuild(error: type[Exception]) -> None:
    if error is ModuleNotFoundError:
        __import__("a_module_that_is_nowhere")
    raise error("mine")


def error_of(data: bytes) -> Exception:
    with pytest.raises(errors.UnpicklingFailedError) as caught:
        payload.loads(data)
    return caught.value


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module that is imported here."""
    path = tmp_path / "of_user.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_user", raising=False)
    return path


@pytest.mark.parametrize("name", ["Value", "function"])
def test_an_error_of_a_missing_module_is_recognized(module: Path, name: str) -> None:
    import of_user  # type: ignore[import-not-found]  # made by the fixture

    data = payload.dumps(getattr(of_user, name))
    del sys.modules["of_user"]
    module.unlink()
    error = error_of(data)
    assert is_missing_module(error)
    assert not is_missing_name(error)
    assert in_a_line(error.__cause__ or error) == "ModuleNotFoundError: No module named 'of_user'"


@pytest.mark.parametrize("text", ["import nothing_such", "1 / 0", "def broken(:"])
def test_an_error_of_a_module_that_fails_during_its_import_is_recognized(
    module: Path, text: str
) -> None:
    import of_user

    data = payload.dumps(of_user.function)
    del sys.modules["of_user"]
    module.write_text(f"# now another text\n{text}\n")
    error = error_of(data)
    assert is_missing_module(error)
    assert f"{module}, line 2" in in_a_line(error.__cause__ or error)


def test_an_error_of_a_missing_name_is_recognized(module: Path) -> None:
    import of_user

    data = payload.dumps(of_user.function)
    del of_user.function
    error = error_of(data)
    assert is_missing_name(error)
    assert not is_missing_module(error)
    assert "at the top level of the script" in str(error)


@pytest.mark.parametrize(
    "kind", [ValueError, ImportError, ModuleNotFoundError, AttributeError, KeyError]
)
def test_an_error_of_user_code_belongs_to_the_value(kind: type[Exception]) -> None:
    error = error_of(pickle.dumps(Raising(kind)))
    assert not is_missing_module(error)
    assert not is_missing_name(error)
    assert "change __reduce__" in str(error)
    assert "at the top level of the script" not in str(error)


class WantsMore:
    """An object whose constructor takes other arguments than its pickle has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return WantsMore, ()


def test_a_constructor_that_lacks_an_argument_belongs_to_the_value() -> None:
    error = error_of(pickle.dumps(WantsMore("a")))
    assert "missing 1 required positional argument: 'name'" in str(error)
    assert "change __reduce__" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
