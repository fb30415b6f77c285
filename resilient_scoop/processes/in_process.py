"""A session: a run whose script is the program that is running here, in any kind of Python process.

The program is not started by `rscoop`, so that nothing of it is replaced: not its output, not its
random streams, not its signal handlers. A launcher, started as a child process, keeps broker and
workers alive, and ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from resilient_scoop import ids
from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import RunBusyError, RunStoppedError
from resilient_scoop.identity import imported_values, process_settings
from resilient_scoop.payload import payload
from resilient_scoop.processes import ignored_signals, imported_files, starting, user_script
from resilient_scoop.processes.connection import Connection
from resilient_scoop.runs import json_text
from resilient_scoop.runs.folder import KEPT_SCRIPT, RunDir, RunInfo
from resilient_scoop.wire.messages import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.processes.options import RunOptions
    from resilient_scoop.processes.pump import Pump

START_S_MAX: Final = 60.0
"""Longest wait for the broker: a journal of a million results takes some seconds to open."""
_END_S_MAX: Final = 20.0
INTERACTIVE: Final = "<session>"
"""What stands for the path of a script that is typed."""


class MainProgram(NamedTuple):
    """What workers import as `__main__`."""

    script: str | None
    module: str | None
    first: str | None
    is_interactive: bool


def main_program() -> MainProgram:
    """Return the program of this process."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    first = sys.path[0] if sys.path else None
    if spec is not None and spec.name:
        return MainProgram(None, spec.name.removesuffix(".__main__"), first, is_interactive=False)
    file = getattr(main, "__file__", None)
    if isinstance(file, str) and os.path.isfile(file) and not hasattr(sys, "ps1"):  # noqa: PTH113 - strings, as `sys.argv` and `sys.path` have them
        return MainProgram(os.path.abspath(file), None, first, is_interactive=False)  # noqa: PTH100 - strings, as `sys.argv` and `sys.path` have them
    return MainProgram(INTERACTIVE, None, os.getcwd(), is_interactive=True)  # noqa: PTH109 - strings, as `sys.argv` and `sys.path` have them


class _ThreadWaiter:
    """The way in which threads of a session wait."""

    def __init__(self, pumping: Pump) -> None:
        self._pumping = pumping

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Wait until `ready()` holds (True) or the moment `until` (False)."""
        return self._pumping.wait_for(ready, until)


class _Observed:
    """The records of this process about its program."""

    is_noted = False


def _observe(program: MainProgram, settings: starting.ChildSettings) -> None:
    """Record the values that workers have after their import, so that later changes are sent with calls."""
    if program.is_interactive:
        payload.keep_all_by_value()
    else:
        payload.keep_by_value(user_script.names_under_guard(settings.script))
    if not _Observed.is_noted:
        _Observed.is_noted = True
        process_settings.install()
        imported_values.note("__main__" if program.is_interactive else "")


class InProcess:
    """One open session."""

    def __init__(
        self, run: RunDir, info: RunInfo, options: RunOptions, tell_user: Callable[[str], None]
    ) -> None:
        self.run = run
        self.info = info
        self._pid = os.getpid()
        settings = starting.settings_for(run, self.info, options, adopt=False)
        record = FlightRecord.create("session")
        settings = msgspec.structs.replace(
            settings, name="session", incarnation=b"o" + os.urandom(8), record_fd=record.fd,
            tty=False, ignored=ignored_signals.ignored_here(),
        )  # fmt: skip
        program = main_program()
        with contextlib.ExitStack() as undo:
            undo.callback(record.close)
            self._launcher = self._start_launcher(options)
            undo.callback(self._end_launcher)
            _observe(program, settings)
            self._await_hold()
            self.connection = Connection("origin", settings, node=PROGRAM, pid=os.getpid())
            undo.callback(self._disconnect)
            self._seat(tell_user)
            imported_files.script_is_imported(settings.run_dir)
            undo.pop_all()

    def _start_launcher(self, options: RunOptions) -> subprocess.Popen[bytes]:
        environ = dict(os.environ)
        given = [each for each in sys.path if each and os.path.isabs(each)]  # noqa: PTH117 - strings, as `sys.argv` and `sys.path` have them
        environ["PYTHONPATH"] = os.pathsep.join(given)
        launcher = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [
                sys.executable, "-P", "-m", "resilient_scoop.processes.entry", "session",
                self.run.key(self.info),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, start_new_session=True,
        )  # fmt: skip
        assert launcher.stdin is not None, "it is a pipe"
        fields = [
            str(self.run.path),
            *(json_text.encode(each).decode() for each in (options, self.info)),
        ]
        line = "\0".join(fields) + "\n"
        launcher.stdin.write(line.encode())
        launcher.stdin.flush()
        return launcher

    def _await_hold(self) -> None:
        """Wait until the launcher holds the run: before that, its broker may be that of another session."""
        launcher = self._launcher
        assert launcher.stdout is not None, "it is a pipe"
        poll = select.poll()
        poll.register(launcher.stdout, select.POLLIN)
        if not poll.poll(START_S_MAX * 1000):
            raise RunStoppedError(
                self.run.id,
                f"its launcher did not begin within {START_S_MAX:.0f} s; see {self.run.logs}",
            )
        first = launcher.stdout.read(1)
        if first == b"\n":
            return
        output = first + launcher.stdout.read()
        launcher.wait(_END_S_MAX)
        if launcher.returncode == RunBusyError.exit_code:
            raise self.run.busy_error()
        raise RunStoppedError(self.run.id, self._why(output))

    def _seat(self, tell_user: Callable[[str], None]) -> None:
        """Wait until the broker has granted this process the script's calls."""
        connection = self.connection
        machine = connection.machine
        with connection.turn():
            connection.beat(time.monotonic())
        pumping = connection.pump_by_thread()
        connection.waiter = _ThreadWaiter(pumping)
        until = time.monotonic() + START_S_MAX
        while not pumping.wait_for(lambda: machine.root is not None, time.monotonic() + 0.1):
            if self._launcher.poll() is not None:
                raise RunStoppedError(self.run.id, self._verdict())
            if time.monotonic() > until:
                raise RunStoppedError(
                    self.run.id,
                    f"its broker did not answer within {START_S_MAX:.0f} s; see {self.run.logs}",
                )
        root, task = machine.root, machine.root_task
        assert root is not None, "it was waited for"
        assert task is not None, "it comes with the root"
        parent = Parent(ids.ROOT, root, task.replay, Policy(), tell_user)
        with connection.turn():
            machine.parents[ids.ROOT] = connection.context.parent = parent

    def _why(self, output: bytes, otherwise: str | None = None) -> str:
        """Return the reason that the ended launcher has reported."""
        text = output.decode("utf-8", "replace").strip()
        return text or otherwise or f"its launcher ended with exit code {self._launcher.returncode}"

    def _verdict(self) -> str:
        """Return why the run has ended: the launcher's reason, or the broker's."""
        assert self._launcher.stdout is not None, "it is a pipe"
        return self._why(self._launcher.stdout.read(), self.connection.machine.stopping)

    @property
    def death(self) -> str:
        """The reason why the run has ended by itself; empty as long as it runs."""
        return "" if self._launcher.poll() is None else self._verdict()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child of the one that opened the session."""
        return os.getpid() != self._pid

    def become_child(self) -> None:
        """Leave the session alone: this process is a forked child of its program."""
        for pipe in (self._launcher.stdin, self._launcher.stdout):
            if pipe is not None:
                pipe.close()
        self.connection.become_child()

    def close(self) -> None:
        """End the run's processes; finished results stay in the journal."""
        self._disconnect()
        self._end_launcher()
        self.connection.record.close()

    def _disconnect(self) -> None:
        pumping = self.connection.pumping
        if pumping is not None:
            pumping.close()
        self.connection.close()
        if pumping is not None:
            pumping.release()

    def _end_launcher(self) -> None:
        launcher = self._launcher
        assert launcher.stdin is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):
            launcher.stdin.close()
        try:
            launcher.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        if launcher.stdout is not None:
            launcher.stdout.close()


def script_of(program: MainProgram) -> dict[str, Any]:
    """Return the part of a run's description that is about its program."""
    return {
        "script": program.script,
        "module": program.module,
        "first": program.first if program.is_interactive else None,
        "script_kept": program.is_interactive,
        "argv": [] if program.is_interactive else sys.argv[1:],
        "argv0": "" if program.is_interactive else sys.argv[0],
        "cwd": str(Path.cwd()),
    }


def files_of(program: MainProgram) -> dict[str, bytes]:
    """Return the files of a new run: workers of an interactive program import an empty script."""
    return {KEPT_SCRIPT: b""} if program.is_interactive else {}
