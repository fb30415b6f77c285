"""A worker (or the origin) as a pure machine: what it holds, and what it must send.

It does not decide when code runs: its shell takes tasks from it, runs them, and returns the
outcomes. All messages to the broker pass through `out` and are sent as one bundle per `flush`, so
that they are committed together.

  W1  What was sent and not acknowledged is kept, and sent again to a new broker in one bundle with the
      Hello (NO-LOST): the broker never sees a Hello that lacks an outcome already made.
  W2  An item is in `left` of its task until its outcome is sent, and is sent once.
  W3  A task that was dropped sends nothing more; its parents are fenced.
  W4  No item is both begun and given back. The shell begins items without a lock: it moves `next`,
      then looks at `stop` and, where that is reached, looks again under the lock. `give_back` lowers
      `stop` and then looks at `next`: so one of the two sees what the other did.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.link import Link
from resilient_scoop.core.parent.history import HistoryRecord
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker import permission, set_aside
from resilient_scoop.core.worker.callables import Callables
from resilient_scoop.core.worker.checkpoint_requests import CheckpointRequests
from resilient_scoop.core.worker.replaced import displaced
from resilient_scoop.core.worker.work import Work
from resilient_scoop.errors import ReplayDivergedError
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["Work", "Worker"]


class Worker:
    """The state machine of one incarnation of a worker or the origin."""

    def __init__(self, *, role: str, node: str, name: str, pid: int, run: bytes) -> None:
        self.role = role
        self.node = node
        self.name = name
        self.pid = pid
        self.run = run
        self.link = Link(run, 0)
        self.seed = 0
        self.lease_s = 10.0
        self.greeted = False
        self.stopping: str | None = None
        self.works: dict[wire.Attempt, Work] = {}
        self.queue: deque[Work] = deque()  # tasks with unstarted items, in the order of rank
        self.undefined: list[Work] = []  # tasks that wait for the definition of their function
        self.callables = Callables()
        self.consts: dict[str, wire.Const] = {}
        self.parents: dict[str, Parent] = {}
        self.limits: dict[str, tuple[float, int]] = {}  # for waiting items: deadline and tries
        self.now = 0.0  # when the broker was last heard
        self.fenced: list[str] = []  # parents whose greenlets must end
        self.root_task: wire.Task | None = None
        self.root: wire.Attempt | None = None
        self.written = bytearray()  # unsent output of the script
        self.output_bytes = 0  # how much output was sent or known before
        self.output_at: int | None = None  # the next piece goes back to this byte of the output
        self.ended: wire.RunEnded | None = None
        self.out: list[bytes] = []
        self.due: dict[str, list[wire.Outcome]] = {}  # outcomes to send, by parent
        self.retract: list[wire.Retract] = []  # requested, not answered
        self.checkpoint_requests = CheckpointRequests()
        self.touched: set[str] = set()  # parents that got an answer

    def hello(self) -> list[bytes]:
        """Return the first message of a link: Hello and, after it, everything unacknowledged (W1)."""
        owed = [frame for frames in self.link.pending() for frame in frames]
        owed += self._collect()
        self.link = Link(self.run, self.link.epoch)
        self.greeted = False
        return self.link.pack([*self._greeting(), *owed])

    def _held(self, work: Work) -> wire.Held:
        # Finished but unflushed items are sent after the Hello, and count as held until then.
        spans = list(work.left)
        digests = b"".join(work.digests(start, stop) for start, stop in spans)
        task = work.task
        return wire.Held(work.attempt, task.parent, task.call, task.fn, spans, digests)

    def flush(self) -> list[bytes] | None:
        """Return the message with everything to send, or None."""
        if not self.greeted:
            return None
        frames = self._collect()
        return self.link.pack(frames) if frames else None

    def _collect(self) -> list[bytes]:
        frames, self.out = self.out, []
        for parent in self.parents.values():
            if parent.queued or parent.outgoing.has_observations:
                frames += parent.frames()
        frames += self.checkpoint_requests.answer(self.parents)
        if self.written and self.root is not None:
            output = wire.Output(self.root, self.output_bytes, bytes(self.written), self.output_at)
            self.output_at = None
            self.output_bytes += len(self.written)
            self.written.clear()
            frames.append(wire.encode(output))
        if self.due:
            frames += [wire.encode(wire.Outcomes(p, items)) for p, items in self.due.items()]
            self.due = {}
        if self.ended is not None:
            frames.append(wire.encode(self.ended))
            self.ended = None
        return frames

    def define(self, define: wire.Define) -> None:
        """Announce a callable of this process, before the calls that use it."""
        if define.fn not in self.callables.announced:
            # Even if the broker sent it: a broker may lose what it has not committed.
            self.callables.announced[define.fn] = None
            self.callables.known.setdefault(define.fn, define)
            self.out.append(wire.encode(define))

    def settle(self, work: Work, now: float) -> None:
        """Make the finished run of a task's items ready to be sent (W2).

        The shell may append to `work.values` at the same time from another thread: taken values are
        cut off in place.
        """
        values = work.values[:]
        if not values:
            return
        del work.values[: len(values)]
        start, stop = work.first, work.first + len(values)
        failed: list[int] = []
        if work.failed:
            failed = [index - start for index in work.failed if index < stop]
            work.failed[:] = [index for index in work.failed if index >= stop]
        work.first = stop
        spent_s, work.since = now - work.since, now
        if work.dropped:
            return
        outcome = wire.Outcome(
            work.task.call, start, work.callable.fingerprint,
            work.digests(start, stop), values, failed, spent_s, work.attempt,
            work.callable.pure and not work.impure, not work.callable.options.idempotent,
            work.take_again(),
        )  # fmt: skip
        self.due.setdefault(work.task.parent, []).append(outcome)
        work.left.discard(start, stop)
        if not work.left:
            self.works.pop(work.attempt, None)

    def settle_one(self, work: Work, index: int, value: bytes, *, failed: bool) -> None:
        """Make the outcome of one item, which is a parent, ready to be sent."""
        if work.dropped:
            return
        outcome = wire.Outcome(
            work.task.call, index, work.callable.fingerprint,
            work.digests(index, index + 1), [value], [0] if failed else [], -1.0, work.attempt,
            once=not work.callable.options.idempotent, again=work.take_again(),
        )  # fmt: skip
        path = ids.item_path(work.task.parent, work.task.call, index)
        parent = self.parents.pop(path, None)
        if parent is not None:
            self.out += parent.frames()
        self.due.setdefault(work.task.parent, []).append(outcome)
        work.left.discard(index, index + 1)
        if not work.left:
            self.works.pop(work.attempt, None)

    def park(
        self, work: Work, index: int, until: float | None = None, now: float = 0.0, tries: int = 0
    ) -> None:
        """Report that an item waits for others, and the deadline of its try."""
        left_s = -1.0
        if until is not None:
            left_s = max(0.0, until - now)
            path = ids.item_path(work.task.parent, work.task.call, index)
            self.limits[path] = (until, tries)
        self.out.append(wire.encode(wire.Parked(work.attempt, index, True, left_s, tries)))  # noqa: FBT003 - a struct is made faster by positions

    def unpark(self, work: Work, index: int) -> None:
        """Report that an item continues: others must not wait behind it."""
        if self.limits:
            self.limits.pop(ids.item_path(work.task.parent, work.task.call, index), None)
        self.out.append(wire.encode(wire.Parked(work.attempt, index, parked=False)))

    def give_back(self) -> None:
        """Answer retractions (W4): give back all items that have not started."""
        asked, self.retract = self.retract, []
        for each in asked:
            work = self.works.get(each.attempt)
            if work is not None:
                stop = work.stop
                lowered = work.stop = min(stop, max(each.start, work.next))
                kept = min(stop, max(lowered, work.next))
                if not 0 <= each.start < kept:
                    work.stop = kept
                    self.give_back_from(work, kept)
                    continue
                work.stop = stop
            if each.start >= 0:  # it has started, or its task has ended
                self.out.append(wire.encode(wire.Returned(each.attempt, 1 << 62, each.start)))

    def give_back_from(self, work: Work, stop: int) -> None:
        """Report that the items of a task from `stop` on will not be started here."""
        self.out.append(wire.encode(wire.Returned(work.attempt, stop)))
        work.left.discard(stop, 1 << 62)
        work.stop = min(work.stop, stop)
        if not work.left:
            self.works.pop(work.attempt, None)
        if work in self.queue and work.next >= work.stop:
            self.queue.remove(work)

    def ask_to_begin(self, work: Work, index: int) -> None:
        """Ask whether an `idempotent=False` item may start (A1)."""
        self.out.append(permission.ask(work, index))

    def take_back(self, work: Work, index: int) -> None:
        """Report that an item, for which permission was asked, will not start here."""
        work.asked, work.next = -1, index
        self.give_back_from(work, index)

    def set_aside(self, work: Work, index: int, reason: str, *, differs: bool = False) -> None:
        """Keep the items of a slice from an index on, which cannot run here, and report why."""
        self.out.append(set_aside.set_aside(work, index, reason, differs=differs))

    def hand_back_aside(self) -> None:
        """Give back set-aside items: this worker ends."""
        for work, index in set_aside.held_aside(self.works.values()):
            self.give_back_from(work, index)

    def hear(self, header: wire.Header, frames: list[bytes], now: float) -> list[list[bytes]]:
        """Handle a message; return messages to send back at once.

        A message of a newer epoch than the link's means that the broker is a new one: the answer is
        a Hello. Late messages of an older broker are ignored.
        """
        self.now = now
        if header.epoch < self.link.epoch:
            return []
        if header.epoch > self.link.epoch:
            return self._meet(header.epoch)
        fresh, answers = self.link.take(header, now)
        if fresh:
            self._bundle(frames)
            self.link.acked = self.link.received
        return answers

    def _meet(self, epoch: int) -> list[list[bytes]]:
        """Meet a new broker."""
        self.link.epoch = epoch
        # The definitions for which they wait may have been lost with the old broker, before a
        # commit.
        self._drop([work.attempt for work in self.undefined])
        self.undefined.clear()
        self.checkpoint_requests.meet()
        for parent in self.parents.values():
            lost = parent.history.page_asked
            parent.reconnect()
            if lost or parent.history.catching_up:
                self._ask_page(parent)
        return [self.hello()]

    def _ask_page(self, parent: Parent) -> None:
        frame = parent.page_wanted()
        if frame is not None:
            self.out.append(frame)

    def _bundle(self, frames: list[bytes]) -> None:
        messages = [wire.decode_down(frame) for frame in frames]
        head = messages[0]
        if isinstance(head, wire.History):
            parent = self.parents.get(head.parent)
            if parent is not None and parent.attempt == head.attempt:
                self.touched.add(head.parent)
                with suppress(ReplayDivergedError):  # it stays in `refusal`, for code that waits
                    parent.page(
                        head, [each for each in messages[1:] if isinstance(each, HistoryRecord)]
                    )
                if parent.history.catching_up:
                    self._ask_page(parent)
            return
        for message in messages:
            self._handle(message)

    def _handle(self, message: wire.Down) -> None:  # noqa: C901, PLR0912 - one case each
        match message:
            case (
                wire.Outcomes()
                | wire.Saved()
                | wire.Noted()
                | wire.CancelAnswer()
                | wire.Abandoned()
            ):
                parent = self.parents.get(message.parent)
                if parent is not None:
                    self.touched.add(message.parent)
                    _hand(message, parent)
            case wire.Grant(tasks=tasks):
                for task in tasks:
                    self._accept(task)
            case wire.Define():
                self.callables.known.setdefault(message.fn, message)
                self._defined()
            case wire.Welcome():
                self.greeted = True
                self.seed, self.lease_s = message.seed, message.lease_s
                self._drop(message.dropped)
            case wire.Retract():
                self.retract.append(message)
            case wire.Drop(attempts=attempts):
                self._drop(attempts)
            case wire.Evict(attempt=attempt, index=index):
                self._evict(attempt, index)
            case wire.MayBegin(attempt=attempt, index=index):
                work = self.works.get(attempt)
                if work is not None:
                    work.permitted = index
            case wire.Const():
                self.consts.setdefault(message.name, message)
                self.touched.update(self.parents)
            case wire.Stop(reason=reason):
                self.stopping = reason
            case wire.CheckpointWanted():
                self.checkpoint_requests.hear(message)
            case wire.Forget():
                self._forget(message)
            case wire.History() | wire.Observed() | wire.Checkpoint():
                pass  # these come in a bundle of their own
            case wire.Kill():
                pass  # for agents
            case _:
                assert_never(message)

    def _evict(self, attempt: wire.Attempt, index: int) -> None:
        """Drop one item of a slice, which continues elsewhere."""
        work = self.works.get(attempt)
        if work is None:
            return
        work.left.discard(index, index + 1)
        if not work.left:
            self.works.pop(attempt, None)
        path = ids.item_path(work.task.parent, work.task.call, index)
        parent = self.parents.get(path)
        if parent is not None and parent.attempt != attempt:
            return  # it is here again
        self.parents.pop(path, None)
        self.fenced.append(path)

    def _forget(self, asked: wire.Forget) -> None:
        """Forget unused callables, announce called ones again, and confirm (CE1)."""
        calling: set[bytes] = set()
        for parent in self.parents.values():
            self.out += parent.frames()  # definitions of its calls are sent before
            for call in parent.calls.open.values():
                calling.update((call.fn, *call.earlier))
        used = calling.union(asked.keep, (work.task.fn for work in self.works.values()))
        self.callables.forget(calling, used)
        self.out += self.callables.announcements()
        self.out.append(wire.encode(wire.Forgotten(asked.no)))

    def _greeting(self) -> list[bytes]:
        """Return a Hello and all that this process has announced: its broker may not know it (CE1)."""
        held = [self._held(work) for work in self.works.values() if work.left]
        self.limits = {path: self.limits[path] for path in self.limits if path in self.parents}
        waiting = []
        for parent in self.parents.values():
            until, tries = self.limits.get(parent.path, (None, 0))
            left_s = -1.0 if until is None else max(0.0, until - self.now)
            waiting.append(wire.Waiting(parent.path, parent.attempt, left_s, tries))
        hello = wire.Hello(self.role, self.node, self.name, self.pid, held, waiting)
        works = self.works.values()
        again = [*permission.ask_again(works), *set_aside.repeat(works)]
        return [wire.encode(hello), *self.callables.announcements(), *again]

    def _accept(self, task: wire.Task) -> None:
        attempt = wire.Attempt(self.link.epoch, task.no)
        if not task.parent:
            self.root_task, self.root = task, attempt
            return
        if self.parents:
            for parent, index in displaced(self.parents, task):
                self._evict(parent.attempt, index)
        stop = task.start + len(task.args)
        left = Intervals.run(task.start, stop) if task.args else Intervals()
        depth = ids.depth(task.parent)
        work = Work(attempt, task, task.start, stop, left, depth, first=task.start)
        self.works[attempt] = work
        if task.fn in self.callables.known:
            self._enqueue(work)
        else:
            self.undefined.append(work)

    def _enqueue(self, work: Work) -> None:
        """Queue in the broker's order: priority, ready parents, deeper ones, first come."""
        work.define = self.callables.known[work.task.fn]
        priority = work.define.options.priority
        work.rank = (-priority, 0 if work.task.replay else 1, -work.depth)
        at = len(self.queue)
        while at and self.queue[at - 1].rank > work.rank:
            at -= 1
        self.queue.insert(at, work)

    def outranked(self, work: Work) -> bool:
        """Queue the rest of a slice again if another one goes first; return whether it does."""
        queue = self.queue
        if not queue or queue[0].rank >= work.rank or work.next >= work.stop or work.dropped:
            return False
        at = 1
        while at < len(queue) and queue[at].rank < work.rank:
            at += 1
        queue.insert(at, work)
        return True

    def _defined(self) -> None:
        waiting, self.undefined = self.undefined, []
        for work in waiting:
            if work.dropped:
                continue
            if work.task.fn in self.callables.known:
                self._enqueue(work)
            else:
                self.undefined.append(work)

    def _drop(self, attempts: Iterable[wire.Attempt]) -> None:
        """Stop and forget (W3)."""
        for attempt in attempts:
            work = self.works.pop(attempt, None)
            if work is not None:
                work.dropped = True
                work.stop = work.next
                work.left = Intervals()
                if work in self.queue:
                    self.queue.remove(work)
            for path in [p for p, parent in self.parents.items() if parent.attempt == attempt]:
                del self.parents[path]
                self.fenced.append(path)


def _hand(
    message: wire.Outcomes | wire.Saved | wire.Noted | wire.CancelAnswer | wire.Abandoned,
    parent: Parent,
) -> None:
    """Give a parent an answer of the broker."""
    match message:
        case wire.Outcomes():
            with suppress(ReplayDivergedError):  # the parent keeps it, and raises it where it waits
                parent.outcomes(message)
        case wire.Saved(name=name, opening=opening, gen=gen):
            parent.durable.note(name, opening, gen)
        case wire.Noted(no=no):
            parent.once.take(no)
        case wire.CancelAnswer():
            parent.cancels.hear(message)
        case wire.Abandoned():
            parent.abandoned(message)
        case _:
            assert_never(message)
