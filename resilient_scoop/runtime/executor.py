"""Running the items of tasks in a worker.

Slices run in greenlets. One greenlet runs items one after another, slice after slice, until an item has
to wait for others: then that greenlet is the item's, and another goes on with the rest. So an item that
never waits costs no greenlet.

For SAME-ANSWER every item starts with random streams of its own; a function that provably draws nothing
(`adapters.purity`) on plain arguments is spared that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from resilient_scoop import ids
from resilient_scoop.adapters import payload, rng
from resilient_scoop.adapters.green import GreenletExit
from resilient_scoop.core.parent import Parent, Policy
from resilient_scoop.runtime.session import FLUSH_S, Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.worker import Work
    from resilient_scoop.runtime.functions import Functions, Loaded
    from resilient_scoop.runtime.session import Session

_PLAIN = frozenset({int, float, bool, str, bytes, type(None), complex})


class Executor:
    """Runs slices; `pick` says what is next."""

    def __init__(self, session: Session, functions: Functions, where: str) -> None:
        self.session = session
        self.functions = functions
        self.where = where

    def run(self, pick: Callable[[], Work | None]) -> None:
        """Run slices until there is none, or until an item had to wait (the body of a greenlet)."""
        while (work := pick()) is not None:
            context = Context("")
            context.work = work
            if not self._slice(work, context):
                return

    def _slice(self, work: Work, context: Context) -> bool:
        """Run a slice; return False if one of its items waited: another greenlet has the rest."""
        session = self.session
        session.running, session.context = work, context
        define = session.machine.functions[work.task.fn]
        loaded = self.functions.get(define)
        timeout_s = define.options.timeout_s
        record, attempt = session.record, work.attempt
        record.begin(attempt.epoch, attempt.no, work.next)
        prefix = ids.batch_path(work.task.parent, work.task.call)
        args, first = work.task.args, work.task.start
        now = work.since = time.monotonic()
        words_item = record.item
        while (index := self._next(work)) is not None:
            deadline_ns = 0 if timeout_s is None else round((now + timeout_s) * 1e9)
            words_item(index, deadline_ns)
            context.index, context.path = index, f"{prefix}[{index}]"
            value, failed = self._item(context, loaded, args[index - first])
            if context.parent is not None:
                self._end_parent(context, value, failed=failed)
                if context.parked:
                    return False
                context = self._next_context(work)
                continue
            if failed:
                work.failed.append(index)
            work.values.append(value)
            now = time.monotonic()
            if now - session.flushed_at > FLUSH_S:
                self._breathe(work)
        record.idle()
        with session.lock:
            session.machine.settle(work, time.monotonic())
            session.running = None
        return True

    def _next_context(self, work: Work) -> Context:
        """Return a fresh context: the last item made calls, and its own may live on in them."""
        context = Context("")
        context.work = work
        self.session.context = context
        return context

    def _next(self, work: Work) -> int | None:
        """Take the next item of a slice; a retraction may come in between (see `Session`)."""
        index = work.next
        work.next = index + 1
        if index < work.stop and self.session.machine.stopping is None:
            return index
        with self.session.lock:
            if index < work.stop and self.session.machine.stopping is None:
                return index
            work.next = index
        return None

    def _breathe(self, work: Work) -> None:
        """Send what is finished, and hear what there is."""
        session = self.session
        with session.lock:
            session.machine.settle(work, time.monotonic())
            session.pump()
            late = time.monotonic() - session.heard_at
        if late > session.machine.lease_s:
            # We were stopped or cut off for longer than the lease: ask before anything is started.
            self._ask_again()

    def _ask_again(self) -> None:
        session = self.session
        heard_at = session.heard_at
        while session.heard_at == heard_at and session.machine.stopping is None:
            with session.lock:
                session.beat(time.monotonic())
                session.pump(0.2)

    def _item(self, context: Context, loaded: Loaded, arg: bytes) -> tuple[bytes, bool]:
        """Run one item; return its payload and whether it failed."""
        define, name = loaded.define, loaded.define.name
        if loaded.error is not None:
            return payload.dumps_exception(loaded.error, self.where), True
        try:
            value: Any = payload.loads(arg, self.session.store, f"argument of {name}")
            if not define.pure or type(value) not in _PLAIN:
                rng.seed(ids.seed_of(self.session.machine.seed, context.path))
            function = loaded.function
            if function is None:
                function = self.functions.make(define)
            if define.options.retries or define.options.retry is not None:
                value = self._retried(context, define.options, function, arg)
            elif define.style == 0:
                value = function(value)
            elif define.style == 1:
                value = function(*value)
            else:
                value = function(*value[0], **value[1])
        except GreenletExit:
            raise
        except BaseException as error:  # user code: whatever it raises is its outcome
            return payload.dumps_exception(error, f"{self.where}, item {context.path}"), True
        encoded = payload.dumps_result(
            value, self.session.store, function=name, where=self.where, sync=True
        )
        return encoded.payload, encoded.failed

    def _retried(
        self, context: Context, options: Any, function: Callable[..., Any], arg: bytes
    ) -> Any:
        from resilient_scoop.adapters.retrying import retried

        style = self.session.machine.functions[context.work.task.fn].style  # type: ignore[union-attr]

        def call() -> Any:
            rng.seed(ids.seed_of(self.session.machine.seed, context.path))
            value = payload.loads(arg, self.session.store, "argument")
            if style == 0:
                return function(value)
            if style == 1:
                return function(*value)
            return function(*value[0], **value[1])

        return retried(call, options.retries, options.retry, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Wait without keeping the worker from other items."""
        assert self.session.waiter is not None, "a worker waits through its hub"
        self.session.waiter.wait(lambda: False, time.monotonic() + seconds)

    def _end_parent(self, context: Context, value: bytes, *, failed: bool) -> None:
        work, session = context.work, self.session
        assert work is not None, "an item runs in a slice"
        with session.lock:
            if not context.parked:
                session.machine.settle(work, time.monotonic())
                work.first = context.index + 1
            if not context.fenced:
                session.machine.settle_one(work, context.index, value, failed=failed)


def make_parent(session: Session, policy: Policy, say: Callable[[str], None]) -> Parent:
    """Make the running item a parent (it has made its first call)."""
    context = session.context
    work = context.work
    assert work is not None, "the root is made by the origin"
    machine = session.machine
    parent = Parent(
        context.path, work.attempt, work.task.replay, policy, say, lambda fn: name_of(session, fn)
    )
    context.parent = machine.parents[context.path] = parent
    return parent


def name_of(session: Session, fn: bytes) -> str:
    """Return the name of a function for the eyes."""
    define = session.machine.functions.get(fn)
    return fn.hex() if define is None else define.options.name or define.name
