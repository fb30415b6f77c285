"""What the user's code sets inside of libraries: attributes of their modules and classes.

`tempfile.tempdir`, `json.JSONEncoder.default` or a key of `ConfigParser.BOOLEAN_STATES`, set under the
guard, changes what functions of the library do, and no code of the user's reads it. Watching everything
in libraries would cost too much, so the statements of the user's modules say what is watched.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, NamedTuple

from resilient_scoop.values import source
from resilient_scoop.values.containers import content_of, is_container
from resilient_scoop.values.user_code import is_user_code, is_user_module
from resilient_scoop.values.user_modules import file_of, loaded, scope_of
from resilient_scoop.values.values import MISSING, own_home

_NAME: Final = r"(?!self\b|cls\b)[^\W\d]\w*"
_CANDIDATE: Final = re.compile(
    rf"^[ \t]*{_NAME}(?:\.\w+|\[[^\n\]]*\])+[^\n=(]*=(?!=)|^[ \t]*del |setattr|delattr|\bpatch\b"
    rf"|\b{_NAME}\.[\w.]+\.(?:update|append|extend|insert|add|pop|setdefault|clear|remove|discard)\(",
    re.MULTILINE,
)
"""Only a file with such a line is parsed: to parse a large package takes long."""
_CHANGING: Final = frozenset({
    "add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault", "update",
})  # fmt: skip
"""Methods that change a container."""
_READING: Final = frozenset({"getattr", "hasattr"})
_REPLACING: Final = frozenset({"patch", "setattr"})
"""Functions of test libraries that take the dotted name of an attribute."""
_OF_THE_PROCESS: Final = frozenset({
    "builtins", "faulthandler", "gc", "logging", "multiprocessing", "os", "signal", "sys", "threading",
    "warnings", __name__.partition(".")[0],
})  # fmt: skip
"""Modules whose values are settings of a process, or belong to it."""


class Place(NamedTuple):
    """A statement that sets an attribute: of what (a name and attributes), which, and its text."""

    path: tuple[str, ...]
    attribute: str
    text: str
    line: int


class Patch(NamedTuple):
    """An attribute of a library that the user's code may set."""

    owner: Any
    name: str
    home: str
    place: Place

    @property
    def value(self) -> Any:
        """What it is now."""
        return vars(self.owner).get(self.name, MISSING)


_before: dict[str, tuple[Any, list[Any]]] = {}
"""The value of each known attribute after the import of the user's modules, and its content."""
_known: dict[str, Patch] = {}
by_statement: dict[str, tuple[str, str, Place]] = {}
"""By module and dotted name: modules, their files, and where these set attributes."""


def note() -> None:
    """Record what is set in libraries now; replaces the earlier record."""
    forget()
    for name, _ in loaded():
        if is_user_module(name):
            add(name)
    for patch in patches():
        value = patch.value
        _before[patch.home] = value, content_of(value) if is_container(value) else []


def add(module: str) -> None:
    """Watch also what a user's module may set that was imported later: workers may lack it."""
    file = file_of(module) or ""
    for place in places(file):
        by_statement[f"{module}:{'.'.join(place.path)}.{place.attribute}"] = module, file, place


def forget() -> None:
    """Drop the record."""
    _before.clear()
    _known.clear()
    by_statement.clear()


def patches() -> list[Patch]:
    """Return the attributes that the user's code may set in libraries that are loaded."""
    for module, file, place in by_statement.values():
        owner = _owner(module, file, place.path)
        if isinstance(owner, type) and place.attribute not in vars(owner):
            owner = next((c for c in owner.__mro__ if place.attribute in vars(c)), owner)
        home = None if owner is None else _home(owner, place.attribute)
        if home is not None:
            _known[home] = Patch(owner, place.attribute, home, place)
    return list(_known.values())


def known(home: str) -> Patch | None:
    """Return the attribute at a home, if the user's code may set it."""
    return _known.get(home)


def is_changed(patch: Patch) -> bool:
    """Return whether the script has set an attribute since the import of its modules."""
    before, content = _before.get(patch.home, (MISSING, []))
    value = patch.value
    if value is not before:
        return True
    now = content_of(value) if is_container(value) else []
    return len(now) != len(content) or any(a is not b for a, b in zip(now, content, strict=True))


@lru_cache(maxsize=256)
def places(file: str) -> tuple[Place, ...]:
    """Return where a source file sets attributes of something that it names."""
    text = "".join(linecache.getlines(file)) if file else ""
    tree = source.module_tree(file) if _CANDIDATE.search(text) else None
    if tree is None:
        return ()
    others = _other_names(tree)
    found: dict[tuple[tuple[str, ...], str], Place] = {}
    for node in ast.walk(tree):
        for path in _targets(node):
            for whole in (path, *_replaced(path, others)):
                if len(whole) > 1 and whole[0] not in ("self", "cls"):
                    line = getattr(node, "lineno", 0)
                    place = Place(whole[:-1], whole[-1], ast.unparse(node), line)
                    found.setdefault((place.path, place.attribute), place)
    return tuple(found.values())


def _other_names(tree: ast.AST) -> dict[str, set[tuple[str, ...]]]:
    """Return the dotted names to which variables are set, such as `Encoder = json.JSONEncoder`."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                values = [value]
            case ast.For(
                target=ast.Name(id=name), iter=ast.Tuple(elts=values) | ast.List(elts=values)
            ):
                pass
            case _:
                continue
        paths = {path for each in values if (path := _dotted(each))}
        if paths:
            found.setdefault(name, set()).update(paths)
    return found


def _replaced(
    path: tuple[str, ...], others: dict[str, set[tuple[str, ...]]]
) -> list[tuple[str, ...]]:
    """Return a dotted name with its first part replaced by what that may stand for."""
    return [(*other, *path[1:]) for other in others.get(path[0], ())] if path else []


def _targets(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a statement or call sets or changes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                yield from _set_by(target)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield from _set_by(target)
        case ast.Call(func=ast.Attribute(value=of, attr=name)) if name in _CHANGING:
            yield _dotted(of)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *more]):
            yield from _set_by_call(name, first, more, node.keywords)
        case _:
            pass


def _set_by_call(
    function: str, first: ast.expr, more: list[ast.expr], keywords: list[ast.keyword]
) -> Iterator[tuple[str, ...]]:
    """Yield what a call may set: `setattr`, `mock.patch.object` and the like, by their arguments."""
    path = _dotted(first)
    match first, more:
        case ast.Constant(value=str(text)), _ if function in _REPLACING:
            yield tuple(text.split("."))
        case _, [ast.Constant(value=str(name)), *_] if path and function not in _READING:
            yield (*path, name)
        case _ if path and function == "multiple":
            yield from ((*path, each.arg) for each in keywords if each.arg)
        case _ if function == "dict":
            yield path
        case _:
            pass


def _set_by(target: ast.expr) -> Iterator[tuple[str, ...]]:
    match target:
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _set_by(part)
        case ast.Starred(value=value):
            yield from _set_by(value)
        case ast.Subscript(value=value):
            yield from _set_by(value) if isinstance(value, ast.Subscript) else (_dotted(value),)
        case ast.Attribute():
            yield _dotted(target)
        case _:
            pass


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """Return the parts of a dotted name; none if it is no such name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


@lru_cache(maxsize=256)
def _imports(file: str) -> dict[str, tuple[str, str]]:
    """Return what the imports of a file bind, also inside functions: name -> (module, attribute)."""
    tree = source.module_tree(file)
    found: dict[str, tuple[str, str]] = {}
    for node in () if tree is None else ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name if each.asname else each.name.partition(".")[0]
                found[each.asname or top] = top, ""
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for each in node.names:
                found[each.asname or each.name] = node.module, each.name
    return found


def _owner(module: str, file: str, path: tuple[str, ...]) -> Any:
    """Return the library's module or class that a dotted name stands for, or None."""
    first, *others = path
    found = scope_of(module).get(first)
    if found is None:
        name, attribute = _imports(file).get(first, (first, ""))
        found = sys.modules.get(name)
        if attribute and isinstance(found, ModuleType):
            found = vars(found).get(attribute, sys.modules.get(f"{name}.{attribute}"))
    for part in others:
        if not isinstance(found, ModuleType | type):
            return None
        found = vars(found).get(part)
    return found if isinstance(found, ModuleType | type) else None


def _home(owner: Any, name: str) -> str | None:
    """Return the home of an attribute; None if it is not of a library."""
    if isinstance(owner, ModuleType):
        module, home = owner.__name__, f"{owner.__name__}:{name}"
    else:
        of = own_home(owner)
        module, home = owner.__module__, f"{of}.{name}"
        if of is None or is_user_code(owner):
            return None
    top = module.partition(".")[0]
    return None if top in _OF_THE_PROCESS or is_user_module(module) else home
