"""A worker: imports the script, then runs the work that the broker assigns until it is told to stop."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from typing import Final, NoReturn

from resilient_scoop.adapters import import_stack
from resilient_scoop.core.endings import CANNOT_IMPORT
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import ScriptGuardError
from resilient_scoop.payload.missing import in_a_line
from resilient_scoop.processes import (
    forked_children,
    ignored_signals,
    imported_files,
    kept_code,
    own_imports,
    program_end,
    random_streams,
    task_output,
    user_script,
    user_signals,
)
from resilient_scoop.processes.callables import Functions
from resilient_scoop.processes.connection import Connection
from resilient_scoop.processes.here import Process, announce
from resilient_scoop.processes.starting import take_settings
from resilient_scoop.processes.worker.executor import SliceExecutor
from resilient_scoop.processes.worker.loop import WorkerLoop
from resilient_scoop.processes.worker.new_parents import make_parent
from resilient_scoop.task_state import generators, manager_key, process_state, thread_locals
from resilient_scoop.wire.messages import Bye, encode

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})


def tell_user(text: str) -> None:
    """Write a message to the worker's log."""
    sys.stderr.write(f"rscoop: {text}\n")
    sys.stderr.flush()


def import_script(session: Connection, functions: Functions) -> None:
    """Import the user's program.

    A worker that cannot do so ends, and no item gets an outcome from this: its agent tries again,
    or stops the run. A script that ends its import by `sys.exit` may have defined everything that
    is needed.
    """
    spec = session.settings.script
    Process.importing = spec.script or spec.module
    kept_code.install(session.settings.run_dir)
    own_imports.install()
    import_stack.tell_when_asked()
    thread_locals.importing(begins=True)
    try:
        user_script.prepare(spec)
        if not session.settings.is_remote:
            imported_files.wait_for_script(session.settings.run_dir)
        user_script.import_for_workers(spec)
    except SystemExit as error:
        forked_children.end_if_child(error)
        functions.script_error = error
        tell_user(f"the script called sys.exit({error.code!r}) while a worker imported it")
    except BaseException as error:  # user code: the top level of the script
        forked_children.end_if_child(error)
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NO_ROOM:
            raise  # a limit of the system is reached: `processes.entry` reports it
        if isinstance(error, ScriptGuardError):
            reason = f"{error}. No item is marked as failed: add the guard, then resume"
        else:
            traceback.print_exc()
            reason = (
                f"{functions.where} cannot import the script: {in_a_line(error)}. No item is marked as "
                "failed: make the import work for every process (packages, PYTHONPATH, files), then "
                "resume"
            )
        sys.stdout.flush()
        tell_user(reason)
        session.close()
        os._exit(CANNOT_IMPORT)
    finally:
        Process.importing = None
        thread_locals.importing(begins=False)
    forked_children.end_if_child()


def main() -> NoReturn:
    """Run a worker."""
    settings = take_settings()
    ignored_signals.spare_children(settings.ignored)
    session = Connection("worker", settings, node=settings.node, pid=os.getpid())
    announce(session, settings)
    forked_children.watch(session)
    user_signals.install(lambda: False)
    program_end.begin()
    task_output.install(session)
    functions = Functions(session.store)
    functions.where = f"worker {settings.name}"
    executor = SliceExecutor(session, functions, f"worker {settings.name}")

    def parent_here() -> Parent:
        return make_parent(session, Process.policy, tell_user)

    Process.tell_user, Process.make_parent = tell_user, parent_here
    random_streams.install(settings.streams, settings.seed, lambda: session.context, tasks=True)
    manager_key.follow(settings.run)
    loop = WorkerLoop(session, executor, tell_user)
    loop.lock_waits.install()
    import_script(session, functions)
    process_state.take_base()
    generators.look_again()
    if settings.options.audit:
        from resilient_scoop.processes.audit import Audit

        Audit(session).start()
    session.record.ready()
    session.start_deputy()
    with session.turn():
        session.beat(time.monotonic())
    program_end.load()
    loop.run()
    Process.refusal = f"futures were used in {settings.name} after the run's end"
    with session.turn():
        session.send(encode(Bye()))
    session.record.end()
    session.close()
    loop.end_waiting()
    functions.forget_all()
    _end()


def _end() -> NoReturn:
    """End as a Python program does. If this takes too long, the agent kills the worker."""
    program_end.finish_threads()
    program_end.run_exit_handlers()
    program_end.release_modules()
    task_output.finish()
    program_end.leave(0)
