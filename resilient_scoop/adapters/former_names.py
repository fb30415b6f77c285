"""Former names of modules in pickles of earlier versions, with the present names.

A pickle names the functions that rebuild its objects. Pickles in journals and checkpoints outlive
names of modules.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

_ADAPTERS: Final = "resilient_scoop.adapters."
_NOW: Final = {
    f"{_ADAPTERS}payload_class_keys": "resilient_scoop.payload.class_keys",
    f"{_ADAPTERS}payload_classes": "resilient_scoop.payload.classes",
    f"{_ADAPTERS}payload_deap": "resilient_scoop.adapters.deap_classes",
    f"{_ADAPTERS}payload_dill": "resilient_scoop.payload.by_value",
    f"{_ADAPTERS}payload_errors": "resilient_scoop.payload.exceptions",
    f"{_ADAPTERS}payload_function": "resilient_scoop.payload.functions",
    f"{_ADAPTERS}overlay": "resilient_scoop.task_state.overlay",
    "resilient_scoop.core.divergence": "resilient_scoop.errors",
    f"{_ADAPTERS}values": "resilient_scoop.values.values",
}


_ERRORS: Final = ("UnpicklableExceptionError", "UnpicklingFailedError")
"""These were beside the functions of `adapters.payload_errors`."""


def current(module: str, name: str) -> str:
    """Return the present module of what a pickle names."""
    if name in _ERRORS:
        return "resilient_scoop.errors"
    return _NOW.get(module, module)


class _RenamingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(current(module, name), name)


def load(data: bytes | memoryview, buffers: Any = ()) -> Any:
    """Return the object of a plain pickle; raises the exceptions of unpickling."""
    try:
        return pickle.loads(data, buffers=buffers)
    except ModuleNotFoundError as error:
        if error.name not in _NOW:
            raise
    return _RenamingUnpickler(io.BytesIO(data), buffers=buffers).load()
