"""`Pool` beside `multiprocessing.pool.Pool`: the same calls, answers, errors and laziness.

Outside a run, `Pool` computes with an executor; here this is a `ProcessPoolExecutor`.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_scoop
from resilient_scoop import pool as module

CONTEXT = multiprocessing.get_context("forkserver")


def square(x: int) -> int:
    return x * x


def add(a: int, b: int = 10) -> int:
    return a + b


def refuse_two(x: int) -> int:
    if x == 2:
        raise KeyError(x)
    return x


def exists_soon(path: Path) -> bool:
    """Wait until a file exists; return whether it does after 30 s."""
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return path.exists()


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


_given: list[int] = []


def keep(value: int) -> None:
    _given.append(value)


def kept(x: int) -> int:
    return _given[-1] + x


class Processes(concurrent.futures.ProcessPoolExecutor):
    """An executor that can be ended like ours."""

    def terminate_workers(self) -> None:
        for item in list(self._pending_work_items.values()):
            item.future.cancel()
        self.shutdown(wait=True)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def executor(processes: int | None, run: str | None) -> Any:
        assert run is None
        return Processes(processes, CONTEXT)

    monkeypatch.setattr(module, "_executor", executor)


@pytest.fixture(scope="module")
def theirs_pool() -> Iterator[Any]:
    with CONTEXT.Pool(2) as pool:
        yield pool


@pytest.fixture(params=["multiprocessing", "resilient_scoop"])
def make(request: pytest.FixtureRequest, ours: None) -> Iterator[Callable[..., Any]]:
    """Make pools of either kind; end them after the test."""
    made: list[Any] = []

    def new(*args: Any, **kwargs: Any) -> Any:
        kind = CONTEXT.Pool if request.param == "multiprocessing" else resilient_scoop.Pool
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield new
    for each in made:
        each.terminate()
        each.join()


@pytest.fixture
def pool(make: Callable[..., Any]) -> Any:
    return make(2)


def outcomes(iterator: Any) -> list[Any]:
    """Return the values of an iterator; for items that fail, the error."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found
        except (KeyError, ZeroDivisionError) as error:
            found.append(repr(error))


def test_map_returns_the_list_of_results_in_order(pool: Any) -> None:
    assert pool.map(square, range(20)) == [x * x for x in range(20)]
    assert pool.map(square, iter([3, 1]), chunksize=2) == [9, 1]
    assert pool.map(square, []) == []


def test_map_raises_the_error_of_an_item(pool: Any) -> None:
    with pytest.raises(KeyError, match="2"):
        pool.map(refuse_two, range(4), 1)
    assert pool.map(square, [1]) == [1]


def test_map_raises_for_an_object_that_is_not_iterable(pool: Any) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        pool.map(square, 5)


def test_starmap_unpacks_rows_of_any_length(pool: Any) -> None:
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap(add, [(1, 2), (3,), [4, 5]]) == [3, 13, 9]
    assert pool.starmap(add, [(1,), (2,)]) == [11, 12]
    assert pool.starmap(dict, [(), ()]) == [{}, {}]
    assert pool.starmap(add, []) == []


def test_apply_takes_keywords(pool: Any) -> None:
    assert pool.apply(add, (1,), {"b": 2}) == 3
    assert pool.apply_async(add, (1,)).get(30) == 11
    with pytest.raises(KeyError, match="2"):
        pool.apply(refuse_two, (2,))


def test_imap_continues_after_an_item_that_failed(pool: Any) -> None:
    assert outcomes(pool.imap(refuse_two, range(4))) == [0, 1, "KeyError(2)", 3]
    assert sorted(map(str, outcomes(pool.imap_unordered(refuse_two, range(4))))) == [
        "0", "1", "3", "KeyError(2)",
    ]  # fmt: skip


def test_imap_yields_results_before_the_last_one_is_done(pool: Any, tmp_path: Path) -> None:
    for read in (pool.imap, pool.imap_unordered):
        seen = tmp_path / read.__name__
        results = read(exists_soon, [tmp_path, seen])
        assert next(results)
        seen.touch()
        assert next(results), "it is done only after the first result was read"


def test_imap_reads_its_iterable_before_the_first_result_is_requested(pool: Any) -> None:
    read = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        read.set()

    results = pool.imap(square, numbers())

    assert read.wait(30)
    assert list(results) == [1]


def test_an_error_of_the_iterable_follows_the_results_before_it(pool: Any) -> None:
    def numbers() -> Iterator[int]:
        yield 3
        raise ZeroDivisionError("the end")

    assert outcomes(pool.imap(square, numbers()))[:2] == [9, "ZeroDivisionError('the end')"]


def test_next_of_imap_can_be_repeated_after_a_timeout(pool: Any) -> None:
    for read in (pool.imap, pool.imap_unordered):
        results = read(slow, [1.0])
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.01)
        assert results.next(timeout=30) == 1.0
        with pytest.raises(StopIteration):
            results.next()


def test_an_iterator_gives_its_results_after_close(pool: Any) -> None:
    results = pool.imap(square, range(2000))
    pool.close()
    pool.join()

    assert list(results) == [x * x for x in range(2000)]


def test_an_asynchronous_result_reports_its_state(pool: Any) -> None:
    late = pool.apply_async(slow, (1.0,))
    assert not late.ready()
    with pytest.raises(ValueError, match="not ready"):
        late.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        late.get(0.01)
    late.wait(0.01)
    assert not late.ready()
    late.wait()
    assert late.ready()
    assert late.successful()
    assert late.get() == 1.0


def test_a_failed_asynchronous_result_is_not_successful(pool: Any) -> None:
    for failed in (pool.apply_async(refuse_two, (2,)), pool.map_async(refuse_two, range(4))):
        failed.wait(30)
        assert not failed.successful()
        with pytest.raises(KeyError, match="2"):
            failed.get()


def test_callbacks_get_the_value_or_the_error_once(pool: Any) -> None:
    seen: list[Any] = []
    pool.apply_async(square, (3,), callback=seen.append, error_callback=seen.append)
    pool.map_async(square, range(3), callback=seen.append)
    pool.starmap_async(add, [(1, 2)], callback=seen.append)
    pool.apply_async(refuse_two, (2,), callback=seen.append, error_callback=seen.append)
    pool.map_async(refuse_two, range(4), 1, seen.append, seen.append)
    pool.close()
    pool.join()

    assert sorted(map(repr, seen)) == ["9", "KeyError(2)", "KeyError(2)", "[0, 1, 4]", "[3]"]


def test_a_map_of_no_items_is_done_at_once(pool: Any) -> None:
    result = pool.map_async(square, [])
    assert result.ready()
    assert result.get() == []


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_has_ended_refuses_calls(pool: Any, end: str) -> None:
    getattr(pool, end)()
    for call in (
        lambda: pool.map(square, []),
        lambda: pool.starmap(add, []),
        lambda: pool.imap(square, []),
        lambda: pool.imap_unordered(square, []),
        lambda: pool.apply(square, (1,)),
        lambda: pool.apply_async(square, (1,)),
        lambda: pool.map_async(square, []),
        lambda: pool.starmap_async(add, []),
        pool.__enter__,
    ):
        with pytest.raises(ValueError, match="Pool not running"):
            call()
    pool.join()
    getattr(pool, end)()


def test_join_refuses_a_pool_that_was_not_closed(pool: Any) -> None:
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()


def test_the_end_of_the_with_block_ends_the_pool(make: Callable[..., Any]) -> None:
    with make(2) as pool:
        assert pool.map(square, [2]) == [4]
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(square, [2])


def test_a_pool_refuses_invalid_arguments(make: Callable[..., Any], pool: Any) -> None:
    with pytest.raises(ValueError, match="Number of processes must be at least 1"):
        make(0)
    with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
        make(1, maxtasksperchild=0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer=3)
    with pytest.raises(ValueError, match="Chunksize must be 1"):
        pool.imap(square, [], 0)
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(pool)


def test_a_pool_reports_the_requested_number_of_processes(make: Callable[..., Any]) -> None:
    assert make(3)._processes == 3


def test_an_initializer_is_called_in_each_process(make: Callable[..., Any]) -> None:
    assert make(2, keep, (100,)).map(kept, range(3)) == [100, 101, 102]


@pytest.fixture
def mine(ours: None) -> Iterator[Any]:
    with resilient_scoop.Pool(2) as pool:
        yield pool


def test_an_endless_iterable_is_read_only_as_far_as_needed(mine: Any) -> None:
    count = itertools.count()
    results = mine.imap(square, count)

    assert list(itertools.islice(results, 3)) == [0, 1, 4]
    assert next(count) <= module.READ_AHEAD + 3


def test_a_callback_of_map_gets_each_result_in_order(mine: Any) -> None:
    seen: list[int] = []
    assert mine.map(square, range(5), callback=seen.append) == seen == [0, 1, 4, 9, 16]


def test_size_is_the_number_of_processes(mine: Any) -> None:
    assert mine.size == mine._processes == 2


def test_a_canceled_result_raises(mine: Any) -> None:
    asked = [mine.apply_async(slow, (0.3,)) for _ in range(12)]
    mine.terminate()

    with pytest.raises(concurrent.futures.CancelledError):
        asked[-1].get(30)


def test_finished_results_are_forgotten(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRUNE_AT", 8)
    mine._prune_at = 8
    for _ in range(100):
        mine.apply_async(square, (1,)).get()

    assert len(mine._asked) < 10


def test_an_initializer_is_called_again_after_calls_of_another_pool() -> None:
    first = module._Prepared(keep, (1,), kept)
    second = module._Prepared(keep, (2,), kept)
    _given.clear()

    assert [first(0), first(0), second(0), second(0), first(0)] == [1, 1, 2, 2, 1]
    assert _given == [1, 2, 1]
