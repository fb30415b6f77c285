"""A bound method arrives as the method that was sent, whatever the name of its function is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest

from resilient_scoop.adapters import bound_methods
from resilient_scoop.payload import payload


def renamed(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return "renamed", function(*args)

    return run


class Descriptor:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, owner: Any, _cls: Any) -> Any:
        return self if owner is None else MethodType(self.function, owner)


class Meta(type):
    def of_class(cls, x: int) -> tuple[str, str, int]:
        return "Meta", cls.__name__, x


class Base(metaclass=Meta):
    def step(self, x: int) -> tuple[str, int]:
        return "Base", x

    @classmethod
    def make(cls, x: int) -> tuple[str, str, int]:
        return "Base", cls.__name__, x

    @functools.lru_cache  # noqa: B019
    def cached(self, x: int) -> tuple[str, int]:
        return "Base", x

    def __hidden(self, x: int) -> tuple[str, int]:
        return "hidden", x

    def hidden(self) -> Callable[[int], Any]:
        return self.__hidden

    @renamed
    def wrapped(self, x: int) -> int:
        return x

    @Descriptor
    def described(self, x: int) -> int:
        return x

    def run(self, x: int) -> tuple[str, int]:
        return "run", x

    alias = run


class Child(Base):
    def step(self, x: int) -> tuple[str, int]:
        return "Child", x

    @classmethod
    def make(cls, x: int) -> tuple[str, str, int]:
        return "Child", cls.__name__, x

    @functools.lru_cache  # noqa: B019
    def cached(self, x: int) -> tuple[str, int]:
        return "Child", x

    def overridden(self) -> list[Callable[[int], Any]]:
        return [super().step, super().make, super().cached]


def test_a_bound_method_arrives_as_the_same_method() -> None:
    base, child = Base(), Child()
    shadowed = Base()
    shadowed.run = lambda x: ("own", x)  # type: ignore[method-assign]
    sent: list[Any] = [
        *child.overridden(), child.step, child.make, child.cached, base.step, Child.of_class,
        base.hidden(), base.wrapped, base.described, base.run, base.alias, shadowed.alias,
        MethodType(Base.step, child), MethodType(lambda self, x: (type(self).__name__, x), base),
    ]  # fmt: skip
    expected = [each(3) for each in sent]

    assert [payload.loads(payload.dumps(each))(3) for each in sent] == expected
    assert [each(3) for each in payload.loads(payload.dumps(sent))] == expected


def test_a_bound_method_of_a_local_class_arrives_as_the_same_method() -> None:
    class Local(Base):
        def step(self, x: int) -> tuple[str, int]:
            return "Local", x

        @renamed
        def wrapped(self, x: int) -> int:
            return -x

        def overridden(self) -> Callable[[int], Any]:
            return super().step

    sent: list[Any] = [Local().overridden(), Local().step, Local().wrapped]

    assert [payload.loads(payload.dumps(each))(3) for each in sent] == [each(3) for each in sent]


@pytest.mark.parametrize("method", [Base().step, Base.make, Base().cached, Base.of_class])
def test_a_method_that_has_the_name_of_its_function_is_pickled_by_name(method: Any) -> None:
    assert bound_methods.has_own_name(method)
    assert bound_methods.reduce(method)[0] is getattr


def test_a_method_arrives_if_a_descriptor_of_its_name_raises() -> None:
    class Refusing:
        def __get__(self, _owner: Any, _cls: Any) -> Any:
            raise LookupError

    def step(_self: Any) -> str:
        return "mine"

    class Owner:
        pass

    Owner.step = Refusing()  # type: ignore[attr-defined]

    assert payload.loads(payload.dumps(MethodType(step, Owner())))() == "mine"
