"""Weak references arrive with what they refer to, and count by it."""

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


def test_what_a_weak_object_refers_to_arrives_and_lives_as_long_as_it() -> None:
    node = Node(7)
    by_name: WeakValueDictionary[str, Node] = WeakValueDictionary(a=node)

    assert arrived(ref(node))().value == 7
    assert [each.value for each in arrived(WeakSet([node]))] == [7]
    assert {key: each.value for key, each in arrived(by_name).items()} == {"a": 7}
    assert arrived(arrived(ref(node)))().value == 7


def test_a_reference_to_what_no_longer_exists_arrives_as_such() -> None:
    gone = ref(Node(1))
    gc.collect()

    assert arrived(gone)() is None


def test_references_in_a_cycle_refer_to_the_object_that_holds_them() -> None:
    sent = Node(3)
    for node in (arrived(sent), arrived(ref(sent))()):
        assert node.me() is node
        assert list(node.others) == [node]


def test_the_received_object_is_not_kept_alive_by_anything_else() -> None:
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


def test_a_digest_depends_on_what_is_referred_to() -> None:
    one, same, other = Plain(1), Plain(1), Plain(2)
    for now, then, differing in zip(*map(kinds_of, (one, same, other)), strict=True):
        assert digest(now) == digest(then) is not None
        assert digest(now) != digest(differing)


def test_a_received_object_has_the_digest_of_the_one_that_was_sent() -> None:
    sent = Plain(5)
    for each in kinds_of(sent):
        assert digest(each) == digest(arrived(each)) is not None


def test_what_has_no_form_counts_as_any_only_where_a_weak_object_refers_to_it() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise TypeError("cannot be pickled")

    odd, other = Odd(), Odd()

    assert digest([odd]) is None
    assert digest([ref(odd), 1]) == digest([ref(other), 1]) is not None
    assert digest([ref(odd), 1]) != digest([ref(odd), 2])
