"""Futures that a parent waits for, and their callbacks. The order of completion is recorded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from resilient_scoop.core.parent.call import Watch
from resilient_scoop.core.parent.history import Question
from resilient_scoop.futures import _engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.futures._engine import Here, Limit


class Waited(Protocol):
    """An awaited future."""

    number: int  # number of its batch
    index: int  # index in its batch

    def settled(self) -> bool:
        """Return whether its outcome has arrived."""

    def arrival(self) -> int:
        """Return the sort key of settled ones."""

    def awaited(self) -> tuple[Call, int]:
        """Return its call, and its index there."""

    def has_failed(self) -> bool:
        """Return whether its outcome is an exception."""

    def learn(self) -> None:
        """Decode the outcome, and run callbacks."""


T = TypeVar("T", bound=Waited)


class Pending(Generic[T]):
    """Futures of one parent whose outcomes it does not know yet, and which of them are settled.

    Outcomes are noted as they arrive, so that waiting for many futures does not check each of them.
    """

    def __init__(self, at: Here, futures: Iterable[T] = ()) -> None:
        self._at = at
        self._waiting: dict[int, list[T]] = {}  # by the number of their batch
        self._count = 0
        self._settled: dict[T, None] = {}
        self._watch = Watch()
        at.parent.calls.add_watch(self._watch)
        self.failed = False  # a settled one has failed
        for future in futures:
            self.add(future)

    def __len__(self) -> int:
        return self._count

    @property
    def settled(self) -> int:
        """How many are settled."""
        return len(self._settled)

    def enter(self) -> Here:
        """Return the place of the parent, which must be running here.

        Raises:
            RuntimeError: called in another parent, or in a thread of user code.
        """
        _engine.enter(self._at, "these futures")
        return self._at

    def add(self, future: T) -> None:
        """Wait for one more."""
        self._waiting.setdefault(future.number, []).append(future)
        self._count += 1
        self._watch.calls.add(future.number)
        if future.settled():
            self._settle(future)

    def _settle(self, future: T) -> None:
        self._settled[future] = None
        self.failed = self.failed or future.has_failed()

    def discard(self, future: T) -> None:
        """Stop waiting for a future: the parent knows its outcome."""
        siblings = self._waiting.get(future.number, [])
        if future in siblings:
            siblings.remove(future)
            self._count -= 1
            self._settled.pop(future, None)
            if not siblings:
                del self._waiting[future.number]
                self._watch.calls.discard(future.number)

    def hear(self) -> Pending[T]:
        """Process outcomes that have arrived since the last time (in a turn)."""
        arrived = self._watch.arrived
        while arrived:
            for future in self._waiting.get(arrived.popleft(), ()):
                if future.settled():
                    self._settle(future)
        return self

    def settled_now(self) -> list[T]:
        """Return the settled ones (in a turn)."""
        self.hear()
        return list(self._settled)

    def waiting(self) -> list[T]:
        """Return all of them."""
        return [future for siblings in self._waiting.values() for future in siblings]

    def look(self) -> bytes:
        """Return the settled ones, in the order of completion, for the parent's record."""
        with self._at.session.turn():
            settled = sorted(self.settled_now(), key=lambda each: each.arrival())
        return b" ".join(b"%d:%d" % (each.number, each.index) for each in settled)

    def named(self, answer: bytes) -> list[T | None]:
        """Return the futures that `look` named; None in place of one that is not waited for.

        Older journals name places in the list of all waiting futures.
        """
        names = answer.split()
        if names and b":" not in names[0]:
            waiting = self.waiting()
            places = map(int, names)
            return [waiting[place] if place < len(waiting) else None for place in places]
        found: list[T | None] = []
        for name in names:
            number, index = map(int, name.split(b":"))
            siblings = self._waiting.get(number, ())
            found.append(next((future for future in siblings if future.index == index), None))
        return found

    def take(self, answer: bytes) -> list[T]:
        """Return the futures that `look` named, now settled and known to the parent.

        Futures that are not waited for are left out.
        """
        chosen = [future for future in self.named(answer) if future is not None]
        for future in chosen:
            self.discard(future)
        for future in chosen:
            _engine.block(self._at, future.settled)
            future.learn()
        return chosen


def next_settled(
    pending: Pending[T],
    limit: Limit | None,
    enough: Callable[[Pending[T]], bool],
    *,
    least: int = 1,
    most: int = 1,
    is_exact: bool = True,
) -> list[T]:
    """Wait until enough are settled; return them in the order of arrival, none after a timeout.

    Fewer futures than `least` are never enough; `most` are, and fewer only if one has failed. A
    recorded answer counts only if it could be one here: a changed script may wait for other futures,
    for more, or without a limit. Unless `is_exact`, it may also name futures that are not waited for yet.
    """
    at = pending.enter()

    def live() -> bytes:
        _engine.block(at, lambda: enough(pending.hear()), None if limit is None else limit.until)
        return pending.look()

    def fits(answer: bytes) -> bool:
        named = pending.named(answer)
        found = sum(each is not None for each in named)
        is_whole = found == len(named) or not is_exact
        return is_whole and (limit is not None or found >= least)

    def rests_on(answer: bytes) -> list[tuple[Call, int]]:
        if limit is None:
            return []
        named = [future for future in pending.named(answer) if future is not None]
        return [each.awaited() for each in (named if len(named) >= most else pending.waiting())]

    question = Question("settled", fits=fits, rests_on=rests_on)
    answer = _engine.observe(at, question, live, limit)
    if limit is not None and not _is_enough(pending, at, answer, least, most):
        _engine.in_vain(at)
    chosen = pending.take(answer)
    run_callbacks(at)
    return chosen


def _is_enough(pending: Pending[T], at: Here, answer: bytes, least: int, most: int) -> bool:
    """Return whether a wait ended because enough were settled, and not because its time was over."""
    chosen = [future for future in pending.named(answer) if future is not None]
    if len(chosen) >= most or least == most:
        return len(chosen) >= most
    for future in chosen:
        _engine.block(at, future.settled)
    return any(future.has_failed() for future in chosen)


def any_settled(pending: Pending[Any]) -> bool:
    """Return whether one is settled."""
    return pending.settled > 0


def listen(at: Here, future: Waited) -> None:
    """Run a future's callbacks when the parent learns its outcome."""
    if at.context.listeners is None:
        at.context.listeners = Pending(at)
        at.session.call_back = functools.partial(run_callbacks, at)
    at.context.listeners.add(future)


def run_callbacks(at: Here) -> None:
    """Run the callbacks of settled futures; their order is recorded for the parent."""
    listeners: Pending[Waited] | None = at.context.listeners
    if not listeners:
        return
    answer = _engine.observe(at, Question("callbacks"), listeners.look)
    if at.context.called_back is None:
        listeners.take(answer)
    else:
        at.context.called_back.append(answer)


def call_back(at: Here, call: Callable[[], None]) -> None:
    """Run a future's callbacks, and then those of futures that were settled while they waited.

    A callback does not start in the middle of another one, which may hold a lock.
    """
    context = at.context
    if context.called_back is not None:  # a callback has asked for this same future
        call()
        return
    later = context.called_back = []
    try:
        call()
        while later:
            context.listeners.take(later.pop(0))
    finally:
        context.called_back = None
