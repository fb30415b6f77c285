"""Weak references arrive with their targets, and their digests depend on the targets."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ReferenceType, WeakSet, WeakValueDictionary, ref

from resilient_scoop.adapters.canonical import Canon
from resilient_scoop.payload import payload


class Node:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.me: ReferenceType[Node] = ref(self)
        self.others: WeakSet[Node] = WeakSet([self])


def digest(value: object) -> bytes | None:
    return Canon(lambda function: function.__qualname__.encode()).digest(value)


def arrived(value: Any) -> Any:
    found = payload.loads(payload.dumps(value))
    gc.collect()
    return found


def test_the_target_of_a_weak_object_arrives_and_lives_as_long_as_the_object() -> None:
    node = Node(7)
    by_name: WeakValueDictionary[str, Node] = WeakValueDictionary(a=node)

    assert arrived(ref(node))().value == 7
    assert [each.value for each in arrived(WeakSet([node]))] == [7]
    assert {key: each.value for key, each in arrived(by_name).items()} == {"a": 7}
    assert arrived(arrived(ref(node)))().value == 7


def test_a_dead_reference_arrives_as_a_dead_reference() -> None:
    gone = ref(Node(1))
    gc.collect()

    assert arrived(gone)() is None


def test_references_in_a_cycle_refer_to_the_object_that_holds_them() -> None:
    sent = Node(3)
    for node in (arrived(sent), arrived(ref(sent))()):
        assert node.me() is node
        assert list(node.others) == [node]


def test_nothing_else_keeps_a_received_object_alive() -> None:
    sent = Node(1)
    found = arrived(ref(sent))
    watch = ref(found())
    del found
    gc.collect()

    assert watch() is None


class Plain:
    def __init__(self, value: int) -> None:
        self.value = value


def kinds_of(each: Plain) -> list[Any]:
    return [ref(each), WeakSet([each]), WeakValueDictionary(a=each)]


def test_a_digest_depends_on_the_target() -> None:
    one, same, other = Plain(1), Plain(1), Plain(2)
    for now, then, differing in zip(*map(kinds_of, (one, same, other)), strict=True):
        assert digest(now) == digest(then) is not None
        assert digest(now) != digest(differing)


def test_a_received_object_has_the_digest_of_the_one_that_was_sent() -> None:
    sent = Plain(5)
    for each in kinds_of(sent):
        assert digest(each) == digest(arrived(each)) is not None


def test_a_target_without_canonical_form_is_ignored_only_in_a_weak_object() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise TypeError("cannot be pickled")

    odd, other = Odd(), Odd()

    assert digest([odd]) is None
    assert digest([ref(odd), 1]) == digest([ref(other), 1]) is not None
    assert digest([ref(odd), 1]) != digest([ref(odd), 2])
