"""A class without an importable name is one class in each process, wherever its instances come from."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import functools
import gc
import pickle
import sys
import typing
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import pytest

from resilient_scoop import errors
from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.payload import class_keys, payload
from resilient_scoop.payload.class_keys import ProcessClasses, SendingFuture
from resilient_scoop.states import codec


class Process:
    """Another process, for classes: it knows only those that have arrived in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: dict[int, Any] = {}
        self.by_key: dict[Any, Any] = {}
        self.counts: dict[tuple[str, str, str], int] = {}

    @contextmanager
    def here(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(class_keys, "_known", self.known)
            patch.setattr(class_keys, "_by_key", self.by_key)
            patch.setattr(
                ProcessClasses, "place", staticmethod(lambda: SendingFuture(self.path, self.counts))
            )
            yield

    def send(self, value: object) -> bytes:
        with self.here():
            return payload.dumps(value)

    def get(self, raw: bytes, *, is_call: bool = False) -> Any:
        with self.here():
            return payload.loads(raw, is_call=is_call)


@pytest.fixture
def script() -> Process:
    return Process("0")


@pytest.fixture
def worker() -> Process:
    return Process("0.0[0]")


def there_and_back(value: object, script: Process, worker: Process) -> tuple[Any, Any]:
    """Return the value in a worker, and the value that comes back to the script."""
    there = worker.get(script.send(value), is_call=True)
    return there, script.get(worker.send(there))


T = TypeVar("T")


def plain() -> Any:
    class Plain:
        made = 0

        def __init__(self, x: int = 1) -> None:
            self.x = x

        def twice(self) -> Any:
            return Plain(2 * self.x)

        @property
        def y(self) -> int:
            return self.x

        @staticmethod
        def one() -> int:
            return 1

        @classmethod
        def make(cls) -> Any:
            return cls(7)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Plain) and other.x == self.x

        def __hash__(self) -> int:
            return self.x

    return Plain()


def child() -> Any:
    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

    class Child(Base):
        def __init__(self, x: int = 1) -> None:
            super().__init__(x)
            self.inner = self.Inner()

        class Inner:
            pass

    return Child()


def slotted() -> Any:
    class Slotted:
        __slots__ = ("__hidden", "x")

        def __init__(self) -> None:
            self.x, self.__hidden = 1, 2

        def hidden(self) -> int:
            return self.__hidden

    return Slotted()


def color() -> Any:
    class Color(enum.Enum):
        RED = 1
        GREEN = enum.auto()
        ROT = 1  # noqa: PIE796

        @property
        def nice(self) -> bool:
            return self is Color.RED

        @classmethod
        def _missing_(cls, value: object) -> Any:
            return cls.RED if value == "red" else None

    return Color.GREEN


def planet() -> Any:
    class Planet(enum.Enum):
        EARTH = (5.9, 6.3)
        MARS = (0.6, 3.3)

        def __init__(self, mass: float, radius: float) -> None:
            self.mass, self.radius = mass, radius

        def gravity(self) -> float:
            return self.mass / self.radius

    return Planet.MARS


def labelled() -> Any:
    class Labelled(enum.IntEnum):
        def __new__(cls, value: int, label: str) -> Any:
            made = int.__new__(cls, value)
            made._value_, made.label = value, label  # type: ignore[attr-defined]
            return made

        ONE = (1, "one")
        TWO = (2, "two")

    return Labelled.TWO


def flag() -> Any:
    class Flag(enum.Flag):
        A = enum.auto()
        B = enum.auto()
        AB = A | B

    return Flag.A | Flag.B


def data() -> Any:
    @dataclasses.dataclass(order=True)
    class Data:
        x: int
        more: list[int] = dataclasses.field(default_factory=list)
        kind: typing.ClassVar[str] = "data"

    return Data(3)


def frozen() -> Any:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Frozen:
        x: int = 4

    return Frozen()


def named() -> Any:
    class Named(NamedTuple):
        a: int
        b: int = 2

        def total(self) -> int:
            return self.a + self.b

    return Named(1)


def old_named() -> Any:
    Old: Any = collections.namedtuple("Old", "a b", defaults=[5])  # noqa: N806, PYI024
    return Old(1)


def abstract() -> Any:
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> int: ...

    class Square(Shape):
        def area(self) -> int:
            return 4

    @Shape.register
    class Virtual: ...

    return Square(), Shape, Virtual()


def generic() -> Any:
    K = TypeVar("K")

    class Box(Generic[T]):
        def __init__(self, it: T) -> None:
            self.it = it

    class Pair(Box[K], Generic[K]):
        pass

    class Sized(Protocol):
        def size(self) -> int: ...

    return Pair(1), Box[int](2), Sized


def failing() -> Any:
    class Failing(Exception):  # noqa: N818
        def __init__(self, code: int, text: str = "") -> None:
            super().__init__(f"{code} {text}")
            self.code = code

    return Failing


def cached() -> Any:
    class Cached:
        @functools.cached_property
        def x(self) -> Any:
            return [1]

        @functools.lru_cache  # noqa: B019
        def y(self) -> int:
            return 5

    return Cached()


def mutual() -> Any:
    class Left:
        def other(self) -> Any:
            return Right()

    class Right:
        left = Left()

        def other(self) -> Any:
            return Left()

    Left.right = Right()  # type: ignore[attr-defined]
    return Left()


def with_metaclass() -> Any:
    class Meta(type):
        def __new__(mcs, name: str, bases: Any, space: Any, **_: Any) -> Any:
            assert "needed" in space
            return super().__new__(mcs, name, bases, space)

        def answer(cls) -> int:
            return 42

    class Made(metaclass=Meta):
        needed = 1

        def me(self) -> Any:
            return Made, super().__repr__

    return Made()


def kept_flag() -> Any:
    class Kept(enum.IntFlag, boundary=enum.KEEP):
        A = 1

    return Kept(9)


def made_by_calls() -> Any:
    color: Any = enum.Enum("color", "RED BLUE")
    data: Any = dataclasses.make_dataclass("Data", ["x"], namespace={"go": lambda self: self.x})
    return color.BLUE, data(3)


def with_init_var() -> Any:
    @dataclasses.dataclass
    class Base:
        a: int = 1
        b: dataclasses.InitVar[int] = 5

        def __post_init__(self, b: int) -> None:
            self.c = b

    @dataclasses.dataclass(kw_only=True, unsafe_hash=True)
    class Derived(Base):
        d: str = "d"

    return Derived(b=7)


def of_builtin() -> Any:
    class Number(int):
        tag: str

        def __new__(cls, value: int, tag: str = "") -> Any:
            made = super().__new__(cls, value)
            made.tag = tag
            return made

    class Missing(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return key * 2

    return Number(4, "four"), Missing(a="b")


def typed_dict() -> Any:
    class Movie(typing.TypedDict, total=False):
        name: str

    class Holder:
        kind = Movie

    return Holder()


def with_hook() -> Any:
    class Hooked:
        def __init_subclass__(cls, *, tag: str) -> None:
            cls.tag = tag  # type: ignore[attr-defined]

    class Sub(Hooked, tag="sub"):
        pass

    return Sub()


CHECKS: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (plain, lambda v: (v.twice().x, type(v.twice()) is type(v), v.y, v.one(), v.make().x)),
    (child, lambda v: (v.x, type(type(v)(3).inner) is type(v.inner), type(v).__mro__[1].__name__)),
    (slotted, lambda v: (v.x, v.hidden(), hasattr(v, "__dict__"))),
    (color, lambda v: (v.nice, type(v)("red").nice, [*type(v).__members__], v is type(v)(2))),
    (planet, lambda v: (v.gravity(), [m.mass for m in type(v)], v is type(v).MARS)),
    (labelled, lambda v: (v.label, v + 1, v is type(v)(2), [m.label for m in type(v)])),
    (flag, lambda v: (v.value, v is type(v).AB, type(v).A in v, str(v))),
    (data, lambda v: (repr(v), v < type(v)(4), dataclasses.asdict(v), type(v)(1).more, v.kind,
                      dataclasses.replace(v, x=9).x, len(dataclasses.fields(v)))),
    (frozen, lambda v: (repr(v), hash(v) == hash(type(v)()), dataclasses.astuple(v))),
    (named, lambda v: (repr(v), v.total(), v._replace(a=5).total(), type(v)(b=1, a=2))),
    (old_named, lambda v: (repr(v), v._asdict(), type(v)._make([1, 2]))),
    (abstract, lambda v: (v[0].area(), isinstance(v[0], v[1]), isinstance(v[2], v[1]),
                          sorted(v[1].__abstractmethods__))),
    (generic, lambda v: (v[0].it, v[1].it, str(type(v[0]).__parameters__), type(v[0])[str] is None)),
    (failing, lambda v: (str(v(3, "x")), v(4).code)),
    (cached, lambda v: (v.x, v.x is v.x, v.y())),
    (mutual, lambda v: (type(v.other().left) is type(v), type(v.right) is type(v.other()))),
    (with_metaclass, lambda v: (type(v).answer(), v.me()[0] is type(v), type(type(v)).__name__)),
    (kept_flag, lambda v: (int(v), v == type(v)(9), v is type(v)(9), type(v).A in v)),
    (made_by_calls, lambda v: (v[0] is type(v[0]).BLUE, v[0].value, v[1].go(), v[1] == type(v[1])(3))),
    (with_init_var, lambda v: (v.c, type(v)(b=8, a=2).c, dataclasses.asdict(v), v == type(v)())),
    (of_builtin, lambda v: (v[0] + 1, v[0].tag, v[1]["zz"], v[1]["a"])),
    (typed_dict, lambda v: (v.kind(name="x"), v.kind.__total__, list(v.kind.__annotations__))),
    (with_hook, lambda v: v.tag),
]  # fmt: skip


@pytest.mark.parametrize(("make", "check"), CHECKS, ids=[make.__name__ for make, _ in CHECKS])
def test_a_local_class_arrives_complete_and_returns_as_the_same_class(
    make: Callable[[], Any], check: Callable[[Any], Any], script: Process, worker: Process
) -> None:
    value = make()
    before = check(value)

    there, back = there_and_back(value, script, worker)
    again, _ = there_and_back(value, script, worker)

    assert check(there) == before == check(again) == check(back) == check(value)
    kinds = [
        [
            each if isinstance(each, type) else type(each)
            for each in ([*v] if type(v) is tuple else [v])
        ]
        for v in (value, back, there, again)
    ]
    assert kinds[0] == kinds[1]
    assert kinds[2] == kinds[3]
    assert not set(kinds[0]) & set(kinds[2])


def test_members_of_a_local_enumeration_keep_their_identity(
    script: Process, worker: Process
) -> None:
    member = color()
    there, back = there_and_back({member: member}, script, worker)
    assert [*back] == [member]
    assert back[member] is member
    assert isinstance(next(iter(there)), enum.Enum)


def test_a_local_exception_is_caught_by_its_class(script: Process, worker: Process) -> None:
    kind = failing()
    there = worker.get(script.send(kind), is_call=True)
    with worker.here():
        raw = payload.dumps_exception(there(5, "five"), "w1")
    error = script.get(raw)
    with pytest.raises(kind, match="5 five"):
        raise error
    assert error.code == 5


def test_attributes_that_change_between_calls_arrive_with_the_next_call(
    script: Process, worker: Process
) -> None:
    class Local:
        rate, log, gone = 1, [], 1  # type: ignore[var-annotated]

    first = script.send(Local)
    there = worker.get(first, is_call=True)
    assert (there.rate, there.log, there.gone) == (1, [], 1)
    Local.rate = 2
    Local.log.append(3)
    del Local.gone
    Local.new = 4  # type: ignore[attr-defined]

    assert worker.get(script.send(Local()), is_call=True).rate == 2
    assert (there.rate, there.log, there.new, hasattr(there, "gone")) == (2, [3], 4, False)
    worker.get(first, is_call=True)
    assert (there.rate, there.log, there.gone, hasattr(there, "new")) == (1, [], 1, False)


def test_results_and_constants_change_no_class(script: Process, worker: Process) -> None:
    class Local:
        rate = 1

    raw = script.send(Local)
    there = worker.get(raw, is_call=True)
    there.rate = 5
    Local.rate = 2

    assert script.get(worker.send(there)) is Local
    assert script.get(worker.send(there()), is_call=True).rate == 2
    assert (Local.rate, worker.get(raw).rate) == (2, 5)


def test_a_class_that_a_task_made_can_be_changed_by_the_script(
    script: Process, worker: Process
) -> None:
    class Local:
        rate = 1

    own = Local
    here = script.get(worker.send(own))
    here.rate = 3
    assert worker.get(script.send(here), is_call=True) is own
    assert own.rate == 3

    parent = Process("0.0[0]")  # the same future's own calls do not reset it
    raw = parent.send(plain())
    leaf = Process("0.0[0].1[0]")
    leaf.known, leaf.by_key = parent.known, parent.by_key
    kind = type(leaf.get(raw, is_call=True))
    kind.made = 9
    assert leaf.get(raw, is_call=True).made == 9


def test_two_classes_of_the_same_name_stay_different(script: Process, worker: Process) -> None:
    one, two = plain(), plain()
    there, back = there_and_back([one, two], script, worker)
    assert type(there[0]) is not type(there[1])
    assert [type(each) for each in back] == [type(one), type(two)]


def test_a_restarted_future_gives_its_classes_the_same_keys(worker: Process) -> None:
    first = Process("0")
    from_journal = worker.send(worker.get(first.send([plain(), plain()]), is_call=True))

    second = Process("0")
    one, two = plain(), plain()
    second.send(one)
    second.send(two)
    assert [type(v) for v in second.get(from_journal)] == [type(one), type(two)]


def test_a_saved_value_uses_the_class_that_its_future_has_made_again(worker: Process) -> None:
    def define() -> Any:
        class OnlyHere:
            pass

        return OnlyHere

    def restored(path: str) -> Any:
        with Process(path).here():
            return type(codec.loads(content, "state")[0])

    with Process("0").here():
        content = b"".join(codec.dumps(define()(), None, {}, "state", "state").parts)

    again = define()  # after a checkpoint no call is repeated
    assert restored("0") is again
    assert restored("0.1[0]") is not again
    raw = worker.send(worker.get(Process("0").send(again()), is_call=True))
    assert type(Process("0").get(raw)) is again
    assert type(Process("0").get(raw, is_call=True)) is not again


def test_each_process_uses_its_own_class_of_a_global_variable(
    script: Process, worker: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported() -> ModuleType:
        module = ModuleType("some_module")
        cls = type(
            "Local", (), {"__module__": "some_module", "__qualname__": "make.<locals>.Local"}
        )
        module.Point = cls  # type: ignore[attr-defined]
        return module

    ours, theirs = imported(), imported()
    monkeypatch.setitem(sys.modules, "some_module", ours)
    raw = script.send(ours.Point())
    monkeypatch.setitem(sys.modules, "some_module", theirs)
    there = worker.get(raw, is_call=True)
    assert type(there) is theirs.Point
    raw = worker.send(there)
    monkeypatch.setitem(sys.modules, "some_module", ours)
    assert type(script.get(raw)) is ours.Point


def test_a_checkpoint_holds_local_classes(script: Process) -> None:
    value = data()
    with script.here():
        content = b"".join(codec.dumps({"it": value}, None, {}, "state", "state").parts)
        back, _ = codec.loads(content, "state")
    assert type(back["it"]) is type(value)
    with Process("0.1[0]").here():
        other, _ = codec.loads(content, "state")
    assert (repr(other["it"]), type(other["it"]) is type(value)) == (repr(value), False)


def test_the_same_class_is_pickled_to_the_same_bytes(script: Process) -> None:
    value = plain()
    assert script.send(value) == script.send(value)


def test_unused_classes_are_dropped(script: Process, worker: Process) -> None:
    value = plain()
    there, back = there_and_back(value, script, worker)
    refs = [weakref.ref(type(each)) for each in (value, there)]
    del value, there, back
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert (script.known, script.by_key, worker.known, worker.by_key) == ({}, {}, {}, {})


def test_a_class_that_its_metaclass_needs_before_it_exists_is_refused(script: Process) -> None:
    class Meta(type):
        pass

    class Knot(metaclass=Meta):
        me: Any = None

    Knot.me = Knot()
    with pytest.raises(PicklingFailedError, match="refers to itself in its bases"):
        script.send(Knot)


def test_a_failed_load_leaves_no_incomplete_class(worker: Process, script: Process) -> None:
    class Broken:
        def __setstate__(self, _: object) -> None:
            raise LookupError

    class Local:
        first, part = 1, Broken()
        part.x = 1  # type: ignore[attr-defined]

    raw = script.send(Local)
    with pytest.raises(errors.UnpicklingFailedError):
        worker.get(raw)
    del Local.part
    assert worker.get(script.send(Local)).first == 1


def test_plain_pickle_of_a_local_class_still_fails() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(plain())
