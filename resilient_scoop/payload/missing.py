"""Find whether a value cannot be loaded because of this process, or because of the value.

A process without a module, or with another version of it than the sender, cannot load a pickle that
names it. This is not a failure of the item: the same bytes can be loaded by a process with the
module. But an exception of user code that rebuilds a value (`__setstate__`, `__reduce__`, a
constructor) is a failure of the item.

The two are distinguished by the first frame below the unpickler's own. If there is none, the
unpickler itself found no module or no name in it; if it is the top level of a module, an import
failed.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

_OWN: Final = ("resilient_scoop.", "dill.", "importlib.", "_frozen_importlib")
_PACKAGE: Final = str(Path(__file__).parents[1])
_OWN_MODULES: Final = frozenset({"pickle", "copyreg", "importlib", "dill"})


def is_missing_module(error: BaseException) -> bool:
    """Return whether a value could not be loaded because a module cannot be imported here."""
    error = error.__cause__ or error
    frame = _first_foreign(error.__traceback__)
    if frame is None:
        return isinstance(error, ImportError | SyntaxError)
    return frame.tb_frame.f_code.co_name == "<module>"


def is_missing_name(error: BaseException) -> bool:
    """Return whether a value could not be loaded because a module here lacks a name."""
    error = error.__cause__ or error
    return (
        isinstance(error, AttributeError)
        and str(error).startswith("Can't ")  # "get attribute 'f' on <module ...>"
        and _first_foreign(error.__traceback__) is None
    )


def is_of_the_value(error: BaseException) -> bool:
    """Return whether code that rebuilds the value raised: this process has all that it needs."""
    frame = _first_foreign(error.__traceback__)
    if frame is None:
        return isinstance(error, TypeError)  # the arguments are not those of the constructor
    return frame.tb_frame.f_code.co_name != "<module>"


def in_a_line(error: BaseException) -> str:
    """Return an error and its place, for display."""
    text = traceback.format_exception_only(error)[-1].strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}, line {error.lineno})"
    users = [f for f in frames if not f.filename.startswith(("<frozen", _PACKAGE))]
    return f"{text} ({users[-1].filename}, line {users[-1].lineno})" if users else text


def _first_foreign(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if not (name in _OWN_MODULES or f"{name}.".startswith(_OWN)):
            return trace
        trace = trace.tb_next
    return None
