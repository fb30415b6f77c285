"""Files that the script has open for writing, and that tasks may write to: each process appends.

Otherwise, the script would write at its own position, over what tasks have written.
"""

from __future__ import annotations

import io
import sys
from types import FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.errors import MeaningError
from resilient_scoop.values import open_files
from resilient_scoop.values.user_code import is_user_module
from resilient_scoop.values.user_modules import loaded

_HOLDERS: Final = ("_csv", "csv")


def share(name: str, objects: dict[str, Any]) -> None:
    """Let this process append to the files among the objects that a function refers to, by home.

    Raises:
        MeaningError: one is an archive, which a single process writes as a whole.
    """
    for home, value in objects.items():
        label = home.partition(":")[2]
        for place, each in ((label, value), *_held(label, value)):
            kind = open_files.unshared_writer(each)
            if kind:
                reason = (
                    f"{place} is a {kind} that the script writes, and a task cannot write to it: return "
                    f"what belongs in it, and let the script write that"
                )
                raise MeaningError(name, [place], [reason])
            open_files.append_to(each)
    if any(type(value).__module__ in _HOLDERS for value in objects.values()):
        _share_all()
    _share_logs()


def _share_all() -> None:
    """Share the files of all of the user's modules: a writer of CSV does not tell its file."""
    for name, module in loaded():
        if is_user_module(name):
            for value in list(vars(module).values()):
                open_files.append_to(value)


def _held(label: str, value: Any) -> list[tuple[str, Any]]:
    """Return the files among the attributes of an object."""
    if isinstance(value, type | FunctionType | ModuleType):
        return []
    held = getattr(value, "__dict__", {})
    return [(f"{label}.{key}", each) for key, each in held.items() if isinstance(each, io.IOBase)]


def _share_logs() -> None:
    module: Any = sys.modules.get("logging")
    for each in [] if module is None else list(module._handlerList):  # noqa: SLF001 - nothing public lists them
        handler = each()
        if isinstance(handler, module.FileHandler) and handler.stream is not None:
            open_files.append_to(handler.stream)
