"""A parent's batches whose results can no longer be read, because the iterator over them is gone.

What no worker has begun of them is not computed. Begun items end as usual, and their results are dropped;
until then, or until the broker says that nothing more will come, the call stays in
`Calls.open`, so that the end of a script waits for running items.

  U1  Giving up a call is no observation: the parent gets no answer that could be different, and the items
      are not settled by it. A replay may give the call up earlier or later (the garbage collector decides
      when), or not at all: then its items are made and computed as new ones.
  U2  A finalizer only calls `GivenUp.name`, which is safe anywhere; the rest is done by code
      that has the turn, and begins a call or sends.
  U3  While the history is read nothing is sent; calls that were given up are told to the broker after
      it, and to a new broker again, as long as anything is left of them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from resilient_scoop.core.parent.call import Call


class Unwanted(NamedTuple):
    """A call that ends here; if it is `abandoned`, what is left of it is not read."""

    call: Call
    abandoned: bool


class GivenUp:
    """Calls that end before they are over."""

    __slots__ = ("named", "to_tell")

    def __init__(self) -> None:
        self.named: deque[Unwanted] = deque()  # named by finalizers, and not handled yet
        self.to_tell: list[int] = []  # the broker is not told of these calls yet

    def name(self, call: Call, *, abandoned: bool) -> None:
        """End a call; safe wherever a finalizer may run (U2)."""
        self.named.append(Unwanted(call, abandoned))

    def take_to_tell(self) -> list[int]:
        """Return the calls of which the broker is told now."""
        calls, self.to_tell = self.to_tell, []
        return calls
