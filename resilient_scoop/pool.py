"""`Pool`: the methods of `multiprocessing.Pool`, over the run or over an `Executor`.

    from resilient_scoop import Pool

    with Pool() as pool:
        print(pool.map(work, range(1000)))

In a script or task of a run, calls go to the workers of the run, are journaled, and are found again by
a resume. Elsewhere the pool has an `Executor` of its own. Methods, results and errors are those of
`multiprocessing.pool.Pool`, with these differences:

- The number of processes is that of the run. `processes` is the figure that libraries read as `size`
  and `_processes`; it is recorded, so a resume with another number of workers gives the same answer.
- A process calls `initializer` before the first call that it computes for this pool, and again
  after calls of other pools. If it raises, the call fails with its error.
- `chunksize` and `maxtasksperchild` are checked and have no effect.
- `map` and `starmap` raise the error of the first failed item in the order of the items, and give up
  what was not started; the original raises the first to happen, and computes the rest.
- `imap` and `imap_unordered` read ahead by a limited number of items, so an endless iterable works.
- `terminate` ends the processes of the pool, as the original does; in a run it cancels calls that were
  not started; those that run are computed. Results that are then missing raise `SessionClosedError`, or in
  a run `CancelledError`, where the original waits without end.
"""

from __future__ import annotations

import concurrent.futures as cf
import dis
import pickle
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from resilient_scoop import futures, this_process
from resilient_scoop.futures import _options
from resilient_scoop.futures._shared import cancel_all
from resilient_scoop.values.user_code import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import CodeType, TracebackType

    from resilient_scoop.wire.messages import Options

    Callback = Callable[[Any], object] | None
    Rows = Iterable[Sequence[Any]]

__all__ = ["AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult", "Pool"]

READ_AHEAD = 1024
"""How many calls of an `imap` are in progress at most."""
_PRUNE_AT = 1024
"""From how many asynchronous calls on, those that are done are forgotten."""


class PoolFuture(Protocol):
    """The part of a future that a pool needs; ours and those of `concurrent.futures` have it."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise the error."""

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None."""

    def cancel(self) -> bool:
        """Cancel the call if it has not started."""

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call `fn(self)` when it is done."""


class PoolCalls(Protocol):
    """The object that makes the calls of a pool."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolFuture:
        """Submit a call."""

    def map(self, function: Callable[..., Any], /, *columns: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator over the results in order."""

    def wait(
        self, pending: Collection[PoolFuture], timeout: float | None, *, first: bool
    ) -> list[PoolFuture]:
        """Return those that are done, when all are (or the first of them), or time is up."""

    def size(self) -> int:
        """Return the number of workers; the same in each replay."""

    def close(self) -> None:
        """Free what was started, once all calls have ended."""

    def terminate(self) -> bool:
        """End the processes, if they are the pool's own; return whether they were."""


class OfRun:
    """Makes the calls in the run of this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolFuture:
        """Submit a call."""
        return futures.submit(function, *args, **kwargs)

    def map(self, function: Callable[..., Any], /, *columns: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator over the results in order."""
        return futures.map(function, *columns)

    def wait(
        self, pending: Collection[PoolFuture], timeout: float | None, *, first: bool
    ) -> list[PoolFuture]:
        """Return those that are done, when all are, or the first, or time is up."""
        asked: list[Any] = list(pending)
        until = futures.FIRST_COMPLETED if first else futures.ALL_COMPLETED
        done = futures.wait(asked, timeout, until).done
        return [each for each in asked if each in done]

    def size(self) -> int:
        """Return the number of workers; the same in each replay."""
        return futures.once(_workers)

    def close(self) -> None:
        """Do nothing: the run ends with its script."""

    def terminate(self) -> bool:
        """Do nothing: the run has other calls, too."""
        return False


class OfExecutor:
    """Makes the calls with an executor."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolFuture:
        """Submit a call."""
        future: PoolFuture = self._executor.submit(function, *args, **kwargs)
        return future

    def map(self, function: Callable[..., Any], /, *columns: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator over the results in order."""
        values: Iterator[Any] = self._executor.map(function, *columns)
        return values

    def wait(
        self, pending: Collection[PoolFuture], timeout: float | None, *, first: bool
    ) -> list[PoolFuture]:
        """Return those that are done, when all are, or the first, or time is up."""
        return _wait(list(pending), timeout, first=first)

    def size(self) -> int:
        """Return the number of workers."""
        count: int = self._executor._max_workers  # noqa: SLF001 - as dask reads it
        return count

    def close(self) -> None:
        """End the executor."""
        self._executor.shutdown(wait=True)

    def terminate(self) -> bool:
        """End the executor, whatever runs."""
        self._executor.terminate_workers()
        return True


def _wait(asked: list[Any], timeout: float | None, *, first: bool) -> list[PoolFuture]:
    done = cf.wait(asked, timeout, cf.FIRST_COMPLETED if first else cf.ALL_COMPLETED).done
    return [each for each in asked if each in done]


class _Prepared:
    """A function whose process has called an initializer before it.

    A process calls it again after it computed for another pool, and where a global that it set has
    another value since: changes that the script makes are brought to the workers.
    """

    def __init__(
        self,
        initializer: Callable[..., object],
        initargs: tuple[Any, ...],
        function: Callable[..., Any],
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self.function = function

    @property
    def __rscoop_options__(self) -> Options:
        """The options of the function, and its name for display."""
        return _options.named(_options.of(self.function), describe(self.function))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the initializer if this process has not called it yet, then the function."""
        call = (_name_of(self._initializer), pickle.dumps(self._initargs, 5))
        if not _prepared or _prepared[-1].call != call or not _prepared[-1].holds():
            _prepared.clear()
            self._initializer(*self._initargs)
            _prepared.append(_SetGlobals(call, _globals_set_by(self._initializer)))
        return self.function(*args, **kwargs)


class _SetGlobals(NamedTuple):
    """The globals that the last call of an initializer has set in this process."""

    call: tuple[str, bytes]
    globals: list[tuple[dict[str, Any], str, Any]]

    def holds(self) -> bool:
        """Return whether these globals still have the same values."""
        return all(home.get(name) is value for home, name, value in self.globals)


_prepared: list[_SetGlobals] = []
"""The last one in this process; empty before."""


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{getattr(function, '__qualname__', function)}"


def _globals_set_by(function: Callable[..., Any]) -> list[tuple[dict[str, Any], str, Any]]:
    """Return the globals that a function assigns: (module, name, value)."""
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None:
        return []
    home = function.__globals__
    names = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_GLOBAL"}
    return [(home, name, home.get(name)) for name in sorted(names)]


def _workers() -> int:
    return max(1, this_process.SIZE)


def _executor(processes: int | None, run: str | None) -> Any:
    """Return an executor for a pool outside of a run."""
    from resilient_scoop.executor import Executor  # loads sessions, which a run does not need

    return Executor(max_workers=processes, run=run)


def open_calls(processes: int | None = None, run: str | None = None) -> PoolCalls:
    """Return an object that makes calls: in the run of this process, or else with a new executor."""
    if this_process.IS_RUNNING:
        return OfRun()
    return OfExecutor(_executor(processes, run))


class AsyncResult:
    """The result of `apply_async`: a value or an error, now or later."""

    def __init__(
        self, pool: Pool, asked: list[PoolFuture], callback: Callback, failed: Callback
    ) -> None:
        self._pool = pool
        self._asked = asked
        self._callback = callback
        self._error_callback = failed
        if callback is not None or failed is not None:
            self._listen()

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the value and return it; raise the error of the call.

        Raises:
            multiprocessing.TimeoutError: there was no outcome within `timeout` seconds.
        """
        self.wait(timeout)
        if timeout is not None and not self.ready():
            from multiprocessing import TimeoutError as Late

            raise Late
        return self._value()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is done, or for `timeout` seconds."""
        self._pool.calls.wait(self._asked, timeout, first=False)

    def ready(self) -> bool:
        """Return whether it is done."""
        done = self._pool.calls.wait(self._asked, 0, first=False)
        return len(done) == len(self._asked)

    def successful(self) -> bool:
        """Return whether it is done without an error.

        Raises:
            ValueError: it is not done.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error() is None

    def _value(self) -> Any:
        return self._asked[0].result()

    def _error(self) -> BaseException | None:
        return next(filter(None, map(_error_of, self._asked)), None)

    def _listen(self) -> None:
        """Call back, once, when all calls are done."""
        lock, left = threading.Lock(), len(self._asked)

        def one_is_done(_: object) -> None:
            nonlocal left
            with lock:
                left -= 1
                if left:
                    return
            self._call_back()

        for each in self._asked:
            each.add_done_callback(one_is_done)
        if not self._asked:
            self._call_back()

    def _call_back(self) -> None:
        error = self._error()
        callback = self._callback if error is None else self._error_callback
        if callback is not None:
            callback(self._value() if error is None else error)


class MapResult(AsyncResult):
    """The result of `map_async` and `starmap_async`: a list."""

    def _value(self) -> list[Any]:
        return [each.result() for each in self._asked]


class IMapIterator:
    """The results of `imap`, in order. After the error of an item, the next item follows."""

    def __init__(self, pool: Pool, function: Callable[..., Any], rows: Iterable[Any]) -> None:
        self._pool = pool
        self.number = pool.number()
        self._function = function
        self._rows: Iterator[Any] | None = iter(rows)
        self._asked: deque[PoolFuture] = deque()
        self._late: BaseException | None = None
        self.feed(READ_AHEAD)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
            StopIteration: there is none. multiprocessing.TimeoutError: it is not there within
            `timeout` seconds; it can be asked for again.
        """
        self.feed(READ_AHEAD)
        if not self._asked:
            late, self._late = self._late, None
            raise StopIteration if late is None else late
        return self._take(timeout).result()

    def feed(self, count: int | None) -> None:
        """Submit calls until `count` are in progress; all of them, if it is None."""
        while self._rows is not None and (count is None or len(self._asked) < count):
            try:
                row = next(self._rows)
            except StopIteration:
                self._rows = None
            except Exception as error:  # noqa: BLE001 - user code: raised after what came before it
                self._rows, self._late = None, error
            else:
                self._asked.append(self._pool.ask(self._function, (row,), {}))

    def stop(self) -> None:
        """Read no more."""
        self._rows = None

    def _take(self, timeout: float | None) -> PoolFuture:
        first = self._asked[0]
        if timeout is not None and not self._pool.calls.wait([first], timeout, first=True):
            from multiprocessing import TimeoutError as Late

            raise Late
        return self._asked.popleft()


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, in the order of completion; a resumed run repeats it."""

    def __init__(self, pool: Pool, function: Callable[..., Any], rows: Iterable[Any]) -> None:
        self._done: deque[PoolFuture] = deque()
        super().__init__(pool, function, rows)

    def _take(self, timeout: float | None) -> PoolFuture:
        if not self._done:
            found = self._pool.calls.wait(self._asked, timeout, first=True)
            if not found:
                from multiprocessing import TimeoutError as Late

                raise Late
            ids = set(map(id, found))
            self._asked = deque(each for each in self._asked if id(each) not in ids)
            self._done.extend(found)
        return self._done.popleft()

    def next(self, timeout: float | None = None) -> Any:
        """Return a result that is done, as soon as there is one."""
        self.feed(READ_AHEAD)
        if self._done or self._asked:
            return self._take(timeout).result()
        return super().next(timeout)


def _error_of(future: PoolFuture) -> BaseException | None:
    try:
        return future.exception()
    except cf.CancelledError as error:
        return error


class Pool:
    """A pool of processes with the methods of `multiprocessing.pool.Pool`.

    `run` names the session if the process belongs to no run, as in `Executor`.

    Raises:
        ValueError: `processes` or `maxtasksperchild` is less than 1. TypeError: `initializer` is
        not callable.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        run: str | None = None,
    ) -> None:
        del context
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and maxtasksperchild <= 0:
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._given = processes
        self._initializer = initializer and (initializer, tuple(initargs))
        self._last: _Prepared | None = None  # the calls of one function have one definition
        self.calls = open_calls(processes, run)
        self._state: Literal["RUN", "CLOSE", "TERMINATE"] = "RUN"
        self._asked: list[PoolFuture] = []
        self._prune_at = _PRUNE_AT
        self._iterators = 0
        self._reading: weakref.WeakSet[IMapIterator] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<resilient_scoop.Pool state={self._state} pool_size={self._given or 'of the run'}>"

    def __reduce__(self) -> str:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    @property
    def size(self) -> int:
        """The requested number of processes; by default, the number of workers at the start."""
        if self._given is None:
            self._given = self.calls.size()
        return self._given

    _processes = size

    def apply(
        self, func: Callable[..., Any], args: Sequence[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Return `func(*args, **kwds)`."""
        return self.apply_async(func, args, kwds).get()

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
    ) -> list[Any]:
        """Return the list of `func(x)` for each x. `callback` (schwimmbad) gets each result in order."""
        del chunksize
        self._check_running()
        if callback is None:
            return list(self.calls.map(self._prepared(func), iterable))
        results = []
        for value in self.calls.map(self._prepared(func), iterable):
            callback(value)
            results.append(value)
        return results

    def starmap(
        self, func: Callable[..., Any], iterable: Rows, chunksize: int | None = None
    ) -> list[Any]:
        """Return the list of `func(*row)` for each row."""
        self._check_running()
        rows = [tuple(row) for row in iterable]
        if all(rows) and len({len(row) for row in rows}) == 1:
            columns = map(list, zip(*rows, strict=True))
            return list(self.calls.map(self._prepared(func), *columns))
        result: list[Any] = self.starmap_async(func, rows, chunksize).get()
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Return an iterator over the results in order."""
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Return an iterator over the results in the order of completion."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _imap(
        self,
        kind: type[IMapIterator],
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
    ) -> IMapIterator:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        made = kind(self, func, iterable)
        self._reading.add(made)
        return made

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Begin `func(*args, **kwds)`. A callback runs in this process, with the value or error."""
        self._check_running()
        return AsyncResult(self, [self.ask(func, args, kwds or {})], callback, error_callback)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Begin `map`. `callback` gets the list of all results, `error_callback` the first error."""
        del chunksize
        return self.starmap_async(
            func, ((value,) for value in iterable), None, callback, error_callback
        )

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Rows,
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Begin `starmap`."""
        del chunksize
        self._check_running()
        asked = [self.ask(func, row, {}) for row in iterable]
        return MapResult(self, asked, callback, error_callback)

    def close(self) -> None:
        """Accept no more calls."""
        if self._state == "RUN":
            self._state = "CLOSE"

    def terminate(self) -> None:
        """Accept no more calls; end the pool's processes, or cancel what was not started in the run."""
        if self._state == "TERMINATE":
            return
        self._state = "TERMINATE"
        for each in self._readers():
            each.stop()
        if not self.calls.terminate():
            cancel_all(self._not_done()[::-1])  # workers begin with the first call
        self._asked.clear()

    def join(self) -> None:
        """Wait for all calls.

        Raises:
            ValueError: neither `close` nor `terminate` was called before.
        """
        if self._state == "RUN":
            raise ValueError("Pool is still running")
        if self._state == "TERMINATE":
            return
        for each in self._readers():
            each.feed(None)
        if self._asked:
            self.calls.wait(self._asked, None, first=False)
        self._asked.clear()
        self.calls.close()

    def ask(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> PoolFuture:
        """Submit a call, and keep its future for `join` and `terminate`."""
        future = self.calls.submit(self._prepared(function), *args, **kwargs)
        self._asked.append(future)
        if len(self._asked) >= self._prune_at:
            self._asked = self._not_done()
            self._prune_at = max(_PRUNE_AT, 2 * len(self._asked))
        return future

    def number(self) -> int:
        """Return the next number of an iterator."""
        self._iterators += 1
        return self._iterators

    def _readers(self) -> list[IMapIterator]:
        """Return the iterators that are still used, in the order of their creation."""
        return sorted(self._reading, key=lambda each: each.number)

    def _not_done(self) -> list[PoolFuture]:
        if not self._asked:
            return []
        done = set(map(id, self.calls.wait(self._asked, 0, first=False)))
        return [each for each in self._asked if id(each) not in done]

    def _prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self._initializer is None or not callable(function):
            return function
        if self._last is None or self._last.function is not function:
            self._last = _Prepared(*self._initializer, function)
        return self._last

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise ValueError("Pool not running")
