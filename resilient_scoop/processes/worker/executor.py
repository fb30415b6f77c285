"""Running the items of tasks in a worker.

Slices run in greenlets. One greenlet runs items one after another, slice after slice, until an item
has to wait for others: then that greenlet belongs to the item, and another one continues with the
rest. So an item that never waits costs no greenlet.

For SAME-ANSWER every item starts with random streams of its own, and with the same state of the
process (`task_state.process_state`). This is skipped for a function that provably draws no random
numbers and changes nothing (`identity.purity`) on plain arguments.
"""

from __future__ import annotations

import os
import pickle
import time
from typing import TYPE_CHECKING, Any

from resilient_scoop import ids
from resilient_scoop.adapters import former_names
from resilient_scoop.adapters.flight_record import DEADLINE, INDEX
from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.identity import script_changes
from resilient_scoop.identity.purity import args_plain
from resilient_scoop.payload import payload
from resilient_scoop.payload.missing import is_missing_module
from resilient_scoop.processes import forked_children, ignored_signals, imported_files, task_output
from resilient_scoop.processes.connection import FLUSH_S, Context
from resilient_scoop.processes.here import Process
from resilient_scoop.task_state import (
    generators,
    overlay,
    process_state,
    rng,
)
from resilient_scoop.wire.payload_tags import PICKLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.worker.worker import Work
    from resilient_scoop.processes.callables import Functions, Loaded
    from resilient_scoop.processes.connection import Connection

_PLAIN: frozenset[type] = frozenset({int, float, bool, str, bytes, type(None), complex})
_BUILTIN: tuple[type, ...] = (*_PLAIN, list, tuple, dict, set, frozenset)
"""On these types, and types derived from them, such a function changes nothing in the process."""
_PICKLE = PICKLE[0]
_LARGE_BYTES = payload.LARGE_BYTES
_loads, _dumps = pickle.loads, pickle.dumps
_NOT_LOADED = object()


class _MissingError(Exception):
    """The argument of the current item cannot be loaded in this process."""


_PERMISSION_S = 0.2


class SliceExecutor:
    """Runs slices; `pick` returns the next one."""

    def __init__(self, session: Connection, functions: Functions, where: str) -> None:
        self.session = session
        self.functions = functions
        self.where = where
        self._unused: Context | None = None  # callable of a slice that has not changed it

    def run(self, pick: Callable[[], Work | None]) -> None:
        """Run slices until there is none, or until an item had to wait (the body of a greenlet)."""
        process_state.fresh()
        while (work := pick()) is not None:
            loaded = self.functions.find(work.callable)
            if loaded is None:
                attempt, task = work.attempt, work.task  # loading runs user code, too
                record = self.session.record
                record.begin(attempt.epoch, attempt.no, task.parent, task.call, work.next)
                loaded = self.functions.get(work.callable)
            if loaded.unfit:
                self._set_aside(work, work.next, loaded.unfit)
                continue
            if loaded.differs and not work.task.is_asked:  # the script may have been edited since
                self._set_aside(work, work.next, loaded.differs, differs=True)
                continue
            try:
                if not self._slice(work, loaded):
                    return
            except _MissingError as missing:
                self._set_aside(work, work.next - 1, str(missing))

    def _slice(self, work: Work, loaded: Loaded) -> bool:
        """Run a slice; return False if one of its items waited: another greenlet has the rest."""
        session, task = self.session, work.task
        overlay.activate(loaded.overlay)
        timeout_s, once = loaded.define.options.timeout_s, not loaded.define.options.idempotent
        item = self._quick if loaded.is_quick else self._item
        words, attempt = session.record.words, work.attempt
        args, first, values = task.args, task.start, work.values
        context, queue = self._context(work), session.machine.queue
        session.running = work
        session.record.begin(attempt.epoch, attempt.no, task.parent, task.call, work.next)
        now = work.since = time.monotonic()
        while True:
            index = work.next
            work.next = index + 1
            look = once or index >= work.stop or session.machine.stopping is not None
            if look and not self._may_start(work, index, loaded):
                return True
            if index == work.stop - 1 and values and not queue:
                self._breathe(work)  # so that the next slice arrives before the last item is done
            words[INDEX] = context.index = index
            if timeout_s is not None:
                self._limit(context, timeout_s)
            value, failed = item(context, loaded, args[index - first])
            if failed and self._is_to_run_again(context, loaded, now):
                value, failed = item(context, loaded, args[index - first])
            if context.parent is not None or context.parked:
                self._end_parent(context, value, failed=failed)
                if context.parked:
                    return False
                context = self._context(work)
                continue
            if failed:
                work.failed.append(index)
            values.append(value)
            now = time.monotonic()
            if now - session.flushed_at > FLUSH_S and self._breathe(work):
                break
        self._rest(work, prints=not loaded.is_pure)
        return True

    def _is_over(self, work: Work, index: int, *, prints: bool) -> bool:
        """End a slice if no item of it is left; return whether it was ended (W4)."""
        session, machine = self.session, self.session.machine
        session.record.idle()
        if prints:
            task_output.end_lines()
            imported_files.flush(Process.tell_user)
        with session.turn():
            if index < work.stop and machine.stopping is None:
                session.record.words[INDEX] = index
                session.record.run_again()
                return False
            work.next = index
            machine.settle(work, time.monotonic())
            session.running = None
        return True

    def _rest(self, work: Work, *, prints: bool) -> None:
        """Finish a slice of which no item runs any more; `prints`: its function may have printed."""
        session = self.session
        session.record.idle()
        if prints:
            task_output.end_lines()
            imported_files.flush(Process.tell_user)
        with session.turn():
            session.machine.settle(work, time.monotonic())
            session.running = None

    def _set_aside(self, work: Work, index: int, reason: str, *, differs: bool = False) -> None:
        """Report items that this process cannot run, and why: this is not an outcome."""
        session = self.session
        session.record.idle()
        with session.turn():
            session.machine.settle(work, time.monotonic())
            session.running = None
            session.machine.set_aside(work, index, reason, differs=differs)

    def _may_start(self, work: Work, index: int, loaded: Loaded) -> bool:
        """Return whether an item may begin; if not, end its slice."""
        options, changes_nothing = loaded.define.options, loaded.is_pure and not work.impure
        if not changes_nothing:
            forked_children.end_if_child()
        if not options.idempotent or index < work.stop:
            if self._may_begin(work, index, once=not options.idempotent):
                return True
            self._rest(work, prints=not loaded.is_pure)
            return False
        if not self._is_over(work, index, prints=not loaded.is_pure):
            return True
        context = self.session.context
        if changes_nothing and options.timeout_s is None and not context.classes:
            self._unused = context
        return False

    def _may_begin(self, work: Work, index: int, *, once: bool) -> bool:
        return self._may_continue(work, index) and (not once or self._is_permitted(work, index))

    def _is_permitted(self, work: Work, index: int) -> bool:
        """Wait until the start of an `idempotent=False` item is journaled (A1)."""
        session, task, attempt = self.session, work.task, work.attempt
        session.record.idle()
        with session.turn():
            session.machine.ask_to_begin(work, index)
        while work.permitted != index:
            with session.turn():
                if work.dropped:
                    return False
                if session.machine.stopping is not None:
                    session.machine.take_back(work, index)
                    return False
                session.pump(_PERMISSION_S)
        session.record.begin(attempt.epoch, attempt.no, task.parent, task.call, index)
        return True

    def again(self, work: Work, index: int, until: float | None) -> None:
        """Run an item that was a waiting parent and was dropped, from the top (a greenlet's body)."""
        session, task, attempt = self.session, work.task, work.attempt
        loaded = self.functions.get(work.callable)
        overlay.activate(loaded.overlay)
        context = self._context(work)
        context.index, context.parked, context.again = index, True, True
        process_state.fresh()
        session.record.begin(attempt.epoch, attempt.no, task.parent, task.call, index)
        context.until = until
        if until is not None:
            session.record.limit(until, session.reporter.tries(context.path, work))
        item = self._quick if loaded.is_quick else self._item
        value, failed = item(context, loaded, task.args[index - task.start])
        self._end_parent(context, value, failed=failed)

    def _is_to_run_again(self, context: Context, loaded: Loaded, began: float) -> bool:
        """Return whether a failure may result from a signal to all processes that killed children."""
        if (
            not ignored_signals.came_since(began)
            or loaded.error is not None
            or context.work is None
        ):
            return False
        if context.parent is not None or context.parked or not loaded.define.options.idempotent:
            return False
        with self.session.turn():
            if context.path in self.session.reporter.items:
                self.session.reporter.try_again(context.path, context.work, context.index)
        return True

    def _context(self, work: Work) -> Context:
        """Return a fresh context: an item that made calls keeps its own."""
        prefix, unused = ids.batch_path(work.task.parent, work.task.call), self._unused
        if unused is not None:
            self._unused, unused.prefix, unused.work = None, prefix, work
            context = unused
        else:
            context = Context(prefix, work)
        self.session.context = context
        return context

    def _may_continue(self, work: Work, index: int) -> bool:
        """Check again in a turn: a retraction may have arrived in between (see `Connection`)."""
        with self.session.turn():
            if index < work.stop and self.session.machine.stopping is None:
                return True
            work.next = index
        return False

    def _breathe(self, work: Work) -> bool:
        """Send finished items, receive messages; return whether something else goes first."""
        session = self.session
        with session.turn():
            session.machine.settle(work, time.monotonic())
            session.pump()
            late = time.monotonic() - session.heard_at
        if late > session.machine.lease_s:
            # The process was stopped or cut off for longer than the lease: ask before anything is
            # started.
            self._ask_again()
        with session.turn():
            return session.machine.outranked(work)

    def _ask_again(self) -> None:
        session = self.session
        heard_at = session.heard_at
        while session.heard_at == heard_at and session.machine.stopping is None:
            with session.turn():
                session.beat(time.monotonic())
                session.pump(0.2)

    def _quick(self, context: Context, loaded: Loaded, arg: bytes) -> tuple[bytes, bool]:
        """As `_item`, for a function of one argument that needs no special treatment."""
        value: Any = _NOT_LOADED
        try:
            try:
                value = _loads(arg) if arg[0] == _PICKLE else self._load(loaded, arg)
            except ModuleNotFoundError:  # of a former name, or on the search path of the script
                with script_changes.searching(loaded.define.setting):
                    value = former_names.load(arg)
            if loaded.is_pure and (type(value) in _PLAIN or isinstance(value, _BUILTIN)):
                if type(value) not in _PLAIN:
                    _look_at(context, loaded, value)
                    rng.seed(self.session.seed_here())  # the methods of its elements may draw
                value = loaded.function(value)  # type: ignore[misc]  # callable where items run
                if type(value) in _PLAIN:
                    plain = _dumps(value, 5)
                    if len(plain) <= _LARGE_BYTES:
                        return plain, False
                return self._dump(loaded, value)
            _look_at(context, loaded, value)
            try:
                self._begin(loaded)
                return self._encode(loaded, loaded.function(value))  # type: ignore[misc]  # callable where items run
            finally:
                self._end(context, loaded)
        except GreenletExit:
            raise
        except BaseException as error:  # user code: any exception is its outcome
            forked_children.end_if_child(error)
            if value is _NOT_LOADED:
                self._refuse_missing(loaded, error)
            return payload.dumps_exception(error, f"{self.where}, item {context.path}"), True

    def _begin(self, loaded: Loaded) -> None:
        """Give an item its random numbers."""
        session = self.session
        session.context.rngs = None  # the last item may have had streams, in the same context
        rng.seed(session.seed_here())
        generators.look_again()
        if loaded.generators or generators.are_known():
            generators.seed(session.context.path, loaded.generators)
        if loaded.define.setting is not None:
            script_changes.apply(loaded.define.setting)
        if Process.audit is not None:
            Process.audit.item_begins()

    def _end(self, context: Context, loaded: Loaded) -> None:
        """Restore the state of the process for the next item."""
        process_state.fresh()
        generators.rest()
        if Process.audit is not None:
            Process.audit.item_ended(loaded.function, context)

    def _encode(self, loaded: Loaded, value: Any) -> tuple[bytes, bool]:
        if type(value) in _PLAIN:
            plain = pickle.dumps(value, 5)
            if len(plain) <= payload.LARGE_BYTES:
                return plain, False
        return self._dump(loaded, value)

    def _refuse_missing(self, loaded: Loaded, error: BaseException) -> None:
        """Raise _LackingError if an argument cannot be loaded because this process lacks a module."""
        if is_missing_module(error):
            what = f"argument of {loaded.define.name}"
            raise _MissingError(self.functions.describe_missing(what, error)) from None

    def _load(self, loaded: Loaded, arg: bytes) -> Any:
        what = f"argument of {loaded.define.name}"
        with script_changes.searching(loaded.define.setting):
            return payload.loads(arg, self.session.store, what, is_call=True)

    def _dump(self, loaded: Loaded, value: Any) -> tuple[bytes, bool]:
        forked_children.end_if_child()
        encoded = payload.dumps_result(
            value, self.session.store, function=loaded.define.name, where=self.where, sync=True
        )
        return encoded.payload, encoded.failed

    def _item(self, context: Context, loaded: Loaded, arg: bytes) -> tuple[bytes, bool]:
        """Run one item; return its payload and whether it failed."""
        if loaded.error is not None:
            return payload.dumps_exception(loaded.error, self.where), True
        options = loaded.define.options
        value: Any = _NOT_LOADED
        try:
            value = self._load(loaded, arg)
            _look_at(context, loaded, value)
            try:
                if options.retries or options.retry is not None:
                    value = self._retried(context, loaded, arg)
                else:
                    self._begin(loaded)
                    value = self._call(loaded, value)
                return self._dump(loaded, value)
            finally:
                self._end(context, loaded)
        except GreenletExit:
            raise
        except BaseException as error:  # user code: any exception is its outcome
            forked_children.end_if_child(error)
            if value is _NOT_LOADED:
                self._refuse_missing(loaded, error)
            return payload.dumps_exception(error, f"{self.where}, item {context.path}"), True

    def _call(self, loaded: Loaded, value: Any) -> Any:
        function = loaded.function
        if function is None:
            function = self.functions.make(loaded.define)
            if loaded.draws:
                for each in generators.within([function]):
                    each.seed(self.session.context.path.encode())
        style = loaded.define.style
        if style == 0:
            return function(value)
        if style == 1:
            return function(*value)
        return function(*value[0], **value[1])

    def _limit(self, context: Context, timeout_s: float) -> None:
        """Start the time limit of a try."""
        context.until = time.monotonic() + timeout_s
        tries = self.session.reporter.tries(context.path, context.work)
        self.session.record.limit(context.until, tries)

    def _retried(self, context: Context, loaded: Loaded, arg: bytes) -> Any:
        from resilient_scoop.adapters.retrying import retried

        is_first = True

        def call() -> Any:
            nonlocal is_first
            if not is_first and context.work is not None:
                with self.session.turn():
                    self.session.reporter.try_again(context.path, context.work, context.index)
                    context.work.again += 1
            is_first = False
            process_state.fresh()
            self._begin(loaded)
            if options.timeout_s is not None:
                self._limit(context, options.timeout_s)
            try:
                return self._call(loaded, self._load(loaded, arg))
            except BaseException as error:  # user code: a child is not tried again
                forked_children.end_if_child(error)
                raise
            finally:  # the time between two tries does not count for the call
                if os.getpid() == self.session.machine.pid:
                    context.until, self.session.record.words[DEADLINE] = None, 0  # T2

        options = loaded.define.options
        return retried(call, options.retries, options.retry, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Wait, while the worker may run other items."""
        assert self.session.waiter is not None, "a worker waits through its hub"
        self.session.waiter.wait(lambda: False, time.monotonic() + seconds)

    def _end_parent(self, context: Context, value: bytes, *, failed: bool) -> None:
        forked_children.end_if_child()
        work, session = context.work, self.session
        assert work is not None, "an item runs in a slice"
        refusal = None if context.parent is None else context.parent.judge.refusal
        if refusal is not None and not failed:  # user code has caught the exception
            where = f"{self.where}, item {context.path}"
            value, failed = payload.dumps_exception(refusal.with_traceback(None), where), True
        with session.turn():
            if not context.parked:
                session.machine.settle(work, time.monotonic())
                work.first = context.index + 1
            session.remove_files_of(context.path)
            if not context.fenced:
                session.machine.settle_one(work, context.index, value, failed=failed)


def _look_at(context: Context, loaded: Loaded, value: Any) -> None:
    """Record if an argument may make a pure function do something impure."""
    if loaded.define.pure and context.work is not None and not args_plain(value):
        context.work.impure = True
