"""The operations of the bodies of simulated futures, carried out by the real `Parent` machine.

Each operation returns a function that is called again after every message until it returns an
answer. Operations whose answer may differ between runs look into the history first
(`Operations._recall`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from resilient_scoop import ids
from resilient_scoop.core.parent.call import Call, OutcomeChunk
from resilient_scoop.core.parent.durable import OpenBlock
from resilient_scoop.core.parent.history import Question, any_answer
from resilient_scoop.core.parent.once import Begun, Label
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker.worker import Work, Worker
from resilient_scoop.errors import StrangeFutureError
from resilient_scoop.wire import messages as wire
from tests.sim import programs
from tests.sim.programs import Fn
from tests.sim.world import World

Ready = tuple[Any] | None


class Frame:
    """A future whose body runs here."""

    def __init__(
        self, path: str, fn: Fn, body: programs.Body, work: Work | None, index: int
    ) -> None:
        self.path = path
        self.fn = fn
        self.body = body
        self.work = work
        self.index = index
        self.parent: Parent | None = None
        self.args: dict[int, list[Any]] = {}
        self.fns: dict[int, Fn] = {}
        self.calls: dict[int, Call] = {}
        self.ready: Callable[[], Ready] | None = None
        self.answer: Any = None
        self.until = 0.0
        self.ready_at = 0.0
        self.parked = False
        self.yields = False  # tasks wait for no locks here
        self.draws = 0
        self.in_once: list[Begun] = []  # paths of `once` whose functions are running
        self.blocks: dict[str, OpenBlock] = {}
        self.asked: dict[
            str, int
        ] = {}  # by block: how many requests its process had received when it last saved


class Operations:
    """The part of a worker's shell that carries out the operations of bodies."""

    world: World
    machine: Worker

    def make_parent(self, path: str, attempt: wire.Attempt, task: wire.Task) -> Parent:
        made = Parent(path, attempt, task.replay, tell_user=self._note)
        self.machine.parents[path] = made
        return made

    def _note(self, text: str) -> None:
        self.world.checks.diverged(text)

    def operate(  # noqa: PLR0911 - a table
        self, frame: Frame, op: programs.Op
    ) -> Callable[[], Ready]:
        """Begin an operation; the returned function returns the answer as soon as there is one."""
        parent = frame.parent
        if parent is None:
            assert frame.work is not None
            parent = self.make_parent(frame.path, frame.work.attempt, frame.work.task)
            frame.parent = parent
        match op:
            case ("map", fn, args):
                call = self._open(frame, fn)
                self._add(frame, call, args, last=True)
                return lambda: (call.number,)
            case ("open", fn):
                call = self._open(frame, fn)
                return lambda: (call.number,)
            case ("add", number, args, last):
                self._add(frame, frame.calls[number], args, last=last)
                return lambda: (None,)
            case ("give_up", number):
                self._give_up(parent, frame.calls.pop(number))
                return lambda: (None,)
            case ("drained",):
                return lambda: self._drained(parent)
            case ("print", data):
                self.machine.written += data
                return lambda: (None,)
            case ("result", number, index):
                return lambda: self._result(frame, number, index)
            case ("threads", name, args):
                made = self._share(name, args)
                return lambda: self._shared_values(programs.FNS[name], args, made)
            case ("wait_any", pending):
                return lambda: self._any(frame, pending)
            case ("once",):
                return lambda: self._observe(frame, "once", lambda: self.world.rng.getrandbits(30))
            case ("once_begin", _):
                begun = parent.begin_once(len(frame.in_once))
                return lambda: self._once_begin(frame, begun)
            case ("once_end", value):
                return self._once_end(frame, value)
            case ("noise",):
                noise = self.world.rng.getrandbits(30)
                return lambda: (noise,)
            case ("poll", number, index):
                call = frame.calls[number]
                return lambda: self._observe(frame, "poll", lambda: call.find(index) is not None)
            case ("cancel", number, index):
                return lambda: self._cancel(frame, number, index)
            case ("set_const", name, value):
                self._set_const(name, value)
                return lambda: (None,) if name in self.machine.consts else None
            case ("get_const", name):
                return lambda: self._get_const(name)
            case ("draw",):
                frame.draws += 1
                drawn = programs.draw_value(frame.path, frame.draws)
                return lambda: (drawn,)
            case ("durable", name):
                block = frame.blocks[name] = parent.enter_block(name)
                frame.asked[name] = -1 if self.machine.checkpoint_requests.count else 0
                return lambda: self._enter(frame, block)
            case ("commit", name, state, pending):
                return self._commit(frame, frame.blocks[name], state, pending)
            case ("leave", name):
                parent.durable.leave(frame.blocks.pop(name))
                if not frame.blocks:
                    self.world.checks.saves.left(frame.path)
                return lambda: (None,)
            case _:
                raise AssertionError(op)

    def _give_up(self, parent: Parent, call: Call) -> None:
        """Drop an iterator: its finalizer runs at once, or later in the garbage collector."""
        wait = self.world.rng.choice((0.0, 0.0, 0.02, 0.5))
        if wait:
            self._later(wait, self._finalized, parent, call)
        else:
            parent.given_up.name(call, abandoned=True)

    def _later(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        raise NotImplementedError

    def _finalized(self, parent: Parent, call: Call) -> None:
        parent.given_up.name(call, abandoned=True)
        self._flush()

    def _drained(self, parent: Parent) -> Ready:
        left = parent.given_up.named or any(call.left for call in parent.calls.open.values())
        return None if left else (None,)

    def _open(self, frame: Frame, name: str) -> Call:
        fn, parent = programs.FNS[name], frame.parent
        assert parent is not None
        self.machine.define(fn.define())
        call = parent.begin(fn.id, fn.id)
        frame.args[call.number], frame.fns[call.number] = [], fn
        frame.calls[call.number] = call
        return call

    def _add(self, frame: Frame, call: Call, args: list[Any], *, last: bool) -> None:
        assert frame.parent is not None
        frame.args[call.number] += args
        raw = [programs.encode_arg(arg) for arg in args]
        frame.parent.add(call, b"".join(map(programs.digest, raw)), raw, last=last)
        early = frame.parent.page_wanted(early=True)
        if early is not None:
            self.machine.out.append(early)

    def _result(self, frame: Frame, number: int, index: int) -> Ready:
        assert frame.parent is not None
        chunk = frame.calls[number].find(index)
        if chunk is None:
            return None
        payload, failed = chunk.values[index - chunk.start], index in chunk.failed
        path = ids.item_path(frame.path, number, index)
        arg = frame.args[number][index]
        self.world.checks.seen(frame.fns[number], path, arg, payload, failed=failed)
        if frame.fns[number].large:
            del frame.calls[number]  # as for a `Future` that has been read
        return (programs.read_outcome(payload, failed=failed),)

    def _shared(self) -> Parent:
        """Return the parent of the calls of the script's threads (`core.parent.by_content`)."""
        shared = self.machine.parents.get(ids.SHARED)
        if shared is None:
            assert self.machine.root is not None
            shared = Parent(ids.SHARED, self.machine.root, replaying=True, tell_user=self._note)
            self.machine.parents[ids.SHARED] = shared
        return shared

    def ask_shared(self) -> None:
        """Ask for the history of threads' calls, as the receiving thread does."""
        shared = self.machine.parents.get(ids.SHARED)
        if shared is not None and shared.history.replaying:
            wanted = shared.page_wanted()
            if wanted is not None:
                self.machine.out.append(wanted)

    def _share(self, name: str, args: list[Any]) -> dict[int, Call]:
        """Make a call for each argument, in the order in which threads happen to make them."""
        fn, shared = programs.FNS[name], self._shared()
        self.machine.define(fn.define())
        made = {}
        for at in self.world.rng.sample(range(len(args)), len(args)):
            raw = programs.encode_arg(args[at])
            digest = programs.digest(raw)
            made[at] = shared.begin_found(fn.id, fn.id, digest)
            shared.add(made[at], digest, [raw], last=True)
        self.ask_shared()
        return made

    def _shared_values(self, fn: Fn, args: list[Any], made: dict[int, Call]) -> Ready:
        found = []
        for at, arg in enumerate(args):
            chunk = made[at].find(0)
            if chunk is None:
                return None
            payload, failed = chunk.values[0], 0 in chunk.failed
            path = ids.item_path(ids.SHARED, made[at].number, 0)
            self.world.checks.seen(fn, path, arg, payload, failed=failed)
            found.append(programs.read_outcome(payload, failed=failed))
        return (found,)

    def _recall(
        self, frame: Frame, kind: str, fits: Callable[[bytes], bool] = any_answer
    ) -> tuple[bool, Any]:
        """Return (whether to continue, the recorded answer or None)."""
        parent = frame.parent
        assert parent is not None
        differs = parent.history.replaying and parent.differs(Question(kind, fits=fits))
        if parent.history.needs_page() or differs:
            return False, None
        raw = parent.recall(Question(kind, fits=fits))
        return True, None if raw is None else programs.decode_arg(raw)

    def _observe(self, frame: Frame, kind: str, draw: Callable[[], Any]) -> Ready:
        ready, answer = self._recall(frame, kind)
        if not ready:
            return None
        if answer is None:
            assert frame.parent is not None
            answer = draw()
            frame.parent.observe(kind, programs.encode_arg(answer))
        return (answer,)

    def _once_begin(self, frame: Frame, begun: Begun) -> Ready:
        """Return the recorded answer, or a request to run the function."""
        parent, checks = frame.parent, self.world.checks
        assert parent is not None
        if not parent.is_once_known(begun):
            return None
        raw = parent.recall_once(begun, Label("function"))
        if raw is None:
            checks.kept_once.runs(frame.path, begun, parent.attempt)
            frame.in_once.append(begun)
            return (None,)
        checks.kept_once.observed(frame.path, begun, raw, parent.attempt)
        return (programs.decode_arg(raw),)

    def _once_end(self, frame: Frame, value: Any) -> Callable[[], Ready]:
        parent, begun = frame.parent, frame.in_once.pop()
        assert parent is not None
        raw = parent.end_once(begun, Label("function"), programs.encode_arg(value))

        def ready() -> Ready:
            if not parent.once.is_durable:
                return None
            self.world.checks.kept_once.observed(frame.path, begun, raw, parent.attempt)
            return (programs.decode_arg(raw),)

        return ready

    def _any(self, frame: Frame, pending: Sequence[tuple[int, int]]) -> Ready:
        parent = frame.parent
        assert parent is not None
        if frame.answer is None:

            def fits(raw: bytes) -> bool:
                return tuple(programs.decode_arg(raw)) in pending

            ready, answer = self._recall(frame, "done", fits)
            if not ready:
                return None
            frame.answer = None if answer is None else tuple(answer)
        if frame.answer is not None:
            number, index = frame.answer
            if frame.calls[number].find(index) is None:
                return None
            found, frame.answer = frame.answer, None
            return (found,)
        arrived = [
            (chunk.arrival, each)
            for each in pending
            if (chunk := frame.calls[each[0]].find(each[1])) is not None
        ]
        if not arrived:
            return None
        first = min(arrived)[1]
        parent.observe("done", programs.encode_arg(list(first)))
        return (first,)

    def _set_const(self, name: str, value: Any) -> None:
        payload = programs.encode_value(value)
        const = wire.Const(name, programs.digest(payload), payload)
        self.machine.out.append(wire.encode(const))

    def _get_const(self, name: str) -> Ready:
        const = self.machine.consts.get(name)
        return None if const is None else (programs.read_outcome(const.payload, failed=False),)

    def _enter(self, frame: Frame, block: OpenBlock) -> Ready:
        """Enter a block; continue from its newest checkpoint, or sometimes from an older one."""
        parent = frame.parent
        assert parent is not None
        if not parent.has_generations(block):
            return None
        newest = parent.durable.known.get(block.key, 0)
        self.world.checks.entered(frame.path, block.key, newest, parent.attempt)
        found = [each for each in parent.durable.candidates(block) if each.payload[:1] == b"G"]
        if not parent.durable.can_begin(block) and not self.world.edited:
            # As long as none has been dropped, there must be an older one.
            needed = 1 if self.world.climate.fallback else 2
            if len(found) < needed and self.world.checks.is_done(frame.path):
                return None
            if len(found) < needed:
                raise AssertionError(
                    f"NO-LOST: {frame.path} has {len(found)} checkpoints to continue from"
                )
        if not found:
            return (None,)
        back = self.world.chance(self.world.climate.fallback)
        record = found[min(len(found) - 1, 1 if back else 0)]
        if back and len(found) == 1 and parent.durable.can_begin(block):
            return (None,)
        state, frame.draws, kept = programs.decode_arg(record.payload[1:])
        parent.continue_from(block, record)
        self.world.checks.leftovers.went_on(frame.path, parent.attempt, record)
        for number, name, args, index, payload, failed in kept:
            fn = programs.FNS[name]
            frame.args[number], frame.fns[number] = args, fn
            if payload is None:
                raw = programs.encode_arg(args[index])
                digest = programs.digest(raw)
                with suppress(StrangeFutureError):  # the error is final, and ends the script
                    call = parent.revive(number, fn.id, fn.id, index, digest, name=name)
                if parent.judge.refusal is not None:
                    return None
            else:
                call = Call(number, fn.id, fn.id)
                lost = frozenset([index] if failed else [])
                call.put(OutcomeChunk(index, index + 1, [payload], lost, 0))
            frame.calls[number] = call
        if frame.work is None:
            self.machine.written.clear()
            self.machine.output_bytes = record.output_bytes
        parent.verify(block)
        self.world.checks.restored += 1
        return (state,)

    def _commit(
        self, frame: Frame, block: OpenBlock, state: Any, pending: Sequence[Any]
    ) -> Callable[[], Ready]:
        world, parent = self.world, frame.parent
        assert parent is not None
        name, asked = block.key[0], self.machine.checkpoint_requests.count
        if not world.chance(world.climate.written) and asked <= frame.asked[name]:
            return lambda: (None,)
        frame.asked[name] = asked
        made: list[bool] = []

        def ready() -> Ready:
            if parent.history.replaying:
                return None
            if not made:
                made.append(world.chance(world.climate.unloadable))
                self._make(frame, block, state, pending, bad=made[0])
                self._flush()
                self._point("checkpointed")
            if not parent.durable.is_saved(block):
                return None
            world.checks.saved[frame.path, *block.key] = (block.gen, parent.attempt)
            self._point("saved")
            if not made[0]:
                parent.verify(block)
            return (None,)

        return ready

    def _make(
        self, frame: Frame, block: OpenBlock, state: Any, pending: Sequence[Any], *, bad: bool
    ) -> None:
        kept, waited = [], []
        for number, index in pending:
            chunk = frame.calls[number].find(index)
            payload = None if chunk is None else chunk.values[index - chunk.start]
            if payload is not None and payload[:1] == b"B":
                payload = None
            failed = payload is not None and chunk is not None and index in chunk.failed
            name, args = frame.fns[number].name, frame.args[number]
            kept.append([number, name, args, index, payload, failed])
            if payload is None:
                waited.append(number)
        content = programs.encode_arg([state, frame.draws, kept])
        output = self.machine.output_bytes + len(self.machine.written) if frame.work is None else 0
        assert frame.parent is not None
        payload = (b"X" if bad else b"G") + content
        made = frame.parent.save(block, payload, waited, (output, 0), b"")
        self.world.checks.saves.made((frame.path, *block.key, made))

    def _flush(self) -> None:
        raise NotImplementedError

    def _point(self, label: str) -> None:
        raise NotImplementedError

    def _cancel(self, frame: Frame, number: int, index: int) -> Ready:
        parent = frame.parent
        assert parent is not None
        if frame.answer is None:
            ready, answer = self._recall(frame, "cancel")
            if not ready or answer is not None:
                return None if not ready else (answer,)
            frame.answer = "asked"
            parent.ask_cancel(number, index)
        if not parent.cancels.is_answered(number, index):
            return None
        answer = parent.cancels.end(number, index)
        frame.answer = None
        if not answer:
            path = ids.item_path(frame.path, number, index)
            self.world.checks.too_late(frame.fns[number], path, frame.args[number][index])
        parent.observe("cancel", programs.encode_arg(answer))
        return (answer,)
