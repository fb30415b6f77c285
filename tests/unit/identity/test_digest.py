"""Digests of arguments are equal for equal arguments in every process, and differ otherwise."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_scoop.identity import imported_values
from resilient_scoop.identity.digest import digest_many, forget_known, take_met
from resilient_scoop.payload import payload
from tests.unit import digest_cases
from tests.unit.digest_cases import Node, Point, Words, digest_of, ring, shifted

ROOT = Path(__file__).parents[3]
CHILD = "import sys; sys.argv[0] = ''; from tests.unit import digest_cases; digest_cases.main()"
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
HASHABLE = st.recursive(
    SCALARS, lambda part: st.tuples(part, part) | st.frozensets(part, max_size=4), max_leaves=6
)
VALUES = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=5),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(HASHABLE, part, max_size=4),
    max_leaves=8,
)


def in_another_process(more: Path, hash_seed: str) -> dict[str, str]:
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(more)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(line.split("=") for line in found.stdout.splitlines())


def drawn_values() -> list[Any]:
    found: list[Any] = []

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(VALUES)
    def draw(value: Any) -> None:
        if eval(repr(value), {"inf": float("inf")}) == value:
            found.append(value)

    draw()
    return found


def test_equal_arguments_digest_equally_under_another_hash_seed(tmp_path: Path) -> None:
    # Given the listed cases and many random ones; the other process gets the source text of the
    # latter
    drawn = drawn_values()
    text = tmp_path / "drawn.txt"
    text.write_text(f"(lambda inf: {drawn!r})(float('inf'))", encoding="utf-8", errors="replace")
    drawn = eval(text.read_text(encoding="utf-8"))

    # When a process with another order of sets computes their digests
    there = in_another_process(text, "4242")

    # Then it finds the same digests, so that each case was compared
    here = {name: digest_of(case).hex() for name, case in digest_cases.cases().items()}
    here |= {str(i): digest_of(case).hex() for i, case in enumerate(drawn)}
    assert {name for name in here if here[name] != there[name]} == set()


def test_listed_cases_have_different_digests() -> None:
    found = {name: digest_of(case) for name, case in digest_cases.cases().items()}
    assert len(set(found.values())) == len(found)


DIFFERENT: list[Any] = [
    1, True, 1.0, 1 + 0j, "1", b"1", 0, False, 0.0, -0.0, None, "", b"", bytearray(), (), [], {},
    set(), frozenset(), (1,), [1], {1}, frozenset({1}), {1: 1}, (1, 2), (2, 1), ((1,), 2),
    (1, (2,)), [1, 2], [[1], 2], [1, [2]], {"a": 1, "b": 2}, {"b": 2, "a": 1}, {(1, 2)},
    {(2, 1)}, Words("ab"), {"a", "b"}, {"a", "c"}, Point(1.0), Point(2.0), 2**70, -(2**70),
    ..., NotImplemented, int, "int", [len], [max], functools.partial(max, 1),
    functools.partial(max, 2), shifted(1), shifted(2), shifted("1"), lambda x: x, lambda y: y,
    Point(1.0).move, Point(2.0).move, Node("a"), ring(), range(3), range(4), slice(1),
]  # fmt: skip


def test_different_arguments_digest_differently() -> None:
    found: dict[bytes, Any] = {}
    for value in DIFFERENT:
        key = digest_of(value)
        assert key not in found, (value, found[key])
        found[key] = value


def test_digests_of_arrays_depend_on_type_shape_and_content() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(6)
    different = [
        array, array.astype("i4"), array.astype("u8"), array.astype("f8"), array.astype(">i8"),
        array.reshape(2, 3), array.reshape(3, 2), array + 1, list(range(6)), array.astype(object),
        np.array([0.0]), np.array([-0.0]), np.float64(0), np.float32(0), np.zeros((0, 1)),
        np.zeros((1, 0)),
    ]  # fmt: skip
    assert len({digest_of(value) for value in different}) == len(different)


def test_digests_of_arrays_do_not_depend_on_the_memory_layout() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(24.0).reshape(4, 6)
    wide = np.zeros((4, 12))
    wide[:, ::2] = array
    assert digest_of(wide[:, ::2]) == digest_of(array) == digest_of(np.asfortranarray(array))


def test_a_nan_is_equal_to_itself() -> None:
    assert digest_of(float("nan")) == digest_of(float("nan"))
    assert digest_of([float("nan"), {1}]) == digest_of([float("nan"), {1}])


@given(VALUES)
def test_arguments_that_share_objects_have_the_digest_of_equal_ones(value: Any) -> None:
    apart = payload.loads(payload.dumps(value))
    assert digest_of([value, value]) == digest_of([value, apart])
    assert digest_of((value, "xxx")) == digest_of((apart, str(b"xxx", "ascii")))


def test_nested_sharing_is_digested_in_limited_time() -> None:
    def grown() -> list[Any]:
        part: list[Any] = ["x"]
        for _ in range(45):
            part = [part, part]
        return part

    assert digest_of(grown()) == digest_of(grown())


def test_cyclic_values_are_digested_and_compared() -> None:
    assert digest_of(ring()) == digest_of(ring())
    other = ring()
    other.peers[0].name = "c"
    assert digest_of(other) != digest_of(ring())


def test_a_fitness_is_part_of_an_individual() -> None:
    pytest.importorskip("deap")
    found = digest_cases.deap_cases()
    assert digest_of(found["individual"]) != digest_of(found["rated"])


def test_an_individual_that_was_sent_is_equal() -> None:
    pytest.importorskip("deap")
    for case in digest_cases.deap_cases().values():
        assert digest_of(payload.loads(payload.dumps(case))) == digest_of(case)


def test_a_value_without_a_canonical_form_never_equals_itself() -> None:
    lock = threading.Lock()
    assert digest_of(lock) != digest_of(lock)
    assert digest_of([1, lock]) != digest_of([1, lock])


def test_a_large_argument_has_the_same_digest_in_a_file_and_in_the_payload() -> None:
    np = pytest.importorskip("numpy")
    from resilient_scoop.identity.digest import digest

    for value in ("x" * 2_000_000, np.zeros(300_000), list(range(300_000))):
        assert digest(value, b"B" + bytes(40)) == digest_of(value)


def test_what_the_script_has_changed_in_a_module_counts_in_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changed_module.py").write_text("K = 1\ndef f(): return K\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("changed_module")
    monkeypatch.setattr(imported_values, "_noted", {"changed_module"})
    imported_values.note_late(module)
    forget_known()
    before = digest_of((module, 1))
    assert digest_of((module, 1)) == before
    monkeypatch.setattr(module, "K", 2)
    after = digest_of((module, 1))
    assert after != before
    assert "changed_module:K" in take_met()
    monkeypatch.setattr(module, "K", 3)
    assert digest_of((module, 1)) not in (before, after)
    imported_values.forget()
    forget_known()


@given(st.lists(VALUES, max_size=6))
def test_digests_of_many_arguments_equal_the_single_ones_in_order(values: list[Any]) -> None:
    payloads = [payload.dumps(value) for value in values]
    assert digest_many(values, payloads) == b"".join(map(digest_of, values))
