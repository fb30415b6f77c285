"""What functions and objects hold is set back as it was."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from resilient_scoop.task_state import held_state
from resilient_scoop.task_state.held_state import HeldState


class Kept:
    """An object of a user."""

    def __init__(self) -> None:
        self.count = 0
        self.known: list[int] = []

    def add(self) -> None:
        """Change the object."""
        self.count += 1
        self.known.append(self.count)


def closure() -> Callable[[], Any]:
    count, known, unset = 0, collections.OrderedDict({"a": [1], "b": [2]}), None

    def change() -> Any:
        nonlocal count, unset
        before = count, unset, list(known.items())[:2], [list(each) for each in known.values()]
        count += 1
        unset = count
        known["a"].append(count)
        known.move_to_end("a")
        known[f"{count}"] = []
        return before

    return change


def attribute() -> Any:
    before = dict(vars(attribute))
    vars(attribute)["calls"] = vars(attribute).get("calls", 0) + 1
    return before


def default(known: Any = None, *, more: collections.deque[int] = collections.deque([1], 3)) -> Any:  # noqa: B006 - it is changed here
    before = list(more)
    more.append(len(more))
    return known, before


def held_object() -> Callable[[], Any]:
    kept = Kept()

    def change() -> Any:
        before = kept.count, list(kept.known)
        kept.add()
        return before

    return change


CHANGES: dict[str, tuple[Any, Callable[[], Any]]] = {}
for _name, _root in {"closure": closure(), "attribute": attribute, "default": default}.items():
    CHANGES[_name] = _root, _root
_object = held_object()
CHANGES["object"] = _object, _object
CHANGES["partial"] = functools.partial(_object), _object
CHANGES["static method"] = staticmethod(_object), _object
CHANGES["property"] = property(cast("Any", _object)), _object
CHANGES["in containers"] = [({"a": {_object}},)], _object


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_is_set_back(name: str) -> None:
    root, change = CHANGES[name]
    state = HeldState(root)
    found = []
    for _ in range(3):
        found.append(change())
        change()
        state.set_back()
    assert found[0] == found[1] == found[2]


def test_arrays_are_set_back_but_views_and_files_are_not(tmp_path: Path) -> None:
    array, file = np.zeros(3), np.memmap(tmp_path / "file", float, "w+", shape=(3,))
    state, view = HeldState({"array": array, "file": file}), HeldState(array[1:])
    array[1], file[1] = 1, 1
    state.set_back()
    view.set_back()
    assert (array.tolist(), file.tolist()) == ([0, 0, 0], [0, 1, 0])
    assert state.is_complete
    assert not view.is_complete
    assert not HeldState(np.zeros(held_state.ARRAY_BYTES_MAX)).is_complete


def test_the_attributes_of_a_class_have_the_same_names_again() -> None:
    class Single:
        kept, removed = 1, 2

    state = HeldState(Single)
    vars_before = dict(vars(Single))
    Single.added = 3  # type: ignore[attr-defined]
    del Single.removed
    state.set_back()
    assert dict(vars(Single)) == vars_before


def test_a_deleted_cell_is_filled_again_and_an_unassigned_one_is_emptied() -> None:
    def make() -> Any:
        value = 1

        def empties() -> None:
            nonlocal value
            del value

        def fills() -> None:
            nonlocal value
            value = 2

        return empties, fills

    empties, fills = make()
    (cell,) = empties.__closure__
    full = HeldState(empties)
    empties()
    empty = HeldState(fills)
    full.set_back()
    assert cell.cell_contents == 1
    fills()
    empty.set_back()
    with pytest.raises(ValueError, match="empty"):
        _ = cell.cell_contents


def test_a_state_with_too_many_entries_is_not_complete() -> None:
    assert HeldState([0] * held_state.ENTRIES_MAX).is_complete
    assert not HeldState([0] * (held_state.ENTRIES_MAX + 1)).is_complete
    assert not HeldState({n: [0] * 200 for n in range(100)}).is_complete
