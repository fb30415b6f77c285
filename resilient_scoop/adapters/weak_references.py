"""Pickling of weak references, and of weak containers, together with their targets.

Plain pickle refuses them, or loses their content, because nothing else keeps the target alive in
the receiving process. Here the received object keeps its target alive itself.

`WeakKeyDictionary` is not included: its keys count by identity, which a copy does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import ReferenceType, WeakSet, WeakValueDictionary


class KeptReference(ReferenceType[Any]):
    """A weak reference that keeps its object alive."""

    __slots__ = ("kept",)
    kept: Any


class _Gone:
    """The type of an object that no longer exists."""


def refer(target: Any) -> ReferenceType[Any]:
    """Return a reference to an object; one to an object that no longer exists for None."""
    if target is None:
        return ReferenceType(_Gone())
    found = KeptReference(target)
    found.kept = target
    return found


def weak_set(elements: set[Any]) -> WeakSet[Any]:
    """Return a weak set that keeps these elements alive."""
    found = WeakSet(elements)
    vars(found)["_kept"] = elements
    return found


def weak_dictionary(items: dict[Any, Any]) -> WeakValueDictionary[Any, Any]:
    """Return a weak dictionary that keeps these items alive."""
    found = WeakValueDictionary(items)
    vars(found)["_kept"] = items
    return found


_KINDS: Final[dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    ReferenceType: (refer, lambda weak: weak()),
    KeptReference: (refer, lambda weak: weak()),
    WeakSet: (weak_set, set),
    WeakValueDictionary: (weak_dictionary, dict),
}
TYPES: Final = frozenset(_KINDS)


def reduce(weak: Any) -> tuple[Callable[[Any], Any], tuple[Any]]:
    """Return the reduction of an object of one of `TYPES`: the function that makes it, and its target."""
    make, content_of = _KINDS[type(weak)]
    return make, (content_of(weak),)
