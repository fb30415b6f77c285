"""Effects of the import of a module belong to the process, not to the importing task.

Python runs a module once, and tasks import some modules when they need them. So random numbers
during an import come from a stream named after the module, and not from the task's; changes to the
process (warning filters, environment) become part of the base from which all tasks start; and
random generators in the module are registered, and seeded for the importing task.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.identity import imported_values
from resilient_scoop.task_state import (
    generators,
    manager_key,
    process_locks,
    process_state,
    rng,
    thread_locals,
)
from resilient_scoop.values.user_modules import is_users_file

if TYPE_CHECKING:
    import importlib.machinery
    from collections.abc import Callable, Sequence
    from types import ModuleType


_THEN: Final = {
    "multiprocessing.synchronize": process_locks.install,
    manager_key.MODULE: manager_key.set_key,
}
"""Called after a module was imported."""


class Watcher:
    """Watches imports; `number_of` returns a seed for a name, `path` the task's path."""

    def __init__(self, number_of: Callable[[str], int], path: Callable[[], str]) -> None:
        self._number_of = number_of
        self._path = path
        self._finding = False
        self._depth = 0
        self._numbers: list[int] = []  # seeds of the modules that are being imported
        self._streams: list[Any] = []  # streams for generators without a seed in these modules

    def start(self) -> None:
        """Start watching."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the other finders, with a loader that reports the run of the module."""
        if self._finding or threading.current_thread() is not threading.main_thread():
            return None
        spec = self._ask_others(fullname, path, target)
        loader = None if spec is None else spec.loader
        if spec is None or not hasattr(loader, "__dict__") or isinstance(loader, type):
            return spec
        users, then = is_users_file(spec.origin), _THEN.get(fullname)
        if users or not self._depth or then is not None:
            run = loader.exec_module  # type: ignore[union-attr]  # a loader that has this method

            def exec_module(module: ModuleType) -> None:
                vars(loader).pop("exec_module", None)
                self._run(run, module, users=users)
                if then is not None:
                    then(module)

            loader.exec_module = exec_module  # type: ignore[union-attr,method-assign]  # a loader that has this method
        return spec

    def _ask_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        self._finding = True
        try:
            for finder in list(sys.meta_path):
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: Any = None if find is None else find(fullname, path, target)
                if spec is not None:
                    return spec  # type: ignore[no-any-return]  # finders have no common type
            return None
        finally:
            self._finding = False

    def _run(self, run: Callable[[ModuleType], None], module: ModuleType, *, users: bool) -> None:
        """Run a module's code, separately from the task that imports it."""
        if rng.is_old():
            run(module)
            if users:
                imported_values.note_late(module)
            return
        is_outermost = not self._depth
        before = process_state.snapshot() if is_outermost else None
        was_importing = thread_locals.importing(begins=True)
        number = self._number_of(module.__name__)
        streams = rng.save()
        rng.seed(number)
        self._depth += 1
        self._numbers.append(number)
        self._streams.append(rng.stream(number))
        try:
            run(module)
        finally:
            self._streams.pop()
            self._numbers.pop()
            self._depth -= 1
            thread_locals.importing(begins=was_importing)
            rng.restore(streams)
            if before is not None:
                process_state.imported(before)
        if users:
            imported_values.note_late(module)
            for each in generators.look([module]):
                each.seed(self._path().encode())

    @property
    def number(self) -> int | None:
        """The seed of the module being imported."""
        return self._numbers[-1] if self._numbers else None

    def draw(self, bits: int) -> int | None:
        """Return a seed for a generator made during an import; None outside of imports."""
        return self._streams[-1].getrandbits(bits) if self._streams else None
