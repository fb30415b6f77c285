"""Sentinels: an object without a state that a module holds is the same object after a pickle."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from resilient_scoop.payload import class_keys, codec, sentinels

SOURCE = """
import enum
MISSING = object()
class Unset:
    def __repr__(self): return "UNSET"
UNSET = Unset()
class Algorithm:
    NONE = object()
class Bag:
    pass
bag = Bag()
class Number(int):
    pass
ZERO = Number(0)
class Known:
    all = []
    def __reduce__(self): return Known, ()
KNOWN = Known()
class Color(enum.Enum):
    RED = object()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "with_sentinels.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "with_sentinels", raising=False)
    monkeypatch.setattr("resilient_scoop.payload.sentinels._Last.base", None)
    return importlib.import_module("with_sentinels")


def test_sentinels_of_modules_and_classes_stay_the_same_objects(module: ModuleType) -> None:
    for each in (module.MISSING, module.UNSET, module.Algorithm.NONE, dataclasses.MISSING):
        value = {"a": [each], "b": lambda default=each: default}
        for sent in (each, [each], value):
            found = codec.loads(codec.dumps(sent))
            while isinstance(found, list | dict):
                found = found[0] if isinstance(found, list) else found["b"]
            assert (found() if callable(found) else found) is each


def test_other_objects_are_copied(module: ModuleType) -> None:
    for each in (object(), module.Unset(), module.Bag(), module.ZERO, module.KNOWN):
        found = codec.loads(codec.dumps([each]))[0]
        assert found is not each
        assert type(found) is type(each)
    assert codec.loads(codec.dumps(module.Color.RED)) is module.Color.RED


def test_an_object_with_a_state_is_copied_and_what_a_task_left_is_not_given(
    module: ModuleType,
) -> None:
    sent = codec.dumps(module.bag)
    module.bag.left = 1
    assert codec.loads(codec.dumps(module.bag)).left == 1
    assert codec.loads(codec.dumps(module.bag)) is not module.bag
    assert vars(codec.loads(sent)) == {}


def test_what_a_process_lacks_is_always_the_same_object_there(module: ModuleType) -> None:
    sent = codec.dumps([module.MISSING, module.MISSING, module.UNSET])
    del module.MISSING, module.UNSET
    first, second, third = codec.loads(sent)
    assert first is second
    assert codec.loads(sent)[0] is first
    assert type(third) is module.Unset


def test_names_under_the_guard_of_the_script_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "OF_TEST", object(), raising=False)
    assert codec.loads(codec.dumps(main.OF_TEST)) is main.OF_TEST
    monkeypatch.setattr(class_keys, "guarded", {"OF_TEST"})
    assert codec.loads(codec.dumps(main.OF_TEST)) is not main.OF_TEST


def test_a_second_name_of_a_module_is_not_used(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "another_name", module)
    assert sentinels.dispatch_table()[object](module.MISSING)[1][0] == "with_sentinels"
