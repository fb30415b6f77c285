"""Futures: what a parent holds of an item that it asked for."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from resilient_scoop import ids
from resilient_scoop.adapters import payload as codec
from resilient_scoop.core.call import Call, Chunk
from resilient_scoop.core.durable import revive
from resilient_scoop.futures import _engine
from resilient_scoop.wire.broker_errors import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.core.parent import Call
    from resilient_scoop.futures._engine import Here

T = TypeVar("T")
_FILE = b"B"
_LOG = logging.getLogger("resilient_scoop")


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


class Future(Generic[T]):
    """An item of a call: its value or exception, now or later.

    The methods are those of `concurrent.futures.Future`; what they tell is recorded where it could
    have come out differently, so that a resumed run is told the same. Attributes: `index` (place in
    its call), `callable` (its name), `path` (its identity in the run).
    """

    def __init__(self, at: Here | None, call: Call | None, name: str, index: int = 0) -> None:
        self._at = at
        self._call = call
        self._seen = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[T]], Any]] = []
        self.callable = name
        self.index = index
        self.path = "" if at is None or call is None else f"{at.parent.path}.{call.number}[{index}]"

    def __repr__(self) -> str:
        state = "pending" if not self._seen else "cancelled" if self.cancelled() else "finished"
        return f"<Future {self.path} {self.callable} {state}>"

    def __reduce__(self) -> str:
        raise TypeError(
            f"future {self.path} cannot be sent to a task: it belongs to the parent that made it; "
            "send its result, or have the task make the call"
        )

    def keep(self, at: Here) -> Kept:
        """Return what a checkpoint of its parent keeps of it.

        Raises:
            TypeError: it is another parent's.
        """
        if self._seen:
            return Kept(self.callable, self.index, self.path, self._value, self._error)
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
        future: Future[Any] = cls(None, None, kept.callable, kept.item)
        future.path = kept.path
        if kept.place is None:
            future._seen, future._value, future._error = True, kept.value, kept.error
        return future

    def revive(self, at: Here, kept: Kept) -> None:
        """Have a kept future wait for its outcome again, in the parent that goes on."""
        place = kept.place
        assert place is not None, "what is settled does not wait"
        self._at, self._callbacks = at, list(kept.callbacks)
        if self._callbacks:
            at.context.listeners.append(self)
        if kept.payload is None:
            self._call = revive(
                at.parent, place.call, place.fn, place.fingerprint, self.index, place.digest,
                name=self.callable,
            )  # fmt: skip
            return
        self._call = Call(place.call, place.fn, place.fingerprint)
        failed = frozenset([self.index] if kept.failed else [])
        self._call.put(Chunk(self.index, self.index + 1, [kept.payload], failed, 0))

    # --- what is known ------------------------------------------------------------------------

    def settled(self) -> bool:
        """Return whether the outcome is in this process, told to the parent or not."""
        return self._seen or (self._call is not None and self._call.find(self.index) is not None)

    def arrival(self) -> int:
        """Return a number that orders settled futures by their arrival."""
        chunk = None if self._call is None else self._call.find(self.index)
        return 0 if chunk is None else chunk.arrival

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
        self._call_back()

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
        if isinstance(self._error, concurrent.futures.CancelledError):
            raise self._error
        return self._error

    def _await(self, timeout: float | None) -> None:
        if self._seen:
            return
        at = self._at
        assert at is not None, "a future without a parent is born seen"
        if timeout is not None and timeout >= 0:
            until = time.monotonic() + timeout

            def live() -> bytes:
                return b"1" if _engine.block(at, self.settled, until) else b"0"

            if _engine.told(at, "result", live) == b"0":
                raise TimeoutError(f"future {self.path} has no result after {timeout} s")
        if not self.settled():
            _engine.block(at, self.settled)
        run_callbacks(at)
        self.learn()

    def done(self) -> bool:
        """Return whether it has an outcome (also by being cancelled)."""
        if self._seen:
            return True
        at = self._at
        assert at is not None, "a future without a parent is born seen"

        def live() -> bytes:
            with at.session.lock:
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
        return isinstance(self._error, concurrent.futures.CancelledError)

    def cancel(self) -> bool:
        """Try to cancel it; return whether that came in time: no worker had begun it yet."""
        if self._seen:
            return self.cancelled()
        at, call = self._at, self._call
        assert at is not None, "a future without a parent is born seen"
        assert call is not None, "a future without a parent is born seen"
        parent = at.parent

        def live() -> bytes:
            if self.settled():
                return b"1" if self._ended_cancelled() else b"0"
            with at.session.lock:
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
        self._callbacks.append(fn)
        if self._seen:
            self._call_back()
        elif self._at is not None:
            self._at.context.listeners.append(self)

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # user code
                _LOG.exception("a callback of future %s raised", self.path)


def run_callbacks(at: Here) -> None:
    """Run the callbacks of what has been settled; which that is, is told to the parent."""
    listeners: list[Future[Any]] = at.context.listeners
    if not listeners:
        return
    waiting = [future for future in listeners if not future._seen]  # noqa: SLF001
    if not waiting:
        listeners.clear()
        return

    def live() -> bytes:
        settled = sorted((f for f in waiting if f.settled()), key=Future.arrival)
        return encode_paths(waiting, settled)

    chosen = decode_paths(waiting, _engine.told(at, "callbacks", live))
    at.context.listeners = [future for future in waiting if future not in chosen]
    for future in chosen:
        _engine.block(at, future.settled)
        future.learn()


def encode_paths(among: list[Future[Any]], chosen: list[Future[Any]]) -> bytes:
    """Return which futures of a list were chosen, in their order."""
    places = {id(future): str(place) for place, future in enumerate(among)}
    return " ".join(places[id(future)] for future in chosen).encode()


def decode_paths(among: list[Future[Any]], told: bytes) -> list[Future[Any]]:
    """Return the futures that `encode_paths` chose; those that a changed script lacks are left out."""
    places = [int(place) for place in told.split()]
    return [among[place] for place in places if place < len(among)]
