"""The process that replays parents against the journal: no broker, no workers, nothing computed.

Parents that are not the script run after it was imported as workers import it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import Table
from resilient_scoop.core.parent.replayed import End, short
from resilient_scoop.journal.view import JournalView
from resilient_scoop.payload import payload
from resilient_scoop.processes import (
    forked_children,
    ignored_signals,
    program_end,
    random_streams,
    user_script,
    user_signals,
)
from resilient_scoop.processes.callables import Functions
from resilient_scoop.processes.here import Process, announce
from resilient_scoop.processes.origin.stdin import script_stdin
from resilient_scoop.processes.replay.request import Played, ReplayRequest
from resilient_scoop.processes.replay.stage import (
    Compared,
    ParentReplay,
    ReadOnlyStore,
    ReplayConnection,
    asked_of,
    raised_at,
)
from resilient_scoop.processes.starting import ChildSettings, take_settings
from resilient_scoop.processes.stdin_messages import InputPiece
from resilient_scoop.runs.recorded_streams import recorded_input, recorded_output
from resilient_scoop.runs.status import read_ended
from resilient_scoop.runs.stored_state import read_defines, read_state
from resilient_scoop.task_state import generators, rng
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.connection import Context


class ReplayRunner:
    """All parents that this process replays."""

    def __init__(self, settings: ChildSettings, view: JournalView, wanted: ReplayRequest) -> None:
        self.settings = settings
        self.view = view
        self.wanted = wanted
        self.store = ReadOnlyStore(Path(settings.run_dir) / "payloads", Path(wanted.scratch))
        self.defines = read_defines(view)
        self.consts = [wire.decode_up(raw) for _, raw in view.scan(Table.CONST)]
        names = {d.options.name or d.name for d in self.defines.values()}
        given = settings.options.reuse_changed
        self.reuse = [n for n in ("*", *names) if n in given or short(n) in given]

    def stage(self, path: str, role: str) -> ParentReplay:
        """Return a parent's stage, and make `futures` use it."""
        session = ReplayConnection(self.settings, self.store, role)
        for const in self.consts:
            if isinstance(const, wire.Const):
                session.machine.consts[const.name] = const
        announce(session, self.settings)
        asked = asked_of(self.view, self.settings.run, path, self.defines)
        stage = ParentReplay(session, self.view, asked, self.reuse)

        def join() -> Parent:
            session.context.parent = stage.parent
            return stage.parent

        Process.make_parent = join
        return stage

    def root(self) -> Played:
        """Replay the script."""
        stage = self.stage(ids.ROOT, "origin")
        recorded = recorded_output(self.view)
        ended = read_ended(self.view)
        if ended is not None:
            stage.parent.end_at(ended.calls, ended.observations)
            recorded = recorded if ended.output_bytes < 0 else recorded[: ended.output_bytes]
        out = Compared(recorded, stage.halt, 2 if self.wanted.shows else -1)
        out.ended = ended is not None
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(out), encoding=sys.stdout.encoding, errors=sys.stdout.errors,
            line_buffering=True,
        )  # fmt: skip
        sys.stdout.mode = "w"  # type: ignore[misc]  # as Python does
        stage.session.output = out
        forked_children.watch(stage.session)
        stage.session.input, sys.stdin = script_stdin(self._pieces(stage).__next__)
        played = stage.play(lambda stage: self._script(stage, out, ended))
        return msgspec.structs.replace(played, output_bytes=out.seen)

    def _pieces(self, stage: ParentReplay) -> Iterator[InputPiece]:
        """Yield what the script read; after that the replay stops."""
        for read in recorded_input(self.view):
            yield InputPiece(read.data, read.error)
        if stage.parent.ended:
            stage.halt(End("input", "an end without that", "a read of its standard input"))
        found = "reads more standard input than the journal has"
        stage.halt(End("history", "", found))

    def _script(self, stage: ParentReplay, out: Compared, ended: wire.RunEnded | None) -> None:
        """Run the script (the body of a greenlet)."""
        spec = self.settings.script
        random_streams.install(self.settings.streams, self.settings.seed, _here, tasks=False)
        found, failed = "a normal end (exit code 0)", False
        try:
            user_script.prepare(spec)
            payload.keep_by_value(user_script.names_under_guard(spec))
            user_script.run_as_main(spec)
        except SystemExit as error:
            forked_children.end_if_child(error)
            found = f"a normal end (exit code {program_end.exit_status(error)})"
        except BaseException as error:  # user code: the script itself
            forked_children.end_if_child(error)
            failed = True
            found = traceback.format_exception_only(error)[-1].strip()
            stage.raised = raised_at(error)
        forked_children.end_if_child()
        self._last_things(stage)
        sys.stdout.flush()
        journaled = None
        if ended is not None:
            journaled = ended.message if ended.failed else f"a normal end (exit code {ended.code})"
        stage.parent.finish(found, failed=failed, journaled=journaled)
        if ended is not None and out.left():
            stage.halt(End("output", out.left(), found))
        stage.main.switch()

    def _last_things(self, stage: ParentReplay) -> None:
        """Do what the script's process does after the script."""
        self._drain(stage)
        program_end.finish_threads()
        program_end.run_exit_handlers()
        self._drain(stage)
        Process.refusal = program_end.TOO_LATE
        program_end.release_modules()

    def _drain(self, stage: ParentReplay) -> None:
        session = stage.session
        stage.wait(stage.parent.is_drained, None)
        while session.context.listeners and session.call_back is not None:
            session.call_back()
            stage.wait(stage.parent.is_drained, None)

    def nested(self) -> list[Played]:
        """Replay the parents that are not the script and not done."""
        self.stage(ids.ROOT, "worker")
        Process.importing = self.settings.script.script or self.settings.script.module
        random_streams.install(self.settings.streams, self.settings.seed, _here, tasks=True)
        # User code may fail; its items report what is missing.
        with contextlib.suppress(Exception, SystemExit):
            user_script.prepare(self.settings.script)
            user_script.import_for_workers(self.settings.script, survey=True)
        Process.importing = None
        state = read_state(self.view, self.settings.run)
        return [self._nested(state, path) for path in self.wanted.nested]

    def _nested(self, state: Any, path: str) -> Played:
        stage = self.stage(path, "worker")
        place = ids.parse_item(path)
        assert place is not None, "the script is no item"
        piece = state.parents[place[0]].batches[place[1]].piece_at(place[2])
        prefix = ids.log_prefix(self.settings.run, place[0])
        raw = self.view.get(Table.ARGS, ids.record_key(prefix, piece.record))
        frame = None if raw is None else wire.decode_up(raw)
        define = self.defines[piece.fn]
        stage.name = short(define.options.name or define.name)
        if not isinstance(frame, wire.Args):
            reason = "cannot be run: the journal lacks its arguments, as one that was repaired may"
            return Played(path, stage.name, 0, 0, 0, 0, complete=False, stands=reason)
        arg = frame.args[piece.offset + place[2] - piece.start]
        return stage.play(lambda stage: self._item(stage, define, arg))

    def _item(self, stage: ParentReplay, define: wire.Define, arg: bytes) -> None:
        """Run a nested parent (the body of a greenlet)."""
        from resilient_scoop.adapters.retrying import retried

        functions, options = Functions(self.store), define.options

        def call() -> Any:
            rng.seed(ids.seed_of(self.settings.seed, stage.asked.path))
            generators.look_again()
            function, value = (
                functions.make(define),
                payload.loads(arg, self.store, "argument", is_call=True),
            )
            generators.seed(stage.asked.path, generators.within([function]))
            styles = (lambda: function(value), lambda: function(*value))
            return (*styles, lambda: function(*value[0], **value[1]))[define.style]()

        found, failed = "its value", False
        try:
            if options.retries or options.retry is not None:
                retried(call, options.retries, options.retry, lambda _: None)
            else:
                call()
        except BaseException as error:  # user code: whatever it raises is its outcome
            found, failed = traceback.format_exception_only(error)[-1].strip(), True
            stage.raised = raised_at(error)
        stage.parent.finish(found, failed=failed, journaled=None)
        stage.main.switch()


def _here() -> Context:
    assert Process.session is not None, "a stage is set before anything of the user's runs"
    return Process.session.context


def main() -> int:
    """Replay what standard input names; print a JSON line for each parent."""
    settings = take_settings()
    ignored_signals.spare_children(settings.ignored)  # as the script's own process
    user_signals.install(lambda: False)
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=ReplayRequest)
    sys.dont_write_bytecode = True
    verdicts = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2 if wanted.shows else null, 1)
    sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115 - open as long as the process
    with JournalView.open(Path(settings.run_dir) / "journal") as view:
        theater = ReplayRunner(settings, view, wanted)
        played = theater.nested() if wanted.nested else [theater.root()]
    for each in played:
        os.write(verdicts, msgspec.json.encode(each) + b"\n")
    os._exit(0)  # no user code may continue to run
