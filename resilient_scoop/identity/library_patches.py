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

_CANDIDATE: Final = re.compile(
    r"^\s*[(\[*]?(?!self\b|cls\b)[^\W\d]\w*\s*\.\s*\w[^\n]*[^=!<>]=(?!=)"
    r"|\b(setattr|delattr)\(|^\s*del\s|\.(update|append|extend|insert|add|pop|setdefault|clear|remove|discard)\(",
    re.MULTILINE,
)
"""Only a file with such a line is parsed."""
_CHANGING: Final = frozenset({
    "add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault", "update",
})  # fmt: skip
"""Methods that change a container."""
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
_files: list[tuple[str, str]] = []  # modules, and their files


def note() -> None:
    """Record what is set in libraries now; replaces the earlier record."""
    forget()
    for name, _ in loaded():
        if is_user_module(name):
            _files.append((name, file_of(name) or ""))
    for patch in patches():
        value = patch.value
        _before[patch.home] = value, content_of(value) if is_container(value) else []


def forget() -> None:
    """Drop the record."""
    _before.clear()
    _known.clear()
    _files.clear()


def patches() -> list[Patch]:
    """Return the attributes that the user's code may set in libraries that are loaded."""
    for module, file in _files:
        for place in places(file):
            owner = _owner(module, file, place.path)
            if isinstance(owner, type) and place.attribute not in vars(
                owner
            ):  # a base class may have it
                owner = next((c for c in owner.__mro__ if place.attribute in vars(c)), owner)
            home = None if owner is None else _home(owner, place.attribute)
            if home is not None:
                _known[home] = Patch(owner, place.attribute, home, place)
    return list(_known.values())


def has_places() -> bool:
    """Return whether the user's code may set anything in a library."""
    return any(places(file) for _, file in _files)


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
    found: dict[tuple[tuple[str, ...], str], Place] = {}
    for node in ast.walk(tree):
        for path in _targets(node):
            if len(path) > 1 and path[0] not in ("self", "cls"):
                line = getattr(node, "lineno", 0)
                place = Place(path[:-1], path[-1], ast.unparse(node), line)
                found.setdefault((place.path, place.attribute), place)
    return tuple(found.values())


def _targets(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a statement or call sets or changes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                yield from _set_by(target)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield from _set_by(target)
        case ast.Call(
            func=ast.Name(id="setattr" | "delattr"), args=[of, ast.Constant(value=name), *_]
        ):
            path = _dotted(of)
            if path and isinstance(name, str):
                yield (*path, name)
        case ast.Call(func=ast.Attribute(value=of, attr=name)) if name in _CHANGING:
            yield _dotted(of)


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
        name, attribute = _imports(file).get(first, ("", ""))
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
