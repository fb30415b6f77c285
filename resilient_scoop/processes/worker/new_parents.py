"""How the running item becomes a parent: it makes its first call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.core.parent.parent import Parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.processes.connection import Connection


def make_parent(session: Connection, policy: Policy, tell_user: Callable[[str], None]) -> Parent:
    """Make the running item a parent (it has made its first call)."""
    context = session.context
    work = context.work
    assert work is not None, "the root is made by the origin"
    machine = session.machine
    if work.dropped:
        raise GreenletExit  # another attempt is the item's one writer
    parent = Parent(
        context.path, work.attempt, work.task.replay or context.again, policy, tell_user,
        lambda fn: name_of(session, fn),
    )  # fmt: skip
    context.parent = machine.parents[context.path] = parent
    return parent


def name_of(session: Connection, fn: bytes) -> str:
    """Return the name of a function for display."""
    define = session.machine.callables.known.get(fn)
    return fn.hex() if define is None else define.options.name or define.name
