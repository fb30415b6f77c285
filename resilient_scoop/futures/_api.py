"""The functions that users call. Plain module-level functions, so that they can be pickled by name."""

from __future__ import annotations

import builtins
import random
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from resilient_scoop.futures import _engine, _once, _options, _serial
from resilient_scoop.futures._future import Future
from resilient_scoop.futures._maps import Mapping
from resilient_scoop.task_state import rng as streams
from resilient_scoop.wire.messages import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")
_ignored: set[str] = set()  # keywords that were named as ignored: as many as the source has


def submit(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
    """Have `fn(*args, **kwargs)` computed; return its future at once.

    The arguments are snapshots: what happens to them afterwards is not seen by the call.

    Raises:
        TypeError: `fn` is not callable.
        PicklingFailedError: `fn` or an argument cannot travel; it names which part.
    """
    return _submit(fn, args, kwargs, None)


def _submit(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], given: Options | None
) -> Future[Any]:
    at = _engine.here()
    if at is None:
        return _serial.submit(fn, args, kwargs)
    if kwargs:
        style, arg = _engine.KEYWORDS, (args, kwargs)
    elif len(args) == 1:
        style, arg = _engine.ONE, args[0]
    else:
        style, arg = _engine.STAR, args
    define = _engine.definition(fn, style, _options.of(fn, given))
    with at.session.turn():
        call = _engine.open_call(at, define)
    try:
        _engine.add(at, call, define, [arg], last=True)
    except BaseException:  # user code: pickling runs it
        at.parent.given_up.name(call, abandoned=False)
        raise
    return Future(at, call, define.name)


def map(
    func: Callable[..., T],
    *iterables: Iterable[Any],
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    **ignored: Any,
) -> Iterator[T]:
    """Return an iterator over `func(*row)` for the rows of the zipped iterables, in their order.

    Iterables with a length are submitted whole at once; others are read ahead by `buffersize` items
    (1,024 unless told), so that an endless one is slowed and not swallowed. `chunksize` is accepted
    and not needed: slices are sized by measured time. Keywords that it does not know are ignored, as
    SCOOP ignores them, and named in a warning. The first failing item raises at its place.

    Raises:
        TimeoutError: at an item that is not there `timeout` seconds after the call.
        PicklingFailedError: `func` or an argument cannot travel; it names which part.
    """
    del chunksize
    _warn_of(ignored)
    return _map(func, iterables, timeout, buffersize, None)


def _warn_of(ignored: dict[str, Any]) -> None:
    """Name, once each, keywords that a map does not know: `func` is not given them."""
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
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    buffersize: int | None,
    given: Options | None,
) -> Iterator[Any]:
    at = _engine.here()
    if at is None:
        _serial.warn_once()
        return iter(builtins.map(_serial.Item(func), *iterables))
    mapping = Mapping(at, func, iterables, _options.of(func, given), buffersize)
    return mapping.in_order(timeout)


def map_as_completed(
    func: Callable[..., T],
    *iterables: Iterable[Any],
    timeout: float | None = None,
    buffersize: int | None = None,
    **ignored: Any,
) -> Iterator[T]:
    """As `map`, but the values come in the order in which they are completed.

    A resumed run is told the order that it was told first.
    """
    _warn_of(ignored)
    return _map_as_completed(func, iterables, timeout, buffersize, None)


def _map_as_completed(
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    buffersize: int | None,
    given: Options | None,
) -> Iterator[Any]:
    at = _engine.here()
    if at is None:
        _serial.warn_once()
        return iter(builtins.map(_serial.Item(func), *iterables))
    mapping = Mapping(at, func, iterables, _options.of(func, given), buffersize)
    return mapping.as_completed(timeout)


def once(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run `fn` here, once in the life of the run, and return its value; a replay gets the same value.

    For everything that varies: the clock, UUIDs, files, the network. `fn` may make calls, ask and
    wait, too. What it raises is raised again on replay. It has returned when its value is on disk;
    a crash before that has `fn` run again.

    Raises:
        PicklingFailedError: the value cannot be kept; a replay is told so, too.
    """
    at = _engine.here()
    if at is None:
        return fn(*args, **kwargs)
    name = getattr(fn, "__qualname__", type(fn).__name__)
    return _once.run(at, name, lambda: fn(*args, **kwargs))  # type: ignore[no-any-return]


@overload
def rng(name: str | None = None, *, numpy: Literal[False] = False) -> random.Random: ...


@overload
def rng(name: str | None = None, *, numpy: Literal[True]) -> np.random.Generator: ...


def rng(name: str | None = None, *, numpy: bool = False) -> Any:
    """Return a random stream of the running future's own, seeded from the run's seed and its path.

    Each call gives another stream; with a `name`, it is the stream of that name, the same one each
    time, so that a new stream elsewhere does not shift it. With `numpy` it is a
    `numpy.random.Generator`.

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


class Calls:
    """`submit` and `map` with options set; made by `options`."""

    def __init__(self, given: Options) -> None:
        self._given = given

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
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
        """As `futures.map`; its `timeout` is the iterator's, the option's is each item's."""
        del chunksize
        _warn_of(ignored)
        return _map(func, iterables, timeout, buffersize, self._given)

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
        return _map_as_completed(func, iterables, timeout, buffersize, self._given)


def options(
    *,
    timeout: float | None = None,
    retries: int = 0,
    retry: Any = None,
    idempotent: bool = True,
    priority: int = 0,
    name: str | None = None,
) -> Calls:
    """Return an object with `submit` and `map` whose calls have these options.

    `timeout`: seconds that a try of an item may take, waiting for its own calls included; then it
    is ended, and tried again as often as `retries` says. `retries`: how often an item that raises
    is tried again; `retry`: a tenacity policy instead. `idempotent=False`: never started twice; if its
    worker is lost it fails with `WorkerLostError`. `priority`: higher ones go first. `name`: for
    eyes.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """
    return Calls(
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
    """Set options on a function: all its calls have them. The arguments are those of `options`."""
    made = _options.make(
        timeout=timeout, retries=retries, retry=retry, idempotent=idempotent,
        priority=priority, name=name,
    )  # fmt: skip
    return lambda function: _options.set_on(function, made)


def shutdown(wait: bool = True) -> None:  # noqa: FBT001, FBT002 - SCOOP's signature
    """Do nothing: the run ends with its script (SCOOP has this function)."""
    del wait
