"""What a module's source says about its global names, without running it.

For each name: the text of the statements that bind or change it, the line of the first, and whether
its value differs in each process by its nature (a start time, a process id, a temporary folder).
The script's statements under `if __name__ == "__main__":` do not count: workers do not run them.
"""

from __future__ import annotations

import ast
import dis
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Final, NamedTuple

from resilient_scoop.values import source, source_text
from resilient_scoop.values.user_code import is_user_file
from resilient_scoop.values.user_modules import file_of

_VOLATILE_TEXT: Final = """
    time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time process_time_ns
    thread_time now utcnow today ctime asctime strftime localtime gmtime getpid getppid get_ident
    get_native_id current_thread mkdtemp mkstemp mktemp TemporaryDirectory NamedTemporaryFile
    TemporaryFile SpooledTemporaryFile uuid1 uuid4 getnode gethostname getfqdn urandom getrandom
    token_hex token_bytes token_urlsafe randbits getlogin getloadavg
"""
VOLATILE_CALLS: Final = frozenset(_VOLATILE_TEXT.split())
"""Functions whose values differ between processes or hosts by their nature; called by these names."""


class Binding(NamedTuple):
    """How a module binds one of its names."""

    text: str
    line: int
    volatile: bool


@lru_cache(maxsize=256)
def bindings(filename: str) -> dict[str, Binding]:
    """Return the global names that a source file binds outside its guarded part; empty without source."""
    tree = source.module_tree(filename)
    if tree is None:
        return {}
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if is_guard(statement):
            continue
        names = set(bound_by(statement))
        if not isinstance(statement, _DEFINING):
            names |= {each for each in _mentioned(statement) if each in found}
        for name in names:
            found.setdefault(name, []).append(statement)
    volatile = _volatile(found)
    return {
        name: Binding(
            source_text.of_statements(statements),
            statements[0].lineno,
            name in volatile,
        )
        for name, statements in found.items()
    }


@lru_cache(maxsize=1024)
def attribute_text(filename: str, cls: str, name: str) -> str:
    """Return the text of the statements in the body of a class that bind a name, or an empty one."""
    tree = source.module_tree(filename)
    body = [] if tree is None else tree.body
    for part in cls.split("."):
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == part]
        body = classes[-1].body if classes else []
    return source_text.of_statements([node for node in body if name in bound_by(node)])


_DEFINING: Final = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom,
)  # fmt: skip


def is_guard(statement: ast.stmt) -> bool:
    """Return whether a statement of a module is `if __name__ == "__main__":` or the like."""
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
    )


def bound_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds in its module."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Lambda():
            return
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.alias(name=name, asname=asname):
            yield asname or name.partition(".")[0]
        case _:
            for child in ast.iter_child_nodes(node):
                yield from bound_by(child)


def _mentioned(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _volatile(found: dict[str, list[ast.stmt]]) -> set[str]:
    """Return the names bound to values that differ between processes, directly or through other names."""
    candidates = {
        name: [each for each in statements if not isinstance(each, _DEFINING)]
        for name, statements in found.items()
    }
    volatile = {
        name
        for name, statements in candidates.items()
        if any(_calls_volatile(statement) for statement in statements)
    }
    while True:
        more = {
            name
            for name, statements in candidates.items()
            if name not in volatile and any(_mentioned(each) & volatile for each in statements)
        }
        if not more:
            return volatile
        volatile |= more


def _calls_volatile(statement: ast.stmt) -> bool:
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) | ast.Attribute(attr=name) if name in VOLATILE_CALLS:
                    return True
                case _:
                    pass
    return False


class ImportedInside(NamedTuple):
    """What a function can reach through its own import statements, without importing anything."""

    texts: list[tuple[str, str]]
    """By module, the statements that bind the imported names and the names in these."""
    names: list[tuple[str, str]]
    """(module, name) of each of these names, through all of the user's modules."""


def imported_inside(code: CodeType, package: str) -> ImportedInside:
    """Return what a function imports from the user's modules, and what that refers to."""
    found: dict[str, list[str]] = {}
    seen: set[tuple[str, str]] = set()
    attributes = {name for part in source.nested(code) for name in part.co_names}
    for part in source.nested(code):
        for module, names in _imports(part, package):
            _follow(module, names or attributes, found, seen)
    texts = [(label, "".join(sorted(each))) for label, each in sorted(found.items()) if each]
    return ImportedInside(texts, sorted(seen))


@lru_cache(maxsize=4096)
def imports_of(code: CodeType, package: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return (module, names) of the import statements of a function and of those nested in it."""
    return tuple(
        (module, frozenset(names))
        for part in source.nested(code)
        for module, names in _imports(part, package)
    )


@lru_cache(maxsize=4096)
def passed_on(code: CodeType) -> frozenset[str]:
    """Return the globals that a function, or one nested in it, uses for more than attribute access."""
    found = set()
    for part in source.nested(code):
        instructions = [each for each in dis.get_instructions(part) if each.opname not in _BETWEEN]
        for each, following in zip(instructions, [*instructions[1:], None], strict=True):
            if each.opname in source_text.GLOBAL_LOADS and not (
                following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD")
            ):
                found.add(each.argval)
    return frozenset(found)


_BETWEEN: Final = frozenset({"CACHE", "EXTENDED_ARG", "PUSH_NULL", "NOP"})


def _imports(code: CodeType, package: str) -> Iterator[tuple[str, set[str]]]:
    """Yield (module, names) of a function's import statements; no names: those used as attributes."""
    instructions = list(dis.get_instructions(code))
    for at, each in enumerate(instructions):
        if each.opname == "IMPORT_NAME":
            level, names = instructions[at - 2].argval, instructions[at - 1].argval
            module = each.argval
            if isinstance(level, int) and level:
                try:
                    module = importlib.util.resolve_name("." * level + module, package)
                except ImportError:
                    continue
            yield module, set(names or ())
            for name in names or ():
                yield f"{module}.{name}", set()  # it may be a module


def _follow(
    module: str, names: set[str], found: dict[str, list[str]], seen: set[tuple[str, str]]
) -> None:
    file = _file_of(module)
    if file is None or not is_user_file(file):
        return
    known = bindings(file)
    wanted = _bound_of(names, known)
    tree = source.module_tree(file)
    package = module if Path(file).stem == "__init__" else module.rpartition(".")[0]
    while wanted:
        name = wanted.pop()
        if (module, name) in seen:
            continue
        seen.add((module, name))
        found.setdefault(module, []).append(f"{name}={known[name].text}")
        for statement in () if tree is None else tree.body:
            if name in bound_by(statement):
                mentioned = _mentioned(statement)
                wanted += [each for each in mentioned if each in known]
                for target, used in _imported_by(statement, package):
                    # What a top level imports, other statements use.
                    _follow(target, used or _attributes(tree) | names | mentioned, found, seen)


def _imported_by(statement: ast.stmt, package: str) -> Iterator[tuple[str, set[str]]]:
    """Yield (module, names) of the imports in a statement; no names: those used as attributes."""
    for node in ast.walk(statement):
        match node:
            case ast.ImportFrom(module=base, names=aliases, level=level):
                target = _absolute(base or "", level, package)
                yield target, {each.name for each in aliases}
                file = _file_of(target)
                if file is not None and Path(file).stem == "__init__":
                    for each in aliases:
                        yield f"{target}.{each.name}", set()  # it may be a module
            case ast.Import(names=aliases):
                for each in aliases:
                    yield each.name, set()
            case _:
                pass


@lru_cache(maxsize=512)
def _attributes(tree: ast.AST) -> set[str]:
    return {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}


def _bound_of(names: Collection[str], known: Collection[str]) -> list[str]:
    """Return those of some names that a module binds, and `__getattr__` if it finds others."""
    wanted = [name for name in (known if "*" in names else names) if name in known]
    if "__getattr__" in known and len(wanted) < len(names):
        wanted.append("__getattr__")
    return wanted


def _absolute(module: str, level: int, package: str) -> str:
    if not level:
        return module
    try:
        return importlib.util.resolve_name("." * level + module, package)
    except ImportError:
        return module


def _file_of(module: str) -> str | None:
    """Return the source file of a module without importing it or its packages."""
    loaded = file_of(module)
    if loaded is not None:
        return loaded
    path: list[str] | None = None
    spec, name = None, ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = _find(name, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return None if spec is None else spec.origin


def _find(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    """Return what an import would find, using the finders of this process (see `processes.kept_code`)."""
    found = (each.find_spec(name, path) for each in sys.meta_path if hasattr(each, "find_spec"))
    return next((spec for spec in found if spec is not None), None)
