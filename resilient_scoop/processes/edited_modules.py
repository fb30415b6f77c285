"""Find which of the user's modules have been edited since the last launch, and where.

A coarse check besides the fingerprints of functions. It compares the copies of the sources that the
last launch ran (`kept_code`) with the present files, statement by statement at the top level of
each module, without positions, comments, docstrings and annotations. If an edit is not part of any
function's fingerprint, the user decides about it. Functions and classes that are part of
fingerprints are left out, and so are imports, loggers and clocks that were added or removed.

In the script, only code counts that a function with results may reach by any name or string in its
text: code that runs in the process of the script is run again by a resume anyway.
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
    compared = _compared(defines)
    for path, copy in kept_code.files(run_dir).items():
        before, after = _read(copy), _read(Path(path))
        if before is None or before == after:
            continue
        then, now = _statements(before), _statements(after or b"")
        if then is None or now is None:
            continue  # running it will report the error
        file = Path(path).name
        names = [
            name
            for name in {**then, **now}
            if (file, name) not in compared
            and not ((name in then) ^ (name in now) and _only_binds(then.get(name) or now[name]))
            and _texts(then, name) != _texts(now, name)
        ]
        if path == script:
            reached = _reached(now, defines)
            known = [name for name in names if name in now and (reached is None or name in reached)]
            for name in names:
                if name not in known and _class_in(then, name) and _class_in(now, name):
                    classes += _edits_of(path, name, then, now)
            names = known
        for name in names:
            found += _edits_of(path, name, then, now)
    return Edits(found, classes)


def _class_in(statements: _Statements, name: str) -> ast.ClassDef | None:
    """Return the class that a name is bound to, if it is nothing else."""
    match statements.get(name):
        case [ast.ClassDef() as found]:
            return found
        case _:
            return None


def _edits_of(path: str, name: str, then: _Statements, now: _Statements) -> list[Edit]:
    """Return the edits of one name; of a class, those of its parts."""
    before, after = _class_in(then, name), _class_in(now, name)
    found: list[Edit] = []
    if before is not None and after is not None:
        parts, parts_now = _bound(before.body), _bound(after.body)
        for part in {**parts, **parts_now}:
            if _texts(parts, part) != _texts(parts_now, part):
                line = parts_now[part][0].lineno if part in parts_now else 0
                text = _changed_line(parts.get(part), parts_now.get(part))
                found.append(Edit(path, f"{name}.{part}", line, text))
    return found or [Edit(path, name, now[name][0].lineno if name in now else 0)]


def _changed_line(then: list[ast.stmt] | None, now: list[ast.stmt] | None) -> str:
    """Return, for display, the first line that differs, then and now."""
    if then is None or now is None:
        return ""
    before, after = ("\n".join(map(ast.unparse, each)).splitlines() for each in (then, now))
    for old, new in zip(before, after, strict=False):
        if old != new:
            return f"{_SHOWN.repr(old.strip())[1:-1]} → {_SHOWN.repr(new.strip())[1:-1]}"
    return ""


def _compared(defines: Iterable[Define]) -> set[tuple[str, str]]:
    """Return (file, name) of the functions and classes that are part of results' fingerprints."""
    return {
        (each.at.rpartition(":")[0], each.home.partition(":")[2].partition(".")[0])
        for define in defines
        for each in define.references
        if each.home and each.at and not each.flags & VOLATILE
    }


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
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name == "getLogger" or name in module_source.VOLATILE_CALLS


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
    for at, statement in enumerate(body):
        if module_source.is_guard(statement) or (at == 0 and _is_docstring(statement)):
            continue
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
