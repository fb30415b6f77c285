"""A worker's main loop: it resumes parents that can go on, and runs slices otherwise.

H1  Ready parents go before leaves; slices in the order of the broker's queue (`Work.rank`).
H2  The hub's greenlet never runs user code; whatever waits is in `parked` with what it waits for.
H3  A parent takes its random streams with it when it waits, and finds them again.
H4  A parent that could go on does not wait behind a long item for long: another worker replays it.
H5  With `always_replay`, a parent that was told an outcome while it waited does not go on: it is
ended and runs again from the top. That outcome is in its history by then, so that each of its
lives comes further than the one before.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_scoop.adapters import overlay, rng
from resilient_scoop.adapters.green import GreenletExit, getcurrent, greenlet
from resilient_scoop.runtime.session import FLUSH_S, lived
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.worker import Work
    from resilient_scoop.runtime.executor import Executor
    from resilient_scoop.runtime.session import Context, Session

_IDLE_S = 0.25
STUCK_S = 0.5


@dataclass(slots=True, eq=False)
class Parked:
    """A future that waits."""

    context: Context
    green: Any
    ready: Callable[[], bool]
    until: float | None
    lived: int  # outcomes that its parent machine had taken in live


class Hub:
    """Decides what the worker's one thread does next."""

    def __init__(self, session: Session, executor: Executor) -> None:
        self.session = session
        self.executor = executor
        self.parked: dict[str, Parked] = {}
        self.open: list[Work] = []  # slices of which an item waits and others are not begun
        self.green = getcurrent()
        self.pump_at = 0.0
        self.looped_at = time.monotonic()
        self.stuck_at = 0.0
        session.waiter = self
        session.say_stuck = self.say_stuck

    # --- called by items ----------------------------------------------------------------------

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Let others run until `ready()` holds (True) or the moment `until` (False)."""
        session, context = self.session, self.session.context
        with session.lock:
            if ready():
                return True
            self._park(context)
        streams, overlaid = rng.save(), overlay.active()
        so_far = lived(context.parent)
        self.parked[context.path] = Parked(context, getcurrent(), ready, until, so_far)
        in_time: bool = self.green.switch()
        session.context = context
        rng.restore(streams)
        overlay.activate(overlaid)
        work = context.work
        assert work is not None, "a waiting item belongs to a slice"
        attempt, task = work.attempt, work.task
        with session.lock:
            session.machine.unpark(work, context.index)
        session.record.begin(attempt.epoch, attempt.no, task.parent, task.call, context.index)
        return in_time

    def _park(self, context: Context) -> None:
        """The item waits; the rest of its slice is for another greenlet."""
        session, work = self.session, context.work
        assert work is not None, "a waiting item belongs to a slice"
        if not context.parked:
            context.parked = True
            session.machine.settle(work, time.monotonic())
            work.first = context.index + 1
            if work.next < work.stop:
                self.open.append(work)
        session.running = None
        session.machine.park(work, context.index)
        self._ask_page(context)

    def _ask_page(self, context: Context) -> None:
        if context.parent is not None:
            frame = context.parent.page_wanted()
            if frame is not None:
                self.session.machine.out.append(frame)

    def say_stuck(self) -> None:
        """Tell the broker of parents that could go on while one item keeps the worker (H4)."""
        now = time.monotonic()
        if not self.parked or now - max(self.looped_at, self.stuck_at) < STUCK_S:
            return
        self.stuck_at = now
        machine = self.session.machine
        for parked in list(self.parked.values()):
            work = parked.context.work
            if work is None or work.dropped or parked.context.in_once:
                continue
            if parked.ready():
                stuck = wire.Stuck(work.attempt, parked.context.index)
                machine.out.append(wire.encode(stuck))

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the broker says stop."""
        session, machine = self.session, self.session.machine
        while machine.stopping is None:
            self._pump()
            self.looped_at = time.monotonic()
            self._fence()
            if self._resume_ready() or machine.stopping is not None:
                continue
            if self.open or machine.queue:
                greenlet(self._body).switch()
            elif session.record.read() is not None:
                session.record.idle()
        with session.lock:
            self._hand_back()

    def _body(self) -> None:
        with contextlib.suppress(GreenletExit):
            self.executor.run(self._pick)

    def _pick(self) -> Work | None:
        """Return the next slice for a running greenlet; None sends it back to the hub."""
        session, machine = self.session, self.session.machine
        now = self.looped_at = time.monotonic()
        if not (self.open or machine.queue):
            with session.lock:
                session.pump()
            if not (self.open or machine.queue or self.parked or machine.stopping is not None):
                # Nobody could be switched to: wait here, where the next slice starts at once.
                session.record.idle()
                with session.lock:
                    session.pump(_IDLE_S)
        elif now - session.pumped_at > FLUSH_S:
            with session.lock:
                session.pump()
        if machine.stopping is not None or machine.fenced or self._is_anyone_ready():
            return None
        with session.lock:
            if not self.open:
                return machine.queue.popleft() if machine.queue else None
            # Of equal ones the latest: most likely it was opened below the others.
            at = min(range(len(self.open)), key=lambda each: (self.open[each].rank, -each))
            if machine.queue and machine.queue[0].rank < self.open[at].rank:
                return machine.queue.popleft()
            return self.open.pop(at)

    def _is_anyone_ready(self) -> bool:
        return bool(self.parked) and bool(self.session.machine.touched)

    def _pump(self) -> None:
        session, machine = self.session, self.session.machine
        busy = bool(self.open or machine.queue or self._is_anyone_ready())
        with session.lock:
            session.pump(0.0 if busy else self._idle_s())

    def _idle_s(self) -> float:
        due = [p.until for p in self.parked.values() if p.until is not None]
        return max(0.0, min([_IDLE_S, *(until - time.monotonic() for until in due)]))

    def _resume_ready(self) -> bool:
        """Switch to what can go on; return whether anything did."""
        machine = self.session.machine
        touched, machine.touched = machine.touched, set()
        now, resumed = time.monotonic(), False
        paths = [path for path in touched if path in self.parked]
        paths += [p for p, parked in self.parked.items() if parked.until is not None]
        for path in sorted(set(paths), key=lambda each: -each.count(".")):
            parked = self.parked.get(path)
            if parked is None:
                continue
            with self.session.lock:
                ready = parked.ready()
                if not ready:
                    self._ask_page(parked.context)
            if ready or (parked.until is not None and parked.until <= now):
                del self.parked[path]
                resumed = True
                if ready and self._is_to_replay(parked):
                    self._replay(parked)
                else:
                    parked.green.switch(ready)
        return resumed

    def _is_to_replay(self, parked: Parked) -> bool:
        """Tell whether a parent has to run again from the top, now that it could go on (H5)."""
        if not self.session.settings.always_replay:
            return False
        parent, work = parked.context.parent, parked.context.work
        if parent is None or work is None or work.dropped:
            return False
        if parked.context.in_once or not work.callable.options.idempotent:
            return False
        return lived(parent) > parked.lived and not (parent.replaying or parent.page_asked)

    def _replay(self, parked: Parked) -> None:
        """End a parent's greenlet and run it again, under the same attempt, with its history."""
        machine, context = self.session.machine, parked.context
        with self.session.lock:
            parent = machine.parents.pop(context.path)
            machine.out += parent.frames()  # what it was told is part of its history
        context.fenced = True
        parked.green.throw(GreenletExit)
        greenlet(self._body_again).switch(context.work, context.index)

    def _body_again(self, work: Work, index: int) -> None:
        with contextlib.suppress(GreenletExit):
            self.executor.again(work, index)

    def _fence(self) -> None:
        """End the greenlets of parents that are no longer ours to run."""
        machine = self.session.machine
        fenced, machine.fenced = machine.fenced, []
        for path in fenced:
            parked = self.parked.pop(path, None)
            if parked is not None:
                parked.context.fenced = True
                parked.green.throw(GreenletExit)

    def end_waiting(self) -> None:
        """End what still waits, so that its `finally` blocks run; the run is over, or interrupted."""
        for path in list(self.parked):
            parked = self.parked.pop(path)
            parked.context.fenced = True
            parked.green.throw(GreenletExit)

    def _hand_back(self) -> None:
        """Give back what is not begun."""
        machine = self.session.machine
        self.executor.hand_back()
        for work in [*self.open, *machine.queue]:
            machine.give_back_from(work, work.next)
        self.open.clear()
        machine.queue.clear()
