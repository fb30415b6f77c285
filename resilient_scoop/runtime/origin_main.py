"""The origin: runs the script itself, as the root future.

What the script writes to `sys.stdout` goes to the broker, which records it before the launcher
shows it; on a replay what was recorded is not sent again, and a prefix that differs is said. Text
for standard error goes straight there, but not while the script is only told again what it was told
before.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.adapters import rng
from resilient_scoop.adapters.payload import keep_by_value, lacking_in_workers
from resilient_scoop.core.parent import Parent
from resilient_scoop.errors import CheckpointUnusableError, ReplayDivergedError
from resilient_scoop.runtime import deaf, script
from resilient_scoop.runtime.child import START_AGAIN, take_settings
from resilient_scoop.runtime.current import Process, announce
from resilient_scoop.runtime.script_input import Pieces, script_stdin
from resilient_scoop.runtime.session import BEAT_S, Session, lived
from resilient_scoop.wire.messages import RunEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.runtime.child import ChildSettings

STOPPED = 75
_WIDE, _LINE_MAX = 400, 60  # bytes looked at, characters shown


def say(text: str) -> None:
    """Say something to the user."""
    os.write(2, f"rscoop: {text}\n".encode())


class Root:
    """How the root future waits: by receiving."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Receive until `ready()` holds (True) or the moment `until` (False)."""
        session = self.session
        parent = session.context.parent
        before = lived(parent)
        while True:
            with session.lock:
                if ready():
                    break
                parent = session.context.parent
                frame = None if parent is None else parent.page_wanted()
                if frame is not None:
                    session.machine.out.append(frame)
                left = BEAT_S if until is None else until - time.monotonic()
                if left <= 0:
                    session.pump()
                    return ready()
                session.pump(min(left, BEAT_S))
            leave_if_stopped(session)
        if session.settings.always_replay and lived(parent) > before:
            start_again(session)
        return True


def start_again(session: Session) -> None:
    """End so that the agent starts the script anew, which replays it (`always_replay`).

    What it was just told is in the journal, so it comes further each time.
    """
    session.close()
    os._exit(START_AGAIN)


def leave_if_stopped(session: Session) -> None:
    """End at once where the run is interrupted: what is journaled is what a resume begins with."""
    if session.machine.stopping is not None and session.machine.stopping != "ended":
        session.record.end()
        session.close()
        os._exit(STOPPED)


class Output(io.RawIOBase):
    """The script's standard output, on its way to the broker."""

    def __init__(self, session: Session, recorded: bytes, *, tty: bool) -> None:
        super().__init__()
        self._session = session
        self._tty = tty
        self._recorded = recorded  # what earlier attempts wrote, as the script's own bytes
        self._seen = 0  # bytes the script has written
        self.refusal: ReplayDivergedError | None = None  # of a divergence under --strict
        self.text: io.TextIOWrapper | None = None  # what writes here
        session.output = self

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether what the launcher shows goes to a terminal."""
        return self._tty

    def fileno(self) -> int:
        """Return the descriptor that child processes of the script write to."""
        return 1

    def write(self, data: object) -> int:
        """Take in bytes; those that an earlier attempt wrote are not sent again."""
        text = bytes(memoryview(data))  # type: ignore[arg-type]
        before = self._recorded[self._seen : self._seen + len(text)]
        if self.refusal is None and not text.startswith(before):
            self._diverge(before, text)
        if self.refusal is not None:
            return len(text)  # it has been raised; nothing of this may be recorded
        machine = self._session.machine
        with self._session.lock:
            machine.written += text[max(0, len(self._recorded) - self._seen) :]
            self._seen += len(text)
            if len(machine.written) > 1 << 16:
                self._session.flush(time.monotonic())
        return len(text)

    def position(self) -> int:
        """Return how many bytes the script has written."""
        return self._seen

    def skip_to(self, position: int) -> None:
        """Take all output before a position for written."""
        self._seen = max(self._seen, position)

    def _diverge(self, before: bytes, text: bytes) -> None:
        """The script writes something else than before: from this line on all of it is shown.

        What it is from here on is recorded as such, so that the next replay goes by it.
        """
        pairs = enumerate(zip(before, text, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), len(before))
        at = text.rfind(b"\n", 0, same) + 1
        before = self._recorded[self._seen + at :][:_WIDE]
        then, now = (f"{_line(each)!r}" for each in (before, text[at:]))
        if Process.policy.strict:
            self.refusal = ReplayDivergedError("the script's output", then, now)
            raise self.refusal
        say(f"replay: the script now writes {now} where it wrote {then}; from here on all is shown")
        self._recorded = self._recorded[: self._seen + at]
        self._session.machine.output_at = len(self._recorded)

    def finish(self) -> None:
        """Take in what the script has not flushed."""
        if self.text is not None and not self.text.closed:
            self.text.flush()

    def check_end(self) -> None:
        """The script is at its end: say so where it has written less than before."""
        if self.refusal is not None:
            raise self.refusal  # the script has caught it
        left = self._recorded[self._seen :]
        if left and Process.policy.strict:
            raise ReplayDivergedError("the script's output", repr(_line(left)), "the end")
        if left:
            say(f"replay: the script now ends where it wrote {_line(left)!r} before")


def _line(text: bytes) -> str:
    """Return a first line, or the beginning of a long one, for eyes."""
    line = text[:_WIDE].split(b"\n", 1)[0].decode(errors="replace")
    return line if len(line) <= _LINE_MAX else f"{line[:_LINE_MAX]}…"


def _recorded_output(settings: ChildSettings) -> bytes:
    from resilient_scoop.adapters.journal_view import JournalView
    from resilient_scoop.runtime.recorded import recorded_output

    with JournalView.open(Path(settings.run_dir) / "journal") as view:
        return recorded_output(view)


class Errors(io.TextIOWrapper):
    """Standard error, silent while the script repeats itself."""

    parent: Parent | None = None

    def write(self, text: str) -> int:
        """Write, unless all this was written before."""
        if self.parent is not None and self.parent.retelling:
            return len(text)
        return super().write(text)


def main() -> int:
    """Run the origin."""
    settings = take_settings()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    deaf.spare_children()
    session = Session("origin", settings, node="local", pid=os.getpid())
    announce(session, settings)
    rng.watch_imports(session.seed_here)
    Process.say = say
    root = Root(session)
    session.waiter = root
    session.on_stop = lambda: leave_if_stopped(session)
    session.start_deputy()
    with session.lock:
        session.beat(time.monotonic())
    machine = session.machine
    root.wait(lambda: machine.root is not None or machine.stopping is not None, None)
    if machine.root is None:
        session.close()
        os._exit(STOPPED)
    parent = _begin(session)
    output = _redirect(session, settings, parent)
    if settings.audit:
        from resilient_scoop.runtime.audit import Audit

        Audit(session).start()
    code, failed, message = _run(session, settings, output)
    return _end(session, output, code, failed=failed, message=message)


def _begin(session: Session) -> Parent:
    """Make the script the root parent."""
    machine, task = session.machine, session.machine.root_task
    assert machine.root is not None, "the root is granted"
    assert task is not None, "the root is granted"
    parent = Parent(
        ids.ROOT, machine.root, task.replay, Process.policy, say,
        lambda fn: machine.functions[fn].name if fn in machine.functions else fn.hex(),
    )  # fmt: skip
    machine.parents[ids.ROOT] = session.context.parent = parent
    if task.replay:
        # How much of the output was recorded comes with the first page.
        assert session.waiter is not None, "the origin waits by receiving"
        session.waiter.wait(lambda: parent.after > 0 or not parent.replaying, None)
        machine.output_bytes = parent.output_known
    session.record.begin(machine.root.epoch, machine.root.no, "", 0, 0)
    return parent


def _redirect(session: Session, settings: ChildSettings, parent: Parent) -> Output:
    recorded = _recorded_output(settings) if session.machine.output_bytes else b""
    raw = Output(session, recorded, tty=settings.tty)
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    raw.text = sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True
    )
    session.input, sys.stdin = script_stdin(Pieces(session, settings).next)
    sys.__stdin__ = sys.stdin  # type: ignore[misc]  # where `sys.stdin` is put back
    builtins.input = _ask  # Python's own would use the terminal, past all this
    error = Errors(
        sys.stderr.buffer, encoding=sys.stderr.encoding, errors="backslashreplace",
        line_buffering=True,
    )  # fmt: skip
    error.parent = parent
    sys.stderr = error
    return raw


def _ask(prompt: object = "", /) -> str:
    """Stand for `input`: the prompt goes the way of all output."""
    if sys.stdin is None:  # the script has taken it away
        raise RuntimeError("input(): lost sys.stdin")
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")


def _run(session: Session, settings: ChildSettings, output: Output) -> tuple[int, bool, str]:
    """Run the script; return (exit status, whether it raised, the error's line)."""
    rng.seed(ids.seed_of(session.machine.seed, ids.ROOT))
    code = 0
    try:
        try:
            script.prepare(settings.script)
            keep_by_value(script.names_under_guard(settings.script))
            script.run_as_main(settings.script)
            _drain(session)
        except SystemExit as error:
            code = _exit_status(error)
        output.finish()
        output.check_end()
        _refuse(session)
    except (ReplayDivergedError, CheckpointUnusableError) as error:
        say(str(error))
        return error.exit_code, True, str(error)
    except BaseException as error:  # user code: the script itself
        _show(error)
        with contextlib.suppress(ReplayDivergedError):  # it fails as it is, and records no more
            output.finish()
        return 1, True, traceback.format_exception_only(error)[-1].strip()
    return code, False, ""


def _refuse(session: Session) -> None:
    """Raise again what the script has caught: a strict replay does not end as if nothing had been."""
    parent = session.context.parent
    if parent is not None and parent.refusal is not None:
        raise parent.refusal


def _drain(session: Session) -> None:
    """Wait for what was submitted and nobody waited for, as `concurrent.futures` does at exit."""
    parent, waiter = session.context.parent, session.waiter
    assert parent is not None, "the root is a parent"
    assert waiter is not None, "the origin waits by receiving"
    calls = parent.calls
    waiter.wait(lambda: bool(parent.refusal or not any(c.left for c in calls.values())), None)


def _exit_status(error: SystemExit) -> int:
    """Return what Python would exit with, and say what it would say."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _show(error: BaseException) -> None:
    """Print the traceback as Python would, without our own frames above the script's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        "resilient_scoop.runtime"
    ):
        trace = trace.tb_next
    if isinstance(sys.stderr, Errors):
        sys.stderr.parent = None
    missing = re.search(r"name '(\w+)'", str(error)) if isinstance(error, NameError) else None
    if missing and lacking_in_workers(missing[1]):
        error.add_note(
            f'`{missing[1]}` is set under `if __name__ == "__main__":`, which workers do not run: '
            "pass it as an argument, set it with shared.setConst, or move it above"
        )
    traceback.print_exception(type(error), error, trace)
    sys.stderr.flush()


def _end(session: Session, output: Output, code: int, *, failed: bool, message: str) -> int:
    """Tell the broker how the script ended, and wait until that is on disk."""
    machine, waiter = session.machine, session.waiter
    assert machine.root is not None, "the root is granted"
    assert waiter is not None, "the origin waits by receiving"
    parent = session.context.parent
    assert parent is not None, "the root is a parent"
    with session.lock:
        machine.ended = RunEnded(
            machine.root, code, failed, message,
            parent.next_call, parent.next_observation, output.position(),
        )  # fmt: skip
    waiter.wait(lambda: machine.stopping is not None, None)
    session.record.end()
    session.close()
    os._exit(code)
