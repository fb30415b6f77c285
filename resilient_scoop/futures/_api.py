"""The functions that users call. Plain module-level functions, so that they can be pickled by name."""

from __future__ import annotations

import random
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from resilient_scoop.futures import _engine, _once, _options, _serial
from resilient_scoop.futures._future import Future
from resilient_scoop.futures._maps import Mapping
from resilient_scoop.task_state import rng as streams
from resilient_scoop.wire.messages import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from resilient_scoop.futures._shared import SharedCalls

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")
_ignored: set[str] = (
    set()
)  # ignored keywords that were reported: limited by the keywords in the source


def submit(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Submit `fn(*args, **kwargs)`; return its future at once.

    The arguments are snapshots: the call does not see later changes to them.

    Raises:
        TypeError: `fn` is not callable. PicklingFailedError: `fn` or an argument cannot be pickled;
        the text names the part.
    """
    return _submit(fn, args, kwargs, None)


def _submit(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], given: Options | None
) -> Future[Any]:
    try:
        at = _engine.here()
    except _engine.InThreadError as refused:
        return in_threads(refused).submit(fn, args, kwargs, _options.of(fn, given))  # type: ignore[return-value]  # a future of `concurrent.futures`, with the same interface
    if at is None:
        return _serial.submit(fn, args, kwargs)
    if _engine.loop_here() is not None and _is_unordered(at):
        return in_threads(None).submit(fn, args, kwargs, _options.of(fn, given))  # type: ignore[return-value]  # a future of `concurrent.futures`, with the same interface
    if kwargs:
        style, arg = _engine.KEYWORDS, (args, kwargs)
    elif len(args) == 1:
        style, arg = _engine.ONE, args[0]
    else:
        style, arg = _engine.STAR, args
    define = _engine.definition(fn, style, _options.of(fn, given))
    if style == _engine.ONE:
        quick = _engine.submit_scalar(at, define, arg)
        if quick is not None:
            return Future(at, quick, define.name)
    with at.session.turn():
        call = _engine.open_call(at, define)
    try:
        _engine.add(at, call, define, [arg], last=True)
    except BaseException:  # user code runs during pickling
        at.parent.given_up.name(call, abandoned=False)
        raise
    return Future(at, call, define.name)


def _is_unordered(at: _engine.Here) -> bool:
    """Return whether calls of coroutines are found by content: their order varies (not if strict)."""
    session = at.session
    return session.role == "origin" and not session.settings.options.stops_at_differences


def in_threads(refused: _engine.InThreadError | None) -> SharedCalls:
    """Return the object that makes calls of threads and coroutines.

    Raises:
        InThreadError: this is a thread of a task. UsageError: the run is strict.
    """
    from resilient_scoop.futures import _shared  # only where threads make calls

    found = _shared.here()
    if found is None:
        assert refused is not None, "it has been asked whether this is the script's process"
        raise refused
    return found


def map(
    func: Callable[..., T],
    *iterables: Iterable[Any],
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    **ignored: Any,
) -> Iterator[T]:
    """Return an iterator over `func(*row)` for the rows of the zipped iterables, in their order.

    Iterables with a length are submitted at once; others are read ahead by `buffersize` items
    (default 1,024), so that an endless one is slowed down and not read completely. `chunksize` is
    accepted and has no effect: slices are sized by measured time. Unknown keywords are ignored, as
    in SCOOP, and named in a warning. A failed item raises its exception at its place.

    Raises:
        TimeoutError: at an item without a result `timeout` seconds after the call.
        PicklingFailedError: `func` or an argument cannot be pickled; the text names the part.
    """
    del chunksize
    _warn_of(ignored)
    return _map(Mapping.in_order, func, iterables, timeout, buffersize)


def _warn_of(ignored: dict[str, Any]) -> None:
    """Report each unknown keyword of a map once: `func` does not get them."""
    new = sorted(ignored.keys() - _ignored)
    if not new:
        return
    _ignored.update(new)
    names = ", ".join(f"{name}=" for name in new)
    warnings.warn(
        f"futures.map ignores {names}, as SCOOP does; to give it to the function, map "
        f"functools.partial(function, {new[0]}=...)",
        RuntimeWarning,
        stacklevel=3,
    )


def _map(
    read: Callable[[Mapping, float | None], Iterator[Any]],
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    buffersize: int | None,
    given: Options | None = None,
) -> Iterator[Any]:
    """Begin a map; `read` yields its values in the wanted order."""
    try:
        at = _engine.here()
    except _engine.InThreadError as refused:
        return in_threads(refused).map(
            func, iterables, timeout, buffersize, _options.of(func, given)
        )
    if at is None:
        _serial.warn_once()
        return _serial.mapped(func, iterables)
    if _engine.loop_here() is not None and _is_unordered(at):
        return in_threads(None).map(func, iterables, timeout, buffersize, _options.of(func, given))
    return read(Mapping(at, func, iterables, _options.of(func, given), buffersize), timeout)


def map_as_completed(
    func: Callable[..., T],
    *iterables: Iterable[Any],
    timeout: float | None = None,
    buffersize: int | None = None,
    **ignored: Any,
) -> Iterator[T]:
    """As `map`, but the values are in the order of completion.

    A resumed run gets the same order as the first time.
    """
    _warn_of(ignored)
    return _map(Mapping.as_completed, func, iterables, timeout, buffersize)


def once(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run `fn` here, once per run, and return its value; a replay gets the same value.

    For everything that varies: the clock, UUIDs, files, the network. `fn` may make calls and wait
    for them, too. Its exception is raised again on replay. It returns when the value is on disk;
    after a crash before that, `fn` runs again.

    Raises:
        PicklingFailedError: the value cannot be pickled; a replay gets the same error.
    """
    at = _engine.here()
    if at is None:
        return fn(*args, **kwargs)
    label = _once.label_of(fn, args, kwargs)
    return _once.run(at, label, lambda: fn(*args, **kwargs))  # type: ignore[no-any-return]  # the value of a call is of any type


@overload
def rng(name: str | None = None, *, numpy: Literal[False] = False) -> random.Random: ...


@overload
def rng(name: str | None = None, *, numpy: Literal[True]) -> np.random.Generator: ...


def rng(name: str | None = None, *, numpy: bool = False) -> Any:
    """Return a random stream of the running future, seeded from the run's seed and its path.

    Each call returns another stream; with a `name`, always the stream of that name, so that a new
    stream elsewhere does not change it. With `numpy`, it is a `numpy.random.Generator`.

    Raises:
        ModuleNotFoundError: `numpy=True`, and NumPy is not installed.
    """
    at = _engine.here()
    if at is None:
        if numpy:
            return streams.numpy_stream(None if name is None else zlib.crc32(name.encode()))
        return random.Random(name)  # noqa: S311 - simulation, not cryptography
    context = at.context
    if context.rngs is None:
        context.rngs = streams.StreamBook()
    return context.rngs.obtain(name, at.session.seed_of_mark, numpy=numpy)


class CallsWithOptions:
    """`submit` and `map` with options set; made by `options`."""

    def __init__(self, given: Options) -> None:
        self._given = given

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `futures.submit`."""
        return _submit(fn, args, kwargs, self._given)

    def map(
        self,
        func: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        **ignored: Any,
    ) -> Iterator[T]:
        """As `futures.map`; its `timeout` is for the iterator, the option `timeout` for each item."""
        del chunksize
        _warn_of(ignored)
        return _map(Mapping.in_order, func, iterables, timeout, buffersize, self._given)

    def map_as_completed(
        self,
        func: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        buffersize: int | None = None,
        **ignored: Any,
    ) -> Iterator[T]:
        """As `futures.map_as_completed`."""
        _warn_of(ignored)
        return _map(Mapping.as_completed, func, iterables, timeout, buffersize, self._given)


def options(
    *,
    timeout: float | None = None,
    retries: int = 0,
    retry: Any = None,
    idempotent: bool = True,
    priority: int = 0,
    name: str | None = None,
) -> CallsWithOptions:
    """Return an object with `submit` and `map` whose calls have these options.

    `timeout`: seconds that a try of an item may take, including waits for its own calls; then it is
    ended, and tried again up to `retries` times. `retries`: how often a failed item is tried again;
    `retry`: a tenacity policy instead. `idempotent=False`: never started twice; if its worker is
    lost it fails with `WorkerLostError`. `priority`: higher ones start first. `name`: for display.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """
    return CallsWithOptions(
        _options.make(
            timeout=timeout, retries=retries, retry=retry, idempotent=idempotent,
            priority=priority, name=name,
        )
    )  # fmt: skip


def task(
    *,
    timeout: float | None = None,
    retries: int = 0,
    retry: Any = None,
    idempotent: bool = True,
    priority: int = 0,
    name: str | None = None,
) -> Callable[[F], F]:
    """Set options on a function for all its calls. The arguments are those of `options`."""
    made = _options.make(
        timeout=timeout, retries=retries, retry=retry, idempotent=idempotent,
        priority=priority, name=name,
    )  # fmt: skip
    return lambda function: _options.set_on(function, made)


def shutdown(wait: bool = True) -> None:  # noqa: FBT001, FBT002 - SCOOP's signature
    """Do nothing: the run ends with its script (SCOOP has this function)."""
    del wait
