"""`Executor`: the interface of `concurrent.futures.Executor`, over a run.

    with Executor(max_workers=4, run="trial7") as executor:
        results = list(executor.map(work, range(1000)))

In a program that `rscoop` did not start, it opens a session (`resilient_scoop.session`). In the script
of a run it uses the run. In both, calls are found again by function, arguments, and how often the
same call was made before; futures are those of `concurrent.futures`, any thread may use them, and
callbacks run in a thread. In a task it uses `futures.submit`: a task that waits makes room for
others.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import itertools
import os
import threading
import time
import weakref
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypeVar

from resilient_scoop import hashing, this_process
from resilient_scoop.errors import SessionClosedError
from resilient_scoop.futures._shared import cancel_all, refuse_in_callback
from resilient_scoop.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resilient_scoop.wire.messages import Options

P = ParamSpec("P")
T = TypeVar("T")
_STOPPED: Final = "cannot schedule new futures after shutdown"
_ENDED: Final = "cannot schedule new futures after interpreter shutdown"


class _Interpreter:
    ends = False


def _note_end() -> None:
    _Interpreter.ends = True


class Executor(cf.Executor):
    """Computes calls on the workers of a run.

    Args:
        max_workers: worker processes of the session that is opened; None: one per core that this
            process may use. A run that `rscoop` started keeps its own number.
        run: name of the session's run, which is continued if it is known; None: the run is removed
            at the end. Not for a run that `rscoop` started.
        initializer, initargs: called once in each worker, before its first call of an executor that has
            this initializer with these arguments. If it raises, the executor is broken.
        session: an open session, which stays open when the executor is shut down.

    Raises:
        ValueError: `max_workers` is less than 1. TypeError: `initializer` is not callable.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        run: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        session: Session | None = None,
        **settings: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._initializer = initializer and _Initializer(initializer, tuple(initargs))
        # What the last call with an initializer called; calls of one function have one definition.
        self._last: tuple[Callable[..., Any], Callable[..., Any], Options] | None = None
        self._lock = threading.RLock()  # pickling an argument runs user code, which may make calls
        self._shut = False
        self._broken: str | None = None
        # Unfinished futures, in the order of their calls:
        self._pending: dict[Any, None] = {}
        self._session, self._owns = session, False
        self._place = _place_here()
        if self._place is None and session is None:
            self._session = Session(run, workers=max_workers, **settings)
            self._session.broken_as = _broken_pool
            self._owns = True
        self._max_workers = self._count(max_workers)
        _watch_the_end()

    def _count(self, asked: int | None) -> int:
        if self._session is not None:
            return self._session.workers
        return asked or this_process.SIZE or os.cpu_count() or 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> cf.Future[T]:
        """Submit `fn(*args, **kwargs)`; return its future.

        A callable or an argument that cannot be pickled is an error of the future, as everything
        else that happens to the call.

        Raises:
            RuntimeError: the executor is shut down, or the interpreter ends. BrokenExecutor: its
            initializer has failed, or its session has ended.
        """
        with self._lock:
            if self._broken:
                raise BrokenProcessPool(self._broken)
            if self._shut:
                raise RuntimeError(_STOPPED)
            if _Interpreter.ends:
                raise RuntimeError(_ENDED)
            future: Any = self._made(fn, args, kwargs)
        if self._initializer is not None:
            future.add_done_callback(self._note_broken)
        return future  # type: ignore[no-any-return]  # typed `Any` by the calls

    def _made(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        options = None
        try:
            if self._initializer is not None:
                if self._last is None or self._last[0] is not fn:
                    wrapped = functools.partial(_initialized, self._initializer, fn)
                    self._last = fn, wrapped, _options_of(fn)
                _, fn, options = self._last
            if self._session is not None:
                return self._session.call(fn, args, kwargs, options, self._pending)
            assert self._place is not None, "there is a session, or a run"
            return self._place(fn, args, kwargs, options, self._pending)
        except SessionClosedError as closed:
            if self._owns:
                raise _broken_pool(closed) from closed
            raise
        except (TypeError, ValueError, AttributeError, OSError, SystemExit) as error:
            return _failed(error)
        except Exception as error:  # pickling runs user code
            if isinstance(error, RuntimeError):
                raise
            return _failed(error)

    def _note_broken(self, future: Any) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, InitializerFailedError) and not self._broken:
            self._broken = str(error)
            _log_as_the_standard_library(error)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over `fn(*row)` for the rows of the zipped iterables, in their order.

        All calls are submitted at once; with `buffersize`, at most this number are in progress.
        `chunksize` has no effect: slices are sized by measured time.

        Raises:
            TimeoutError: at an item without a result `timeout` seconds after the call. ValueError:
            `chunksize` or `buffersize` is less than 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables, strict=False)
        first = rows if buffersize is None else itertools.islice(rows, buffersize)
        futures = [self.submit(fn, *row) for row in first]
        more = iter(()) if buffersize is None else rows
        return _results(weakref.ref(self), fn, futures, more, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - signature of `concurrent.futures`
        """Take no more calls; with `wait`, wait for running ones; end its own session after them."""
        with self._lock:
            first, self._shut = not self._shut, True
            pending = list(self._pending)
        if cancel_futures:
            # As in `ProcessPoolExecutor`, a call for each worker counts as begun.
            begun = self._max_workers if self._owns else 0
            cancel_all(pending[begun:][::-1])  # the last first: no worker has it yet
        if wait:
            refuse = (
                refuse_in_callback if self._session is None else self._session.refuse_in_callback
            )
            refuse("wait for the end of an executor (use shutdown(wait=False))")
            for future in pending:
                _await(future)
            self._close()
        elif first and self._owns:
            threading.Thread(target=self._close, name="rscoop-shutdown", daemon=False).start()

    def terminate_workers(self) -> None:
        """End at once, as `ProcessPoolExecutor` of Python 3.14 does: calls that run end with the session.

        Their futures, and those of calls that have not started, get `SessionClosedError`. In a run that
        `rscoop` started, calls that have not started are canceled; those that run are computed.
        """
        with self._lock:
            self._shut = True
            pending = list(self._pending)
        if self._owns and self._session is not None:
            self._session.close(wait=False)
        else:
            cancel_all(pending[::-1])

    def _close(self) -> None:
        if self._owns and self._session is not None:
            self._session.close()

    def __repr__(self) -> str:
        what = repr(self._session) if self._session is not None else "of this run"
        return f"<Executor {'shut down ' if self._shut else ''}{what}>"

    def _repr_html_(self) -> str:
        from resilient_scoop.runs import html_text

        if self._session is not None and not self._shut:
            return self._session._repr_html_()
        return html_text.table([("executor", repr(self))])


def _await(future: Any) -> None:
    """Wait until a future is done: with a result, an error, or canceled."""
    if isinstance(future, cf.Future):
        cf.wait([future])
    elif not future.cancelled():
        future.exception()


def _broken_pool(error: SessionClosedError) -> BrokenProcessPool:
    """Return the error of calls whose session has ended by itself."""
    broken = BrokenProcessPool(str(error))
    broken.__cause__ = error
    return broken


def _failed(error: BaseException) -> cf.Future[Any]:
    future: cf.Future[Any] = cf.Future()
    future.set_running_or_notify_cancel()
    future.set_exception(error)
    return future


def _results(
    owner: weakref.ref[Executor],
    fn: Callable[..., Any],
    futures: list[Any],
    more: Iterator[tuple[Any, ...]],
    until: float | None,
) -> Iterator[Any]:
    """Yield results in order; no yielded result is kept, and what is not read is canceled."""
    futures.reverse()
    try:
        while futures:
            executor = owner()
            if executor is not None:
                for row in itertools.islice(more, 1):
                    futures.insert(0, executor.submit(fn, *row))
            del executor
            left_s = None if until is None else until - time.monotonic()
            yield _take(futures, left_s)
    finally:
        cancel_all(futures)


def _take(futures: list[Any], left_s: float | None) -> Any:
    future = futures[-1]
    try:
        return future.result(left_s)
    finally:
        if future.done():
            futures.pop()
        del future


def _log_as_the_standard_library(error: InitializerFailedError) -> None:
    import logging

    logging.getLogger("concurrent.futures").critical("Exception in initializer: %s", error)


class InitializerFailedError(BrokenProcessPool):
    """The initializer of an executor raised in a worker."""


class _Initializer:
    """An initializer and its arguments."""

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return _Initializer, (self.function, self.args)

    @functools.cached_property
    def key(self) -> bytes:
        """The key by which a worker recognizes it: different executors may have equal ones."""
        from resilient_scoop.payload import payload

        name = f"initializer of {self.function!r}"
        return hashing.blake2b(payload.dumps((self.function, self.args), name)).digest()


_begun: dict[bytes, str] = {}
"""In a worker: the initializers that have run, and how they failed."""


def _options_of(fn: Callable[..., Any]) -> Options:
    """Return the options of a call that is made through `_initialized`."""
    from resilient_scoop.futures import _options
    from resilient_scoop.values.user_code import describe

    return _options.named(_options.of(fn), describe(fn))


def _initialized(
    initializer: _Initializer, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call a function in a worker, after the initializer."""
    key = initializer.key
    if key not in _begun:
        _begun[key] = ""
        try:
            initializer.function(*initializer.args)
        except BaseException as error:  # noqa: BLE001 - user code
            _begun[key] = f"the initializer of the executor raised {type(error).__name__}: {error}"
    if _begun[key]:
        raise InitializerFailedError(_begun[key])
    return fn(*args, **kwargs)


_Place: TypeAlias = (
    "Callable[[Callable[..., Any], _Args, _Keywords, Options | None, dict[Any, None]], Any]"
)
_Args: TypeAlias = tuple[Any, ...]
_Keywords: TypeAlias = dict[str, Any]


def _place_here() -> _Place | None:
    """Return a function that makes calls in a process of a run; None in any other process.

    A future stays in the given dictionary until it is done.
    """
    from resilient_scoop.processes.here import Process

    if Process.session is None and Process.importing is None:
        return None
    from resilient_scoop import futures
    from resilient_scoop.futures import _api, _options, _shared

    shared = None if Process.importing is not None else _shared.here()
    if shared is not None:
        submit, options_of = shared.submit, _options.of
        return lambda fn, args, kwargs, options, pending: submit(
            fn, args, kwargs, options_of(fn, options), pending
        )

    def in_task(
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options | None,
        pending: dict[Any, None],
    ) -> Any:
        submit = futures.submit if options is None else _api.CallsWithOptions(options).submit
        future: Any = submit(fn, *args, **kwargs)
        pending[future] = None
        future.add_done_callback(lambda done: pending.pop(done, None))
        return future

    return in_task


class _ExecutorHooks:
    are_set = False


def _watch_the_end() -> None:
    if not _ExecutorHooks.are_set:
        _ExecutorHooks.are_set = True
        threading._register_atexit(_note_end)  # type: ignore[attr-defined]  # noqa: SLF001 - as `concurrent.futures` does; it is not public
