"""The user's program: run as `__main__` in the script's process, imported as `__main__` in every worker.

A worker imports it with the guard closed (`runtime.guard`), so that functions, classes and pickles
name the same module on both sides, and pools that tasks start find the script as those of the
script's process do.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Final

from resilient_scoop.errors import UsageError
from resilient_scoop.runtime import guard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.runtime.child import ScriptSpec

_OLD_NAME: Final = "__rscoop_main__"
"""What workers of version 0.1.0 called the script; pickles in their journals name it."""


def prepare(spec: ScriptSpec) -> None:
    """Set `sys.argv` and `sys.path` as Python would for this program."""
    os.chdir(spec.cwd)
    if spec.module is not None:
        sys.path[0] = spec.cwd
        sys.argv = [spec.module, *spec.argv]
    else:
        assert spec.script is not None, "a run has a script or a module"
        sys.path[0] = os.path.dirname(spec.script)  # noqa: PTH120 - as Python itself does
        sys.argv = [spec.script, *spec.argv]


def run_as_main(spec: ScriptSpec) -> None:
    """Run the program as `__main__`; what it raises comes through."""
    _execute(spec, closed=False)


def import_for_workers(spec: ScriptSpec) -> None:
    """Import the program so that its functions and classes are here; what it raises comes through."""
    _execute(spec, closed=True)


def names_under_guard(spec: ScriptSpec) -> frozenset[str]:
    """Return what the program binds only under `if __name__ == "__main__":`: workers lack it."""
    import ast

    source, path = _source(spec)
    try:
        return guard.names_under(ast.parse(source, path))
    except (SyntaxError, ValueError):
        return frozenset()  # running it says so


def _source(spec: ScriptSpec) -> tuple[bytes, str]:
    path = spec.script
    if spec.module is not None:
        found = _find(spec.module)
        path = None if found is None else found.origin
    if path is None:
        return b"", ""
    with io.open_code(path) as file:
        return file.read(), path


def _execute(spec: ScriptSpec, *, closed: bool) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if not any(isinstance(finder, _OldName) for finder in sys.meta_path):
        sys.meta_path.append(_OldName())
    code, module_spec, path = _code(spec, closed=closed)
    module.__dict__.update(
        __file__=path,
        __spec__=module_spec,
        __loader__=None if module_spec is None else module_spec.loader,
        __package__=None if module_spec is None else module_spec.parent,
        __builtins__=__builtins__,
    )
    if guard.NAME_OF_CODE in code.co_names:
        module.__dict__[guard.NAME_OF_CODE] = guard.SEEN
    if spec.module is not None:
        sys.argv[0] = path
    exec(code, module.__dict__)  # noqa: S102 - the user's program


def _code(spec: ScriptSpec, *, closed: bool) -> tuple[types.CodeType, ModuleSpec | None, str]:
    if spec.module is None:
        assert spec.script is not None, "a run has a script or a module"
        with io.open_code(spec.script) as file:
            return _compiled(file.read(), spec.script, closed=closed), None, spec.script
    found = _find(spec.module)
    loader = None if found is None else found.loader
    if found is None or not isinstance(loader, importlib.machinery.SourceFileLoader):
        raise UsageError(f"no module named {spec.module} with Python source in {spec.cwd}")
    path = loader.get_filename(found.name)
    return _compiled(loader.get_data(path), path, closed=closed), found, path


def _compiled(source: bytes, path: str, *, closed: bool) -> types.CodeType:
    if closed:
        return guard.closed(source, path)
    return compile(source, path, "exec", dont_inherit=True)


def _find(name: str) -> ModuleSpec | None:
    """Return the module, or a package's `__main__`."""
    found = importlib.util.find_spec(name)
    if found is not None and found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{name}.__main__")
    return found


class _OldName(MetaPathFinder, Loader):
    """Gives the script to pickles of old journals that call it `_OLD_NAME`."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: types.ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find that name only."""
        return ModuleSpec(fullname, self) if fullname == _OLD_NAME else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Put the script in the module's place, as a module may do while it is imported."""
        sys.modules[module.__name__] = sys.modules["__main__"]
