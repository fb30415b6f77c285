"""A parent's calls whose results nobody can read any more: the iterator over them is gone.

What no worker has begun of them is not computed. What is begun ends as usual, and what it comes to
is dropped; until then, or until the broker says that nothing more will come, the call stays in
`Parent.calls`, so that the end of a script waits for what is under way.

  U1  Giving up a call is no observation: nobody is told anything that could come out differently, and
      the items are not settled by it. A replay may give the call up earlier or later (the garbage
      collector decides when), or not at all: then its items are asked for and computed as new ones.
  U2  A finalizer only appends to `Parent.unwanted`, which is safe anywhere; what follows is done by
      whoever has the turn and begins a call or sends.
  U3  While the history is read nothing is sent; calls that were given up are told to the broker behind
      it, and to a new broker again, as long as anything is left of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.core.parent.parent import Parent


class Unwanted(NamedTuple):
    """A call that ends here; if it is `abandoned`, nobody reads what is left of it."""

    call: Call
    abandoned: bool


def let_go(parent: Parent) -> None:
    """End the calls that finalizers have named (U2)."""
    while parent.unwanted:
        call, abandoned = parent.unwanted.popleft()
        if parent.calls.get(call.number) is not call:
            continue  # it is settled
        if not call.last:
            parent.add(call, b"", [], last=True)
        if abandoned and call.left:
            _abandon(parent, call)


def _abandon(parent: Parent, call: Call) -> None:
    """Keep of a call what is left, and nothing else."""
    call.abandon()
    number = call.number
    for held in (parent._held, parent._stash):  # noqa: SLF001 - a part of `Parent`
        held.pop(number, None)
    parent._doubted.discard(number)  # noqa: SLF001
    parent.durable.unread.pop(number, None)
    parent.abandoned.append(number)


def frames(parent: Parent) -> list[bytes]:
    """Return what the broker is told of calls that were given up (U3)."""
    if not parent.abandoned or parent.replaying:
        return []
    calls, parent.abandoned = parent.abandoned, []
    return [wire.encode(wire.Abandon(parent.path, parent.attempt, calls))]


def to_tell_again(parent: Parent) -> list[int]:
    """Return the calls of which a new broker is told (U3)."""
    return [number for number, call in parent.calls.items() if call.abandoned]


def told(parent: Parent, message: wire.Abandoned) -> None:
    """The broker says what it will not compute; a call that this attempt wants is not meant (U1)."""
    call = parent.calls.get(message.call)
    if call is not None and call.abandoned:
        for low, high in message.spans:
            drop(parent, call, low, high)


def drop(parent: Parent, call: Call, start: int, stop: int) -> None:
    """Items of a call that was given up are done, or will never be."""
    for low, high in call.left.overlap(start, stop):
        call.left.discard(low, high)
        parent.under_way.end(call, low, high)
    parent.close_if_settled(call)
