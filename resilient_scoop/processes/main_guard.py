"""The guard `if __name__ == "__main__":`, closed while a worker imports the script.

In a worker the module of the script is `__main__`, as in the script's process: its functions and
classes have the same names on both sides, and pickles of tasks can be read on both sides. Code
under the guard must not run there. So in code at the top level of the module (including class
bodies and comprehensions, not function bodies) a `__name__` that is compared or tested reads as
`__mp_main__`, the name that `multiprocessing` gives to the script in a spawned process. Every other
`__name__` stays `__main__`. File name and line numbers also stay the same.
"""

from __future__ import annotations
import __future__

import ast
import functools
import operator
from collections.abc import Iterator
from types import CodeType
from typing import Any, Final

SEEN: Final = "__mp_main__"
"""The value that a guard reads instead of `__main__`."""

NAME_OF_CODE: Final = "__guarded_name__"
"""The global that stands for `__name__` in code without source (`closed_code`)."""

_NAME: Final = "__name__"
_FUTURES: Final = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def closed(source: bytes, path: str) -> CodeType:
    """Return the code of a module with its guard closed; raises what `compile` raises."""
    if _NAME.encode() not in source:
        return compile(source, path, "exec", dont_inherit=True)
    try:
        tree = _Closing().visit(ast.parse(source, path))
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    except RecursionError:  # an expression that only the compiler can handle
        code = closed_code(compile(source, path, "exec", dont_inherit=True))
    return code


def closed_code(code: CodeType) -> CodeType:
    """Return a module's compiled code, if there is no source, with its guard closed.

    Every `__name__` at its top level reads the global `NAME_OF_CODE`, which must be set to `SEEN`.
    """
    return code.replace(
        co_names=tuple(NAME_OF_CODE if name == _NAME else name for name in code.co_names)
    )


def split(source: bytes, path: str) -> tuple[CodeType, CodeType | None]:
    """Return the code of a module before its guard, and from the guard on; raises what `compile` raises.

    Each part contains the other one as code that never runs: the bytecode of a function depends on
    all imports of its module, and must be the same as in a worker, which compiles the whole module.
    """
    tree = ast.parse(source, path)
    at = next((at for at, each in enumerate(tree.body) if _is_guard(each)), None)
    if at is None:
        return compile(source, path, "exec", dont_inherit=True), None
    begin, end = tree.body[:at], tree.body[at:]
    first = compile(ast.Module([*begin, _never(end)], []), path, "exec", dont_inherit=True)
    flags = first.co_flags & _FUTURES
    begin = [each for each in begin if not _is_future(each)]
    begin = [_never(begin)] if begin else []
    rest = compile(ast.Module([*begin, *end], []), path, "exec", flags=flags, dont_inherit=True)
    return first, rest


def _never(statements: list[ast.stmt]) -> ast.If:
    """Return statements as code that never runs."""
    found = ast.If(ast.Constant(value=False), statements, [])
    return ast.fix_missing_locations(ast.copy_location(found, statements[0]))


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _is_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == _NAME for node in ast.walk(statement.test)
    )


def names_under(tree: ast.Module) -> frozenset[str]:
    """Return the names that a module binds only if its guard is open."""
    bound: dict[bool, set[str]] = {False: set(), True: set()}
    for under, name in _bound(tree.body, under=False):
        bound[under].add(name)
    return frozenset(bound[True] - bound[False])


class _Closing(ast.NodeTransformer):
    """Replaces each `__name__` that is compared or tested at the top level."""

    def __init__(self) -> None:
        self._tested = False

    def visit(self, node: ast.AST) -> Any:
        """Return the replacement of a node."""
        if isinstance(node, _FUNCTIONS):
            return node
        if isinstance(node, ast.Name) and node.id == _NAME and self._tested:
            return ast.copy_location(ast.Constant(SEEN), node)
        if isinstance(node, ast.Compare):
            return self._test(node)
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            node.test = self._test(node.test)
        elif isinstance(node, ast.Match):
            node.subject = self._test(node.subject)
        return self.generic_visit(node)

    def _test(self, node: Any) -> Any:
        before, self._tested = self._tested, True
        found = self.generic_visit(node) if isinstance(node, ast.Compare) else self.visit(node)
        self._tested = before
        return found


def _bound(body: list[ast.stmt], *, under: bool) -> Iterator[tuple[bool, str]]:
    """Yield each name that statements bind in their module, and whether only under the guard."""
    for statement in body:
        match statement:
            case ast.If(test=test, body=then, orelse=other):
                is_guard = any(isinstance(n, ast.Name) and n.id == _NAME for n in ast.walk(test))
                negated = is_guard and _is_negated(test)
                yield from _names(test, under=under)
                yield from _bound(then, under=under or (is_guard and not negated))
                yield from _bound(other, under=under or negated)
            case ast.Try(body=then, orelse=other, finalbody=last, handlers=handlers):
                for part in (then, other, last, *(handler.body for handler in handlers)):
                    yield from _bound(part, under=under)
            case ast.With(items=items, body=then):
                for item in items:
                    yield from _names(item, under=under)
                yield from _bound(then, under=under)
            case _:
                yield from _names(statement, under=under)


def _is_negated(test: ast.expr) -> bool:
    match test:
        case ast.Compare(ops=[operator]):
            return type(operator).__name__.startswith(("Not", "IsNot"))
        case ast.UnaryOp(op=ast.Not()):
            return True
        case _:
            return False


def _names(node: ast.AST, *, under: bool) -> Iterator[tuple[bool, str]]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield under, name
        case ast.Lambda():
            return
        case ast.Name(id=name, ctx=ast.Store()):
            yield under, name
        case ast.alias(name=name, asname=asname):
            yield under, asname or name.partition(".")[0]
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _names(child, under=under)
