"""Waiting for several futures. Which of them are done is told to the parent, and told again on replay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from resilient_scoop.futures import _engine
from resilient_scoop.futures._future import Future, decode_paths, encode_paths, run_callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"


class DoneAndNotDoneFutures(NamedTuple):
    """What `wait` returns."""

    done: set[Future[Any]]
    not_done: set[Future[Any]]


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else time.monotonic() + timeout


def next_settled(
    pending: list[Future[Any]],
    until: float | None,
    enough: Callable[[list[Future[Any]]], bool] | None = None,
) -> list[Future[Any]]:
    """Wait until some of the futures are settled (or `enough` are); return them as they arrived.

    An empty list means that the time was up.
    """
    at = pending[0]._at  # noqa: SLF001 - futures of one parent, by construction
    if at is None:
        return pending
    satisfied = enough or bool

    def settled() -> list[Future[Any]]:
        return [future for future in pending if future.settled()]

    def live() -> bytes:
        _engine.block(at, lambda: satisfied(settled()), until)
        return encode_paths(pending, sorted(settled(), key=Future.arrival))

    chosen = decode_paths(pending, _engine.told(at, "settled", live))
    for future in chosen:
        _engine.block(at, future.settled)
        future.learn()
    run_callbacks(at)
    return chosen


def as_completed(fs: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Yield futures as they complete, failed ones too; each once.

    Raises:
        TimeoutError: not all were done `timeout` seconds after the call.
    """
    futures = list(dict.fromkeys(fs))
    return _as_completed(futures, _deadline(timeout))


def _as_completed(futures: list[Future[T]], until: float | None) -> Iterator[Future[T]]:
    done = [future for future in futures if future._seen]  # noqa: SLF001
    pending = [future for future in futures if not future._seen]  # noqa: SLF001
    total = len(futures)
    yield from done
    while pending:
        chosen = next_settled(pending, until)
        if not chosen:
            raise TimeoutError(f"{len(pending)} (of {total}) futures unfinished")
        gone = set(map(id, chosen))
        pending = [future for future in pending if id(future) not in gone]
        yield from chosen


def wait(
    fs: Iterable[Future[Any]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDoneFutures:
    """Wait for futures; return those that are done, failed ones too, and those that are not.

    `timeout` is in seconds; None and negative numbers (SCOOP's default) wait as long as it takes.

    Raises:
        ValueError: `return_when` is none of the three constants.
    """
    if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        raise ValueError(f"return_when is {return_when!r}, not one of the three constants")
    futures = list(dict.fromkeys(fs))
    pending = [future for future in futures if not future._seen]  # noqa: SLF001
    done = len(futures) - len(pending)
    if pending and not (done and return_when == FIRST_COMPLETED):
        next_settled(pending, _deadline(timeout), _enough(return_when, len(pending)))
    finished = {future for future in futures if future._seen}  # noqa: SLF001
    return DoneAndNotDoneFutures(finished, set(futures) - finished)


def _enough(return_when: str, count: int) -> Callable[[list[Future[Any]]], bool]:
    if return_when == FIRST_COMPLETED:
        return bool

    def all_or_failed(settled: list[Future[Any]]) -> bool:
        if len(settled) == count:
            return True
        return return_when == FIRST_EXCEPTION and any(_failed(future) for future in settled)

    return all_or_failed


def _failed(future: Future[Any]) -> bool:
    call = future._call  # noqa: SLF001
    chunk = None if call is None else call.find(future.index)
    return chunk is not None and future.index in chunk.failed
