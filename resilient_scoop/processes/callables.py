"""Callables in a worker: loaded once by id, called for items, their errors turned into outcomes."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_scoop.errors import MeaningError
from resilient_scoop.identity import script_changes
from resilient_scoop.payload import payload
from resilient_scoop.payload.missing import in_a_line, is_missing_module, is_missing_name
from resilient_scoop.processes import imported_files
from resilient_scoop.task_state import generators, overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.payload.files import LargeStore
    from resilient_scoop.task_state.overlay import Overlay
    from resilient_scoop.wire.messages import Define

SHARED_BYTES_MIN = 1 << 20
"""Callables that carry state are loaded again for every item, so that an item cannot see changes by
another; larger ones are shared within a worker, because loading them would cost too much."""

LOADED_MAX = 512
"""Number of callables that stay loaded, the latest used: a loop can make any number of different
lambdas."""

_FROZEN = frozenset({int, float, bool, str, bytes, type(None), complex})


def is_stateless(function: object) -> bool:
    """Return whether a callable has no state that one item could change for another."""
    if isinstance(function, functools.partial):
        return not function.args and not function.keywords and is_stateless(function.func)
    if isinstance(function, types.FunctionType):
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        return not function.__closure__ and _FROZEN.issuperset(map(type, defaults))
    if isinstance(function, type):
        return payload.is_importable(function)  # values of its attributes are sent with the call
    return isinstance(function, types.BuiltinFunctionType)


@dataclass(slots=True)
class Loaded:
    """A callable, as loaded in a worker."""

    define: Define
    function: Callable[..., Any] | None
    error: BaseException | None = None
    unfit: str = ""  # why this process cannot load it, although another could
    differs: str = ""  # why it is not what the script had when it made the call
    overlay: Overlay | None = None  # set while its items run
    is_pure: bool = False  # as the definition says
    draws: bool = False  # loaded again for every item, with random generators that it carries
    generators: tuple[
        generators.TrackedGenerator, ...
    ] = ()  # random generators that it carries, if items share it

    @property
    def is_quick(self) -> bool:
        """Whether an item is a plain call with one argument."""
        options = self.define.options
        plain = not options.retries and options.retry is None
        return self.error is None and self.function is not None and plain and not self.define.style


class Functions:
    """The callables that this process was sent."""

    def __init__(self, store: LargeStore) -> None:
        self._store = store
        self._loaded: OrderedDict[bytes, Loaded] = OrderedDict()
        self.script_error: SystemExit | None = None  # error that ended the import of the script
        self.where = ""  # the worker's name, for display

    def find(self, define: Define) -> Loaded | None:
        """Return a callable if it is loaded, else None."""
        found = self._loaded.get(define.fn)
        if found is not None:
            self._loaded.move_to_end(define.fn)
        return found

    def get(self, define: Define) -> Loaded:
        """Return a callable; load it on first use, and again if it was unloaded."""
        found = self.find(define)
        if found is not None:
            return found
        found = self._loaded[define.fn] = self._load(define)
        found.is_pure = define.pure
        if len(self._loaded) > LOADED_MAX:
            self._loaded.popitem(last=False)
        return found

    def forget_all(self) -> None:
        """Drop all callables: the worker ends."""
        self._loaded.clear()

    def describe_missing(self, what: str, error: BaseException) -> str:
        """Return, for display, that a value cannot be loaded because this process lacks something."""
        why = in_a_line(error.__cause__ or error)
        if self.script_error is not None:
            why += f"; the script called sys.exit({self.script_error.code!r}) while it was imported"
        return (
            f"{self.where} cannot load the {what}: {why}. No item is marked as failed: see that workers "
            "can import what it needs (PYTHONPATH, installed packages, modules that the script makes "
            "itself under its guard), then resume"
        )

    def _load(self, define: Define) -> Loaded:
        imported_files.tasks_begin()
        try:
            with script_changes.searching(define.setting):
                overlaid = overlay.settle(define)
                function = self.make(define)
        except Exception as error:  # user code: unpickling runs it
            if is_missing_module(error) or is_missing_name(error):
                unfit = self.describe_missing(f"function {define.name}", error)
                return Loaded(define, None, error, unfit)
            differs = str(error) if isinstance(error, MeaningError) else ""
            return Loaded(define, None, error, differs=differs)
        shared = is_stateless(function) or len(define.payload) >= SHARED_BYTES_MIN
        found = [function] if overlaid is None else [function, overlaid.values]
        carried = tuple(generators.within(found))
        if shared:
            return Loaded(define, function, overlay=overlaid, generators=carried)
        return Loaded(define, None, overlay=overlaid, generators=carried, draws=bool(carried))

    def make(self, define: Define) -> Callable[..., Any]:
        """Load the callable again and return it."""
        made: Callable[..., Any] = payload.loads(
            define.payload, self._store, f"function {define.name}", is_call=True
        )
        return made
