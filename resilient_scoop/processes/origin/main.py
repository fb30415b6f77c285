"""The origin: runs the script itself, as the root future.

What the script writes to `sys.stdout` goes to the broker, which records it before the launcher
shows it; on a replay, recorded output is not sent again, and a prefix that differs is reported.
Text for standard error is written directly, except during a replay.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from resilient_scoop import ids
from resilient_scoop.core.endings import START_AGAIN, STOPPED
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import CheckpointUnusableError, ReplayDivergedError
from resilient_scoop.payload.payload import keep_by_value
from resilient_scoop.processes import (
    UNWRITTEN,
    forked_children,
    ignored_signals,
    imported_files,
    kept_code,
    own_imports,
    program_end,
    random_streams,
    user_script,
    user_signals,
)
from resilient_scoop.processes.connection import BEAT_S, Connection, live_outcomes
from resilient_scoop.processes.here import Process, announce
from resilient_scoop.processes.origin import interrupt
from resilient_scoop.processes.origin.direct_output import InOrder
from resilient_scoop.processes.origin.stdin import Pieces, script_stdin
from resilient_scoop.processes.origin.stdout import (
    Errors,
    ScriptOutput,
    ScriptStdout,
    never,
    not_used_again,
    recorded_by_now,
    repeating,
)
from resilient_scoop.processes.starting import take_settings
from resilient_scoop.task_state import manager_key
from resilient_scoop.wire.messages import Halted, RunEnded, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.processes.starting import ChildSettings


def tell_user(text: str) -> None:
    """Send a message to the user."""
    errors = sys.stderr
    if isinstance(errors, Errors):
        errors.flush()
        if text.startswith("replay: "):
            errors.repeats = never  # from here on its output differs
    with contextlib.suppress(OSError):  # standard error is closed
        os.write(2, f"rscoop: {text}\n".encode("utf-8", "replace"))


class Root:
    """The way in which the root future waits: it receives."""

    def __init__(self, session: Connection) -> None:
        self.session = session
        self.interrupt = interrupt.ScriptInterrupt(session)

    def heed_stop(self) -> None:
        """Deliver a Ctrl-C to the script; for any other stop of the run, end at once."""
        if self.interrupt.is_heard:
            self.interrupt.tell()
        else:
            leave_if_stopped(self.session)

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Receive until `ready()` holds (True) or the moment `until` (False)."""
        with self.session.turn():
            if ready():
                return True
        record, begun = self.session.record, self.session.record.read() is not None
        record.idle()  # the script does not cause a death while it waits
        parent = self.session.context.parent
        if parent is not None:
            record.reach(parent.calls.next + parent.history.next_observation)
        self.session.is_waiting = True
        try:
            return self._receive(ready, until)
        finally:
            self.session.is_waiting = False
            if begun:
                record.run_again()

    def _receive(self, ready: Callable[[], bool], until: float | None) -> bool:
        session = self.session
        parent = session.context.parent
        before = live_outcomes(parent)
        while True:
            if session.is_cut:
                return interrupt.wait_cut(ready, until)
            with session.turn():
                if ready():
                    break
                parent = session.context.parent
                frame = None if parent is None else parent.page_wanted()
                if frame is not None:
                    session.send(frame)
                left = BEAT_S if until is None else until - time.monotonic()
                if left <= 0:
                    session.pump()
                    return ready()
                pumping = session.pumping
                if pumping is None:
                    session.pump(min(left, BEAT_S))
                else:
                    session.flush(time.monotonic())
            if pumping is not None:
                pumping.wake()
                user_signals.breakable(functools.partial(pumping.wait, min(left, BEAT_S)))
            self.heed_stop()
            user_signals.deliver_due()
        if session.context.in_once:
            return True  # the function of `once` would run again
        if session.settings.options.always_replay and live_outcomes(parent) > before:
            start_again(session)
        return True


def start_again(session: Connection) -> None:
    """End so that the agent starts the script again, which replays it (`always_replay`).

    The latest answers are in the journal, so it gets further each time.
    """
    session.close()
    os._exit(START_AGAIN)


def leave_if_stopped(session: Connection) -> None:
    """End at once if the run is stopped: a resume starts from the journal."""
    if session.machine.stopping is not None and session.machine.stopping != "ended":
        session.record.end()
        session.close()
        os._exit(STOPPED)


def main() -> int:
    """Run the origin."""
    settings = take_settings()
    ignored_signals.spare_children(settings.ignored)
    session = Connection("origin", settings, node="local", pid=os.getpid())
    announce(session, settings)
    forked_children.watch(session)
    program_end.begin()
    program_end.load()
    Process.tell_user = tell_user
    root = Root(session)
    session.waiter = root
    session.on_stop = root.heed_stop
    user_signals.install(root.interrupt.cut)
    session.start_deputy()
    with session.turn():
        session.beat(time.monotonic())
    machine = session.machine
    root.wait(lambda: machine.root is not None or machine.stopping is not None, None)
    if machine.root is None:
        session.close()
        os._exit(STOPPED)
    _begin(session)
    output = _redirect(session, settings)
    if settings.options.audit:
        from resilient_scoop.processes.audit import Audit

        Audit(session).start()
    root.interrupt.output = output
    in_order = InOrder(output, Path(settings.run_dir) / "shown")
    in_order.install()
    output.before_direct = in_order.wait
    _hear_exit(session, output)
    end = _run(session, settings, output)
    root.interrupt.output = None
    return _end(session, output, end)


def _hear_exit(session: Connection, output: ScriptOutput) -> None:
    """Make `os._exit` in the script end the run with that status without cleanup, as in Python.

    Not in its threads, which cannot wait for the broker, and not in its forked children.
    """
    leave, pid = os._exit, os.getpid()

    def _exit(status: int) -> NoReturn:
        caller = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001 - who calls is what matters
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and os.getpid() == pid and not caller.startswith("resilient_scoop."):
            os._exit = leave
            code = status & 0xFF
            _end(session, output, ScriptEnd(code, vain=_vain_answer(session) if code else -1))
        leave(status)

    os._exit = _exit


def _begin(session: Connection) -> Parent:
    """Make the script the root parent."""
    machine, task = session.machine, session.machine.root_task
    assert machine.root is not None, "the root is granted"
    assert task is not None, "the root is granted"
    parent = Parent(
        ids.ROOT, machine.root, task.replay, Process.policy, tell_user,
        lambda fn: machine.callables.known[fn].name if fn in machine.callables.known else fn.hex(),
    )  # fmt: skip
    machine.parents[ids.ROOT] = session.context.parent = parent
    if task.replay:
        # The first page of the history says how much of the output was recorded.
        assert session.waiter is not None, "the origin waits by receiving"
        session.waiter.wait(lambda: parent.history.after > 0 or not parent.history.replaying, None)
        machine.output_bytes = parent.history.output_known
        parent.history.again = not_used_again(session.settings)
    session.record.begin(machine.root.epoch, machine.root.no, "", 0, 0)
    session.record.ready()
    return parent


def _redirect(session: Connection, settings: ChildSettings) -> ScriptOutput:
    total_bytes = session.machine.output_bytes
    recorded, cut = recorded_by_now(settings, total_bytes) if total_bytes else (b"", None)
    session.machine.output_at = cut
    raw = ScriptOutput(
        session, recorded, tty=settings.tty, unbuffered=getattr(sys.stdout, "write_through", False)
    )
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    raw.text = sys.stdout = ScriptStdout(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True
    )
    session.input, sys.stdin = script_stdin(Pieces(session, settings).next)
    sys.__stdin__ = sys.stdin  # type: ignore[misc]  # where `sys.stdin` is put back
    builtins.input = _ask  # Python's own `input` would use the terminal directly
    error = Errors(
        sys.stderr.buffer, encoding=sys.stderr.encoding, errors="backslashreplace",
        line_buffering=True,
    )  # fmt: skip
    error.repeats, error.before = repeating(session, raw), raw.mark
    sys.stderr = error
    # Files to which the script, or its end, may restore the two streams.
    sys.__stdout__, sys.__stderr__ = raw.text, error  # type: ignore[misc]  # typed as final by typeshed
    return raw


def _ask(prompt: object = "", /) -> str:
    """Replace `input`: the prompt is sent like all output."""
    if sys.stdin is None:  # the script has removed it
        raise RuntimeError("input(): lost sys.stdin")
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")


class ScriptEnd(NamedTuple):
    """How the script ended."""

    code: int
    failed: bool = False
    message: str = ""  # the line of the error
    failed_at: int = -1  # length of the output before the error
    vain: int = -1  # the observation after which the script failed, if nothing was there


def _run(session: Connection, settings: ChildSettings, output: ScriptOutput) -> ScriptEnd:
    """Run the script to its end, and what Python runs after it."""
    random_streams.install(settings.streams, settings.seed, lambda: session.context, tasks=False)
    manager_key.follow(settings.run)
    try:
        end = _script(settings)
        if forked_children.is_child():
            forked_children.end(end.code)
        if end.failed and not session.is_cut:
            _halt_during_replay(session, end.message)
        _last_things(session)
        with contextlib.suppress(*[ReplayDivergedError] if end.failed else []):
            if not output.finish():
                end = end._replace(code=UNWRITTEN)
        if not (end.failed or session.is_cut):
            output.check_end()
            _refuse(session)
    except (ReplayDivergedError, CheckpointUnusableError) as error:
        tell_user(str(error))
        return ScriptEnd(error.exit_code, failed=True, message=str(error))
    return end


def _script(settings: ChildSettings) -> ScriptEnd:
    """Run the script; show the error or text with which it ends."""
    kept_code.install(settings.run_dir)
    own_imports.install()
    try:
        imported_files.script_begins(settings.run_dir)
        user_script.prepare(settings.script)
        keep_by_value(user_script.names_under_guard(settings.script))
        user_script.run_as_main(settings.script)
    except SystemExit as error:
        if isinstance(sys.stderr, Errors):
            sys.stderr.repeats = never
        code = program_end.exit_status(error)
        return ScriptEnd(code, vain=_vain_answer(Process.session) if code else -1)
    except (ReplayDivergedError, CheckpointUnusableError):
        raise
    except BaseException as error:  # user code: the script itself
        if isinstance(sys.stderr, Errors):
            sys.stderr.repeats = never
        with contextlib.suppress(AttributeError, OSError, ValueError, ReplayDivergedError):
            sys.stdout.flush()  # its output is shown before its error
        if Process.session is not None and Process.session.is_cut and program_end.is_plain(error):
            tell_user(f"Ctrl-C: the script was {program_end.place(error)}")
            return ScriptEnd(program_end.INTERRUPTED, failed=True)
        session = Process.session
        at = -1 if session is None or session.output is None else session.output.position()
        code = program_end.report(error)
        line = traceback.format_exception_only(error)[-1].strip()
        return ScriptEnd(code, failed=True, message=line, failed_at=at, vain=_vain_answer(session))
    return ScriptEnd(0)


def _vain_answer(session: Connection | None) -> int:
    """Return the number of the last answer that the script got if nothing was there, else -1.

    The script must have called nothing after it, or its next attempt would not find these calls again.
    """
    parent = None if session is None else session.context.parent
    vain = None if parent is None else parent.history.vain
    return vain[0] if parent is not None and vain and vain[1] == parent.calls.next else -1


def _last_things(session: Connection) -> None:
    """Do what Python does after a script; see `processes.program_end`."""
    _drain(session)
    program_end.finish_threads()
    program_end.run_exit_handlers()
    _drain(session)  # calls that exit handlers have submitted
    Process.refusal = program_end.TOO_LATE
    program_end.release_modules()


def _halt_during_replay(session: Connection, why: str) -> None:
    """Stop the run unchanged if a replayed script failed before it repeated its earlier calls.

    The cause is a change in its environment (a package, a file, a variable) or in its text. Nothing
    of this end is journaled, so that a resume in the right environment finds everything.
    """
    parent = session.context.parent
    if parent is None or parent.calls.next >= parent.history.known_calls:
        return
    reason = (
        f"the script failed ({why}) after {parent.calls.next} of the {parent.history.known_calls} calls "
        "that it had made before. The run was not changed: correct the error, then resume"
    )
    with session.turn():
        session.send(encode(Halted(parent.path, parent.attempt, reason)))
    assert session.waiter is not None, "the origin waits by receiving"
    session.waiter.wait(lambda: False, None)  # until the broker says stop


def _refuse(session: Connection) -> None:
    """Raise the divergence again, if the script has caught it: a strict replay must not end normally."""
    parent = session.context.parent
    if parent is not None and parent.judge.refusal is not None:
        raise parent.judge.refusal


def _drain(session: Connection) -> None:
    """Wait for submitted calls that the script did not wait for, as `concurrent.futures` does at exit."""
    parent, waiter = session.context.parent, session.waiter
    assert parent is not None, "the root is a parent"
    assert waiter is not None, "the origin waits by receiving"
    calls = parent.calls.open

    def is_drained() -> bool:
        if any(call.left for call in calls.values()):
            return False
        return session.shared is None or session.shared.is_drained

    while True:
        waiter.wait(lambda: bool(parent.judge.refusal) or is_drained(), None)
        if parent.judge.refusal or not session.context.listeners or session.call_back is None:
            return
        session.call_back()  # calls that the callbacks submit are included


def _end(session: Connection, output: ScriptOutput, end: ScriptEnd) -> int:
    """Tell the broker how the script ended, and wait until that is on disk."""
    machine, waiter = session.machine, session.waiter
    assert machine.root is not None, "the root is granted"
    assert waiter is not None, "the origin waits by receiving"
    parent = session.context.parent
    assert parent is not None, "the root is a parent"
    if session.is_cut:
        session.record.end()
        program_end.leave(STOPPED)
    with session.turn():
        machine.ended = RunEnded(
            machine.root, end.code, end.failed, end.message,
            parent.calls.next, parent.history.next_observation, output.position(), end.failed_at,
            machine.output_bytes + len(machine.written),
            sorted({*parent.history.again, end.vain} - {-1}),
        )  # fmt: skip
    waiter.wait(lambda: machine.stopping is not None, None)
    session.record.end()
    session.close()
    program_end.leave(end.code)
