"""Runs on disk, and a reading API for notebooks, reports and your own tools.

    from resilient_scoop import runs

    run = runs.open_run("last")
    print(run.status().state, run.status().done)
    for item in run.items("0.3"):
        print(item.path, item.function, item.state, item.seconds)
    print(run.outcome("0.3[17]").value())

Nothing here changes a run. Live runs can be read as well as ended ones: each reading sees the
journal at one moment, and does not block the run. Only `ItemOutcome.value` runs code of yours, because
it unpickles a result; so read only runs that you trust, as with any pickle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from resilient_scoop.runs.events import Event
    from resilient_scoop.runs.items import Item
    from resilient_scoop.runs.reading import Function, ItemOutcome, Run, Status, list_runs, open_run

__all__ = ["Event", "Function", "Item", "ItemOutcome", "Run", "Status", "list_runs", "open_run"]

_HOMES: Final = {"Event": "events", "Item": "items"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: workers need only parts of this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'reading')}")
    globals()[name] = found = getattr(home, name)
    return found


def __dir__() -> list[str]:
    return __all__
