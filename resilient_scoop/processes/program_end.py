"""The end of a Python program, for processes that end by `os._exit` and not by Python's own steps.

The order is Python's: the error or the text of the exit is shown; executors are finished and
threads that are not daemons joined; exit handlers run, the last one first; the streams are flushed;
the globals of modules are deleted, so that files are closed and finalizers run; the buffers of C
libraries are flushed.

The process of the script does this with its connection to the broker open, up to `release_modules`: what is
printed in these steps is normal output. The last message to the broker, that the run has ended,
comes after all of it. So if the process is killed in between, its successor repeats these steps.

Signals reach user code here as they do in the script (`processes.user_signals`).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import itertools
import os
import re
import signal
import site
import stat
import sys
import threading
import traceback
import types
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from resilient_scoop.payload.payload import is_missing_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    AuditHook = Callable[[str, tuple[Any, ...]], None]

INTERRUPTED: Final = 128 + signal.SIGINT
TOO_LATE: Final = (
    "futures were used by a finalizer after the script's end: use them in the script or in an exit "
    "handler (atexit)"
)
_PACKAGE: Final = __name__.partition(".")[0]
_needed: set[str] = set()
_has_hooks: Final = threading.Event()
"""Set once user code has added an audit hook: it is called to the very end, and needs its globals."""
caches: list[Callable[[], None]] = []
"""Functions that clear caches which may hold objects of the user."""


@functools.cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)


_RARER: Final = 5
"""Full collections are so many times rarer: futures, of which there may be many, stay for long."""


def load() -> None:
    """Import what the end needs: at the end there may be no descriptor left to read a module."""
    before = set(sys.modules)
    _libc()
    _needed.update(sys.modules.keys() - before)
    sys.addaudithook = _noticing(sys.addaudithook)  # type: ignore[assignment]  # the name of a parameter


def _noticing(add: Callable[[AuditHook], None]) -> Callable[[AuditHook], None]:
    """Return a function that adds a hook, and notices that there is one."""

    @functools.wraps(add)
    def addaudithook(hook: AuditHook) -> None:
        _has_hooks.set()
        add(hook)

    return addaudithook


def begin() -> None:
    """Record which modules are ours, wherever they are: no module of the user is imported yet."""
    _needed.update(sys.modules)
    gc.freeze()  # present objects stay to the end: collections can skip them
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, old * _RARER)


def exit_status(error: SystemExit) -> int:
    """Return the exit status of Python, and print what Python would print."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or a closed one
        sys.stderr.write(f"{error.code}\n")
    return 1


def report(error: BaseException) -> int:
    """Show an uncaught error as Python would; return the status that Python would exit with."""
    trace = error.__traceback__
    while trace is not None and _is_runtime(trace.tb_frame):
        trace = trace.tb_next
    trace = _without_imports(trace)
    note = _hint(error)
    if note:
        error.add_note(note)
    # Debuggers look there, and it keeps the frames alive until the globals are deleted.
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    hook = sys.excepthook
    try:
        if hook is sys.__excepthook__:
            traceback.print_exception(type(error), error, trace)
        else:
            hook(type(error), error, trace)
    except SystemExit as asked:
        return exit_status(asked)
    except BaseException as second:  # user code: the script's own hook
        sys.stderr.write("Error in sys.excepthook:\n")
        traceback.print_exception(second)
        sys.stderr.write("\nOriginal exception was:\n")
        traceback.print_exception(type(error), error, trace)
    _flush(sys.stderr)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _without_imports(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Remove our frames of imports and of `print`: Python omits its own, or has none there."""
    links = []
    while trace is not None:
        links.append(trace)
        trace = trace.tb_next
    if any(_is_watcher(link.tb_frame) for link in links):
        links = [link for link in links if not _is_import(link.tb_frame)]
    links = [link for link in links if not _is_output(link.tb_frame)]
    for link, after in itertools.pairwise([*links, None]):
        if link is not None:
            link.tb_next = after
    return links[0] if links else None


def _is_watcher(frame: types.FrameType) -> bool:
    return bool(frame.f_globals.get("__name__", "") == f"{_PACKAGE}.task_state.import_watcher")


def _is_import(frame: types.FrameType) -> bool:
    return _is_watcher(frame) or frame.f_code.co_filename.startswith("<frozen importlib")


def is_plain(error: BaseException) -> bool:
    """Return whether an error is an interrupt that the script does not show itself."""
    return isinstance(error, KeyboardInterrupt) and sys.excepthook is sys.__excepthook__


def place(error: BaseException) -> str:
    """Return where an error was raised in user code."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_globals.get("__name__", "").startswith(f"{_PACKAGE}."):
            found = frame.f_code, line
    return "at its end" if found is None else f'at "{found[0].co_filename}", line {found[1]}'


def _is_output(frame: types.FrameType) -> bool:
    return bool(frame.f_globals.get("__name__", "") == f"{_PACKAGE}.processes.origin.stdout")


def _is_runtime(frame: types.FrameType) -> bool:
    return bool(frame.f_globals.get("__name__", "").startswith(f"{_PACKAGE}.processes"))


def _hint(error: BaseException) -> str:
    missing = re.search(r"name '(\w+)'", str(error)) if isinstance(error, NameError) else None
    if missing is None or not is_missing_in_workers(missing[1]):
        return ""
    return (
        f'`{missing[1]}` is set under `if __name__ == "__main__":`, which workers do not run: '
        "pass it as an argument, set it with shared.setConst, or move it above"
    )


def finish_threads() -> None:
    """Finish executors and join the threads that are not daemons."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as Python's own end
    except BaseException as error:  # user code: an interrupt, or an exit function of a thread pool
        _show_ignored(error)


def _show_ignored(error: BaseException) -> None:
    """Show an error of `threading` that has no effect, as Python does: without the frame of our caller."""
    import traceback  # slow, and seldom needed

    if sys.stderr is None:
        return
    trace = error.__traceback__ and error.__traceback__.tb_next
    told = traceback.TracebackException(type(error), error, trace)
    where = f"in: {threading!r}"
    if sys.version_info >= (3, 13):
        where = "on threading shutdown:"
        for frame in told.stack:  # without marks below the lines
            frame.colno = frame.end_colno = None
    sys.stderr.write("".join([f"Exception ignored {where}\n", *told.format()]))


def run_exit_handlers() -> None:
    """Run what was registered with `atexit`; what a handler raises is shown, as Python shows it."""
    atexit._run_exitfuncs()  # noqa: SLF001 - as Python's own end
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)


def release_modules() -> None:
    """Delete the globals of the user's modules: files are closed, finalizers run.

    A module without other references is deleted as a whole, so that its finalizers still find its
    globals; for other modules the globals are cleared, as Python does.
    """
    threading.excepthook = lambda _: None  # daemon threads fail now, and their errors are not shown
    for stream in ("stdout", "stderr", "stdin"):
        setattr(sys, stream, getattr(sys, f"__{stream}__"))
    for name in ("last_type", "last_value", "last_traceback"):
        setattr(sys, name, None)
    gc.collect()  # as Python does: it also closes files before their buffers and descriptors
    _flush_files()
    marks = _disown()
    for empty in caches:
        empty()
    for name in ("dill._dill", "dill.session"):  # dill keeps the script's module
        if hasattr(sys.modules.get(name), "_main_module"):
            sys.modules[name]._main_module = types.ModuleType("__main__")  # type: ignore[attr-defined]  # noqa: SLF001 - a field of a module of its own
    gc.collect()
    held = [
        names
        for mark in marks
        if (sign := mark()) is not None
        for names in gc.get_referrers(sign)
        if isinstance(names, dict)
    ]
    for names in [] if _has_hooks.is_set() else held:
        _clear(names)
    gc.collect()
    for stream in ("stdout", "stderr"):
        _flush(getattr(sys, stream))
    _libc().fflush(None)


def _flush_files() -> None:
    """Flush what is open for writing on disk: garbage collection may close a descriptor too early."""
    for each in gc.get_objects():
        if isinstance(each, io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom):
            with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
                if not each.closed and stat.S_ISREG(os.fstat(each.fileno()).st_mode):
                    each.flush()


class _Sign:
    """A marker in a module's globals that is deleted with them."""


def _disown() -> list[weakref.ref[_Sign]]:
    """Remove the user's modules from the interpreter; return marks that show which globals are alive."""
    marks = []
    for name, module in reversed(list(sys.modules.items())):
        if _is_users(name, module):
            sign = module.__dict__["__rscoop_end__"] = _Sign()
            marks.append(weakref.ref(sign))
            sys.modules[name] = None  # type: ignore[assignment]  # as Python's own end
    return marks


def _is_users(name: str, module: object) -> bool:
    """Return whether a module is the script or is beside it: libraries clean up at exit."""
    if not isinstance(module, types.ModuleType) or name.partition(".")[0] == _PACKAGE:
        return False
    if name in _needed and name != "__main__":
        return False
    if name in ("__main__", "__mp_main__") or getattr(module, "__name__", "") == "__main__":
        return True
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not file.startswith(_libraries()) and not _packaged(file)


def _packaged(file: str) -> bool:
    return bool({"site-packages", "dist-packages"} & set(Path(file).parts))


@functools.cache
def _libraries() -> tuple[str, ...]:
    # Not by `sysconfig`: the script may have left nothing in `sys.path` that it is found in.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = {str(Path(os.__file__).parent), f"{sys.base_exec_prefix}/{sys.platlibdir}/{version}"}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(path.rstrip(os.sep) + os.sep for path in paths)


def _clear(names: dict[str, Any]) -> None:
    """Clear a module's globals: private ones first."""
    for private in (True, False):
        for name in [name for name in names if name != "__builtins__"]:
            is_private = name.startswith("_") and not name.startswith("__")
            if names[name] is not None and (is_private or not private):
                names[name] = None


def _flush(stream: Any) -> None:
    """Flush a stream of the user, which may be any object."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.flush()


def leave(code: int) -> NoReturn:
    """End the process, with the exit functions of C libraries."""
    libc = _libc()
    libc.exit(code)
    os._exit(code)
