"""What mypy infers for results: these statements are never run, `tox -e types` checks them."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import assert_type

from resilient_scoop import Executor, Session, futures
from resilient_scoop.futures._shared import SharedFuture


def text_of(x: int, *, by: float = 1.0) -> str:
    return str(x * by)


def submitted(session: Session, executor: Executor) -> None:
    assert_type(futures.submit(text_of, 2), futures.Future[str])
    assert_type(futures.submit(text_of, 2, by=0.5).result(), str)
    assert_type(futures.options(retries=2).submit(text_of, 2).result(), str)
    assert_type(session.submit(text_of, 2), SharedFuture[str])
    assert_type(session.submit(text_of, 2).result(), str)
    assert_type(executor.submit(text_of, 2, by=2.0), cf.Future[str])
    assert_type(cf.wait([session.submit(text_of, 2)]).done.pop().result(), str)
    assert_type(next(cf.as_completed([session.submit(text_of, 2)])).result(), str)
    executor.submit(text_of, "no number")  # type: ignore[arg-type]
    session.submit(text_of, 2, times=3)  # type: ignore[call-arg]


def mapped(session: Session, executor: Executor, pair: Callable[[int, str], bytes]) -> None:
    assert_type(futures.map(text_of, [1, 2]), Iterator[str])
    assert_type(list(futures.map(pair, [1], ["a"])), list[bytes])
    assert_type(futures.map_as_completed(text_of, range(3)), Iterator[str])
    assert_type(futures.once(text_of, 3), str)
    assert_type(session.map(text_of, [1, 2]), Iterator[str])
    assert_type(executor.map(text_of, [1, 2]), Iterator[str])


def decorated() -> None:
    marked = futures.task(retries=2)(text_of)
    assert_type(marked(3), str)
    assert_type(futures.submit(marked, 3).result(), str)


def test_the_package_says_that_it_is_typed() -> None:
    assert files("resilient_scoop").joinpath("py.typed").is_file()
