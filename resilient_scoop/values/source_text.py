"""The text of a function's source for its fingerprint, unchanged by harmless edits.

Left out are positions, comments, docstrings, annotations and the function's own name. Local
variables are written as numbers, so that renaming one changes nothing. Names that other code can
see are kept: parameters (unless all arguments are passed by position), names of nested functions
and classes, class bodies, names that an import binds, and everything in functions that call
`locals`, `vars`, `dir`, `eval` or `exec`. Because each name gets its own number, equal texts mean
that the functions differ only in names of local variables.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple

from resilient_scoop.values import source

GLOBAL_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
DYNAMIC: Final = frozenset({"locals", "vars", "dir", "eval", "exec"})
_EMPTY: Final[tuple[Any, ...]] = (None, [])
_LEFT_OUT: Final = frozenset({"annotation", "returns", "type_comment", "type_params", "kind"})
_DOCUMENTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_NAMING: Final[dict[type[ast.AST], str]] = {
    ast.Name: "id",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
}


class Text(NamedTuple):
    """A function's normalized source; `renamed` are the names that it replaces by numbers, in order."""

    text: str
    renamed: tuple[str, ...]


def of_function(code: CodeType, *, by_position: bool = False) -> Text | None:
    """Return the text of a function by its code, or None if its source is not available.

    With `by_position`, arguments are passed only by position: parameters are written as numbers, too.
    """
    key = (id(code), by_position)
    known = _known.get(key)
    if known is not None and known[0] is code:
        return known[1]
    node = source.node_of(code)
    found = None if node is None else _of_node(node, code, by_position=by_position)
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    _known[key] = (code, found)
    return found


_KNOWN_MAX: Final = 4096
_known: dict[tuple[int, bool], tuple[CodeType, Text | None]] = {}


def of_statements(nodes: Iterable[ast.stmt]) -> str:
    """Return the text of statements of a module, with all names unchanged."""
    dumper = _Dumper(frozenset(), "")
    return "".join(part for node in nodes for part in dumper.dump(node))


def of_definition(node: source.Defined, code: CodeType) -> str:
    """Return the text of a function by its tree, and its name."""
    name = "" if isinstance(node, ast.Lambda) else node.name
    return f"{name}={_of_node(node, code, by_position=False).text}"


@lru_cache(maxsize=4096)
def global_loads(code: CodeType) -> frozenset[str]:
    """Return the names that a function and those nested in it load from its module or builtins."""
    return frozenset(
        instruction.argval
        for part in source.nested(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in GLOBAL_LOADS
    )


def _of_node(node: source.Defined, code: CodeType, *, by_position: bool) -> Text:
    own = "" if isinstance(node, ast.Lambda) else node.name
    arguments = [*node.args.posonlyargs, *node.args.args] if by_position else []
    dumper = _Dumper(_renameable(node, code, arguments), own)
    text = "".join(dumper.dump(node))
    return Text(text, tuple(dumper.numbers))


def _renameable(root: source.Defined, code: CodeType, arguments: list[ast.arg]) -> frozenset[str]:
    bound, kept = set(code.co_freevars), set(global_loads(code))
    if kept & DYNAMIC:
        return frozenset()
    bound.update(each.arg for each in arguments)
    for node in ast.walk(root):
        if node in arguments:
            continue
        bound.update(_bound(node))
        kept.update(_kept(node))
    return frozenset(bound - kept - {"__class__"})


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the variable that a node of the tree binds."""
    naming = _NAMING.get(type(node))
    if naming is None or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
        return
    name = getattr(node, naming)
    if name is not None:
        yield name


def _kept(node: ast.AST) -> Iterator[str]:
    """Yield the names in a node of the tree that other code can see."""
    match node:
        case ast.arg(arg=name) | ast.keyword(arg=str(name)):
            yield name
        case ast.Global(names=names):
            yield from names
        case ast.alias(name=name, asname=asname):
            yield asname or name.partition(".")[0]
        case ast.ClassDef(name=name, body=body):
            yield name
            yield from _bound_in_class(body)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case _:
            return


def _bound_in_class(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


class _Dumper:
    """Writes a tree, the same for all minor versions of Python."""

    def __init__(self, renameable: frozenset[str], own: str) -> None:
        self._renameable = renameable
        self._own = own
        self._at_root = bool(own)
        self.numbers: dict[str, int] = {}

    def dump(self, node: object) -> Iterator[str]:
        if isinstance(node, ast.AST):
            yield from self._tree(node)
        elif isinstance(node, list):
            yield "["
            for part in node:
                yield from self.dump(part)
            yield "]"
        else:
            yield f"{node!r},"

    def _tree(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.AnnAssign):
            node = _plain(node)
        yield f"{type(node).__name__}("
        naming = _NAMING.get(type(node))
        if isinstance(node, _FUNCTIONS) and self._at_root:
            self._at_root, naming = False, ""
        for field in node._fields:
            value = getattr(node, field, None)
            if field in _LEFT_OUT or (naming == "" and field == "name"):
                continue
            if value in _EMPTY and not (isinstance(node, ast.Constant) and field == "value"):
                continue
            yield f"{field}="
            if isinstance(value, str) and (field == naming or (field == "arg" and _is_arg(node))):
                yield self._name(value)
            elif isinstance(node, ast.Nonlocal) and field == "names":
                yield "".join(map(self._name, node.names))
            elif field == "body" and isinstance(node, _DOCUMENTED):
                yield from self.dump(_undocumented(value))
            else:
                yield from self.dump(value)
        yield ")"

    def _name(self, name: str) -> str:
        if name in self._renameable:
            return f"{self.numbers.setdefault(name, len(self.numbers))},"
        return "own," if name == self._own else f"{name!r},"


def _is_arg(node: ast.AST) -> bool:
    return isinstance(node, ast.arg)


def _plain(node: ast.AnnAssign) -> ast.AST:
    """Return an annotated assignment without its annotation; the name alone still makes it local."""
    if node.value is None:
        return ast.Expr(value=node.target)
    return ast.Assign(targets=[node.target], value=node.value)


def _undocumented(body: Any) -> Any:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
        case _:
            return body
