"""Functions of modules by value: the sender's code, with the globals of the receiver's module.

Only between processes of one version of Python: the compiled code is sent.
"""

from __future__ import annotations

import importlib
import marshal
import sys
from types import CellType, FunctionType
from typing import Any


def reduce(function: FunctionType) -> tuple[Any, ...]:
    """Return the reduction of a function by value; its content may refer to the function itself."""
    cells = [_content(cell) for cell in function.__closure__ or ()]
    state = (
        function.__defaults__, function.__kwdefaults__, dict(vars(function)), cells,
        function.__doc__, function.__annotations__ if _is_plain(function) else {},
    )  # fmt: skip
    code = marshal.dumps(function.__code__)
    module = function.__globals__.get("__name__") or function.__module__
    args = (code, module, function.__name__, function.__qualname__, function.__module__, len(cells))
    return _skeleton, args, state, None, None, _fill


def _is_plain(function: FunctionType) -> bool:
    return all(isinstance(each, str | type) for each in function.__annotations__.values())


def _content(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return ()


def _skeleton(
    code: bytes, module: str, name: str, qualname: str, of_module: str, cells: int
) -> FunctionType:
    found = sys.modules.get(module) or importlib.import_module(module)
    closure = tuple(CellType() for _ in range(cells))
    made = FunctionType(marshal.loads(code), vars(found), name, None, closure)  # noqa: S302 - our own bytes, as those of pickle
    made.__qualname__, made.__module__ = qualname, of_module
    return made


def _fill(function: FunctionType, state: tuple[Any, ...]) -> None:
    defaults, keyword_defaults, attributes, cells, doc, annotations = state
    function.__defaults__, function.__kwdefaults__ = defaults, keyword_defaults
    function.__dict__.update(attributes)
    function.__doc__, function.__annotations__ = doc, annotations
    for cell, held in zip(function.__closure__ or (), cells, strict=True):
        if held:
            cell.cell_contents = held[0]
