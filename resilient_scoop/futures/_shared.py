"""Calls of any thread of the script's process, and of executors: found again by their content.

The main thread's own calls (`futures.submit`, `futures.map`) have an order, which a replay repeats.
Threads have none, so their calls belong to a second parent, `ids.SHARED`, whose calls get their
numbers from function and arguments (`core.parent.by_content`). Their futures are those of
`concurrent.futures`: any thread may wait for them, and callbacks run in a thread of ours.

  SH1  Each call has one future, which gets one outcome: that of the journal, or an error that says why
       there will be none (`close`).
  SH2  Values are unpickled and callbacks are run outside of turns: user code may make calls there.
  SH3  A call that an earlier attempt canceled is computed: it is made once more, as the next equal one.
  SH4  A future without a condition has neither waiters nor callbacks. Whether it gets its outcome without
       one is decided under one lock, so that no one who comes in between misses the outcome.
  SH5  A callback that waits for a future delivers outcomes meanwhile, as its thread is the one that does.
       No other callback starts in the middle of it, as it may hold a lock.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import itertools
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from resilient_scoop import ids
from resilient_scoop.core.parent.call import Watch
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import UsageError
from resilient_scoop.futures import _engine
from resilient_scoop.identity.digest import digest_scalars, has_met, take_met
from resilient_scoop.payload import payload as codec
from resilient_scoop.processes.here import Process
from resilient_scoop.processes.pump import LINGER_S
from resilient_scoop.wire.broker_errors import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.processes.connection import Connection
    from resilient_scoop.processes.pump import Pump
    from resilient_scoop.wire.messages import Define, Options

T = TypeVar("T")
_LOOK_S: Final = 0.25
_NO_FILES: Final[dict[int, int]] = {}
_PENDING: Final = "PENDING"
_FINISHED: Final = "FINISHED"
_CANCELED: Final = "CANCELLED"
"""The state of a future of `concurrent.futures` that is canceled while those who wait were not told."""
_DONE: Final = (_FINISHED, _CANCELED, "CANCELLED_AND_NOTIFIED")
BUFFER: Final = 1024
"""Calls under way of a map over an iterable without a length."""
_IN_CALLBACK: Final = (
    "a callback of a future cannot {}: it runs in the thread that delivers results, which would wait for "
    "itself"
)
_WAIT: Final = "wait in `concurrent.futures` (call `.result()` of each future)"
_STRICT: Final = (
    "futures were used {}: with --strict, a replay must repeat every call in its order, which threads and "
    "coroutines do not have; make calls and wait for them in the script's main thread, with "
    "resilient_scoop.futures, or run without --strict"
)


class _SentCall(NamedTuple):
    """The values of a call that are sent."""

    define: Define
    digests: bytes
    payloads: list[bytes]
    files: dict[int, int]
    arg: Any


def tell_of_cancel(future: cf.Future[Any]) -> None:
    """Notify waiters once that a future is canceled: two threads may call this."""
    with future._condition:  # noqa: SLF001 - the states are those of the base class
        if future._state == _CANCELED:  # noqa: SLF001 - as `concurrent.futures` reads it, without its lock
            future.set_running_or_notify_cancel()


class _Delivering(threading.local):
    """The state of a thread of callbacks: whose outcomes it delivers, how many of its callbacks wait."""

    calls: SharedCalls | None = None
    waits = 0


_delivering: Final = _Delivering()


def deliver_until(is_over: Callable[[], bool], timeout: float | None) -> float | None:
    """In a callback that waits: deliver outcomes until `is_over()` or a time limit.

    Return the rest of the time.

    The thread of the callback is the one that delivers outcomes. In other threads this does
    nothing.
    """
    calls = _delivering.calls
    if calls is None:
        return timeout
    until = None if timeout is None else time.monotonic() + timeout
    _delivering.waits += 1
    try:
        calls.deliver(is_over, until)
    finally:
        _delivering.waits -= 1
    return None if until is None else max(0.0, until - time.monotonic())


def refuse_in_callback(what: str, owner: SharedCalls | None = None) -> None:
    """Raise RuntimeError in a callback of the owner's calls (None: of calls of this process).

    The requested operation would wait for the callback itself.
    """
    calls = _delivering.calls
    if calls is not None and (owner is None or owner is calls):
        raise RuntimeError(_IN_CALLBACK.format(what))


class DeliveredFuture(cf.Future[T]):
    """A future that gets its outcome in a thread of callbacks.

    A callback that waits does not see other callbacks begin (SH5).
    """

    _waiting: list[Any]

    @property
    def _waiters(self) -> list[Any]:
        if not self.done():
            refuse_in_callback(_WAIT, getattr(self, "calls", None))
        return self._waiting

    @_waiters.setter
    def _waiters(self, waiters: list[Any]) -> None:
        self._waiting = waiters

    def _invoke_callbacks(self) -> None:
        calls = _delivering.calls
        if calls is not None and _delivering.waits:
            calls.run_later(super()._invoke_callbacks)  # type: ignore[misc]  # no part of the stubs
        else:
            super()._invoke_callbacks()  # type: ignore[misc]  # no part of the stubs


_making: Final = threading.Lock()


class SharedFuture(DeliveredFuture[T]):
    """A call of a thread or an executor; `path` is its identity in the run, `callable` the name.

    Most futures are done before anyone waits for them. So the condition, which takes longer to make than
    all else, is made when it is first used (SH4).
    """

    _state = _PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _own_condition: threading.Condition | None = None
    pending: dict[Any, None] | None = None
    """Futures of its executor that are not done: it is one of them until it is done."""
    made: _SentCall | None = None  # if the outcome may come from the history
    is_given_up = False  # this process has asked to cancel it
    number = index = 0

    def __init__(self, calls: SharedCalls, name: str) -> None:
        # The base class would make the condition.
        self.calls = calls
        self.call: Call | None = None  # until it has its outcome
        self.callable = name

    @property
    def _condition(self) -> threading.Condition:
        found = self._own_condition
        if found is None:
            with _making:
                found = self._own_condition
                if found is None:
                    self._waiters = []
                    self._done_callbacks: list[Any] = []
                    found = self._own_condition = threading.Condition()
        return found

    @_condition.setter
    def _condition(self, condition: threading.Condition) -> None:
        self._own_condition = condition

    def finish(self, value: Any, error: BaseException | None) -> bool:
        """Set the outcome if there is no waiter and no callback; return whether it was set (SH4)."""
        with _making:
            if self._own_condition is not None or self._state != _PENDING:
                return False
            self._result, self._exception = value, error
            self._state = _FINISHED
        return True

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome, unless it is canceled; notify waiters, and run callbacks."""
        if self.set_running_or_notify_cancel():
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)

    def done(self) -> bool:
        """Return whether it has its outcome."""
        return self._state in _DONE

    def result(self, timeout: float | None = None) -> T:
        """Wait for the value and return it; raise the exception of the call.

        Raises:
            TimeoutError: there was no outcome within `timeout` seconds.
            concurrent.futures.CancelledError: it was canceled.
        """
        if self._state == _FINISHED and self._exception is None:
            value: Any = self._result
            return value  # type: ignore[no-any-return]  # the value of a call is of any type
        return super().result(deliver_until(self.done, timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the exception of the call, and return it; None if it has a value.

        Raises:
            TimeoutError: there was no outcome within `timeout` seconds.
            concurrent.futures.CancelledError: it was canceled.
        """
        return super().exception(deliver_until(self.done, timeout))

    def open(self, call: Call) -> None:
        """Wait for a call."""
        self.call = call
        self.number = call.number

    @property
    def path(self) -> str:
        """Its identity in the run."""
        return ids.item_path(ids.SHARED, self.number, 0)

    def note_done(self) -> None:
        """Note that its executor need not wait for it any more."""
        if self.pending is not None:
            self.pending.pop(self, None)

    def _repr_html_(self) -> str:
        from resilient_scoop.runs import html_text

        state = "canceled" if self.cancelled() else "done" if self.done() else "pending"
        error = self.exception() if state == "done" else None
        return html_text.future(self.path, self.callable, state, error)

    def __reduce__(self) -> str:
        raise TypeError(f"a future cannot be pickled: {self.__rscoop_advice__()}")

    def __rscoop_advice__(self) -> str:
        """Return advice for the error that it cannot be pickled."""
        return f"pass the result of future {self.path} (`.result()`)"

    def cancel(self) -> bool:
        """Try to cancel it; return whether it worked: no worker had started it."""
        if self.done():
            return self.cancelled()
        return self.calls.cancel(self)

    def withdraw(self) -> bool:
        """Cancel the future in this process, and notify waiters."""
        if not super().cancel():
            return self.cancelled()
        tell_of_cancel(self)
        self.note_done()
        return True


class SharedCalls:
    """All calls of one process that are found by content, and their waiting futures."""

    def __init__(self, session: Connection) -> None:
        machine = session.machine
        assert machine.root is not None, "the script's process is granted the root"
        self.session = session
        self.pumping: Pump = session.pump_by_thread()
        self._waiting: dict[int, SharedFuture[Any]] = {}
        self._watch = Watch()
        self._watched: Parent | None = None  # the script's own calls, once its futures have views
        self._shown_watch = Watch()
        self._shown: dict[int, list[Callable[[], bool]]] = {}
        self._due: deque[Callable[[], None]] = deque()
        self._lock = threading.RLock()  # one call is being encoded at a time
        self._cancelling = threading.Lock()  # one cancellation at a time
        self._made_count = 0
        self._idle = True  # set while no outcome is being delivered
        self._closed: BaseException | None = None
        known = machine.callables.known
        self.parent = Parent(
            ids.SHARED, machine.root, True, Process.policy, Process.tell_user,  # noqa: FBT003 - positions, as `Parent` has them
            lambda fn: known[fn].name if fn in known else fn.hex(),
        )  # fmt: skip
        self._at = _engine.Here(session, session.context, self.parent)
        with session.turn():
            machine.parents[ids.SHARED] = self.parent
            self.parent.calls.add_watch(self._watch)
            self.pumping.each_turn.append(self._each_turn)
        self.pumping.wake()
        self._thread = threading.Thread(target=self._deliver, name="rscoop-results", daemon=True)
        self._thread.start()

    def submit(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        pending: dict[Any, None] | None = None,
    ) -> SharedFuture[Any]:
        """Make a call; return its future, which stays in `pending` until it is done.

        Raises:
            TypeError: the function is not callable. PicklingFailedError: it or an argument cannot be
            pickled. RuntimeError: the session is closed.
        """
        if kwargs:
            style, arg = _engine.KEYWORDS, (args, kwargs)
        elif len(args) == 1:
            style, arg = _engine.ONE, args[0]
        else:
            style, arg = _engine.STAR, args
        at = self._at
        with self._lock:
            self._check()
            define = _engine.definition(function, style, options)
            payload = _engine.encode_scalar(arg) if style == _engine.ONE else None
            if payload is not None and not has_met():
                payloads, files = [payload], _NO_FILES
                digests = digest_scalars(payloads)
            else:
                digests, payloads, files = _engine.encode(at, define, [arg])
                if has_met():
                    define = _engine.bringing(define, take_met())
            future: SharedFuture[Any] = SharedFuture(self, define.name)
            if pending is not None:
                pending[future] = None
                future.pending = pending
            if not self._open(future, _SentCall(define, digests, payloads, files, arg)):
                future.note_done()
                self._check()
            self._made_count += 1
        if _engine.has_enough(at):
            self.pumping.wait_for(lambda: self.refusal() is not None or not _engine.has_enough(at))
        return future

    def _open(self, future: SharedFuture[Any], made: _SentCall) -> bool:
        """Make a call for a future; return False if another thread has closed this."""
        session, parent = self.session, self.parent
        with session.turn():
            if self._closed is not None:
                return False
            session.machine.define(made.define)
            call = parent.begin_found(made.define.fn, made.define.fingerprint, made.digests)
            future.open(call)
            self._waiting[call.number] = future
            self._watch.calls.add(call.number)
            if made.files:
                session.keep_files(parent.path, call.number, {0: made.payloads[0][1:]})
            parent.add(call, made.digests, made.payloads, last=True, files=made.files)
            now = time.monotonic()
            # otherwise the pump sends it, together with later calls
            if now - session.flushed_at > LINGER_S:
                session.flush(now)
            if parent.history.replaying or not call.left:
                future.made = made
            if not call.left:  # the history has its result
                self._watch.hear(call.number)
                self.pumping.announce()
        self.pumping.wake()
        return True

    def counts(self) -> tuple[int, int]:
        """Return how many calls have their outcome, and how many were made; callable from any thread."""
        made = self._made_count
        return max(0, made - len(self._waiting)), made

    def _open_again(self, future: SharedFuture[Any], made: _SentCall) -> None:
        """Make a call that an earlier attempt canceled, as the next equal one (SH3)."""
        future.made = None
        error: BaseException | None = None
        try:
            if made.files:  # which are removed with the canceled call
                with self._lock:
                    digests, payloads, files = _engine.encode(self._at, made.define, [made.arg])
                made = _SentCall(made.define, digests, payloads, files, made.arg)
            if not self._open(future, made):
                error = self._closed
        except Exception as failed:  # user code runs during pickling
            error = failed
        if error is not None:
            self._run(future.settle, None, error)
            future.note_done()

    def map(
        self,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        buffersize: int | None,
        options: Options,
    ) -> Iterator[Any]:
        """Return an iterator over the values of a call for each row, in order.

        Iterables with a length are submitted at once, others read ahead by `buffersize`.

        Raises:
            TypeError: there is no iterable. ValueError: `buffersize` is less than 1.
        """
        if not iterables:
            raise TypeError("map() must have at least one iterable")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or at least 1")
        until = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables, strict=False)
        ahead: deque[SharedFuture[Any]] = deque()
        if buffersize is None and any(hasattr(each, "__len__") for each in iterables):
            ahead.extend(self.submit(function, row, {}, options) for row in rows)
        size = buffersize or BUFFER
        ahead.extend(
            self.submit(function, row, {}, options)
            for row in itertools.islice(rows, max(0, size - len(ahead)))
        )
        return self._values(function, ahead, rows, until, options)

    def _values(
        self,
        function: Callable[..., Any],
        ahead: deque[SharedFuture[Any]],
        rows: Iterator[tuple[Any, ...]],
        until: float | None,
        options: Options,
    ) -> Iterator[Any]:
        try:
            while ahead:
                left_s = None if until is None else max(0.0, until - time.monotonic())
                value = ahead[0].result(left_s)
                ahead.popleft()
                ahead.extend(
                    self.submit(function, row, {}, options) for row in itertools.islice(rows, 1)
                )
                yield value
        finally:
            self.cancel_all(ahead)

    def _check(self) -> None:
        refusal = self.refusal()
        if refusal is not None:
            raise refusal.with_traceback(None)

    def cancel(self, future: SharedFuture[Any]) -> bool:
        """Ask the broker to cancel a call; return whether no worker had started it."""
        self.cancel_all([future])
        return future.cancelled()

    def cancel_all(self, futures: Iterable[SharedFuture[Any]]) -> None:
        """Cancel the calls that no worker has started: one message asks for all of them."""
        parent, session = self.parent, self.session
        cancels = parent.cancels
        asked: list[SharedFuture[Any]] = []
        canceled: list[SharedFuture[Any]] = []
        with self._cancelling:
            with session.turn():
                if self._closed is not None:
                    return  # they have got that error, and there is no connection any more
                for future in futures:
                    if not future.done() and future.call is not None and future.call.left:
                        future.is_given_up = True
                        parent.ask_cancel(future.number, 0)
                        asked.append(future)
                session.pump()
            self.pumping.wake()
            for future in asked:

                def is_over(future: SharedFuture[Any] = future) -> bool:
                    is_answered = cancels.is_answered(future.number, 0)
                    return is_answered or future.done() or self.refusal() is not None

                self.pumping.wait_for(is_over)
                with session.turn():
                    is_canceled = cancels.end(future.number, 0)
                if is_canceled:
                    canceled.append(future)
        for future in canceled:  # without the lock: callbacks may cancel others
            future.withdraw()

    def _each_turn(self) -> None:
        """Ask for the history; end if the run does (in a turn)."""
        session = self.session
        for parent in (self.parent, self._watched if self._shown else None):
            if parent is not None and parent.history.replaying:
                frame = parent.page_wanted()
                if frame is not None:
                    session.send(frame)
                    session.flush(time.monotonic())

    def _is_due(self) -> bool:
        return bool(self._due) or self._has_outcomes()

    def _has_outcomes(self) -> bool:
        if self._watch.arrived or self._shown_watch.arrived:
            return True
        return self._closed is not None or self._is_refused()

    def _is_refused(self) -> bool:
        return self.parent.judge.refusal is not None and bool(self._waiting)

    def _deliver(self) -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # they are the main thread's
        _delivering.calls = self
        arrived = self._watch.arrived
        while self._closed is None:
            if not (self._idle or arrived or self._due or self._shown_watch.arrived):
                self._idle = True
                with self.session.turn():
                    self.pumping.announce()
            self.pumping.wait_for(self._is_due, time.monotonic() + _LOOK_S)
            self._idle = False
            self._take_outcomes()
            while self._due:
                self._run(self._due.popleft())

    def deliver(self, is_over: Callable[[], bool], until: float | None) -> None:
        """Deliver outcomes, in the thread of callbacks, while one of them waits (SH5)."""
        while self._closed is None and not is_over():
            now = time.monotonic()
            if until is not None and now >= until:
                return
            look_at = now + _LOOK_S if until is None else min(until, now + _LOOK_S)
            self.pumping.wait_for(lambda: is_over() or self._has_outcomes(), look_at)
            self._take_outcomes()

    def _take_outcomes(self) -> None:
        arrived = self._watch.arrived
        while arrived:
            self._settle(arrived.popleft())
        while self._shown_watch.arrived:
            self._take_shown(self._shown_watch.arrived.popleft())
        if self._is_refused():
            self._fail(self.parent.judge.refusal)

    def _settle(self, number: int) -> None:
        """Give a future the outcome that has arrived for it (SH1, SH2)."""
        future = self._waiting.get(number)
        call = None if future is None else future.call
        chunk = None if call is None else call.find(0)
        if future is None or chunk is None:
            return
        if self._waiting.pop(number, None) is None:
            return  # another thread has just closed the session
        self._watch.calls.discard(number)
        future.call = None
        value = chunk.values[0]
        made = future.made
        if made is not None:
            future.made = None
        if 0 in chunk.failed and is_cancelled(value):
            if made is None or future.is_given_up:
                future.withdraw()
            else:
                self._open_again(future, made)
            return
        what = f"result of {future.callable}"
        found, error = codec.loads_outcome(
            value, self.session.store, what, failed=0 in chunk.failed
        )
        if not future.finish(found, error):
            self._run(future.settle, found, error)
        future.note_done()

    @staticmethod
    def _run(function: Callable[..., object], *args: object) -> None:
        """Run what may call back into user code; nothing that it does ends the thread."""
        try:
            function(*args)
        except BaseException:  # user code: a callback
            import logging  # takes 3 ms, and is seldom needed

            logging.getLogger("resilient_scoop").exception("a callback of a future raised")

    def run(self, function: Callable[[], None]) -> None:
        """Run a function in the thread of callbacks."""
        with self.session.turn():
            self._due.append(function)
            self.pumping.announce()

    def run_later(self, function: Callable[[], None]) -> None:
        """Run a function in the thread of callbacks, after the callback that waits."""
        self._due.append(function)

    def show(
        self, number: int, is_settled: Callable[[], bool], take: Callable[[], bool], parent: Parent
    ) -> None:
        """Call `take` in the thread of callbacks at each outcome of the script's call, until it is True."""
        with self.session.turn():
            if self._watched is not parent:
                self._watched = parent
                parent.calls.add_watch(self._shown_watch)
            self._shown.setdefault(number, []).append(take)
            self._shown_watch.calls.add(number)
            if is_settled():
                self._shown_watch.hear(number)
                self.pumping.announce()
        self.pumping.wake()

    def _take_shown(self, number: int) -> None:
        with self.session.turn():
            takes = self._shown.pop(number, [])
            self._shown_watch.calls.discard(number)
        left: list[Callable[[], bool]] = []

        def try_to(take: Callable[[], bool]) -> None:
            if not take():
                left.append(take)

        for take in takes:
            self._run(functools.partial(try_to, take))
        if left:
            with self.session.turn():
                self._shown.setdefault(number, []).extend(left)
                self._shown_watch.calls.add(number)

    def _fail(self, error: BaseException | None) -> None:
        """Give the error to every waiting future, because no more outcomes will arrive (SH1)."""
        while True:
            try:
                _, future = self._waiting.popitem()
            except KeyError:  # there is none left: another thread may do the same
                return
            if future.done():
                continue
            if future.set_running_or_notify_cancel():
                self._run(future.set_exception, error)
            future.note_done()

    @property
    def is_drained(self) -> bool:
        """Whether every call has its outcome, and callbacks have been run (in a turn, or not)."""
        if self._closed is not None or self.parent.judge.refusal is not None:
            return True
        return self._idle and not (self._waiting or self._watch.arrived or self._due)

    def drain(self, until: float | None = None) -> bool:
        """Wait until `is_drained`; return whether it is. For threads other than the pump's."""
        return self.pumping.wait_for(lambda: self.is_drained, until)

    def close(self, error: BaseException) -> None:
        """Make no more calls; waiting futures get the error."""
        with self.session.turn():  # a call is made before this point, or not at all
            if self._closed is None:
                self._closed = error
        self._fail(error)
        with self.session.turn():
            self.pumping.announce()

    @property
    def is_closed(self) -> bool:
        """Whether no more calls are made."""
        return self._closed is not None

    def refusal(self) -> BaseException | None:
        """Return why no outcome will come any more."""
        return self._closed or self.parent.judge.refusal


def cancel_all(futures: Iterable[Any]) -> None:
    """Cancel futures of any kind; those of executors and threads with one message."""
    shared: dict[SharedCalls, list[SharedFuture[Any]]] = {}
    for future in futures:
        if isinstance(future, SharedFuture):
            shared.setdefault(future.calls, []).append(future)
        else:
            future.cancel()
    for calls, some in shared.items():
        calls.cancel_all(some)


_lock: Final = threading.Lock()


def check_order(session: Connection) -> None:
    """Raise UsageError if the run is strict: a replay could not repeat the order of such calls."""
    if not session.settings.options.stops_at_differences:
        return
    if _engine.is_in_thread():
        where = f"in thread {threading.current_thread().name}"
    elif _engine.loop_here() is not None:
        where = "in an asyncio loop"
    else:
        where = "by code that waits in a thread"
    raise UsageError(_STRICT.format(where))


def here() -> SharedCalls | None:
    """Return the shared calls of this process; None if it is not the script's.

    Raises:
        UsageError: the run is strict.
    """
    session = Process.session
    if session is None or session.role != "origin":
        return None
    check_order(session)
    with _lock:
        found: SharedCalls | None = session.shared
        if found is None:
            found = session.shared = SharedCalls(session)
    return found
