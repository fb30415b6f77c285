"""Progress of long calls, and information of a call about itself.

`progress(resume=…)` saves one pickle of the given object and of the random streams at that time, so
that an attempt which continues from there draws the same numbers.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.errors import ProgressRefusedError
from resilient_scoop.futures import _engine, _serial
from resilient_scoop.hashing import blake2b
from resilient_scoop.payload import payload as codec
from resilient_scoop.task_state import rng
from resilient_scoop.wire.messages import Attempt, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.worker.worker import Work
    from resilient_scoop.processes.connection import Connection, Context

RESUME_BYTES_MAX: Final = 1 << 20
"""A payload is a record of the journal every second; larger data belongs into a file."""
LABEL_MAX: Final = 60
_SHARE: Final = 0.05
"""Largest share of a call's time for pickling its payloads."""
_NOTHING: Final = object()
_IN_THREAD: Final = (
    "progress() and task_info() were used in a thread of your own, which belongs to no call; use them in "
    "the main thread of a task, and pass on what you need"
)
_SERIAL_KEY: Final = os.urandom(16)


class _Payload(msgspec.Struct, frozen=True, array_like=True):
    value: bytes
    streams: bytes
    book: bytes = b""  # streams returned by `futures.rng`


HOST_STRIDE: Final = 10_000
"""Indices of workers that each host has for itself."""


class WorkerInfo(msgspec.Struct, frozen=True):
    """The worker that runs a call."""

    index: int
    """Different for every worker of the run; one that is replaced keeps its number. On the host of
    the run they count from 0. The n-th other host that has come counts from n times 10,000:
    `index % 10_000` is the number of the worker on its host."""
    name: str
    """Its name in logs: `w1` is the worker with index 0, `bob:w1` the first worker of host bob."""
    host: str
    """Its host, as that calls itself."""
    gpu: int | None
    """The device in CUDA_VISIBLE_DEVICES that belongs to it: workers take them in turn. None if the
    variable is not set or empty."""

    @classmethod
    def here(cls, name: str, host_number: int = 0) -> WorkerInfo:
        """Return the description of this process; its name is `w1`, or `host:w1`."""
        index = int(name.rpartition(":")[2][1:]) - 1
        text = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
        devices = [each for each in text.split(",") if each.strip() not in ("", "-1")]
        gpu = index % len(devices) if devices else None
        return cls(index + host_number * HOST_STRIDE, name, os.uname().nodename, gpu)


class TaskInfo:
    """Information of a call about itself; returned by `task_info`."""

    __slots__ = (
        "_loaded",
        "_resume",
        "attempt",
        "deadline",
        "function",
        "id",
        "idempotency_key",
        "run",
        "worker",
    )

    def __init__(  # noqa: PLR0913 - made here only
        self,
        *,
        id: str,  # noqa: A002 - the name that the user reads
        function: str,
        attempt: int = 1,
        idempotency_key: str,
        deadline: float | None = None,
        run: str | None = None,
        worker: WorkerInfo | None = None,
        resume: Callable[[], Any] = lambda: None,
    ) -> None:
        self.id = id
        """Its path: `0.3[17]` is item 17 of the script's fourth batch. The same in every attempt."""
        self.function = function
        self.attempt = attempt
        """1 for the first; counts the known earlier attempts (those in the journal, and tries under
        `retries=`)."""
        self.idempotency_key = idempotency_key
        """The same in every attempt and after every resume, and different for every other call of
        any run: give it to a service that must act once."""
        self.deadline = deadline
        """When its `timeout=` ends it, in the time of `time.monotonic`; None without a timeout."""
        self.run = run
        """The id of the run; None without `rscoop`."""
        self.worker = worker or WorkerInfo.here("w1")
        """Where it runs: `index`, `name`, `host`, `gpu`."""
        self._resume = resume
        self._loaded: Any = _NOTHING

    @property
    def remaining_s(self) -> float | None:
        """Seconds until `deadline`."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def resume(self) -> Any:
        """The last value that an earlier attempt saved with `progress(resume=…)`, or None.

        The first access in an attempt restores the states of `random` and `numpy.random` at that call.

        Raises:
            UnpicklingFailedError: it cannot be loaded here; the text names the types that it needs.
        """
        if self._loaded is _NOTHING:
            self._loaded = self._resume()
        return self._loaded

    def __repr__(self) -> str:
        return f"TaskInfo(id={self.id!r}, function={self.function!r}, attempt={self.attempt})"


def task_info() -> TaskInfo | None:
    """Return information about the running call; None outside of a call: in the script itself.

    Without `rscoop`, a call has only one attempt, and its key is valid in this process.
    """
    session = _engine.session_here(_IN_THREAD)
    if session is None:
        return _serial_info()
    context = session.context
    work = context.work
    if work is None:
        return None
    task = work.task
    with session.turn():
        tries = session.reporter.tries(context.path, work)
    on_cpu = session.record.read()
    deadline_ns = 0 if on_cpu is None else on_cpu.deadline_ns
    define = work.callable
    mark = blake2b(context.path.encode(), key=session.settings.run, digest_size=16)
    mark.update(work.digests(context.index, context.index + 1))
    return TaskInfo(
        id=context.path,
        function=define.options.name or define.name,
        attempt=1 + (task.tries if context.index == task.start else 0) + tries,
        idempotency_key=mark.hexdigest(),
        deadline=deadline_ns / 1e9 if deadline_ns else None,
        run=session.settings.run_id,
        worker=WorkerInfo.here(session.settings.name, session.settings.node_number),
        resume=lambda: _load(session, context.path, work, context.index, define.name),
    )


def _serial_info() -> TaskInfo | None:
    if not _serial.running:
        return None
    path, function = _serial.running[-1]
    mark = blake2b(path.encode(), key=_SERIAL_KEY, digest_size=16)
    return TaskInfo(id=path, function=function, idempotency_key=mark.hexdigest())


def _load(session: Connection, path: str, work: Work, index: int, name: str) -> Any:
    with session.turn():
        raw = session.reporter.given(path, work)
        is_first = session.reporter.resume(path, work, index)
    if not raw:
        return None
    kept = msgspec.msgpack.decode(raw, type=_Payload)
    value = codec.loads(kept.value, session.store, f"what {name} kept with progress(resume=…)")
    if is_first:
        rng.bring_back(pickle.loads(kept.streams))
        if kept.book:
            context = session.context
            context.rngs = context.rngs or rng.StreamBook()
            context.rngs.continue_from(pickle.loads(kept.book))
    return value


def progress(
    done: float,
    total: float | None = None,
    *,
    label: str = "",
    resume: Any = _NOTHING,
) -> None:
    """Report the progress of the running call, and save what its next attempt needs to continue.

    `rscoop status` and the progress line show the figures, after `label`: in the script,
    `futures.progress(3, 60, label="generation")` is shown as `generation 3/60`. `resume` is any
    object that pickles to at most 1 MiB; it is a snapshot, and the next attempt gets it as
    `task_info().resume`. Call it as often as you like: the last report of each second is journaled.
    A report in the last second before a crash may be lost. Without `resume=` the saved payload
    stays.

    A call whose result is no longer wanted (canceled, or done elsewhere) ends here.

    Raises:
        ProgressRefusedError: the payload is too large; or the call has made calls of its own, or is
            the script: these save their state with `resilient_scoop.checkpoint`.
        PicklingFailedError: the payload cannot be pickled; the text names the part. ValueError: the
        figures are invalid.
    """
    if not _is_figure(done) or not (total is None or _is_figure(total)):
        raise ValueError(
            f"progress({done!r}, {total!r}): both must be numbers from 0, and total may be None"
        )
    session = _engine.session_here(_IN_THREAD)
    if session is None:
        if resume is not _NOTHING and _serial.running:
            path, function = _serial.running[-1]
            _dump(resume, path, function)
        return
    context = session.context
    work = context.work
    if work is not None and work.dropped:
        raise GreenletExit  # another attempt runs the item, or its result is not wanted
    if resume is not _NOTHING:
        _check_is_leaf(context)
    if work is None:
        _send(session, context, None, _of_script(session, done, total, _short(label)))
        return
    if resume is _NOTHING:
        with session.turn():
            kept = b"" if _is_parent(context) else session.reporter.payload(context.path, work)
    else:
        began = time.monotonic()
        if session.reporter.is_too_soon(context.path, work, began):
            return
        if context.rngs is not None and not context.rngs.step():
            return
        name = work.callable.name
        kept = _dump(resume, context.path, name, context.rngs)
        with session.turn():
            cost_s = time.monotonic() - began
            session.reporter.hold_off(context.path, work, context.index, began + cost_s / _SHARE)
    message = _of_item(session, context, work, (done, total), kept, _short(label))
    _send(session, context, work, message)


def _send(session: Connection, context: Context, work: Work | None, message: Progress) -> None:
    with session.turn():
        now = time.monotonic()
        if session.reporter.put(context.path, work, context.index, message, now):
            session.pump()


def _of_item(
    session: Connection,
    context: Context,
    work: Work,
    counts: tuple[float, float | None],
    kept: bytes,
    label: str,
) -> Progress:
    task, index = work.task, context.index
    tries = session.reporter.tries(context.path, work)
    tries += task.tries if index == task.start else 0
    return Progress(
        task.parent, work.attempt, task.call, index,
        work.callable.fingerprint, work.digests(index, index + 1),
        *counts, kept, tries, label,
    )  # fmt: skip


def _of_script(session: Connection, done: float, total: float | None, label: str) -> Progress:
    attempt = session.machine.root
    return Progress("", attempt or Attempt(0, 0), 0, 0, b"", b"", done, total, label=label)


def _short(label: str) -> str:
    """Return a label as one short line."""
    printable = "".join(each if each.isprintable() else " " for each in str(label))
    return " ".join(printable.split())[:LABEL_MAX]


def _is_figure(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and 0 <= number < 1 << 63


def _is_parent(context: Context) -> bool:
    """Return whether the running call has a history: it replays, and needs no payload."""
    parent = context.parent
    return parent is not None and (
        parent.history.replaying or parent.calls.next > 0 or parent.history.next_observation > 0
    )


def _check_is_leaf(context: Context) -> None:
    if context.work is not None and not _is_parent(context):
        return
    what = "it has made calls" if context.work is not None else "it is the script itself"
    raise ProgressRefusedError(
        context.path,
        f"resume= is for tasks that make no calls, and {what}",
        "keep its state with `resilient_scoop.checkpoint`; done and total are allowed",
    )


def _dump(value: Any, path: str, name: str, book: rng.StreamBook | None = None) -> bytes:
    encoded = codec.dumps(value, f"resume payload of {name}", "resume")
    if len(encoded) > RESUME_BYTES_MAX:
        raise ProgressRefusedError(
            path,
            f"its resume= value has {len(encoded):,} bytes, more than the {RESUME_BYTES_MAX:,} allowed",
            "save less, or write it to a file of your own and save the file's name",
        )
    given = b"" if book is None else pickle.dumps(book.save_steps(), 5)
    return msgspec.msgpack.encode(_Payload(encoded, pickle.dumps(rng.save(), 5), given))
