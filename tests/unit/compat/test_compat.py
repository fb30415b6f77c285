from __future__ import annotations

import importlib
import pickle
import sys
import types
from collections.abc import Iterator

import pytest

import resilient_scoop
from resilient_scoop import futures, shared, this_process
from resilient_scoop.compat import install_as_scoop
from resilient_scoop.errors import UsageError


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before, finders = dict(sys.modules), list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "scoop"]:
        del sys.modules[name]
    sys.modules.update(before)


def scoop(name: str = "scoop") -> types.ModuleType:
    install_as_scoop()
    return importlib.import_module(name)


def test_modules_of_scoop_are_replaced_by_ours() -> None:
    assert scoop().futures is futures
    assert scoop("scoop.futures") is futures
    assert scoop("scoop.shared").setConst is shared.setConst
    assert scoop("scoop._types").Future is futures.Future
    assert futures.__name__ == "resilient_scoop.futures"
    assert futures.__spec__ is not None
    assert futures.__spec__.name == "resilient_scoop.futures"


def test_constants_of_the_compat_module_follow_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = scoop()
    assert (module.IS_RUNNING, module.IS_ORIGIN, module.SIZE) == (False, False, 0)
    monkeypatch.setattr(this_process, "SIZE", 5)
    assert module.SIZE == 5
    assert module.logger is resilient_scoop.logger


def test_a_function_of_scoop_is_pickled_by_a_name_that_exists_in_every_process() -> None:
    made = pickle.dumps(scoop("scoop.futures").map)
    assert b"resilient_scoop" in made
    assert pickle.loads(made) is futures.map
    assert pickle.loads(b"cscoop.futures\nmap\n.") is futures.map


def test_an_unknown_name_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(AttributeError, match=r"scoop\.reference does not exist.*IS_ORIGIN"):
        _ = scoop().reference
    with pytest.raises(ModuleNotFoundError, match=r"no module scoop\.utils"):
        scoop("scoop.utils")


def test_a_constant_that_is_not_set_is_none() -> None:
    assert scoop("scoop.shared").getConst("unset-anywhere") is None


def test_installing_is_refused_after_scoop_itself_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "scoop", types.ModuleType("scoop"))
    with pytest.raises(UsageError, match="before the first"):
        install_as_scoop()
