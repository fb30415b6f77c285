"""The names of SCOOP's modules: `import scoop` in a user's program gives `resilient_scoop.compat`.

A finder before the others answers for `scoop` and what is below it, and for nothing else. If SCOOP
itself can be imported, it is not replaced, and this is reported, unless the user asked for ours.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from resilient_scoop import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from types import ModuleType

NAME: Final = "scoop"
VARIABLE: Final = "RSCOOP_AS_SCOOP"
"""If it is set (and not to 0), ours is imported even where SCOOP is installed."""
_HOMES: Final = {
    "scoop": "resilient_scoop.compat._scoop",
    "scoop.futures": "resilient_scoop.futures",
    "scoop.shared": "resilient_scoop.compat._shared",
    "scoop._types": "resilient_scoop.compat._types",
    "scoop.fallbacks": "resilient_scoop.compat._types",
    "scoop._comm": "resilient_scoop.compat._types",
}
_OURS: Final = (
    "this script imports scoop, which is not installed: it gets resilient_scoop, which has the same "
    "interface"
)
_THEIRS: Final = (
    "this script imports the SCOOP that is installed at {}: its calls run one after another and are "
    "not journaled. To run it with resilient_scoop, set RSCOOP_AS_SCOOP=1 or change the import to "
    "`from resilient_scoop import futures`"
)


def install(tell_user: Callable[[str], None] | None = None, *, shadow: bool = False) -> None:
    """Answer imports of `scoop` from now on; with `shadow`, even if SCOOP is installed."""
    found = next((each for each in sys.meta_path if isinstance(each, _ScoopNames)), None)
    if found is None:
        found = _ScoopNames(tell_user)
        sys.meta_path.insert(0, found)
    elif tell_user is not None:
        found.tell_user = tell_user
    found.shadow = shadow or found.shadow


def is_foreign() -> bool:
    """Return whether `scoop` has been imported, and is not ours."""
    module = sys.modules.get(NAME)
    return module is not None and module.__name__ != _HOMES[NAME]


class _ScoopNames:
    """Finds the modules that stand in for those of SCOOP."""

    def __init__(self, tell_user: Callable[[str], None] | None) -> None:
        self.tell_user = tell_user
        self._has_spoken = False
        self.shadow = os.environ.get(VARIABLE, "0") not in ("", "0")

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find `scoop` and modules below it; None for others.

        Raises:
            ModuleNotFoundError: a module of SCOOP without counterpart.
        """
        if fullname.partition(".")[0] != NAME or is_foreign():
            return None
        if fullname == NAME and not self.shadow:
            theirs = self._theirs(path, target)
            if theirs is not None:
                self._warn(theirs)
                return theirs
        if fullname not in _HOMES:
            raise ModuleNotFoundError(
                f"resilient_scoop, which stands in for SCOOP here, has no module {fullname}; it has "
                f"{', '.join(sorted(_HOMES))}",
                name=fullname,
            )
        if fullname == NAME and not self.shadow:
            self._speak(_OURS)
        return ModuleSpec(fullname, cast("Loader", self))

    def _theirs(self, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """Return the result of the other finders for `scoop`."""
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(NAME, path, target)
            if spec is not None and spec.loader is not None:  # not a folder of that name
                return spec
        return None

    def _warn(self, theirs: ModuleSpec) -> None:
        """Report that SCOOP itself is imported; a module of the user may have that name too."""
        folders = list(theirs.submodule_search_locations or ())
        if any((Path(folder) / "futures.py").is_file() for folder in folders):
            self._speak(_THEIRS.format(folders[0]))

    def _speak(self, text: str) -> None:
        if self.tell_user is not None and this_process.IS_ORIGIN and not self._has_spoken:
            self._has_spoken = True
            self.tell_user(text)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return None: Python makes the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the module by ours, as a module may do during its import."""
        name = module.__name__
        ours = importlib.import_module(_HOMES[name])
        sys.modules[name] = ours
