"""Waiting for several futures. Answers about which are done are recorded, and repeated on replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from resilient_scoop.futures import _engine
from resilient_scoop.futures._future import Future
from resilient_scoop.futures._pending import Pending, any_settled, next_settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"


class DoneAndNotDoneFutures(NamedTuple):
    """The result of `wait`."""

    done: set[Future[Any]]
    not_done: set[Future[Any]]


def _is_foreign(fs: Iterable[Any]) -> bool:
    """Return whether `concurrent.futures` waits: in a thread, and for futures of threads."""
    return _engine.is_in_thread() or any(type(each) is not Future for each in fs)


def _listed(fs: Iterable[Future[T]]) -> list[Future[T]]:
    """Return futures without duplicates; those of a set in the order of their creation."""
    futures = list(dict.fromkeys(fs))
    if isinstance(fs, set | frozenset):
        futures.sort(key=Future.place)
    return futures


def _pending(futures: list[Future[Any]]) -> Pending[Future[Any]] | None:
    """Return the futures whose outcomes their parent does not know, which must be running here; or None."""
    waiting = [future for future in futures if not future.is_known]
    at = None
    for future in waiting:
        at = future.parent_here()
    return None if at is None else Pending(at, waiting)


def _all(pending: Pending[Any]) -> bool:
    return pending.settled == len(pending)


def _all_or_failed(pending: Pending[Any]) -> bool:
    return pending.failed or pending.settled == len(pending)


_ENOUGH = {FIRST_COMPLETED: any_settled, FIRST_EXCEPTION: _all_or_failed, ALL_COMPLETED: _all}


def as_completed(fs: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Yield futures in the order of completion, including failed ones; each once.

    Futures that the parent knows to be done come first, in the order in which it learned this.

    Raises:
        TimeoutError: not all were done `timeout` seconds after the call.
    """
    fs = fs if isinstance(fs, set | frozenset) else list(fs)
    if _is_foreign(fs):
        from concurrent import futures as cf

        return cf.as_completed(fs, timeout)  # type: ignore[arg-type,return-value]  # the futures are of both kinds
    return _as_completed(_listed(fs), _engine.Limit.of(timeout))


def _as_completed(futures: list[Future[T]], limit: _engine.Limit | None) -> Iterator[Future[T]]:
    pending = _pending(futures)
    known = sorted((f for f in futures if f.is_known), key=Future.turn, reverse=True)
    total = len(futures)
    futures.clear()  # yielded futures are not kept
    while known:
        yield known.pop()
    while pending:
        chosen = next_settled(pending, limit, any_settled)
        if not chosen:
            raise TimeoutError(f"{len(pending)} (of {total}) futures unfinished")
        chosen.reverse()
        while chosen:
            yield chosen.pop()


def wait(
    fs: Iterable[Future[Any]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDoneFutures:
    """Wait for futures; return those that are done, including failed ones, and those that are not.

    `timeout` is in seconds; None: no limit. Both sets iterate in the same order in every replay.

    Raises:
        ValueError: `return_when` is not one of the three constants.
    """
    if return_when not in _ENOUGH:
        raise ValueError(f"return_when is {return_when!r}, not one of the three constants")
    fs = fs if isinstance(fs, set | frozenset) else list(fs)
    if _is_foreign(fs):
        from concurrent import futures as cf

        return DoneAndNotDoneFutures(*cf.wait(fs, timeout, return_when))  # type: ignore[arg-type]  # the futures are of both kinds
    futures = _listed(fs)
    pending = _pending(futures)
    known = [future for future in futures if future.is_known]
    if pending and not (
        (return_when == FIRST_COMPLETED and known)
        or (return_when == FIRST_EXCEPTION and any(future.has_failed() for future in known))
    ):
        limit, enough = _engine.Limit.of(timeout), _ENOUGH[return_when]
        least = len(pending) if return_when == ALL_COMPLETED else 1
        most = 1 if return_when == FIRST_COMPLETED else len(pending)
        found = next_settled(pending, limit, enough, least=least, most=most)
        is_unlimited = limit is None and return_when == FIRST_EXCEPTION
        while is_unlimited and pending and not any(each.has_failed() for each in found):
            found = next_settled(pending, limit, enough)  # the script waited in another way before
    done = {future for future in futures if future.is_known}
    return DoneAndNotDoneFutures(done, {future for future in futures if not future.is_known})
