"""The user's program: run as `__main__` in the script's process, imported as `__main__` in every worker.

A worker imports it with the guard closed (`processes.main_guard`), so that functions, classes and
pickles name the same module on both sides, and process pools in tasks find the script as pools in
the script's process do.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Final, cast

from resilient_scoop.identity import imported_values, process_settings
from resilient_scoop.processes import imported_files, main_guard, program, scoop_names
from resilient_scoop.processes.here import Process
from resilient_scoop.task_state import locks, thread_locals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from importlib.abc import Loader

    from resilient_scoop.processes.starting import ScriptSpec

_OLD_NAME: Final = "__rscoop_main__"
"""The module name of the script in workers of version 0.1.0; pickles in their journals use it."""


def prepare(spec: ScriptSpec) -> None:
    """Set `sys.argv` and `sys.path` as Python would for this program, and the kind of its locks."""
    locks.install()
    thread_locals.install()
    process_settings.install()
    scoop_names.install(Process.tell_user)
    os.chdir(spec.cwd)
    if not sys.flags.safe_path:
        del sys.path[0]  # the entry that `-m` added for our own entry point
    first = program.first_entry(spec)
    if first is not None:
        sys.path.insert(0, first)
    sys.argv = [spec.argv0 or spec.module or spec.script or "", *spec.argv]


def run_as_main(spec: ScriptSpec) -> None:
    """Run the program as `__main__`; its exceptions propagate."""
    _execute(spec, closed=False)


def import_for_workers(spec: ScriptSpec, *, survey: bool = False) -> None:
    """Import the program, to define its functions and classes; its exceptions propagate.

    Files are left whole (`imported_files`); with `survey`, no task follows.
    """
    _execute(spec, closed=True, around=imported_files.left_whole(survey=survey))


def names_under_guard(spec: ScriptSpec) -> frozenset[str]:
    """Return the names that the program binds only under its guard; workers lack them."""
    import ast

    source, path = program.source(spec)
    try:
        return main_guard.names_under(ast.parse(source, path))
    except (SyntaxError, ValueError):
        return frozenset()  # running it will report the error


def _execute(
    spec: ScriptSpec,
    *,
    closed: bool,
    around: AbstractContextManager[None] | None = None,
) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if not any(isinstance(finder, _OldName) for finder in sys.meta_path):
        sys.meta_path.append(_OldName())
    found = program.load(spec, closed=closed)
    module.__dict__.update(
        __file__=found.path,
        __spec__=found.module,
        __loader__=found.loader,
        __package__=None if found.module is None else found.module.parent,
        __cached__=None if found.module is None else found.module.cached,
        __builtins__=__builtins__,
    )
    if sys.version_info < (3, 14):
        module.__dict__["__annotations__"] = {}  # noqa: RUF063 - as Python does
    if main_guard.NAME_OF_CODE in found.code.co_names:
        module.__dict__[main_guard.NAME_OF_CODE] = main_guard.SEEN
    if spec.module is not None:
        sys.argv[0] = found.path
    try:
        with around or contextlib.nullcontext():
            exec(found.code, module.__dict__)  # noqa: S102 - the user's program
        imported_values.note()
    finally:
        if not closed:
            imported_files.script_is_imported()
    if found.rest is not None:
        exec(found.rest, module.__dict__)  # noqa: S102 - the user's program


class _OldName:
    """Gives the script to pickles of old journals that call it `_OLD_NAME`."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: types.ModuleType | None = None,  # noqa: ARG002 - the protocol's
    ) -> ModuleSpec | None:
        """Find that name only."""
        return ModuleSpec(fullname, cast("Loader", self)) if fullname == _OLD_NAME else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        """Return None: Python makes the module."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Replace the module by the script, as a module may do during its import."""
        sys.modules[module.__name__] = sys.modules["__main__"]
