"""The one thread that writes the journal: group commit.

The broker's thread queues whole turns; this thread puts everything that waits into one transaction,
so that the next one grows while one is being synced: a single record takes one sync, thousands per
second share one. `committed` rises in the order of turns, and only after the sync.

- A turn without forced changes (a replay can make them again) waits for a forced one, at most
  `HOLD_S`, or until a caller sets `hurry`; it counts as committed only when it is.
- No space: nothing is dropped; `full` is True, and only the oldest turn is tried every `RETRY_S`
  until there is room. The caller watches `queued_bytes` and stops taking in more.
- Between commits the thread does the journal's upkeep, some milliseconds at a time: `upkeep` returns
  in how many seconds it wants to be called again.
- Any other error ends the thread: `error` holds it, and nothing put later is ever written.
- A caller who has nothing else to do may commit in its own thread (`here`): passing a turn to the thread
  and being woken take as long as a fifth of a commit. That is done only for a little, while the writer is
  idle, and only where commits have been quick: a caller must not be kept for long.

`wake` is called from this thread whenever one of these has changed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol

from resilient_scoop.core.events import Change, Put
from resilient_scoop.errors import InvariantError, JournalError, JournalFullError

HOLD_S: Final = 0.05
"""Longest wait of unforced changes: changes of this time may have to be made again."""
HOLD_CHANGES_MAX: Final = 4096
GROUP_BYTES_MAX: Final = 32 << 20
"""Size of one transaction, if more than one turn waits: limits its dirty pages and its latency."""
GROUP_CHANGES_MAX: Final = 1 << 16
RETRY_S: Final = 0.5
HERE_BYTES_MAX: Final = 256 << 10
HERE_S_MAX: Final = 0.002
"""Mean time of recent commits up to which the caller's thread may do one."""
_CHANGE_BYTES: Final = 200
"""Memory of a queued change besides its key and value."""


class CanCommit(Protocol):
    """The part of a journal that the committer needs."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none, durably."""


class _QueuedTurn(NamedTuple):
    number: int
    changes: list[Change]
    size_bytes: int
    forced: bool
    put_at: float


class Committer:
    """Commits turns in order; `put` from one thread, everything else from any."""

    def __init__(
        self,
        journal: CanCommit,
        wake: Callable[[], None],
        upkeep: Callable[[], float] | None = None,
    ) -> None:
        self._journal = journal
        self._wake = wake
        self._upkeep = upkeep
        self._upkeep_at = inf if upkeep is None else 0.0
        self._turns: deque[_QueuedTurn] = deque()
        self._changed = threading.Condition()
        self._forced = 0  # waiting turns that must not be delayed
        self._changes = 0
        self._queued_bytes = 0
        self._committed = 0
        self._error: BaseException | None = None
        self._full = False
        self.full_reason = ""  # the last error for missing space
        self._busy = False  # a commit or the upkeep is running
        self._mean_s = HERE_S_MAX  # of recent commits
        self._upkeep_next = False  # a commit was done before the due upkeep
        self._hurry = 0  # everything up to this turn is needed now
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    @property
    def committed(self) -> int:
        """The highest durable turn; all turns before it are durable too."""
        return self._committed

    @property
    def error(self) -> BaseException | None:
        """The error that ended the thread, or None."""
        return self._error

    @property
    def full(self) -> bool:
        """Whether there is no space for what waits."""
        return self._full

    @property
    def queued_bytes(self) -> int:
        """Memory of waiting turns."""
        return self._queued_bytes

    def put(self, turn: int, changes: list[Change], *, here: bool = False) -> None:
        """Queue a turn's changes, in rising order of turns. The list belongs to the committer from now.

        With `here`, they may be committed on return, without a call of `wake`.

        Raises:
            JournalError: an earlier commit failed; nothing is written any more.
        """
        size_bytes, forced = _weigh(changes)
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._closing or (self._turns and turn <= self._turns[-1].number):
                raise InvariantError(f"turn {turn} was put out of order or after the end")
            self._turns.append(_QueuedTurn(turn, changes, size_bytes, forced, time.monotonic()))
            self._forced += forced
            self._changes += len(changes)
            self._queued_bytes += size_bytes
            group = self._take() if here and forced and self._may_commit_here() else []
            self._busy = self._busy or bool(group)
            if group:
                pass
            elif forced or len(self._turns) == 1 or self._changes >= HOLD_CHANGES_MAX:
                self._changed.notify_all()

        if group:
            self._commit_here(group)

    def _may_commit_here(self) -> bool:
        quick = self._mean_s <= HERE_S_MAX and self._queued_bytes <= HERE_BYTES_MAX
        return quick and not (self._busy or self._full or self._closing)

    def _commit_here(self, group: list[_QueuedTurn]) -> None:
        try:
            self._commit(group)
        except JournalFullError:
            with self._changed:  # the thread tries again, and reports it
                self._busy = False
                self._changed.notify_all()
        except JournalError as error:
            self._end(error)
        else:
            self._done(group)

    def hurry(self) -> None:
        """Do not delay what was queued so far, because a message depends on it."""
        with self._changed:
            if self._turns and self._hurry < self._turns[-1].number:
                self._hurry = self._turns[-1].number
                self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Commit everything queued so far and wait for it; return False after the timeout.

        Raises:
            JournalError: a commit failed.
        """
        with self._changed:
            if not self._turns:
                return True
            last = self._turns[-1].number
            self._hurry = max(self._hurry, last)
            self._changed.notify_all()
            done = self._changed.wait_for(
                lambda: self._committed >= last or self._error is not None, timeout_s
            )
            if self._error is not None:
                raise self._error
            return done

    def close(self) -> None:
        """Commit what waits and end the thread; after missing space, try once more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    # The methods below run in the thread.

    def _run(self) -> None:
        try:
            self._work()
        except JournalError as error:
            self._end(error)
        finally:
            unforeseen = (
                sys.exception()
            )  # a bug: reported by threading's hook, and noticed by the broker
            if unforeseen is not None:
                self._end(unforeseen)

    def _work(self) -> None:
        while (group := self._next_group()) is not None:
            if not group:
                self._tend()
                continue
            try:
                self._commit(group)
            except JournalFullError as error:
                self.full_reason = error.reason
                if not self._wait_for_room():
                    return
                continue
            self._done(group)
            self._wake()

    def _tend(self) -> None:
        assert self._upkeep is not None, "only then is it due"
        self._upkeep_at = time.monotonic() + self._upkeep()
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _commit(self, group: list[_QueuedTurn]) -> None:
        changes = [change for turn in group for change in turn.changes]
        if changes:
            began = time.monotonic()
            self._journal.commit(changes)
            self._mean_s += (time.monotonic() - began - self._mean_s) / 8

    def _next_group(self) -> list[_QueuedTurn] | None:
        """Wait until turns are due and return them, oldest first.

        Returns an empty list when it is time for the upkeep, and None at the end. The two
        alternate: commits wait for one piece of upkeep, which waits for one commit.
        """
        with self._changed:
            while not self._is_due():
                if self._closing and not self._busy:
                    return None
                if not self._busy and time.monotonic() >= self._upkeep_at:
                    self._busy = True
                    return []
                self._changed.wait(self._rest_s())
            self._busy = True
            if self._upkeep_next and time.monotonic() >= self._upkeep_at:
                self._upkeep_next = False
                return []
            self._upkeep_next = True
            return self._take()

    def _rest_s(self) -> float | None:
        """Return how long there is nothing to do; None: until notified."""
        if self._busy:
            return None
        oldest = self._turns[0].put_at + HOLD_S if self._turns else inf
        left_s = min(oldest, self._upkeep_at) - time.monotonic()
        return None if left_s == inf else max(0.0, left_s)

    def _is_due(self) -> bool:
        if self._busy or not self._turns:
            return False
        oldest = self._turns[0]
        return (
            self._forced > 0
            or self._closing
            or self._hurry >= oldest.number
            or self._changes >= HOLD_CHANGES_MAX
            or time.monotonic() - oldest.put_at >= HOLD_S
        )

    def _take(self) -> list[_QueuedTurn]:
        """Return the turns for one transaction; they stay queued until it is committed."""
        group = [self._turns[0]]
        if self._full:
            return group
        size_bytes, changes = group[0].size_bytes, len(group[0].changes)
        for i in range(1, len(self._turns)):
            turn = self._turns[i]
            size_bytes += turn.size_bytes
            changes += len(turn.changes)
            if size_bytes > GROUP_BYTES_MAX or changes > GROUP_CHANGES_MAX:
                break
            group.append(turn)
        return group

    def _done(self, group: list[_QueuedTurn]) -> None:
        with self._changed:
            for turn in group:
                self._turns.popleft()
                self._forced -= turn.forced
                self._changes -= len(turn.changes)
                self._queued_bytes -= turn.size_bytes
            self._committed = group[-1].number
            self._full = self._busy = False
            self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Return whether to try again."""
        with self._changed:
            self._busy = False
            if self._closing:
                return False
            news = not self._full
            self._full = True
        if news:
            self._wake()
        with self._changed:
            self._changed.wait_for(lambda: self._closing, RETRY_S)
        return True

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._busy = False
            self._changed.notify_all()
        self._wake()


def _weigh(changes: list[Change]) -> tuple[int, bool]:
    """Return the memory of the changes, and whether one of them is forced."""
    size_bytes, forced = 0, False
    for change in changes:
        size_bytes += _CHANGE_BYTES
        if isinstance(change, Put):
            size_bytes += len(change.key) + len(change.value)
            forced = forced or change.forced
    return size_bytes, forced
