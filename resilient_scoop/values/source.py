"""The source of a function as a syntax tree without positions, comments and docstrings.

It is used only if the file still compiles to the running code: if a script is edited during its
run, the new text must not be stored for results of the old code.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple

Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_EMPTY: Final[tuple[Any, ...]] = (None, [])
_DOCUMENTED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Parsed(NamedTuple):
    tree: ast.Module
    codes: frozenset[Any]
    nodes: dict[int, list[Defined]]


def normalized(code: CodeType) -> str | None:
    """Return the normalized text of a function's source, or None if it is not available."""
    node = node_of(code)
    return None if node is None else "".join(_dump(node))


def node_of(code: CodeType) -> Defined | None:
    """Return the syntax tree of the definition that compiles to `code`, or None if there is none."""
    parsed = _parse(code.co_filename)
    if parsed is None or _identity(code) not in parsed.codes:
        return None
    return _node_of(code, parsed.nodes.get(code.co_firstlineno, []))


def module_tree(filename: str) -> ast.Module | None:
    """Return the syntax tree of a source file, or None if it has none; do not change it."""
    parsed = _parse(filename)
    return None if parsed is None else parsed.tree


def bytecode(code: CodeType) -> str:
    """Return a text for the bytecode itself: valid for one minor version of Python only."""
    return repr(_identity(code, placed=False))


@lru_cache(maxsize=256)
def _parse(filename: str) -> _Parsed | None:
    source = "".join(linecache.getlines(filename))
    if not source:
        return None
    try:
        tree = ast.parse(source, filename)
        whole = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    nodes: dict[int, list[Defined]] = {}
    for node in ast.walk(tree):
        if isinstance(node, Defined):
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            nodes.setdefault(first, []).append(node)
    return _Parsed(tree, frozenset(_identity(code) for code in nested(whole)), nodes)


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all code objects inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from nested(const)


def _identity(code: CodeType, *, placed: bool = True) -> tuple[Any, ...]:
    return (
        code.co_name,
        code.co_firstlineno if placed else 0,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        tuple(_constant(const, placed=placed) for const in code.co_consts),
    )


def _constant(const: object, *, placed: bool) -> Any:
    if isinstance(const, CodeType):
        return _identity(const, placed=placed)
    if isinstance(const, frozenset):
        return ("frozenset", *sorted(map(repr, const)))
    return repr(const)


def _node_of(code: CodeType, found: list[Defined]) -> Defined | None:
    """Return the matching definition of those on the code's line; lambdas are matched by column."""
    if code.co_name != "<lambda>":
        named = [n for n in found if not isinstance(n, ast.Lambda) and n.name == code.co_name]
        return named[0] if len(named) == 1 else None
    lambdas = [node for node in found if isinstance(node, ast.Lambda) and _holds(node, code)]
    return min(lambdas, key=_extent, default=None)


def _holds(node: ast.Lambda, code: CodeType) -> bool:
    body = node.body
    start = (body.lineno, body.col_offset)
    end = (body.end_lineno or body.lineno, body.end_col_offset or 0)
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if None not in (line, end_line, column, end_column) and end_column
    ]
    return bool(places) and all(start <= first and last <= end for first, last in places)


def _extent(node: ast.Lambda) -> tuple[int, int]:
    lines = (node.end_lineno or node.lineno) - node.lineno
    return lines, (node.end_col_offset or 0) - node.col_offset


def _dump(node: object) -> Iterator[str]:
    """Yield the tree's text: like `ast.dump`, but the same for all minor versions."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field in node._fields:
            value = getattr(node, field, None)
            if field in ("kind", "type_comment") or value in _EMPTY:
                if not (isinstance(node, ast.Constant) and field == "value"):
                    continue
            elif field == "body" and isinstance(node, _DOCUMENTED):
                value = _undocumented(value)
            yield f"{field}="
            yield from _dump(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for part in node:
            yield from _dump(part)
        yield "]"
    else:
        yield f"{node!r},"


def _undocumented(body: Any) -> Any:
    match body[0]:
        case ast.Expr(value=ast.Constant(value=str())):
            return body[1:]
        case _:
            return body
