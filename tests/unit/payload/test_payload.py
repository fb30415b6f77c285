"""Payloads: values come back equal, and a value that cannot be pickled is named and does no harm."""

from __future__ import annotations

import functools
import pickle
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop import errors
from resilient_scoop.errors import PicklingFailedError, TaskError, WorkerCrashedError
from resilient_scoop.payload import codec, payload

WHERE = "worker w1 on a, item 0.3[17]"


class Files:
    """A store in memory; `copied` are the types of the parts that it was given."""

    def __init__(self, *, writable: bool = True) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.parts: list[bytes | memoryview] = []
        self.writable = writable

    def put(self, buffers: list[bytes | memoryview], sync: bool) -> bytes:  # noqa: FBT001
        self.parts = buffers
        ref = b"ref%d" % len(self.kept)
        self.kept[ref] = b"".join(buffers)
        return ref

    def get(self, ref: bytes) -> memoryview:
        data = self.kept[ref]
        return memoryview(bytearray(data) if self.writable else data)


class Cache:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class Individual:
    def __init__(self) -> None:
        self.cache = Cache()


class TwoArgumentsError(Exception):
    def __init__(self, name: str, count: int) -> None:
        super().__init__(f"{count} times {name}")
        self.name = name
        self.count = count


class PrefixError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"prefix: {text}")


class LockedError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class RudeError(Exception):
    def __reduce__(self) -> Any:
        raise OSError("rude")

    def __str__(self) -> str:
        raise ValueError("no text")


def iter_nothing() -> Iterator[int]:
    yield from ()


def holder(lock: object) -> Callable[[], object]:
    return lambda: lock


def closed_file() -> object:
    with Path(__file__).open("rb") as file:
        return file


def sent(error: BaseException) -> BaseException:
    """Return `error` as it arrives after it was raised."""
    try:
        raise error  # noqa: TRY301
    except BaseException as raised:  # noqa: BLE001 - that is what is tested
        back = payload.loads(payload.dumps_exception(raised, WHERE))
    assert isinstance(back, BaseException)
    return back


@pytest.mark.parametrize("value", [5, -(2**90), 0.5, "a", b"b", True, None, 1j, (1, "a"), [{}]])
def test_plain_values_are_stored_as_plain_pickles(value: object) -> None:
    data = payload.dumps(value)
    assert data[0] == 0x80
    assert pickle.loads(data) == payload.loads(data) == value


def test_lambdas_closures_and_local_classes_are_sent() -> None:
    class Local:
        x = 3

    def add(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    assert payload.loads(payload.dumps(add(2)))(3) == 5
    assert payload.loads(payload.dumps(Local())).x == 3
    assert payload.dumps(add(2))[:1] == b"D"


def test_named_classes_keep_their_identity_beside_a_lambda() -> None:
    back = payload.loads(payload.dumps([lambda: 0, Individual, PrefixError("x")]))
    assert back[1] is Individual
    assert type(back[2]) is PrefixError


def test_a_main_class_keeps_its_identity_beside_a_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a class of the script
    own = type("Own", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)

    # When an instance is sent together with an object that only dill can pickle, then it keeps that
    # class
    assert type(payload.loads(payload.dumps((lambda: 0, own())))[1]) is own


def test_an_unpicklable_part_is_named_by_its_path() -> None:
    with pytest.raises(PicklingFailedError) as caught:
        payload.dumps((1, Individual()), "argument", "args")
    assert caught.value.args[:3] == ("argument", "args[1].cache.lock", "_thread.lock")
    assert "args[1].cache.lock" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "path", "kind"),
    [
        (lambda: {"a": iter_nothing()}, "value['a']", "generator"),
        (lambda: functools.partial(print, file=threading.Lock()), "value.keywords['file']", ""),
        (lambda: holder(threading.Lock()), "value.<closure>.lock", ""),
        (lambda: [closed_file()], "value[0]", "_io.BufferedReader"),
    ],
)
def test_the_path_leads_through_containers_partials_and_closures(
    make: Callable[[], object], path: str, kind: str
) -> None:
    with pytest.raises(PicklingFailedError) as caught:
        payload.dumps(make())
    assert caught.value.path == path
    assert caught.value.kind == kind or not kind


def test_nesting_too_deep_is_an_error_with_a_hint() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PicklingFailedError, match="nested too deeply"):
        payload.dumps(deep)


def test_functions_of_the_global_random_stream_are_sent_by_name() -> None:
    toolbox = payload.loads(payload.dumps([functools.partial(random.randint, 0, 1), random.random]))
    assert toolbox[0].func.__self__ is random.random.__self__  # type: ignore[attr-defined]
    assert toolbox[1] is random.random
    own = random.Random(1)
    assert payload.loads(payload.dumps(own.random))() == own.random()


def test_deap_classes_arrive_as_the_existing_class() -> None:
    creator = pytest.importorskip("deap.creator")
    base = pytest.importorskip("deap.base")
    creator.create("PayloadMax", base.Fitness, weights=(1.0,))
    creator.create("PayloadIndividual", list, fitness=creator.PayloadMax, speed=None)
    cls = creator.PayloadIndividual
    one = cls([1, 0, 1])
    one.fitness.values = (2.0,)

    for extra in (0, lambda: 0):  # by pickle, and by dill
        back = payload.loads(payload.dumps((one, extra)))[0]
        assert type(back) is cls is creator.PayloadIndividual
        assert type(back.fitness) is creator.PayloadMax
        assert back == one
        assert back.fitness.values == (2.0,)


def test_a_missing_deap_class_is_made_once() -> None:
    creator = pytest.importorskip("deap.creator")
    creator.create("PayloadGone", list, size=3)
    data = payload.dumps(creator.PayloadGone([1]))
    from resilient_scoop.adapters import deap_classes

    del creator.PayloadGone
    deap_classes._arrived.clear()
    first, second = payload.loads(data), payload.loads(data)
    assert type(first) is type(second) is creator.PayloadGone
    assert first.size == 3


def test_ephemeral_constants_arrive_as_the_class_of_that_name() -> None:
    gp = pytest.importorskip("deap.gp")
    pset = gp.PrimitiveSet("MAIN", 1)
    pset.addPrimitive(max, 2)
    pset.addEphemeralConstant("payload_rand", functools.partial(random.randint, -1, 1))
    tree = gp.PrimitiveTree(gp.genFull(pset, 2, 2))
    tree[-1] = pset.mapping["payload_rand"]()
    back = payload.loads(payload.dumps(tree))
    assert type(back[-1]) is pset.mapping["payload_rand"]
    assert str(back) == str(tree)


@pytest.mark.parametrize("writable", [True, False])
def test_large_arrays_go_to_the_store_uncopied_and_come_back_writable(*, writable: bool) -> None:
    numpy = pytest.importorskip("numpy")
    store, array = Files(writable=writable), numpy.arange(200_000.0)

    data = payload.dumps_large((array, "x"), store)

    assert data[:1] == b"B"
    assert numpy.shares_memory(numpy.asarray(store.parts[1]), array)
    back, text = payload.loads(data, store)
    back[0] = 7.0
    assert (back[1:] == array[1:]).all()
    assert text == "x"
    assert payload.loads(data, store)[0][0] == 0.0


def test_small_arrays_stay_in_the_payload() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.arange(5), numpy.zeros((0, 3)), numpy.asfortranarray(numpy.eye(3))]
    arrays[0].flags.writeable = False
    data = payload.dumps_large(arrays, Files())
    back = payload.loads(memoryview(data))
    assert data[:1] == b"O"
    assert all((a == b).all() and a.shape == b.shape for a, b in zip(arrays, back, strict=True))
    assert [array.flags.writeable for array in back] == [False, True, True]


def test_large_values_without_buffers_go_to_the_store_too() -> None:
    store = Files()
    assert payload.loads(payload.dumps_large("x" * 2_000_000, store), store) == "x" * 2_000_000
    assert len(store.kept) == 1
    assert payload.dumps_large("x", store) == payload.dumps("x")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("v", 3),
        SystemExit(3),
        KeyboardInterrupt(),
        MemoryError(),
        FileNotFoundError(2, "no file", "name"),
        UnicodeDecodeError("utf-8", b"a", 0, 1, "why"),
        StopIteration(4),
        PrefixError("p"),
        WorkerCrashedError("0.1[2]", "f", ((-9, "oom"),)),
    ],
)
def test_exceptions_arrive_with_their_class_and_arguments(error: BaseException) -> None:
    back = sent(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_an_exception_whose_init_takes_other_arguments_arrives_complete() -> None:
    back = sent(TwoArgumentsError("x", 3))
    assert isinstance(back, TwoArgumentsError)
    assert (back.args, back.name, back.count) == (("3 times x",), "x", 3)


def test_an_exception_whose_own_methods_raise_arrives_complete() -> None:
    assert type(sent(RudeError())) is RudeError


@pytest.mark.parametrize("error", [LockedError("held"), ValueError(threading.Lock())])
def test_an_exception_that_cannot_be_pickled_is_replaced_by_its_text(error: Exception) -> None:
    back = sent(error)
    assert isinstance(back, errors.UnpicklableExceptionError)
    assert back.type_name.endswith(type(error).__qualname__)
    assert "Traceback" in str(back)
    assert pickle.loads(pickle.dumps(back)).args == back.args


def test_remote_frames_are_real_frames_below_a_line_that_names_the_worker() -> None:
    shown = "".join(traceback.format_exception(sent(ValueError("v"))))
    assert f'File "<{WHERE}>"' in shown
    assert "in sent\n    raise error" in shown
    assert shown.endswith("ValueError: v\n")


def test_notes_causes_and_contexts_are_sent() -> None:
    error = ValueError("v")
    error.add_note("a note")
    error.__cause__ = KeyError("cause")
    error.__cause__.__context__ = LockedError("inner")
    back = sent(error)
    assert back.__notes__ == ["a note"]
    assert repr(back.__cause__) == "KeyError('cause')"
    assert back.__cause__ is not None
    assert isinstance(back.__cause__.__context__, errors.UnpicklableExceptionError)


def test_an_exception_that_is_its_own_cause_can_be_sent() -> None:
    error, other = ValueError(1), ValueError(2)
    error.__cause__, other.__cause__ = other, error
    assert sent(error).__cause__ is not None


def test_groups_arrive_with_their_members() -> None:
    back = sent(ExceptionGroup("g", [ValueError(1), TwoArgumentsError("x", 2), LockedError("l")]))
    assert isinstance(back, ExceptionGroup)
    assert [type(member) for member in back.exceptions] == [
        ValueError,
        TwoArgumentsError,
        errors.UnpicklableExceptionError,
    ]


def test_an_exception_that_is_linked_twice_is_one_object() -> None:
    error, middle = TypeError(3), ValueError(2)
    error.__cause__ = error.__context__ = middle
    middle.__context__ = KeyError(1)
    back = sent(error)
    assert isinstance(back.__cause__, ValueError)
    assert back.__context__ is back.__cause__
    assert isinstance(back.__cause__.__context__, KeyError)


def test_exceptions_that_are_linked_in_a_circle_are_sent() -> None:
    one, other = ValueError(1), KeyError(2)
    one.__context__, other.__context__ = other, one
    back = sent(one)
    assert back.__context__ is not None
    assert back.__context__.__context__ is back


def test_all_members_of_a_large_group_are_sent() -> None:
    group = ExceptionGroup("many", [ValueError(n) for n in range(100)])
    for each in group.exceptions:
        each.__context__ = group
    back = sent(group)
    assert isinstance(back, ExceptionGroup)
    assert [each.args for each in back.exceptions] == [(n,) for n in range(100)]


def test_a_member_of_a_group_keeps_its_cause_if_it_is_also_the_context() -> None:
    member = KeyError("member")
    member.__cause__ = ValueError("cause")
    group = ExceptionGroup("group", [member])
    group.__context__ = member
    back = sent(group)
    assert isinstance(back, ExceptionGroup)
    for each in (back.exceptions[0], back.__context__):
        assert each is not None
        assert repr(each.__cause__) == "ValueError('cause')"


def test_groups_of_groups_stay_small() -> None:
    error: Exception = ValueError("first")
    for _ in range(30):
        group = ExceptionGroup("again", [error])
        group.__context__ = group.__cause__ = error
        error = group
    assert len(payload.dumps_exception(error, WHERE)) < 200_000


def test_the_traceback_of_a_very_deep_recursion_arrives_shortened() -> None:
    def dive(depth: int) -> int:
        return dive(depth + 1)

    data = b""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(6000)
    try:
        dive(0)
    except RecursionError as error:
        data += payload.dumps_exception(error, WHERE)
    finally:
        sys.setrecursionlimit(before)
    assert isinstance(payload.loads(data), RecursionError)
    assert len(data) < 100_000


def test_an_exception_whose_class_is_missing_here_is_shown_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = payload.dumps_exception(PrefixError("p"), WHERE)
    monkeypatch.delattr(sys.modules[__name__], "PrefixError")
    back = payload.loads(data)
    assert isinstance(back, errors.UnpicklableExceptionError)
    assert back.text == "prefix: p"


def test_a_value_whose_class_is_missing_here_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = payload.dumps(TwoArgumentsError)
    monkeypatch.delattr(sys.modules[__name__], "TwoArgumentsError")
    with pytest.raises(errors.UnpicklingFailedError, match="argument of script:evaluate") as caught:
        payload.loads(data, what="argument of script:evaluate")
    assert "TwoArgumentsError" in caught.value.names
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize("data", [b"\x80\x05", b"Zabc", b"Bref", b"O\0\0\0", b"X\xc1", b"D", b""])
def test_damaged_payloads_raise_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(errors.UnpicklingFailedError):
        payload.loads(data)


def test_a_result_that_cannot_be_pickled_is_an_error_that_names_the_function() -> None:
    data, failed = payload.dumps_result(Cache(), None, function="script:evaluate", where=WHERE)
    back = payload.loads(data)
    assert failed
    assert isinstance(back, PicklingFailedError)
    assert "script:evaluate" in str(back)
    assert back.path == "value.lock"
    assert payload.dumps_result(5, None, function="f", where=WHERE) == (payload.dumps(5), False)


def test_errors_of_the_broker_need_no_pickle() -> None:
    data = payload.dumps_broker_error("WorkerCrashedError", ["0.1[2]", "f", [[-9, "oom"]]])
    back = payload.loads(data)
    assert isinstance(back, WorkerCrashedError)
    assert back.exits == ((-9, "oom"),)
    assert type(payload.loads(payload.dumps_broker_error("TimeoutError", ["t"]))) is TimeoutError
    assert type(payload.loads(payload.dumps_broker_error("NewError", [1]))) is TaskError


def test_long_bytes_become_a_pickle_without_a_copy() -> None:
    data = bytes(range(256)) * 8192
    head, body, end = codec.dumps_parts(data)
    assert isinstance(body, memoryview)
    assert body.obj is data
    assert pickle.loads(bytes(head) + body + end) == data
    assert codec.dumps_parts(b"short") == [pickle.dumps(b"short", 5)]
