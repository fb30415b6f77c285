"""Parents of which a worker still holds an earlier attempt when it is granted another one.

A broker grants at once, but announces dropped attempts after a commit. If it dies between the two,
a worker has both attempts. Parents are kept by path, so the later one would displace the earlier
one, which would still count as held: a new broker that let the worker keep it would wait for it
forever.

  R1  The attempt that was granted last takes the place of an earlier one in the same process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids

if TYPE_CHECKING:
    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.wire.messages import Task


def displaced(parents: dict[str, Parent], task: Task) -> list[tuple[Parent, int]]:
    """Return which parents here are items of a granted task, and which items (R1)."""
    stop = task.start + len(task.args)
    if stop - task.start <= len(parents):
        items = [(ids.item_path(task.parent, task.call, i), i) for i in range(task.start, stop)]
        return [(parents[path], index) for path, index in items if path in parents]
    places = [(parent, ids.parse_item(path)) for path, parent in parents.items()]
    return [
        (parent, place[2])
        for parent, place in places
        if place is not None
        and place[:2] == (task.parent, task.call)
        and task.start <= place[2] < stop
    ]
