"""Futures: a parent's objects for its calls."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from resilient_scoop import ids
from resilient_scoop.core.parent.call import Call, OutcomeChunk
from resilient_scoop.core.parent.history import Question
from resilient_scoop.futures import _engine, _pending
from resilient_scoop.payload import payload as codec
from resilient_scoop.wire.broker_errors import is_cancelled
from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.futures._engine import Here
    from resilient_scoop.futures._views import View

T = TypeVar("T")
_STRIDE = 1_000_003
_DECODE_S: Final = 1.0
_decoding: Final = threading.RLock()  # an outcome that is shown to threads is decoded once


class BatchPlace(NamedTuple):
    """The batch of a waiting future."""

    call: int
    fn: bytes
    fingerprint: bytes
    digest: bytes


class Kept(NamedTuple):
    """A future as saved in a checkpoint: its outcome, or its place."""

    callable: str
    item: int
    path: str
    value: Any = None
    error: BaseException | None = None
    place: BatchPlace | None = None  # for a future whose outcome the parent does not know
    payload: bytes | None = None  # the outcome, if it has arrived
    failed: bool = False
    callbacks: Sequence[Callable[[Future[Any]], Any]] = ()
    turn: int = 0  # its place in the order in which its parent learned outcomes


class Future(Generic[T]):
    """A call: its value or exception, now or later.

    The methods are those of `concurrent.futures.Future`; answers that could vary are recorded, so
    that a resumed run gets the same ones. Attributes: `index` (place in its batch), `callable` (its
    name), `path` (its identity in the run).

    It counts as a `concurrent.futures.Future`: `concurrent.futures.wait` and `asyncio.wrap_future`
    take it, and other threads of the script may use it (`futures._views`).

    Two futures are equal if they are the same object. The hash is the number of the batch, so that
    sets of futures iterate in the same order in every replay.
    """

    _is_shown = False  # it has a view, or gets one
    _view: View[T] | None = None  # for other threads and libraries
    _decoded: tuple[Any, BaseException | None] | None = None

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

    def _repr_html_(self) -> str:
        from resilient_scoop.runs import html_text

        if not self._seen:  # what is shown is what the parent knows: to look is no observation
            return html_text.future(self.path, self.callable, "pending", None)
        if self.cancelled():
            return html_text.future(self.path, self.callable, "canceled", None)
        return html_text.future(self.path, self.callable, "done", self._error)

    def __hash__(self) -> int:
        return self.number + self.index * _STRIDE

    def __reduce__(self) -> str:
        raise TypeError(f"a future cannot be pickled: {self.__rscoop_advice__()}")

    def __rscoop_advice__(self) -> str:
        """Return advice for the error that it cannot be pickled."""
        name = f"future {self.path}" if self.path else "this future"
        return (
            f"pass the result of {name} (`.result()`), or have the task make the call: a future "
            "belongs to the parent that made it"
        )

    def keep(self, at: Here) -> Kept:
        """Return its form in a checkpoint of its parent.

        Raises:
            TypeError: it belongs to another parent.
        """
        if self._seen:
            return Kept(
                self.callable, self.index, self.path, self._value, self._error, turn=self._turn
            )
        if self._at is None or self._call is None or self._at.parent is not at.parent:
            raise TypeError(f"future {self.path} belongs to another parent, {self.path}'s own")
        call, index = self._call, self.index
        place = BatchPlace(
            call.number, call.fn, call.fingerprint,
            bytes(ids.digests_of(call.digests, index, index + 1)),
        )  # fmt: skip
        chunk = call.find(index)
        payload = None if chunk is None else chunk.values[index - chunk.start]
        if payload is not None and payload[:1] == FILE:
            payload = (
                None  # a file is removed with the last record that names it: that record is kept
            )
        failed = payload is not None and chunk is not None and index in chunk.failed
        return Kept(
            self.callable, index, self.path, None, None, place, payload, failed, self._callbacks
        )

    @classmethod
    def kept(cls, kept: Kept) -> Future[Any]:
        """Return the saved future; a waiting one must be connected by `revive`."""
        place = ids.parse_item(kept.path)
        number = 0 if place is None else place[1]
        future: Future[Any] = cls(None, None, kept.callable, kept.item, number)
        future.path = kept.path
        if kept.place is None:
            future._seen, future._value, future._error = True, kept.value, kept.error
            future._turn = kept.turn
        return future

    def revive(self, at: Here, kept: Kept) -> None:
        """Make a saved future wait for its outcome again, in the continued parent."""
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
            self._call.put(OutcomeChunk(self.index, self.index + 1, [kept.payload], failed, 0))
        if self._callbacks:
            self._listen(at)

    def settled(self) -> bool:
        """Return whether the outcome is in this process, even if the parent does not know it yet."""
        return self._seen or (self._call is not None and self._call.find(self.index) is not None)

    def arrival(self) -> int:
        """Return a number by which settled futures are sorted in the order of their arrival."""
        chunk = None if self._call is None else self._call.find(self.index)
        return 0 if chunk is None else chunk.arrival

    @property
    def is_known(self) -> bool:
        """Whether its parent knows its outcome."""
        return self._seen

    def turn(self) -> tuple[int, int, int]:
        """Return the sort key of known futures, in the order in which their parent learned them."""
        return self._turn, self.number, self.index

    def place(self) -> tuple[int, int]:
        """Return the sort key of futures of one parent, in the order of their creation."""
        return self.number, self.index

    def has_failed(self) -> bool:
        """Return whether its outcome is an error (no cancellation), even if the parent does not know it."""
        if self._seen:
            return self._error is not None and not self.cancelled()
        chunk = None if self._call is None else self._call.find(self.index)
        return (
            chunk is not None
            and self.index in chunk.failed
            and not is_cancelled(chunk.values[self.index - chunk.start])
        )

    def parent_here(self) -> Here | None:
        """Return the place of its parent, which must be running here; None for a future without a run.

        Raises:
            RuntimeError: it belongs to another parent, or this is a thread of user code.
        """
        if self._at is not None:
            _engine.enter(self._at, "future", self.path)
        return self._at

    def learn(self) -> None:
        """Decode the outcome, which must be present."""
        if self._seen:
            return
        assert self._at is not None, "a future without a parent is born seen"
        assert self._call is not None, "a future without a parent is born seen"
        chunk = self._call.find(self.index)
        assert chunk is not None, "only what is settled is learnt"
        payload = chunk.values[self.index - chunk.start]
        self._value, self._error = self._decode(payload, failed=self.index in chunk.failed)
        self._seen, self._call = True, None
        if self._view is not None:
            self._view.take()
        context = self._at.context
        context.learned += 1
        self._turn = context.learned
        if self._callbacks:
            if context.listeners is not None:
                context.listeners.discard(self)
            _pending.call_back(self._at, self._call_back)

    def _decode(self, payload: bytes, *, failed: bool) -> tuple[Any, BaseException | None]:
        """Return the value and the error that a payload holds."""
        assert self._at is not None, "a future without a parent is born seen"
        store, what = self._at.session.store, f"result of {self.callable}"
        if not self._is_shown:
            return codec.loads_outcome(payload, store, what, failed=failed)
        # Unpickling runs user code: it may take long, or wait for the thread that waits here.
        alone = _decoding.acquire(timeout=_DECODE_S)
        try:
            if self._decoded is None:
                self._decoded = codec.loads_outcome(payload, store, what, failed=failed)
            return self._decoded
        finally:
            if alone:
                _decoding.release()

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set its outcome (without `rscoop`)."""
        self._seen, self._value, self._error = True, value, error
        self._call_back()

    @property
    def __class__(self) -> Any:
        """`concurrent.futures.Future` for `isinstance`, as soon as that is imported."""
        base = sys.modules.get("concurrent.futures._base")
        return type(self) if base is None else base.Future

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("the class of a future cannot be changed")

    @property
    def _condition(self) -> Any:
        return self.view()._condition  # noqa: SLF001 - read by `concurrent.futures.wait`

    @property
    def _state(self) -> str:
        return self.view()._state  # noqa: SLF001 - read by `concurrent.futures.wait`

    @property
    def _waiters(self) -> list[Any]:
        return self.view()._waiters  # noqa: SLF001 - read by `concurrent.futures.wait`

    def view(self) -> View[T]:
        """Return it as `concurrent.futures` and other threads see it.

        Raises:
            RuntimeError: this is a thread of a task. UsageError: the run is strict.
        """
        if self._view is None:
            from resilient_scoop.futures import _views  # loads `concurrent.futures`, 3 ms

            with _decoding:  # VW1
                self._is_shown = True
                if self._view is None:
                    self._view = _views.view_of(self, self._at)
            self._view.take()  # it may have arrived in between
        return self._view

    def peek(self) -> tuple[Any, BaseException | None] | None:
        """Return the value and the error if the outcome has arrived; callable from any thread."""
        call, at = self._call, self._at
        if not self._seen and call is not None and at is not None:
            with at.session.turn():
                chunk = call.find(self.index)
            if chunk is None and not self._seen:
                return None
            if chunk is not None:
                payload = chunk.values[self.index - chunk.start]
                return self._decode(payload, failed=self.index in chunk.failed)
        return self._value, self._error

    def wait_here(self) -> None:
        """Wait for the outcome in its parent, which must be running here, and learn it."""
        if not self._seen:
            self._await_here(None)

    def claim(self) -> Callable[[], None]:
        """Remove its callbacks; return a function that runs them."""
        claimed: list[Callable[[Future[T]], Any]] = []
        with contextlib.suppress(IndexError):  # the main thread may take them at the same time
            while True:
                claimed.append(self._callbacks.pop(0))
        return lambda: self._call_each(claimed)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the value and return it; raise the exception of the call.

        Raises:
            TimeoutError: there was no outcome within `timeout` seconds.
            concurrent.futures.CancelledError: it was canceled.
        """
        view = self._await(timeout)
        if view is not None:
            return view.result()
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception of the call, None if it returned; waits as `result` does."""
        view = self._await(timeout)
        if view is not None:
            return view.exception()
        if self._error is not None and self.cancelled():
            raise self._error
        return self._error

    def _await(self, timeout: float | None) -> View[T] | None:
        """Wait for the outcome; return the view in a thread, whose future does not learn it."""
        if self._seen:
            return None
        if self._at is not None and _engine.is_in_thread():
            from resilient_scoop.futures import _views  # loads `concurrent.futures`, 3 ms

            view = self.view()
            if not _views.is_done_within(view, timeout):
                raise TimeoutError(f"future {self.path} has no result after {timeout} s")
            return view
        self._await_here(timeout)
        return None

    def _await_here(self, timeout: float | None) -> None:
        if self._seen:
            return
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"
        if timeout is not None:
            limit = _engine.Limit(timeout)

            def live() -> bytes:
                return b"1" if _engine.block(at, self.settled, limit.until) else b"0"

            if _engine.observe(at, self._question("result"), live, limit) == b"0":
                _engine.in_vain(at)
                raise TimeoutError(f"future {self.path} has no result after {timeout} s")
        if not self.settled():
            _engine.block(at, self.settled)
        _pending.run_callbacks(at)
        self.learn()

    def _question(self, kind: str) -> Question:
        """Return a question whose answer depends on the time that the call takes."""
        return Question(kind, self.path, rests_on=lambda _answer: (self.awaited(),))

    def awaited(self) -> tuple[Call, int]:
        """Return its call, and its index there, while its outcome is not known to the parent."""
        assert self._call is not None, "a future without a parent is born seen"
        return self._call, self.index

    def done(self) -> bool:
        """Return whether it has an outcome (including cancellation)."""
        if self._seen:
            return True
        if self._at is not None and _engine.is_in_thread():
            return self.view().done()
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"

        def live() -> bytes:
            with at.session.turn():
                at.session.pump()
                return b"1" if self.settled() else b"0"

        if _engine.observe(at, self._question("done"), live) == b"0":
            _engine.in_vain(at)
            return False
        _engine.block(at, self.settled)
        self.learn()
        return True

    def running(self) -> bool:
        """Return whether it has no outcome yet; this includes a future that waits for a worker."""
        return not self.done()

    def cancelled(self) -> bool:
        """Return whether it was canceled."""
        if self._error is None:
            return self._view is not None and self._view.cancelled()
        from concurrent.futures import CancelledError  # it takes each process 3 ms to load

        return isinstance(self._error, CancelledError)

    def cancel(self) -> bool:
        """Try to cancel it; return whether it worked: no worker had started it.

        Only its parent can cancel it: in another thread, only a canceled future returns True.
        """
        if self._seen:
            return self.cancelled()
        if self._at is not None and _engine.is_in_thread():
            return self.view().cancelled()
        at, call = self.parent_here(), self._call
        assert at is not None, "a future without a parent is born seen"
        assert call is not None, "a future without a parent is born seen"
        parent = at.parent

        def live() -> bytes:
            if self.settled():
                return b"1" if self._ended_cancelled() else b"0"
            with at.session.turn():
                parent.ask_cancel(call.number, self.index)
            cancels, place = parent.cancels, (call.number, self.index)
            try:
                _engine.block(at, lambda: cancels.is_answered(*place) or self.settled())
            finally:
                cancelled = cancels.end(*place)
            if cancelled is None:  # the outcome arrived before the answer, and includes it
                cancelled = self._ended_cancelled()
            return b"1" if cancelled else b"0"

        if _engine.observe(at, Question("cancel", self.path), live) == b"0":
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
        """Call `fn(self)` in this parent when it learns the outcome: when it next waits.

        If the main thread of the script waits for something else (a lock, an event, `time.sleep`), the
        callback runs in a thread. A callback that a thread or an asyncio loop adds belongs to it.

        Exceptions of a callback are logged and not propagated. The further arguments of SCOOP are
        accepted without effect: callbacks run where the future was made.
        """
        del inCallbackThread, inCallbackGroup
        if self._seen:
            self._callbacks.append(fn)
            self._call_back()
            return
        if self._at is not None and self._belongs_elsewhere(fn):
            return
        at = self.parent_here()
        assert at is not None, "a future without a parent is born seen"
        self._callbacks.append(fn)
        if len(self._callbacks) == 1:
            self._listen(at)

    def _listen(self, at: Here) -> None:
        """Arrange that its callbacks run when the outcome arrives."""
        _pending.listen(at, self)
        if at.session.role == "origin" and at.session.look_idle is None:
            from resilient_scoop.futures import _views  # loads `concurrent.futures`, 3 ms

            _views.look_after_callbacks(at)

    def _belongs_elsewhere(self, fn: Callable[[Future[T]], Any]) -> bool:
        """Add the callback of a thread or a running loop; return whether it was one."""
        assert self._at is not None, "a future without a parent is born seen"
        in_thread, loop = _engine.is_in_thread(), _engine.loop_here()
        if not in_thread and loop is None:
            return False
        if in_thread or loop is None or self._at.session.role == "origin":
            self.view().add_done_callback(lambda _: fn(self))
            return True
        from resilient_scoop.futures import _views  # loads `concurrent.futures`, 3 ms

        _views.call_in_loop(loop, self._at, self, fn)
        return True

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        self._call_each(callbacks)

    def _call_each(self, callbacks: Sequence[Callable[[Future[T]], Any]]) -> None:
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # user code
                import logging  # takes 3 ms, and is seldom needed

                name = f"future {self.path}" if self.path else "a future"
                logging.getLogger("resilient_scoop").exception("a callback of %s raised", name)
