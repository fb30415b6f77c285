"""What `futures` finds in its process: the session, if `rscoop` started it, and how to become a parent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resilient_scoop import ids, this_process
from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.payload import payload
from resilient_scoop.runs import decisions

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.connection import Connection, Context
    from resilient_scoop.processes.starting import ChildSettings


class ItemWatch(Protocol):
    """Is notified of the start and end of each item of this process (`processes.audit`)."""

    def item_begins(self) -> None:
        """Called before an item calls user code."""

    def item_ended(self, function: Any, context: Context) -> None:
        """Called after the function of an item has ended."""


class Process:
    """The role of this process in a run."""

    session: Connection | None = None
    policy: Policy = Policy()
    tell_user: Callable[[str], None] = print
    importing: str | None = None  # path of the script, while a worker imports it
    refusal: str | None = None  # why futures can no longer be used here
    audit: ItemWatch | None = None
    make_parent: Callable[[], Parent] | None = None


def _place(session: Connection) -> payload.SendingFuture:
    context = session.context
    in_none = session.role == "worker" and context.path == ids.ROOT  # it has started none yet
    return payload.SendingFuture("-" if in_none else context.path, context.classes)


def announce(session: Connection, settings: ChildSettings) -> None:
    """Set the attributes that users read from the package, and the session of this process."""
    Process.session = session
    payload.locate(lambda: _place(session))
    run_dir = Path(settings.run_dir)

    def keep(then: bytes, now: bytes, name: str) -> None:
        at = time.time()  # noqa: TID251 - a label for display
        made = decisions.Decision(name=name, then=then, now=now, keep=True, decided_at=at)
        try:
            decisions.save(run_dir, [made])
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise  # otherwise the next resume asks again

    options = settings.options
    Process.policy = Policy(
        options.stops_at_differences, options.reuse_changed, options.recompute_changed,
        decisions.kept(run_dir), keep, options.discard_s_max,
    )  # fmt: skip
    this_process.IS_RUNNING = True
    this_process.IS_ORIGIN = session.role == "origin"
    this_process.WORKER = this_process.worker = settings.name
    this_process.SIZE = options.size
    this_process.BROKER = this_process.BrokerInfo("localhost", settings.run_dir)
