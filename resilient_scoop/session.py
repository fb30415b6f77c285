"""Sessions: parallel, journaled calls from any Python program, started without `rscoop`.

    from resilient_scoop import Session

    if __name__ == "__main__":
        with Session(run="trial7", workers=4) as session:
            print(sum(session.map(work, range(1000))))

The program may be a script, an interactive interpreter, a notebook or a test. If it is killed and
started again, a session of the same name finds what is journaled: by function, arguments, and how
often the same call was made before. No process is left when the program ends, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import operator
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, SupportsIndex, TypeVar

from resilient_scoop.errors import (
    RunNotFoundError,
    ScriptGuardError,
    SessionClosedError,
    SessionOpenError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from resilient_scoop.futures._shared import SharedCalls, SharedFuture
    from resilient_scoop.processes.in_process import InProcess
    from resilient_scoop.progress_bar import ProgressBar
    from resilient_scoop.runs.folder import RunDir, RunInfo
    from resilient_scoop.wire.messages import Options

P = ParamSpec("P")
T = TypeVar("T")
_SEED_BITS: Final = 64
_open: weakref.WeakSet[Session] = weakref.WeakSet()
_lock: Final = threading.RLock()


def _tell_user(text: str) -> None:
    """Send a message to the user."""
    stream = sys.stderr
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or a closed one
        stream.write(f"rscoop: {text}\n")
        stream.flush()


class Session:
    """A run whose calls are made by this process.

    Args:
        run: name of the run. It is continued if a session had that name before; None: the run is
            removed when the session is closed.
        workers: worker processes; None: one per core that this process may use.
        seed: seed of the random streams of tasks; None: random, and kept with the run.
        state_dir: folder in which runs are kept; None: `RSCOOP_STATE_DIR`, or the user's.
        progress: whether to show a progress bar of its calls, by tqdm if it is installed, else by rich.
        retry_failed: whether to compute calls again that failed when the session was open before; else
            they raise the error that is journaled.

    Raises:
        ValueError: `workers` is less than 1, or the seed out of its range. TypeError: they are no
        integers, or the name no string. UsageError: the name cannot be used, or belongs to a run
        that `rscoop run` has started. ScriptGuardError: a worker is importing the program.
        RunBusyError: this process or another one has the session open.
        RunStoppedError: the run cannot start; the text says why.
    """

    def __init__(
        self,
        run: str | None = None,
        *,
        workers: SupportsIndex | None = None,
        seed: SupportsIndex | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
        retry_failed: bool = False,
    ) -> None:
        count, drawn = _count(workers), _seed(seed)
        _refuse_in_import()
        if os.environ.get("RSCOOP_RUN_ID") and _is_in_run():
            raise UsageError(
                "this process belongs to a run already: make calls with resilient_scoop.futures or "
                "Executor(), which use that run"
            )
        self.name = run
        self.workers = count or len(os.sched_getaffinity(0))
        self._closed: Exception | None = None
        self.broken_as: Callable[[SessionClosedError], Exception] = lambda error: error
        """Returns the error of its calls if its run ends by itself."""
        self._closing = threading.Lock()
        self._process, self._run = _start(
            run, self.workers, drawn, state_dir, _tell_user, retry_failed=retry_failed
        )
        from resilient_scoop.futures import _options
        from resilient_scoop.futures._shared import SharedCalls

        self._options_of = _options.of
        self._calls = SharedCalls(self._process.connection)
        # No thread holds the session: it is closed when the program drops it.
        self._dropped = weakref.finalize(
            self, _end_dropped, self._calls, self._process, self._run, run
        )
        self._dropped.atexit = False
        about = weakref.ref(self), self._calls, self._process
        threading.Thread(target=_mind, args=about, name="rscoop-session", daemon=True).start()
        self._bar = _bar(run or self.id, self._calls) if progress else None
        _register(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> SharedFuture[T]:
        """Submit `fn(*args, **kwargs)`; return its future, a `concurrent.futures.Future`."""
        return self.call(fn, args, kwargs, None)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over `fn(*row)` for the rows of the zipped iterables, in their order.

        Raises:
            TimeoutError: at an item without a result `timeout` seconds after the call.
        """
        self._check()
        return _kept(
            self, self._calls.map(fn, iterables, timeout, buffersize, self._options_of(fn))
        )

    def call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options | None,
        pending: dict[Any, None] | None = None,
    ) -> SharedFuture[Any]:
        """Submit a call with options; return its future, which stays in `pending` until it is done."""
        self._check()
        return self._calls.submit(fn, args, kwargs, self._options_of(fn, options), pending)

    def _check(self) -> None:
        if self._process.is_forked:
            raise SessionClosedError(
                self.id,
                f"process {os.getpid()} is a forked child of the program that opened it; open a session "
                "of another name in the child, or make calls in the program",
            )
        if self._closed is not None:
            raise self._closed.with_traceback(None)

    @property
    def id(self) -> str:
        """The id of its run."""
        return self._run.id

    @property
    def closed(self) -> bool:
        """Whether it makes no more calls."""
        return self._closed is not None

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.workers} workers"
        return f"<Session {self.name or self.id} {state}>"

    def _repr_html_(self) -> str:
        from resilient_scoop.runs import html_text

        shown: list[tuple[str, object]] = [("session", self.name or self.id), ("run", self.id)]
        shown += [("workers", self.workers), ("state", "closed" if self.closed else "open")]
        return html_text.table(shown)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until every call has its outcome; return False if `timeout` seconds were not enough.

        Raises:
            RuntimeError: in a callback of a future, which would wait for itself.
        """
        self.refuse_in_callback(
            "wait for all calls, or for the end of a session (close(wait=False) ends it)"
        )
        return self._calls.drain(None if timeout is None else time.monotonic() + timeout)

    def refuse_in_callback(self, what: str) -> None:
        """Raise RuntimeError in a callback of a future of this session."""
        from resilient_scoop.futures import _shared

        _shared.refuse_in_callback(what, self._calls)

    def close(self, *, wait: bool = True) -> None:
        """End the session's processes, after waiting for its calls if `wait`.

        Calls without an outcome get `SessionClosedError`; a session of the same name computes them
        when they are made again.
        """
        if self._process.is_forked:
            return
        if wait and not self.closed:
            self.drain()
        self._end(SessionClosedError(self.name or self.id, "it was closed by the program"))

    def _end(self, error: Exception) -> None:
        with self._closing:
            if self._closed is not None:
                return
            self._closed = error
            _open.discard(self)
            self._dropped.detach()
            self._calls.close(error)
            if self._bar is not None:
                self._bar.close()
            self._process.close()
            if self.name is None:
                _remove(self._run)

    def abandon(self) -> None:
        """Forget the session: this process is a forked child of its program."""
        self._dropped.detach()
        self._process.become_child()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an interrupt, the user does not want to wait for running calls.
        self.close(wait=not isinstance(error, KeyboardInterrupt))


def _mind(owner: weakref.ref[Session], calls: SharedCalls, process: InProcess) -> None:
    """End a session if its run has ended by itself."""
    machine, pumping = process.connection.machine, calls.pumping
    while not pumping.wait_for(
        lambda: calls.is_closed, time.monotonic() + (0.25 if machine.stopping is None else 0.05)
    ):
        why = process.death
        session = owner() if why else None
        if session is not None:
            error = SessionClosedError(session.name or session.id, f"its run has ended ({why})")
            session._end(session.broken_as(error))  # noqa: SLF001 - of the same module
        if why:
            return


def _end_dropped(calls: SharedCalls, process: InProcess, run: RunDir, name: str | None) -> None:
    """End the processes of a session that the program has dropped, once its calls have outcomes."""

    def end() -> None:
        calls.drain()
        calls.close(SessionClosedError(name or run.id, "the program has dropped it"))
        process.close()
        if name is None:
            _remove(run)

    threading.Thread(target=end, name="rscoop-dropped").start()


def _bar(title: str, calls: SharedCalls) -> ProgressBar:
    from resilient_scoop.progress_bar import ProgressBar

    return ProgressBar(title, calls.counts, lambda: calls.is_closed)


def _kept(_session: Session, values: Iterator[T]) -> Iterator[T]:
    """Yield values; the session is not dropped before the last one."""
    yield from values


def _count(workers: SupportsIndex | None) -> int | None:
    if workers is None:
        return None
    count = int(operator.index(workers))
    if count <= 0:
        raise ValueError("workers must be greater than 0")
    return count


def _seed(seed: SupportsIndex | None) -> int | None:
    if seed is None:
        return None
    number = int(operator.index(seed))
    if not 0 <= number < 1 << _SEED_BITS:
        raise ValueError(f"seed is {number}; take one from 0 to 2**{_SEED_BITS} - 1")
    return number


def _refuse_in_import() -> None:
    from resilient_scoop.processes.here import Process

    if Process.importing is not None:
        raise ScriptGuardError(Process.importing)


def _is_in_run() -> bool:
    from resilient_scoop.processes.here import Process

    return Process.session is not None


def _start(
    name: str | None,
    workers: int,
    seed: int | None,
    folder: str | os.PathLike[str] | None,
    tell_user: Callable[[str], None],
    *,
    retry_failed: bool,
) -> tuple[InProcess, RunDir]:
    from resilient_scoop.processes.in_process import InProcess
    from resilient_scoop.processes.options import RunOptions
    from resilient_scoop.runs import catalog

    given = folder or os.environ.get("RSCOOP_STATE_DIR") or None
    state = catalog.state_dir(None if given is None else os.fspath(given))
    with contextlib.nullcontext() if name is None else catalog.naming(state):
        found = _find(state, name)
        run = _create(state, name, workers, seed) if found is None else found
    info = _described(run, workers)
    options = RunOptions(
        workers=workers, resume=found is not None, quiet=True, in_process=True,
        reuse_changed=(), recompute_changed=("*",), retry_failed=retry_failed,
    )  # fmt: skip
    with contextlib.ExitStack() as undo:
        if name is None:
            undo.callback(_remove, run)
        process = InProcess(run, info, options, tell_user)
        undo.pop_all()
    return process, run


def _described(run: RunDir, workers: int) -> RunInfo:
    """Return the description of a run with the program that opens it now."""
    import msgspec

    from resilient_scoop.processes.in_process import main_program, script_of
    from resilient_scoop.processes.starting import interpreter_flags
    from resilient_scoop.runs.surroundings import look

    return msgspec.structs.replace(
        run.load(), flags=interpreter_flags(), around=look(os.environ), python=sys.executable,
        workers=workers, **script_of(main_program()),
    )  # fmt: skip


def _remove(run: RunDir) -> None:
    """Remove a run without a name, if its launcher has not done so."""
    from resilient_scoop.runs import catalog

    with contextlib.suppress(FileNotFoundError):
        catalog.remove(run)


def _find(state: Path, name: str | None) -> RunDir | None:
    """Return the run that a session of this name has made."""
    from resilient_scoop.runs import catalog

    if name is None:
        return None
    catalog.check_name(name)
    if any(each.name == name for each in list(_open)):
        raise SessionOpenError(name)
    try:
        run = catalog.select(state, name)
    except RunNotFoundError:
        return None
    info = run.load()
    if name not in (info.name, run.id):
        return None  # the beginning of the id of another one
    if not info.in_process:
        raise UsageError(
            f"run {name} was started by `rscoop run`, and a session can't continue it: take another "
            f"name, or remove it (rscoop rm {name})"
        )
    return run


def _create(state: Path, name: str | None, workers: int, seed: int | None) -> RunDir:
    from resilient_scoop.processes.in_process import files_of, main_program, script_of
    from resilient_scoop.processes.new_run import describe_run
    from resilient_scoop.runs import catalog

    program, now = main_program(), time.time()  # noqa: TID251 - labels the run and makes its id
    drawn = int.from_bytes(os.urandom(_SEED_BITS // 8)) if seed is None else seed

    def describe(run_id: str) -> RunInfo:
        return describe_run(
            run_id,
            now,
            name=name,
            seed=drawn,
            workers=workers,
            in_process=True,
            **script_of(program),
        )

    return catalog.create(state, describe, now, files_of(program))


def _register(session: Session) -> None:
    """Have the session closed when the interpreter ends, and left alone by forked children."""
    with _lock:
        if not _SessionHooks.are_set:
            _SessionHooks.are_set = True
            # As the standard library's executors: before threads can no longer be started.
            threading._register_atexit(_end_all)  # type: ignore[attr-defined]  # noqa: SLF001 - as `concurrent.futures` does; it is not public
            atexit.register(_end_all)
            os.register_at_fork(after_in_child=_become_child)
        _open.add(session)


class _SessionHooks:
    are_set = False


def _end_all() -> None:
    for session in list(_open):
        session.close()


def _become_child() -> None:
    for session in list(_open):
        session.abandon()
        _open.discard(session)
