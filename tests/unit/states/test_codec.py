"""States of checkpoints as bytes: what is restored, refused or migrated."""

from __future__ import annotations

import random
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from resilient_scoop.errors import CheckpointUnusableError, PicklingFailedError
from resilient_scoop.states import codec, shape

MODULE = "of_the_user"


@pytest.fixture
def user() -> Iterator[Any]:
    """A user module whose classes a test may change."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    yield module
    del sys.modules[MODULE]


def define(module: Any, text: str) -> None:
    exec("from dataclasses import dataclass, field\nfrom typing import NamedTuple\n" + text,
         module.__dict__)  # fmt: skip


def dumped(state: object, **own: Any) -> bytes:
    return b"".join(codec.dumps(state, None, own.get("own", {}), "checkpoint", "state").parts)


def loaded(content: bytes | memoryview) -> Any:
    return codec.loads(content, "checkpoint 3")[0]


def why(content: bytes) -> str:
    with pytest.raises(CheckpointUnusableError) as caught:
        loaded(content)
    return str(caught.value)


def test_a_loaded_state_equals_the_saved_one(user: Any) -> None:
    define(user, "class Box: pass")
    box = user.Box()
    box.me, box.numbers, box.double = box, [1, 2.5], lambda x: 2 * x

    back = loaded(dumped({"box": box, "again": box}))

    assert type(back["box"]) is user.Box
    assert back["box"] is back["again"] is back["box"].me
    assert back["box"].double(21) == 42


def test_arrays_are_writable_after_loading() -> None:
    numpy = pytest.importorskip("numpy")
    content = bytearray(dumped({"a": numpy.arange(1000.0), "b": numpy.ones(3, dtype="u1")}))

    back = loaded(memoryview(content))
    back["a"][0] = 7.0

    assert back["a"][:3].tolist() == [7.0, 1.0, 2.0]
    assert back["a"].ctypes.data % 8 == 0
    assert numpy.shares_memory(back["a"], numpy.frombuffer(content, dtype="u1"))


def test_individuals_of_deap_keep_their_classes() -> None:
    pytest.importorskip("deap")
    from deap import base, creator

    creator.create("CheckpointFitness", base.Fitness, weights=(1.0,))
    creator.create("CheckpointIndividual", list, fitness=creator.CheckpointFitness)
    individual = creator.CheckpointIndividual([1, 2])
    individual.fitness.values = (3.0,)

    back = loaded(dumped([individual]))[0]

    assert type(back) is creator.CheckpointIndividual
    assert type(back.fitness) is creator.CheckpointFitness
    assert back.fitness.values == (3.0,)


def test_objects_with_their_own_reduction_are_pickled_by_it() -> None:
    stream = random.Random(1)

    back = loaded(dumped([stream], own={random.Random: lambda each: (int, (7,))}))

    assert back == [7]


def test_an_unsavable_part_is_named_by_its_path(user: Any) -> None:
    define(user, "class Box: pass")
    box = user.Box()
    box.cache = user.Box()
    box.cache.lock = threading.Lock()

    with pytest.raises(PicklingFailedError) as caught:
        dumped({"pop": [1, box]})

    assert caught.value.path == "state['pop'][1].cache.lock"
    assert caught.value.kind == "_thread.lock"
    assert "leave it out with __getstate__ or make it in the loop" in str(caught.value)


def test_a_generator_is_refused_with_advice_what_to_save_instead() -> None:
    with pytest.raises(PicklingFailedError, match=r"state\[0\] is a generator; keep list\(...\)"):
        dumped([(x for x in range(3))])


def test_a_state_that_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(
        PicklingFailedError, match=r"state\['b'\] is a list; it is nested too deeply"
    ):
        dumped({"a": 1, "b": deep})


@pytest.mark.parametrize("at", [0, 5, 63, 100])
def test_damage_is_reported_and_nothing_is_loaded(at: int) -> None:
    content = dumped({"numbers": list(range(100))})
    assert "cannot be used" in why(content[:at])


def test_a_newer_format_is_refused_with_both_numbers() -> None:
    content = bytearray(dumped([1]))
    content[4] = 9
    assert "of format 9, and this version reads up to 1" in why(bytes(content))


def test_an_error_while_loading_is_reported(user: Any) -> None:
    define(user, "class Box:\n  def __setstate__(self, state): raise KeyError('oh')")
    box = user.Box()
    box.x = 1
    assert "KeyError: 'oh'" in why(dumped(box))

    culprit = codec.find_unloadable({"a": [1, box]}, {}, "state")
    assert (culprit.path, culprit.kind) == ("state['a'][1]", "of_the_user.Box")


PLAIN = "class Box:\n  def __init__(self): self.size = 1"
DATA = "@dataclass\nclass Box:\n  size: int = 1"
SLOTS = "@dataclass(frozen=True, slots=True)\nclass Box:\n  size: int = 1\n  kind: str = 'k'"
TUPLE = "class Box(NamedTuple):\n  size: int = 1\n  kind: str = 'k'"
HOOK = "\n  @staticmethod\n  def __rscoop_migrate__(old): return {'width': old['size'] + 10}"


def boxed(user: Any, before: str, after: str) -> bytes:
    """Return a state with boxes of one definition; the module has the other."""
    define(user, before)
    content = dumped([user.Box(), user.Box()])
    define(user, after)
    return content


@pytest.mark.parametrize("text", [PLAIN, DATA, SLOTS, TUPLE])
def test_a_class_that_has_not_changed_is_loaded_without_migration(user: Any, text: str) -> None:
    back = loaded(boxed(user, text, text))
    assert type(back[0]) is user.Box
    assert back[0].size == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [(PLAIN, PLAIN.replace("size", "width")), (DATA, DATA.replace("size: int = 1", "width: int")),
     (DATA, DATA.replace("size", "width")), (SLOTS, SLOTS.replace("size", "width")),
     (TUPLE, TUPLE.replace("size", "width"))],
)  # fmt: skip
def test_a_removed_field_is_refused_by_name(user: Any, before: str, after: str) -> None:
    reason = why(boxed(user, before, after))
    assert f"class {MODULE}:Box has no field 'size' any more and has a new field 'width'" in reason
    assert "static method __rscoop_migrate__(old)" in reason


@pytest.mark.parametrize(
    ("before", "after"),
    [(SLOTS, SLOTS.replace("size: int = 1\n  kind: str = 'k'", "kind: str = 'k'\n  size: int = 1")),
     (TUPLE, TUPLE.replace("size: int = 1\n  kind: str = 'k'", "kind: str = 'k'\n  size: int = 1"))],
)  # fmt: skip
def test_fields_in_another_order_are_refused_if_values_are_saved_by_position(
    user: Any, before: str, after: str
) -> None:
    assert "has its fields in another order" in why(boxed(user, before, after))


def test_a_new_field_without_a_default_is_refused(user: Any) -> None:
    after = PLAIN + "; self.color = 'blue'"
    assert "has a new field 'color'" in why(boxed(user, PLAIN, after))


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [(PLAIN, "class Box:\n  color = 'red'\n  def __init__(self): self.size = self.color = 5", "red"),
     (DATA, DATA + "\n  color: list = field(default_factory=lambda: ['new'])", ["new"])],
)  # fmt: skip
def test_a_new_field_gets_its_default(user: Any, before: str, after: str, value: object) -> None:
    first, second = loaded(boxed(user, before, after))
    assert type(first) is user.Box
    assert (first.size, first.color) == (1, value)
    assert first.color is not second.color or not isinstance(value, list)


@pytest.mark.parametrize(
    ("before", "after"),
    [(PLAIN, PLAIN.replace("size", "width") + HOOK), (DATA, DATA.replace("size", "width") + HOOK),
     (SLOTS, SLOTS.replace("size", "width").replace("\n  kind: str = 'k'", "") + HOOK),
     (TUPLE, TUPLE.replace("size", "width").replace("\n  kind: str = 'k'", "") + HOOK)],
)  # fmt: skip
def test_a_hook_makes_new_attributes_from_the_old_ones(user: Any, before: str, after: str) -> None:
    back = loaded(boxed(user, before, after))
    assert type(back[0]) is user.Box
    assert [each.width for each in back] == [11, 11]


def test_a_hook_gets_complete_objects_and_identity_is_kept(user: Any) -> None:
    define(user, "class Box:\n  def __init__(self): self.inner, self.outer = None, None")
    outer, inner = user.Box(), user.Box()
    outer.inner, inner.outer = inner, outer
    content = dumped([outer, inner])
    define(user, "class Box:\n  def __init__(self): self.parts = []\n"
                 "  @classmethod\n  def __rscoop_migrate__(cls, old):\n"
                 "    return {'parts': [old['inner'], old['outer']]}")  # fmt: skip

    first, second = loaded(content)

    assert first.parts == [second, None]
    assert second.parts == [None, first]
    assert not hasattr(first, "inner")


def test_a_hook_that_raises_is_reported(user: Any) -> None:
    after = PLAIN.replace("size", "width") + HOOK.replace("return", "raise ValueError('no');")
    reason = why(boxed(user, PLAIN, after))
    assert f"{MODULE}:Box.__rscoop_migrate__ raised ValueError: no" in reason


def test_a_hook_that_returns_no_dict_is_reported(user: Any) -> None:
    after = PLAIN.replace("size", "width") + HOOK.split("return", maxsplit=1)[0] + "return 7"
    assert "returned int, not a dict" in why(boxed(user, PLAIN, after))


def test_a_class_that_loads_its_own_pickles_is_not_migrated(user: Any) -> None:
    own = "\n  def __setstate__(self, state): self.width = state['size']"
    back = loaded(boxed(user, PLAIN + own, PLAIN.replace("size", "width") + own))
    assert back[0].width == 1


@pytest.mark.parametrize("after", ["del Box", "Box = 7"])
def test_a_missing_class_is_named(user: Any, after: str) -> None:
    assert f"{MODULE}:Box" in why(boxed(user, PLAIN, after))


def test_classes_of_python_and_packages_are_not_compared() -> None:
    assert shape.fields_of(random.Random) is None
    assert shape.fields_of(threading.Thread) is None


def test_the_fields_of_a_class_are_those_of_its_bases_first(user: Any) -> None:
    define(user, "class Base:\n  a: int\n  def __init__(self): self.b = 1\n"
                 "class Box(Base):\n  __slots__ = ('c',)\n"
                 "  def __init__(self):\n    super().__init__()\n    self.d: int = 2\n"
                 "    self.e = self.f = 3")  # fmt: skip
    assert shape.fields_of(user.Box) == ["a", "b", "c", "d", "e", "f"]


@dataclass
class _Unused:
    """A dataclass that does not change."""

    x: int = 1


def test_an_unchanged_dataclass_of_the_tests_has_its_fields() -> None:
    assert shape.fields_of(_Unused) == ["x"]
