"""The user's program: run as `__main__` in the origin, imported once as a module in every worker.

In a worker its name is `__rscoop_main__`, so that what stands under `if __name__ == "__main__":` is
not run; there `__main__` is the same module under a second name, and in the origin
`__rscoop_main__` is, so that functions and classes of the script are found under one identity
whoever pickled them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from typing import TYPE_CHECKING, Final

from resilient_scoop.errors import UsageError

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from resilient_scoop.runtime.child import ScriptSpec

ALIAS: Final = "__rscoop_main__"


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
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = sys.modules[ALIAS] = module
    _execute(spec, module, "__main__")


def names_under_guard(spec: ScriptSpec) -> frozenset[str]:
    """Return what the program binds only under `if __name__ == "__main__":`: workers lack it."""
    import ast

    source, path = _source(spec)
    try:
        body = ast.parse(source, path).body
    except (SyntaxError, ValueError):
        return frozenset()  # running it says so
    bound: dict[bool, set[str]] = {False: set(), True: set()}
    for statement in body:
        is_guard = isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)
        parts = statement.body if is_guard and isinstance(statement, ast.If) else [statement]
        for part in parts:
            bound[is_guard].update(_bound(part))
    return frozenset(bound[True] - bound[False])


def _bound(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds in its module."""
    import ast

    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Lambda():
            return
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.alias(name=name, asname=asname):
            yield asname or name.partition(".")[0]
        case _:
            for child in ast.iter_child_nodes(statement):
                yield from _bound(child)


def _source(spec: ScriptSpec) -> tuple[bytes, str]:
    path = spec.script
    if spec.module is not None:
        found = _find(spec.module)
        path = None if found is None else found.origin
    if path is None:
        return b"", ""
    with io.open_code(path) as file:
        return file.read(), path


def import_for_workers(spec: ScriptSpec) -> None:
    """Import the program so that its functions and classes are here; what it raises comes through."""
    module = types.ModuleType(ALIAS)
    sys.modules["__main__"] = sys.modules[ALIAS] = module
    _execute(spec, module, ALIAS)


def _execute(spec: ScriptSpec, module: types.ModuleType, name: str) -> None:
    code, module_spec, path = _code(spec)
    module.__dict__.update(
        __name__=name,
        __file__=path,
        __spec__=module_spec,
        __loader__=None if module_spec is None else module_spec.loader,
        __package__=None if module_spec is None else module_spec.parent,
        __builtins__=__builtins__,
    )
    if spec.module is not None:
        sys.argv[0] = path
    exec(code, module.__dict__)  # noqa: S102 - the user's program


def _code(
    spec: ScriptSpec,
) -> tuple[types.CodeType, importlib.machinery.ModuleSpec | None, str]:
    if spec.module is None:
        assert spec.script is not None, "a run has a script or a module"
        with io.open_code(spec.script) as file:
            return compile(file.read(), spec.script, "exec", dont_inherit=True), None, spec.script
    found = _find(spec.module)
    loader = None if found is None else found.loader
    if found is None or not isinstance(loader, importlib.machinery.SourceFileLoader):
        raise UsageError(f"no module named {spec.module} with Python source in {spec.cwd}")
    code = loader.get_code(found.name)
    assert code is not None, "source files have code"
    return code, found, found.origin or spec.module


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return the module, or a package's `__main__`."""
    found = importlib.util.find_spec(name)
    if found is not None and found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{name}.__main__")
    return found
