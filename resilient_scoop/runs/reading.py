"""One run, and the list of all: their figures, items, outcomes and events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.tally import OTHERS
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.errors import RscoopError, UsageError
from resilient_scoop.journal.view import JournalView
from resilient_scoop.payload.exceptions import describe_failure
from resilient_scoop.runs import catalog, html_text
from resilient_scoop.runs.events import Event, events_of
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.runs.items import Item, tasks
from resilient_scoop.runs.log import names_of_functions, records
from resilient_scoop.runs.status import (
    open_view,
    read_status,
    state_of,
    state_of_error,
)
from resilient_scoop.wire import messages as wire


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """The results of the calls of one function."""

    name: str
    done: int
    """Calls that returned a value."""
    failed: int
    """Calls that raised."""
    seconds: float
    """Seconds of computing, all workers together."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run in numbers, at one moment."""

    state: str
    """"running", "finished", "failed", "stopped", "damaged" or "newer-format"."""
    exit_code: int | None
    """Of the script; None before its end."""
    done: int
    """Items that have an outcome, those that failed included."""
    total: int
    """Items so far; a script may make more calls at any time."""
    failed: int
    workers: int
    deaths: int
    """Processes of the run that died without being stopped."""
    resubmitted: int
    """Items that were assigned again after a death."""
    seconds: float
    """Seconds of computing of all items, all workers together."""
    journal_bytes: int
    functions: list[Function]
    """Sorted by time, longest first."""

    @property
    def in_flight(self) -> int:
        """Items without an outcome: they wait, or run."""
        return self.total - self.done


class ItemOutcome:
    """The outcome of an item."""

    def __init__(self, run: Run, path: str, function: str, payload: bytes, *, failed: bool) -> None:
        self.path = path
        self.function = function
        self.failed = failed
        self._run = run
        self._payload = payload

    def __repr__(self) -> str:
        return f"<{'error' if self.failed else 'result'} of {self.function} at {self.path}>"

    def error(self) -> str:
        """Return the error's type, text and traceback as its worker wrote them; empty for a result.

        Runs no code of yours.
        """
        if not self.failed:
            return ""
        failure = describe_failure(self._payload)
        return failure.traceback_text or f"{failure.type_name}: {failure.text}"

    def value(self) -> Any:
        """Return the result; raise the error of an item that failed.

        Unpickles it: its classes must be importable here. Classes of the script itself are looked
        up in `__main__`, as `pickle` does.

        Raises:
            UnpicklingFailedError: the value cannot be loaded in this process; it names what is missing.
        """
        from resilient_scoop.payload import payload
        from resilient_scoop.payload.files import LargeStore

        store = LargeStore(self._run.folder / "payloads")
        found = payload.loads(self._payload, store, f"result of {self.path}")
        if self.failed:
            raise found
        return found


class Run:
    """A run on disk."""

    def __init__(self, folder: RunDir, info: RunInfo) -> None:
        self._dir = folder
        self._info = info

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.script}>"

    def _repr_html_(self) -> str:
        status = self.status()
        rows: list[tuple[str, object]] = [("run", self.id), ("name", self.name)]
        rows += [("script", self.script), ("state", status.state)]
        rows += [("calls done", f"{status.done} of {status.total}"), ("failed", status.failed)]
        return html_text.table([*rows, ("workers", status.workers)])

    @property
    def id(self) -> str:
        """Eight characters, as `rscoop runs` shows them."""
        return self._info.id

    @property
    def name(self) -> str | None:
        """From `rscoop run --name`."""
        return self._info.name

    @property
    def script(self) -> str:
        """The file name of the script, or `-m` and the name of the module."""
        return self._info.title

    @property
    def arguments(self) -> list[str]:
        """Arguments of the script, without its own name."""
        return list(self._info.argv)

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        return self._info.created_at

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self._dir.path

    def status(self) -> Status:
        """Return its figures at this moment.

        A run that cannot be read has the state "damaged" or "newer-format", and figures of 0.
        """
        try:
            found = read_status(self._dir, self._info)
            state = state_of(self._dir, found.ended)
        except RscoopError as error:
            return Status(
                state=str(state_of_error(error)), exit_code=None, done=0, total=0, failed=0,
                workers=self._info.workers, deaths=0, resubmitted=0, seconds=0.0, journal_bytes=0,
                functions=[],
            )  # fmt: skip
        functions = [
            Function(name=f.name, done=f.done, failed=f.failed, seconds=f.spent_s)
            for f in found.functions
        ]
        return Status(
            state=str(state), exit_code=None if found.ended is None else found.ended.code,
            done=found.done, total=found.total_known, failed=found.failed, workers=found.workers,
            deaths=found.crashes, resubmitted=found.resubmitted, seconds=found.computed_s,
            journal_bytes=found.journal_bytes, functions=functions,
        )  # fmt: skip

    def items(self, path: str | None = None) -> Iterator[Item]:
        """Yield the items whose records the journal holds, task by task, batch by batch.

        `path` selects a batch ("0.3") or the calls of a task ("0.1[0]"). Calls of a task that has
        ended, and calls that a checkpoint covers, are not in the journal, unless the run keeps its
        history (`rscoop run --keep-history`).

        Raises:
            JournalError: the journal cannot be read; the text says what to do.
        """
        with self._view() as view:
            if view is None:
                return
            names = names_of_functions(view)
            for task in tasks(view):
                yield from task.items(names, path)

    def outcome(self, path: str) -> ItemOutcome:
        """Return the outcome of the item at a path.

        Raises:
            UsageError: `path` is not the path of an item, or the item has no outcome (not yet, or
            no longer). JournalError: the journal cannot be read; the text says what to do.
        """
        parent, call, index = _place(path)
        last = _LastOutcome(parent, call, index)
        with self._view() as view:
            names = {} if view is None else names_of_functions(view)
            for record in () if view is None else records(view):
                if record.parent == parent:
                    last.visit(record)
        found = last.found
        if found is None:
            raise UsageError(
                f"run {self.id} has no outcome of {path}: it is not done, is covered by a checkpoint, or "
                f"was never asked for; `rscoop why {self.id} '{path}'` tells which"
            )
        item, at = found
        name = names.get(item.fingerprint, OTHERS)
        return ItemOutcome(self, path, name, item.values[at], failed=at in item.failed)

    def events(self) -> Iterator[Event]:
        """Yield the records of the run's log as events, one for each item or other fact.

        Raises:
            JournalError: the journal cannot be read; the text says what to do.
        """
        with self._view() as view:
            if view is None:
                return
            names = names_of_functions(view)
            for record in records(view):
                yield from events_of(record, names)

    @contextmanager
    def _view(self) -> Iterator[JournalView | None]:
        view = open_view(self._dir)
        if view is None:
            yield None
            return
        with view:
            yield view


def list_runs(state_dir: str | os.PathLike[str] | None = None) -> list[Run]:
    """Return all runs that can be read, oldest first.

    `state_dir` is their folder; default: RSCOOP_STATE_DIR if that is set, else the user's state folder.
    """
    entries = catalog.list_runs(_state(state_dir))
    return [Run(entry.run, entry.info) for entry in entries if entry.info is not None]


def open_run(run: str = "last", state_dir: str | os.PathLike[str] | None = None) -> Run:
    """Return a run by its id, the beginning of its id, its name, its folder, or "last".

    Raises:
        RunNotFoundError: there is none; it names similar ones.
        JournalError: its description cannot be read; the text says what to do.
    """
    found = catalog.select(_state(state_dir), run)
    return Run(found, found.load())


def _state(given: str | os.PathLike[str] | None) -> Path:
    text = os.fspath(given) if given is not None else os.environ.get("RSCOOP_STATE_DIR")
    return catalog.state_dir(text)


class _LastOutcome(LogVisitor):
    """The outcome of one item that counts; None: there is none, it is computed again, or was cut off."""

    def __init__(self, parent: str, call: int, index: int) -> None:
        self.place = parent, call
        self.index = index
        self.found: tuple[wire.Outcome, int] | None = None

    def ended(self, parent: str, outcome: wire.Outcome) -> None:
        at = self.index - outcome.start
        if (parent, outcome.call) == self.place and 0 <= at < len(outcome.values):
            self.found = outcome, at

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        if (parent, call) == self.place and self.index >= stop:
            self.found = None

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        if (parent, call) == self.place and start <= self.index < stop:
            self.found = None


def _place(path: str) -> tuple[str, int, int]:
    try:
        place = ids.parse_item(path)
    except ValueError:
        place = None
    if place is None:
        raise UsageError(
            f"{path!r} is not the path of an item; those look like 0.3[17]: item 17 of the script's call 3"
        )
    return place
