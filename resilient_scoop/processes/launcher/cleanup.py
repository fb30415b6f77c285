"""The steps after all processes of a run have ended: last output, leftovers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalError
from resilient_scoop.journal import result_files, state_store
from resilient_scoop.journal.blobs import BlobStore
from resilient_scoop.journal.state_store import StateStore
from resilient_scoop.journal.view import JournalView
from resilient_scoop.processes import kept_code
from resilient_scoop.processes.launcher.shown_output import ShownOutput
from resilient_scoop.processes.origin import interrupt
from resilient_scoop.runs.display import Display
from resilient_scoop.runs.status import OutputTail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.processes.stderr import ErrorStream
    from resilient_scoop.runs.folder import RunDir

STDOUT = 1  # of the process, whatever `sys.stdout` is


def show_new(
    run: RunDir,
    view: JournalView,
    tail: OutputTail,
    shown: ShownOutput,
    to: Display,
    errors: ErrorStream | None = None,
) -> None:
    """Display output of the script that has not been displayed yet, with `errors` in between.

    Raises:
        JournalError: a piece of the output is missing in the journal.
    """
    for piece in tail.pieces(view):
        if tail.offset != shown.count + len(piece):
            gap = f"a gap at byte {shown.count}"
            raise JournalError(str(run.journal), "showing the script's output", gap)
        for part in _cut(piece, shown, errors):
            known = shown.begin(part)
            to.output(part[known:])
            shown.end()
            if errors is not None:
                errors.show(0.0, shown.count)


def _cut(piece: bytes, shown: ShownOutput, errors: ErrorStream | None) -> Iterator[bytes]:
    """Yield a piece in parts that end at the positions of text of the other stream."""
    end = shown.count + len(piece)
    while shown.count < end:
        at = None if errors is None else errors.next_at()
        stop = at if at is not None and shown.count < at < end else end
        yield piece[len(piece) - (end - shown.count) : len(piece) - (end - stop)]


def show_last_lines(run: RunDir, to: Display) -> None:
    """Display, once, what an interrupted script printed after Ctrl-C; it is not recorded."""
    path = run.path / interrupt.FILE
    with contextlib.suppress(OSError):
        text = path.read_bytes()
        path.unlink()
        to.output(text)


def tidy(run: RunDir) -> None:
    """Remove sockets, and unfinished files of processes that were killed (NO-LEFTOVERS)."""
    BlobStore(run.path / "payloads").sweep(lambda _: True)
    _sweep_results(run)
    _sweep_states(run)
    folders = (run.path, run.journal, run.path / state_store.FOLDER, run.path / kept_code.FOLDER)
    for folder in folders:
        for unfinished in folder.glob("*.tmp"):
            unfinished.unlink(missing_ok=True)
    run.remove_socket_dir()


def _sweep_results(run: RunDir) -> None:
    """Remove files of results that no record names: from attempts that were cut short or came too late."""
    folder = run.path / result_files.FOLDER
    if not any(folder.glob("res-*")):
        return
    try:
        with JournalView.open(run.journal) as view:
            result_files.sweep(folder, view.names_file, all_ages=True)
    except JournalError:
        return  # a later command reports it


def _sweep_states(run: RunDir) -> None:
    """Remove files of states whose checkpoint was never recorded, because its writer was killed."""
    states = StateStore(run.path)
    if not (unnamed := states.names()):
        return
    try:
        with JournalView.open(run.journal) as view:
            for _, record in view.scan(Table.LOG):
                unnamed = [name for name in unnamed if name not in record]
    except JournalError:
        return  # a later command reports it
    states.remove_all(unnamed)


def conclude(run: RunDir) -> None:
    """Complete the cleanup of an ended run whose launcher was killed before it could.

    Raises:
        RunBusyError: its launcher is alive.
    """
    with run.hold(), JournalView.open(run.journal) as view:
        shown = ShownOutput(run.shown_file, STDOUT)
        display = Display(sys.stdout, sys.stderr, run.id, tty=False, quiet=True)
        show_new(run, view, OutputTail(shown.count), shown, display)
        shown.close()
        kept_code.end(run.path, counts=True)
        tidy(run)
