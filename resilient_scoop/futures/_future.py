"""Futures: what a parent holds of an item that it asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from resilient_scoop import ids
from resilient_scoop.core.parent.call import Call, Chunk
from resilient_scoop.futures import _engine, _pending
from resilient_scoop.payload import payload as codec
from resilient_scoop.wire.broker_errors import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.futures._engine import Here

T = TypeVar("T")
_FILE = b"B"
_STRIDE = 1_000_003


class Place(NamedTuple):
    """Which call a future that waits belongs to."""

    call: int
    fn: bytes
    fingerprint: bytes
    digest: bytes


class Kept(NamedTuple):
    """What a checkpoint keeps of a future: its outcome, or where it comes from."""

    callable: str
    item: int
    path: str
    value: Any = None
    error: BaseException | None = None
    place: Place | None = None  # of one whose outcome its parent has not been told
    payload: bytes | None = None  # the outcome, if it has arrived
    failed: bool = False
    callbacks: Sequence[Callable[[Future[Any]], Any]] = ()
    turn: int = 0  # its place in the order in which its parent was told of outcomes


class Future(Generic[T]):
    """An item of a call: its value or exception, now or later.

    The methods are those of `concurrent.futures.Future`; what they tell is recorded where it could
    have come out differently, so that a resumed run is told the same. Attributes: `index` (place in
    its call), `callable` (its name), `path` (its identity in the run).

    Two futures are equal if they are the same object. The hash is the number of the call, so that sets
    of futures iterate in the same order in every replay.
    """

    def __init__(
        self, at: Here | None, call: Call | None, name: str, index: int = 0, number: int = 0
    ) -> None:
        self._at = at
        self._call = call
        self.number = number if call is None else call.number
        self._seen = False
        self._turn = 0
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[T]], Any]] = []
        self.callable = name
        self.index = index
        self.path = "" if at is None or call is None else f"{at.parent.path}.{call.number}[{index}]"

    def __repr__(self) -> str:
        state = "pending" if not self._seen else "cancelled" if self.cancelled() else "finished"
        return f"<Future {self.path} {self.callable} {state}>"

    def __hash__(self) -> int:
        return self.number + self.index * _STRIDE

    def __reduce__(self) -> str:
        raise TypeError(f"a future cannot be pickled: {self.__rscoop_advice__()}")

    def __rscoop_advice__(self) -> str:
        """Return what to do instead of pickling it, for the error that names it."""
        name = f"future {self.path}" if self.path else "this future"
        return (
            f"pass the result of {name} (`.result()`), or have the task make the call: a future "
            "belongs to the parent that made it"
        )

    def keep(self, at: Here) -> Kept:
        """Return what a checkpoint of its parent keeps of it.

        Raises:
            TypeError: it is another parent's.
        """
        if self._seen:
            return Kept(
                self.callable, self.index, self.path, self._value, self._error, turn=self._turn
            )
        if self._at is None or self._call is None or self._at.parent is not at.parent:
            raise TypeError(f"future {self.path} belongs to another parent, {self.path}'s own")
        call, index, width = self._call, self.index, ids.DIGEST_BYTES
        place = Place(
            call.number, call.fn, call.fingerprint,
            bytes(call.digests[index * width : (index + 1) * width]),
        )  # fmt: skip
        chunk = call.find(index)
        payload = None if chunk is None else chunk.values[index - chunk.start]
        if payload is not None and payload[:1] == _FILE:
            payload = None  # a file goes with the last record that names it: that one is kept
        failed = payload is not None and chunk is not None and index in chunk.failed
        return Kept(
            self.callable, index, self.path, None, None, place, payload, failed, self._callbacks
        )

    @classmethod
    def kept(cls, kept: Kept) -> Future[Any]:
        """Return the future of which this was kept; one that waits is revived by `revive`."""
        place = ids.parse_item(kept.path)
        number = 0 if place is None else place[1]
        future: Future[Any] = cls(None, None, kept.callable, kept.item, number)
        future.path = kept.path
        if kept.place is None:
            future._seen, future._value, future._error = True, kept.value, kept.error
            future._turn = kept.turn
        return future

    def revive(self, at: Here, kept: Kept) -> None:
        """Have a kept future wait for its outcome again, in the parent that goes on."""
        place = kept.place
        assert place is not None, "what is settled does not wait"
        self._at, self._callbacks = at, list(kept.callbacks)
        if kept.payload is None:
            self._call = at.parent.revive(
                place.call, place.fn, place.fingerprint, self.index, place.digest,
                name=self.callable,
            )  # fmt: skip
        else:
            self._call = Call(place.call, place.fn, place.fingerprint)
            failed = frozenset([self.index] if kept.failed else [])
            self._call.put(Chunk(self.index, self.index + 1, [kept.payload], failed, 0))
        if self._callbacks:
            _pending.listen(at, self)

    # --- what is known ------------------------------------------------------------------------

    def settled(self) -> bool:
        """Return whether the outcome is in this process, told to the parent or not."""
        return self._seen or (self._call is not None and self._call.find(self.index) is not None)

    def arrival(self) -> int:
        """Return a number that orders settled futures by their arrival."""
        chunk = None if self._call is None else self._call.find(self.index)
        return 0 if chunk is None else chunk.arrival

    @property
    def is_known(self) -> bool:
        """Whether its parent has been told its outcome."""
        return self._seen

    def turn(self) -> tuple[int, int, int]:
        """Return what orders known futures as their parent was told of them."""
        return self._turn, self.number, self.index

    def place(self) -> tuple[int, int]:
        """Return what orders futures of one parent as they were made."""
        return self.number, self.index

    def has_failed(self) -> bool:
        """Return whether it is settled by an exception of its own, told to the parent or not."""
        if self._seen:
            return self._error is not None and not self.cancelled()
        chunk = None if self._call is None else self._call.find(self.index)
        return (
            chunk is not None
            and self.index in chunk.failed
            and not is_cancelled(chunk.values[self.index - chunk.start])
        )

    def parent_here(self) -> Here | None:
        """Return where its parent runs, which is here; None for a future of no run.

        Raises:
            RuntimeError: it is another parent's, or this is a thread of the user's own.
        """
        if self._at is not None:
            _engine.enter(self._at, f"future {self.path}")
        return self._at

    def learn(self) -> None:
        """Take the outcome in; it must be settled."""
        if self._seen:
            return
        assert self._at is not None, "a future without a parent is born seen"
        assert self._call is not None, "a future without a parent is born seen"
        chunk = self._call.find(self.index)
        assert chunk is not None, "only what is settled is learnt"
        payload = chunk.values[self.index - chunk.start]
        what = f"result of {self.callable}"
        try:
            value = codec.loads(payload, self._at.session.store, what)
        except codec.UnpicklingFailedError as error:
            self._error = error  # whoever asks again is told again
        else:
            if self.index in chunk.failed:
                self._error = value
            else:
                self._value = value
        self._seen, self._call = True, None
        context = self._at.context
        context.learned += 1
        self._turn = context.learned
        if self._callbacks:
            if context.listeners is not None:
                context.listeners.discard(self)
            _pending.call_back(self._at, self._call_back)

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Give it its outcome (a run without `rscoop`)."""
        self._seen, self._value, self._error = True, value, error
        self._call_back()

    # --- concurrent.futures -------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Return the value, waiting for it; raise what the call raised.

        Raises:
            TimeoutError: it was not there within `timeout` seconds.
            concurrent.futures.CancelledError: it was cancelled.
        """
        self._await(timeout)
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned; waits as `result` does."""
        self._await(timeout)
        if self._error is not None and self.cancelled():
            raise self._error
        return self._error

    def _await(self, timeout: float | None) -> None:
        if self._seen:
            return
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"
        if timeout is not None:
            until = time.monotonic() + timeout

            def live() -> bytes:
                return b"1" if _engine.block(at, self.settled, until) else b"0"

            if _engine.told(at, "result", live) == b"0":
                raise TimeoutError(f"future {self.path} has no result after {timeout} s")
        if not self.settled():
            _engine.block(at, self.settled)
        _pending.run_callbacks(at)
        self.learn()

    def done(self) -> bool:
        """Return whether it has an outcome (also by being cancelled)."""
        if self._seen:
            return True
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"

        def live() -> bytes:
            with at.session.turn():
                at.session.pump()
                return b"1" if self.settled() else b"0"

        if _engine.told(at, "done", live) == b"0":
            return False
        _engine.block(at, self.settled)
        self.learn()
        return True

    def running(self) -> bool:
        """Return whether it has no outcome yet; a future that only waits for a worker counts too."""
        return not self.done()

    def cancelled(self) -> bool:
        """Return whether it was cancelled in time."""
        if self._error is None:
            return False
        from concurrent.futures import CancelledError  # it takes each process 3 ms to load

        return isinstance(self._error, CancelledError)

    def cancel(self) -> bool:
        """Try to cancel it; return whether that came in time: no worker had begun it yet."""
        if self._seen:
            return self.cancelled()
        at, call = self.parent_here(), self._call
        assert at is not None, "a future without a parent is born seen"
        assert call is not None, "a future without a parent is born seen"
        parent = at.parent

        def live() -> bytes:
            if self.settled():
                return b"1" if self._ended_cancelled() else b"0"
            with at.session.turn():
                parent.ask_cancel(call.number, self.index)
            _engine.block(at, lambda: parent.cancelled is not None or self.settled())
            cancelled = parent.cancelled
            if cancelled is None:  # the outcome came before the answer, and says as much
                cancelled = self._ended_cancelled()
            return b"1" if cancelled else b"0"

        if _engine.told(at, "cancel", live) == b"0":
            return False
        _engine.block(at, self.settled)
        self.learn()
        return True

    def _ended_cancelled(self) -> bool:
        chunk = None if self._call is None else self._call.find(self.index)
        assert chunk is not None, "only what is settled has ended"
        return self.index in chunk.failed and is_cancelled(chunk.values[self.index - chunk.start])

    def add_done_callback(
        self,
        fn: Callable[[Future[T]], Any],
        inCallbackThread: object = None,
        inCallbackGroup: object = None,
    ) -> None:
        """Call `fn(self)` in this parent when the outcome is learnt: when the parent next waits.

        What a callback raises is logged and goes no further. SCOOP's further arguments are accepted
        and mean nothing here: callbacks run where the future was made.
        """
        del inCallbackThread, inCallbackGroup
        if self._seen:
            self._callbacks.append(fn)
            self._call_back()
            return
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"
        self._callbacks.append(fn)
        if len(self._callbacks) == 1:
            _pending.listen(at, self)

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # user code
                import resilient_scoop  # its logger loads `logging`, 3 ms, when it is asked for

                resilient_scoop.logger.exception("a callback of future %s raised", self.path)
