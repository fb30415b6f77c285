"""A worker's main loop: it resumes parents that can continue, and runs slices otherwise.

What comes next is decided by `core.worker.choice` (WC1 to WC4).

WL2 The hub's greenlet never runs user code; whatever waits is in `parked` with what it waits for.
WL3 A parent takes its random streams, and what else is its own of the process, with it when it
waits, and finds them again (`task_state.process_state`). WL4 A parent that could continue does not
wait behind a long item for long: another worker replays it. WL5 With `always_replay`, a parent that
got an outcome while it waited does not continue: it is ended and runs again from the top. That
outcome is then in its history, so each attempt gets further than the one before.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from resilient_scoop.adapters.greenlets import GreenletExit, getcurrent, greenlet
from resilient_scoop.core.worker.choice import (
    Next,
    bar,
    give_back_upper,
    next_step,
    take_slice,
    turn_of,
)
from resilient_scoop.processes import user_signals
from resilient_scoop.processes.connection import FLUSH_S, live_outcomes
from resilient_scoop.processes.worker.lock_waits import LockWaits
from resilient_scoop.task_state import process_state, thread_locals
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.worker.worker import Work
    from resilient_scoop.processes.connection import Connection, Context
    from resilient_scoop.processes.worker.executor import SliceExecutor

_IDLE_S = 0.25
STUCK_S = 0.5


class ParkedTask(msgspec.Struct, eq=False):
    """A waiting future."""

    context: Context
    green: Any
    ready: Callable[[], bool]
    until: float | None
    live_outcomes: int  # how many its parent had when it started to wait
    yields: bool = False  # it waits for a lock (`lock_waits`)


class WorkerLoop:
    """Decides what the worker's one thread does next."""

    def __init__(
        self, session: Connection, executor: SliceExecutor, tell_user: Callable[[str], None]
    ) -> None:
        self.session = session
        self.executor = executor
        self.settings = session.settings
        self.lock_waits = LockWaits(self, tell_user)
        self.parked: dict[str, ParkedTask] = {}
        self.open: list[Work] = []  # slices with a waiting item and items that have not started
        self.green = getcurrent()
        self.looped_at = self.began_at = time.monotonic()
        self.stuck_at = 0.0
        self.has_fenced = False  # a task ended in this way may have left a lock held
        session.waiter = self
        session.report_stuck = self.report_stuck

    def wait(self, ready: Callable[[], bool], until: float | None, *, yields: bool = False) -> bool:
        """Let other tasks run until `ready()` holds (True) or the moment `until` (False).

        An alarm of the item is delivered in it, and not in another one: it continues for that.
        """
        session, context = self.session, self.session.context
        while True:
            with session.turn():
                if ready():
                    return True
                self._park(context)
            saved = process_state.save()  # WL3
            local, trace = thread_locals.leave(), sys.gettrace()
            if trace is not None:
                sys.settrace(None)
            alarm_at, so_far = saved.alarm_at, live_outcomes(context.parent)
            end = until if alarm_at is None else min(alarm_at, until or alarm_at)
            self.parked[context.path] = ParkedTask(
                context, getcurrent(), ready, end, so_far, yields
            )
            try:
                in_time: bool = self.green.switch()
            except GreenletExit:  # its `finally` blocks run, in the state that they need
                session.context = context
                thread_locals.enter(local)
                process_state.restore(saved, ends=True)
                raise
            self._continue(context)
            thread_locals.enter(local)
            process_state.restore(saved)
            if trace is not None or sys.gettrace() is not None:
                sys.settrace(trace)
            user_signals.deliver_due()
            if in_time or alarm_at is None or (until is not None and time.monotonic() >= until):
                return in_time

    def _continue(self, context: Context) -> None:
        """Note that an item that waited executes again."""
        session, work = self.session, context.work
        session.context = context
        assert work is not None, "a waiting item belongs to a slice"
        attempt, task = work.attempt, work.task
        with session.turn():
            session.machine.unpark(work, context.index)
        session.record.begin(attempt.epoch, attempt.no, task.parent, task.call, context.index)
        if context.until is not None:
            session.record.limit(context.until, session.reporter.tries(context.path, work))

    def _park(self, context: Context) -> None:
        """Park an item that waits (WL2); another greenlet continues the rest of its slice."""
        session, work = self.session, context.work
        assert work is not None, "a waiting item belongs to a slice"
        if not context.parked:
            context.parked = True
            session.machine.settle(work, time.monotonic())
            work.first = context.index + 1
            if work.next < work.stop:
                self.open.append(work)
        session.running = None
        tries = session.reporter.tries(context.path, work)
        session.machine.park(work, context.index, context.until, time.monotonic(), tries)
        if self.lock_waits.waiting or self.settings.careful:
            give_back_upper(session.machine, self.open)
        self._ask_page(context)

    def _ask_page(self, context: Context) -> None:
        if context.parent is not None:
            frame = context.parent.page_wanted()
            if frame is not None:
                self.session.send(frame)

    def report_stuck(self) -> None:
        """Tell the broker of parents that could continue while one item keeps the worker (WL4)."""
        now = time.monotonic()
        if self.lock_waits.look(now):
            return
        if not self.parked or now - max(self.looped_at, self.stuck_at) < STUCK_S:
            return
        self.stuck_at = now
        for parked in list(self.parked.values()):
            work = parked.context.work
            if work is None or work.dropped or parked.context.in_once:
                continue
            if parked.yields:
                continue  # it would be started again elsewhere
            is_due = parked.until is not None and parked.until <= now
            if parked.ready() or (is_due and work.callable.options.idempotent):
                context = parked.context
                tries = self.session.reporter.tries(context.path, work)
                stuck = wire.Stuck(work.attempt, context.index, tries)
                self.session.send(wire.encode(stuck))

    def run(self) -> None:
        """Run until the broker stops the worker."""
        session, machine = self.session, self.session.machine
        while machine.stopping is None:
            self._pump()
            self.looped_at = time.monotonic()
            if not self.parked:
                user_signals.drop_due()
            self._fence()
            ready = self._resume_ready()
            stopping = machine.stopping is not None
            match next_step(stopping=stopping, ready=ready, slices=self._has_work()):
                case Next.RESUME | Next.END:
                    self.began_at = time.monotonic()
                case Next.BEGIN:
                    greenlet(self._body).switch()
                    self.began_at = time.monotonic()
                case Next.WAIT:
                    if session.record.read() is not None:
                        session.record.idle()
                case _ as never:
                    assert_never(never)
        with session.turn():
            self._hand_back()

    def _body(self) -> None:
        with contextlib.suppress(GreenletExit):
            self.executor.run(self._pick)

    def _pick(self) -> Work | None:
        """Return the next slice for a running greenlet; None ends the greenlet's work."""
        session, machine = self.session, self.session.machine
        now = self.looped_at = time.monotonic()
        if self._is_plain() and now - session.pumped_at <= FLUSH_S:
            with session.turn():
                if machine.queue:
                    return machine.queue.popleft()
        if not self._has_work():
            with session.turn():
                session.pump()
            if not (self._has_work() or self.parked or machine.stopping is not None):
                # There is nothing to switch to: wait here, where the next slice starts at once.
                session.record.idle()
                with session.turn():
                    session.pump(_IDLE_S)
        elif now - session.pumped_at > FLUSH_S:
            with session.turn():
                session.pump()
        ready = bool(machine.fenced) or self._is_anyone_ready()
        step = next_step(stopping=machine.stopping is not None, ready=ready, slices=True)
        if step is not Next.BEGIN:
            return None
        with session.turn():
            return take_slice(self.open, machine.queue, self._bar())

    def _is_plain(self) -> bool:
        """Return whether the next slice is the first of the queue, whatever waits: nearly always it is."""
        machine = self.session.machine
        return not (
            self.open or self.parked or self.lock_waits.waiting or machine.fenced
            or machine.stopping is not None
        )  # fmt: skip

    def _has_work(self) -> bool:
        """Return whether there is a slice that may be started."""
        queue, may_begin = self.session.machine.queue, self._bar()
        if may_begin is None:
            return bool(self.open or queue)
        return any(may_begin(work) for work in (*self.open, *queue))

    def _bar(self) -> Callable[[Work], bool] | None:
        """Return a function that says whether a slice may be started, if not each may."""
        if not (self.lock_waits.waiting or self.settings.careful):
            return None  # almost always: this is asked twice per slice
        return bar(
            self.parked, locks=self.lock_waits.waiting, careful=self.settings.careful,
            idle_s=time.monotonic() - self.began_at,
        )  # fmt: skip

    def _is_anyone_ready(self) -> bool:
        return bool(self.parked) and bool(self.session.machine.touched)

    def _pump(self) -> None:
        session = self.session
        busy = self._has_work() or self._is_anyone_ready()
        with session.turn():
            session.pump(0.0 if busy else self._idle_s())

    def _idle_s(self) -> float:
        due = [p.until for p in self.parked.values() if p.until is not None]
        return max(0.0, min([_IDLE_S, *(until - time.monotonic() for until in due)]))

    def _resume_ready(self) -> bool:
        """Switch to what can continue; return whether anything did."""
        machine = self.session.machine
        touched, machine.touched = machine.touched, set()
        now, resumed = time.monotonic(), False
        paths = [path for path in touched if path in self.parked]
        paths += [p for p, parked in self.parked.items() if parked.until is not None]
        for path in sorted(set(paths), key=self._turn):
            parked = self.parked.get(path)
            if parked is None:
                continue
            with self.session.turn():
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
                if not parked.yields:
                    self.lock_waits.went_on()
        return resumed

    def _turn(self, path: str) -> tuple[bool, int]:
        parked = self.parked.get(path)
        return turn_of(path, yields=parked is not None and parked.yields)

    def _is_to_replay(self, parked: ParkedTask) -> bool:
        """Return whether a parent has to run again from the top, now that it could continue (WL5)."""
        if not self.session.settings.options.always_replay:
            return False
        parent, work = parked.context.parent, parked.context.work
        if parent is None or work is None or work.dropped:
            return False
        if parked.context.in_once or not work.callable.options.idempotent:
            return False  # A3
        return live_outcomes(parent) > parked.live_outcomes and not (
            parent.history.replaying or parent.history.page_asked
        )

    def _replay(self, parked: ParkedTask) -> None:
        """End a parent's greenlet and run it again, under the same attempt, with its history."""
        machine, context = self.session.machine, parked.context
        with self.session.turn():
            parent = machine.parents.pop(context.path)
            for frame in parent.frames():  # its answers are part of its history
                self.session.send(frame)
        context.fenced = True
        parked.green.throw(GreenletExit)
        thread_locals.drop()
        greenlet(self._body_again).switch(context.work, context.index, context.until)

    def _body_again(self, work: Work, index: int, until: float | None) -> None:
        with contextlib.suppress(GreenletExit):
            self.executor.again(work, index, until)

    def _fence(self) -> None:
        """End the greenlets of parents that this worker no longer runs."""
        machine = self.session.machine
        fenced, machine.fenced = machine.fenced, []
        for path in fenced:
            parked = self.parked.get(path)
            work = None if parked is None else parked.context.work
            if parked is not None and work is not None and parked.context.index not in work.left:
                del self.parked[path]
                parked.context.fenced = self.has_fenced = True
                parked.green.throw(GreenletExit)
                thread_locals.drop()

    def end_waiting(self) -> None:
        """End waiting tasks, so that their `finally` blocks run; the run is over, or interrupted."""
        for path in list(self.parked):
            parked = self.parked.pop(path)
            parked.context.fenced = True
            parked.green.throw(GreenletExit)
        thread_locals.forget()

    def _hand_back(self) -> None:
        """Give back items that have not started."""
        machine = self.session.machine
        machine.hand_back_aside()
        for work in [*self.open, *machine.queue]:
            machine.give_back_from(work, work.next)
        self.open.clear()
        machine.queue.clear()
