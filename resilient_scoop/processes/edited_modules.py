"""Find which of the user's modules have been edited since the last launch, and where.

A coarse check besides the fingerprints of functions. It compares the copies of the sources that the
last launch ran (`kept_code`) with the present files, statement by statement at the top level of
each module, without positions, comments, docstrings and annotations. If an edit is not part of any
function's fingerprint, the user decides about it. Functions that are part of fingerprints are left
out, and so are imports, loggers and clocks that were added or removed. Of a class that is part of
fingerprints, methods and constants are left out; the rest (its decorators, an attribute that counts by
its type) is compared here.

In the script, only code counts that a function with results, or a function that the import calls, may
reach by any name or string in its text: code that runs in the process of the script is run again by a
resume anyway.
"""

from __future__ import annotations

import ast
import importlib.util
import reprlib
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop.identity import module_source
from resilient_scoop.processes import kept_code
from resilient_scoop.values import source_text
from resilient_scoop.wire.callables import VOLATILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resilient_scoop.wire.callables import Define

_DYNAMIC: Final = source_text.DYNAMIC | {"globals", "getattr", "import_module", "__import__"}
_LATER: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_FINDING: Final = _DYNAMIC | {
    "hasattr", "attrgetter", "methodcaller", "getmembers", "__dict__", "modules", "__getattr__", "*",
}  # fmt: skip
"""Who names one of these may use names that its text does not contain."""
_BINDING: Final = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign,
    ast.AnnAssign, ast.AugAssign,
)  # fmt: skip
"""Statements that serve to bind names; the others are there for their effects."""
_STATEMENT: Final = "a statement"
_SHOWN: Final = reprlib.Repr()
_SHOWN.maxstring = 60


class Edit(msgspec.Struct, frozen=True):
    """Something at the top level of a module that has changed."""

    file: str
    name: str
    line: int  # 0: it was removed
    text: str = ""  # a changed line, then and now

    def __str__(self) -> str:
        place = f"{Path(self.file).name}:{self.line}" if self.line else f"gone from {self.file}"
        return f"{self.name} ({place}{self.text and ': '}{self.text})"


class Edits(NamedTuple):
    """What has been edited since the last launch."""

    of_results: list[Edit]  # the edit may be part of a result
    of_arguments: list[Edit]  # classes of the script that only arguments can bring to a function


def edits(run_dir: Path, script: str | None, defines: Iterable[Define]) -> Edits:
    """Return what has been edited since the last launch and may be part of a result."""
    found: list[Edit] = []
    classes: list[Edit] = []
    looks_up = _looks_up_names(run_dir)
    compared = _Compared(defines)
    for path, copy in kept_code.files(run_dir).items():
        before, after = _read(copy), _read(Path(path))
        if before is None or before == after:
            continue
        then, now = _statements(before), _statements(after or b"")
        if then is None or now is None:
            continue  # running it will report the error
        names = [
            name
            for name in {**then, **now}
            if not ((name in then) ^ (name in now) and _only_binds(then.get(name) or now[name]))
            and _texts(then, name) != _texts(now, name)
            and (name in then or looks_up or not _is_plain_function(now[name]))
        ]
        for name in [each for each in names if compared.has(path, each)]:
            if _class_in(then, name) and _class_in(now, name):
                found += _edits_of(path, name, then, now, compared)
        names = [name for name in names if not compared.has(path, name)]
        if path == script:
            reached = _reached(now, defines)
            known = [name for name in names if name in now and (reached is None or name in reached)]
            for name in names:
                if name not in known and _class_in(then, name) and _class_in(now, name):
                    classes += _edits_of(path, name, then, now)
            names = known
        for name in names:
            is_class = _class_in(then, name) and _class_in(now, name)
            found += _edits_of(path, name, then, now) if is_class else [_whole(path, name, now)]
    return Edits(found, classes)


def _looks_up_names(run_dir: Path) -> bool:
    """Return whether the user's code may find names of a module that it does not contain."""
    for path in kept_code.files(run_dir):
        try:
            tree = ast.parse(importlib.util.decode_source(_read(Path(path)) or b""))
        except (SyntaxError, ValueError):
            continue  # running it will report the error
        for node in ast.walk(tree):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
            if name in _FINDING:
                return True
    return False


def _is_plain_function(statements: list[ast.stmt]) -> bool:
    """Return whether statements only define a function: nothing else runs at the import."""
    match statements:
        case [ast.FunctionDef(args=args, decorator_list=[])]:
            defaults = [*args.defaults, *args.kw_defaults]
            return all(each is None or isinstance(each, ast.Constant) for each in defaults)
        case _:
            return False


def _class_in(statements: _Statements, name: str) -> ast.ClassDef | None:
    """Return the class that a name is bound to, if it is nothing else."""
    match statements.get(name):
        case [ast.ClassDef() as found]:
            return found
        case _:
            return None


def _whole(path: str, name: str, now: _Statements) -> Edit:
    return Edit(path, name, now[name][0].lineno if name in now else 0)


def _edits_of(
    path: str, name: str, then: _Statements, now: _Statements, compared: _Compared | None = None
) -> list[Edit]:
    """Return the edits of the parts of a class that fingerprints do not show; none of other names."""
    before, after = _class_in(then, name), _class_in(now, name)
    if before is None or after is None:
        return []
    return list(_edits_of_class(path, name, before, after, compared))


def _edits_of_class(
    path: str, name: str, before: ast.ClassDef, after: ast.ClassDef, compared: _Compared | None
) -> Iterator[Edit]:
    if _header(before) != _header(after):
        yield Edit(path, name, after.lineno)
    parts, parts_now = _parts(before), _parts(after)
    for part in {**parts, **parts_now}:
        full = f"{name}.{part}"
        if _texts(parts, part) == _texts(parts_now, part):
            continue
        if compared is not None and compared.has_part(path, full):
            continue
        inner, inner_now = _class_in(parts, part), _class_in(parts_now, part)
        if inner is not None and inner_now is not None:
            yield from _edits_of_class(path, full, inner, inner_now, compared)
            continue
        line = parts_now[part][0].lineno if part in parts_now else 0
        yield Edit(path, full, line, _changed_line(parts.get(part), parts_now.get(part)))


def _header(cls: ast.ClassDef) -> str:
    """Return the text of a class without its body."""
    return source_text.of_statements(
        [ast.ClassDef(cls.name, cls.bases, cls.keywords, [ast.Pass()], cls.decorator_list)]
    )


def _parts(cls: ast.ClassDef) -> _Statements:
    """Return the statements of a class by the names that they bind.

    A name that only has an annotation counts if a base class or a decorator may read it.
    """
    if cls.bases or cls.keywords or cls.decorator_list:
        return _bound(cls.body)
    return _bound(
        [each for each in cls.body if not (isinstance(each, ast.AnnAssign) and each.value is None)]
    )


def _changed_line(then: list[ast.stmt] | None, now: list[ast.stmt] | None) -> str:
    """Return, for display, the first line that differs, then and now."""
    if then is None or now is None:
        return ""
    before, after = ("\n".join(map(ast.unparse, each)).splitlines() for each in (then, now))
    for old, new in zip(before, after, strict=False):
        if old != new:
            return f"{_SHOWN.repr(old.strip())[1:-1]} → {_SHOWN.repr(new.strip())[1:-1]}"
    return ""


class _Compared:
    """What is part of the fingerprints of functions with results."""

    def __init__(self, defines: Iterable[Define]) -> None:
        shown = [
            each
            for define in defines
            for each in define.references
            if each.home and (each.at or each.text) and not each.flags & VOLATILE
        ]
        self._homes = {each.home for each in shown}
        self._names: dict[tuple[str, str], set[str]] = {}
        for each in shown:
            module, _, qualname = each.home.partition(":")
            file = each.at.rpartition(":")[0]
            self._names.setdefault((file, qualname.partition(".")[0]), set()).add(module)

    def has(self, path: str, name: str) -> bool:
        """Return whether a name of a module is compared, of a class at least a part."""
        return any(
            _is_file_of(path, module)
            for file in (Path(path).name, "")  # constants of a class have no line
            for module in self._names.get((file, name), ())
        )

    def has_part(self, path: str, qualname: str) -> bool:
        """Return whether a method or a constant of a class is compared."""
        return any(
            home.partition(":")[2] == qualname and _is_file_of(path, home.partition(":")[0])
            for home in self._homes
        )


def _is_file_of(path: str, module: str) -> bool:
    """Return whether a file can be that of a module, by its name."""
    parts = Path(path).with_suffix("").parts
    names = tuple(module.split("."))
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return module == "__main__" or parts[-len(names) :] == names


def _only_binds(statements: list[ast.stmt]) -> bool:
    """Return whether statements that were added or removed cannot affect results: imports, loggers, clocks.

    A function that uses what they bind has another fingerprint.
    """
    for statement in statements:
        match statement:
            case ast.Import() | ast.ImportFrom():
                continue
            case ast.Assign(targets=[ast.Name()], value=ast.Call(func=function)):
                if not _is_named(function):
                    return False
            case _:
                return False
    return True


def _is_named(function: ast.expr) -> bool:
    """Return whether the called object only reports something: a clock, a logger."""
    name = _name_of(function)
    return name == "getLogger" or name in module_source.VOLATILE_CALLS


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _root_of(function: ast.expr) -> str:
    """Return the first name of `logging.getLogger("a").setLevel` and the like."""
    while isinstance(function, ast.Attribute | ast.Call):
        function = function.value if isinstance(function, ast.Attribute) else function.func
    return getattr(function, "id", "")


_Statements = dict[str, list[ast.stmt]]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _statements(data: bytes) -> _Statements | None:
    """Return the statements of a module by the names that they bind; None if it does not compile."""
    try:
        tree = ast.parse(importlib.util.decode_source(data))
    except (SyntaxError, ValueError):
        return None
    return _bound(tree.body)


def _bound(body: list[ast.stmt]) -> _Statements:
    """Return statements by the names that they bind."""
    found: _Statements = {}
    loggers = {"logging"}
    for at, statement in enumerate(body):
        if module_source.is_guard(statement) or (at == 0 and _is_docstring(statement)):
            continue
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)) if (
                _name_of(function) == "getLogger"
            ):
                loggers.add(name)
            case ast.Expr(value=ast.Call(func=function)) if _root_of(function) in loggers:
                continue  # the settings of `logging`
            case _:
                pass
        for name in set(module_source.bound_by(statement)) or {_STATEMENT}:
            found.setdefault(name, []).append(_part(statement, name))
    return found


def _part(statement: ast.stmt, name: str) -> ast.stmt:
    """Return the part of an import statement that binds a name."""
    match statement:
        case ast.Import(names=aliases):
            mine = [each for each in aliases if (each.asname or each.name.split(".")[0]) == name]
            return ast.copy_location(ast.Import(mine), statement)
        case ast.ImportFrom(module=module, names=aliases, level=level):
            mine = [each for each in aliases if (each.asname or each.name) == name]
            return ast.copy_location(ast.ImportFrom(module, mine, level), statement)
        case _:
            return statement


def _is_docstring(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case _:
            return False


def _texts(statements: _Statements, name: str) -> str:
    return "".join(map(_text, statements.get(name, ())))


def _text(statement: ast.stmt) -> str:
    """Return the text of a statement; names of a function's local variables do not count."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return source_text.of_statements([statement])
    whole = compile(ast.Module([statement], []), "<edited>", "exec", dont_inherit=True)
    codes = [each for each in whole.co_consts if isinstance(each, CodeType)]
    code = next((each for each in codes if each.co_name == statement.name), None)
    if code is None:
        return source_text.of_statements([statement])
    return source_text.of_definition(statement, code)


def _reached(statements: _Statements, defines: Iterable[Define]) -> set[str] | None:
    """Return the names of the script that functions may reach; None if that may be all of them."""
    wanted = {_STATEMENT}
    for define in defines:
        homes = [each.home for each in define.references]
        if "<" not in define.name:
            homes.append(define.name)
        wanted |= {
            home.partition(":")[2].partition(".")[0]
            for home in homes
            if home.startswith("__main__:")
        }
    wanted |= {
        name
        for part in statements.values()
        for statement in part
        if not isinstance(statement, _BINDING)
        for name in _called(statement)
        if name in statements
    }
    reached: set[str] = set()
    while wanted:
        name = wanted.pop()
        reached.add(name)
        for statement in statements.get(name, ()) if name != _STATEMENT else ():
            mentioned = set(_identifiers(statement))
            if mentioned & _DYNAMIC and _is_run_later(statement):
                return None
            wanted |= (mentioned & statements.keys()) - reached
    return reached


def _called(statement: ast.stmt) -> Iterator[str]:
    """Yield the names of what a statement calls: of functions, and of objects whose methods it calls."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            yield _root_of(node.func)


def _is_run_later(statement: ast.stmt) -> bool:
    """Return whether a statement contains code that runs only when it is called."""
    return any(isinstance(node, _LATER) for node in ast.walk(statement))


def _identifiers(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text
            case _:
                pass
