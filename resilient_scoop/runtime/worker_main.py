"""A worker: imports the script, then runs what the broker hands out until it is told to stop."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from typing import Final, NoReturn

from resilient_scoop.adapters import generators, process_state, thread_locals
from resilient_scoop.adapters.payload_lacking import in_a_line
from resilient_scoop.core.parent import Parent
from resilient_scoop.errors import ScriptGuardError
from resilient_scoop.runtime import (
    deaf,
    ending,
    forks,
    importing,
    kept_code,
    script,
    streams,
    task_output,
    user_signals,
)
from resilient_scoop.runtime.child import CANNOT_IMPORT, take_settings
from resilient_scoop.runtime.current import Process, announce
from resilient_scoop.runtime.executor import Executor
from resilient_scoop.runtime.functions import Functions
from resilient_scoop.runtime.hub import Hub
from resilient_scoop.runtime.making_parents import make_parent
from resilient_scoop.runtime.session import Session
from resilient_scoop.wire.messages import Bye, encode

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})


def say(text: str) -> None:
    """Say something in the worker's log."""
    sys.stderr.write(f"rscoop: {text}\n")
    sys.stderr.flush()


def import_script(session: Session, functions: Functions) -> None:
    """Import the user's program.

    A worker that cannot do so ends, and no item gets an outcome by it: its agent tries again, or has the
    run stopped. A script that ends the import by `sys.exit` may have defined all that is needed.
    """
    spec = session.settings.script
    Process.importing = spec.script or spec.module
    kept_code.install(session.settings.run_dir)
    importing.tell_when_asked()
    thread_locals.importing(begins=True)
    try:
        script.prepare(spec)
        script.import_for_workers(spec)
    except SystemExit as error:
        forks.end_if_child(error)
        functions.script_error = error
        say(f"the script called sys.exit({error.code!r}) while a worker imported it")
    except BaseException as error:  # user code: the script's top level
        forks.end_if_child(error)
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NO_ROOM:
            raise  # a limit of the system is met: `runtime.proc` says which
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
        say(reason)
        session.close()
        os._exit(CANNOT_IMPORT)
    finally:
        Process.importing = None
        thread_locals.importing(begins=False)
    forks.end_if_child()


def main() -> NoReturn:
    """Run a worker."""
    settings = take_settings()
    deaf.spare_children(settings.ignored)
    session = Session("worker", settings, node="local", pid=os.getpid())
    announce(session, settings)
    forks.watch(session)
    user_signals.install(lambda: False)
    ending.begin()
    task_output.install(session)
    functions = Functions(session.store)
    functions.where = f"worker {settings.name}"
    executor = Executor(session, functions, f"worker {settings.name}")

    def parent_here() -> Parent:
        return make_parent(session, Process.policy, say)

    Process.say, Process.make_parent = say, parent_here
    streams.install(settings.streams, settings.seed, lambda: session.context, tasks=True)
    hub = Hub(session, executor, say)
    hub.lock_waits.install()
    import_script(session, functions)
    process_state.take_base()
    generators.look_again()
    if settings.audit:
        from resilient_scoop.runtime.audit import Audit

        Audit(session).start()
    session.record.ready()
    session.start_deputy()
    with session.lock:
        session.beat(time.monotonic())
    ending.load()
    hub.run()
    Process.refusal = f"futures were used in {settings.name} after the run's end"
    with session.lock:
        session.machine.out.append(encode(Bye()))
    session.record.end()
    session.close()
    hub.end_waiting()
    functions.forget_all()
    _end()


def _end() -> NoReturn:
    """End as a Python program does. What keeps a worker from it is ended by its agent, after a while."""
    ending.finish_threads()
    ending.run_exit_handlers()
    ending.let_go()
    task_output.finish()
    ending.leave(0)
