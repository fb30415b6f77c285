"""A simulated worker or origin: the real `Worker` and `Parent` machines, and a CPU in virtual time.

It does what the real shell does: it runs the items of slices one after another, parks an item that
waits and runs others meanwhile, answers retractions, and ends fenced items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from resilient_scoop import ids
from resilient_scoop.core.agent import Exited
from resilient_scoop.core.endings import DRAINED, START_AGAIN
from resilient_scoop.core.flight import Flight, OnCpu
from resilient_scoop.core.link import Link
from resilient_scoop.core.worker import choice
from resilient_scoop.core.worker.choice import Next
from resilient_scoop.core.worker.reporter import Reporter
from resilient_scoop.core.worker.worker import Work, Worker
from resilient_scoop.wire import messages as wire
from tests.sim import programs, scripts
from tests.sim.bodies import Frame, Operations
from tests.sim.programs import Fn
from tests.sim.shells import RUN8, Process
from tests.sim.world import Died, Wire, World

if TYPE_CHECKING:
    from tests.sim.host import AgentShell

_FLUSH_S = 0.1
_DEPUTY_S = 0.1
_STUCK_S = 0.3


class WorkerShell(Operations, Process):
    """One process of a worker or the origin."""

    def __init__(
        self, world: World, agent: AgentShell, name: str, *, careful: bool = False
    ) -> None:
        self.role = "origin" if name == "origin" else "worker"
        super().__init__(world, name, world.new_id(self.role))
        self.agent = agent
        self.done = False
        self.code = -9
        self.cause = "crash"  # reason of its death
        self.is_race = False
        self.is_unblamed = False  # it dies at a point at which no item is blamed
        self.ignores_stop = False
        self.deadline_s = 0.0  # end of the item on the CPU
        self.machine = Worker(role=self.role, node=agent.machine.node, name=name, pid=0, run=RUN8)
        self.reporter = Reporter()
        self.sent_progress: list[
            tuple[Link, int, wire.Progress]
        ] = []  # sent outcomes: on which link, in which message
        self.busy: Frame | Work | None = None
        self.on_cpu: tuple[Work, int] | None = None
        self.on_cpu_path = ""
        self.work: Work | None = None
        self.open: list[Work] = []
        self.frames: dict[str, Frame] = {}  # waiting items, by path
        self.runnable: deque[tuple[Frame, Any]] = deque()
        self.awaiting: tuple[Work, int] | None = None  # an item that may not begin yet
        self.reported_full = -1  # epoch of the broker that was told of a result without space
        self.flushed_at = 0.0
        self.careful = careful  # it ended because of a lock before
        self.began_at = self.free_at = world.now
        if world.grid is not None and agent.node:
            world.grid.node_of[self.id] = agent.node
        world.workers[self.id] = self
        world.wires[self.id] = Wire()
        world.at(0.01, self, self._beat)
        if (early := world.hosts.early_end()) is not None:
            world.at(early[1], self, self._end_early, early[0])

    def die(self) -> None:
        if self.cause in ("crash", "oom"):
            self.is_unblamed = not self.may_crash()
        super().die()
        self.world.checks.saves.lost(self.id)
        self.world.workers.pop(self.id, None)
        if self.on_cpu is not None and not self.is_unblamed:
            cause = "crash" if self.cause == "oom" else self.cause
            self.world.checks.died_running(self.on_cpu_path, cause)
        if self.agent.alive:
            self.agent.child_died(self)

    def killed(self) -> None:
        """End the process: the agent has killed it."""
        self.is_race = not self.alive
        if self.alive:
            self.cause = "timeout" if 0 < self.deadline_s < self.world.now else "asked"
            self.die()

    def _end_early(self, cause: str) -> None:
        """End the process: by a crash, for lack of memory, or because its tasks wait for a lock."""
        works = self.machine.works.values()
        if cause != "freed":
            self.cause = cause
        elif self.role == "origin" or not all(
            each.define is None or each.define.options.idempotent for each in works
        ):
            return
        else:
            self.cause, self.code, self.on_cpu = "asked", START_AGAIN, None
        self.die()

    def state(self, now: float) -> str:
        """Return the state of the process, as in /proc."""
        return ("T" if self.paused_until > now else "R") if self.alive else "Z"

    def flight(self) -> Flight:
        """Return its flight record."""
        on_cpu, root = None, self.machine.parents.get(ids.ROOT)
        if self.on_cpu is not None and not self.is_unblamed:
            work, index = self.on_cpu
            task, attempt = work.task, work.attempt
            on_cpu = OnCpu(
                attempt.epoch, attempt.no, task.parent, task.call, index,
                round(self.deadline_s * 1e9), 0,
            )  # fmt: skip
        reached = 0 if root is None else root.calls.next + root.history.next_observation
        return Flight(on_cpu, is_ready=True, has_ended=self.done, reached=reached)

    def exited(self) -> Exited:
        """Return what the agent knows about its end."""
        return Exited(self.name, self.code, self.flight(), oom=self.cause == "oom")

    def may_crash(self) -> bool:
        """Return whether one more death would still not make an innocent item fail."""
        return self.on_cpu is None or self.world.checks.may_die(self.on_cpu_path)

    def _beat(self) -> None:
        self.world.send_up(self.id, self.machine.link.beat())
        self.world.at(1.0, self, self._beat)

    def reconnected(self) -> None:
        for frames in self.machine.link.again():
            self.world.send_up(self.id, frames)

    def hear(self, peer: bytes, frames: Sequence[bytes]) -> None:
        header, asked = wire.unpack_header(frames[0]), self.machine.checkpoint_requests.count
        for answer in self.machine.hear(header, list(frames[1:]), self.world.now):
            self.world.send_up(self.id, answer)
        if self.machine.checkpoint_requests.count > asked:
            self._note_open()
        if any(isinstance(wire.decode_down(frame), wire.Forget) for frame in frames[1:]):
            self.world.checks.callables.forgot(self.machine)
        self._see_acknowledged()
        self._react()

    def _note_open(self) -> None:
        """Note the parents with an open block when checkpoints are requested: they have to save."""
        for path, parent in self.machine.parents.items():
            if parent.durable.open:
                self.world.checks.saves.asked(self.id, path, self.machine.checkpoint_requests._no)

    def _see_acknowledged(self) -> None:
        link, waiting = self.machine.link, []
        for on, number, message in self.sent_progress:
            if on is link and number in link.unacked:
                waiting.append((on, number, message))
            elif on is link:
                self.world.checks.acknowledged(message)
        self.sent_progress = waiting

    def _react(self) -> None:
        machine = self.machine
        self._fence()
        machine.give_back()
        if machine.stopping is not None:
            self.ignores_stop = self.ignores_stop or self.world.hosts.ignores_stop()
            if not self.ignores_stop:
                self._leave()
            return
        self._see_permission()
        if machine.root_task is not None and machine.root is not None:
            self._start_root(machine.root_task)
        for frame in list(self.frames.values()):
            self._try(frame)
        self.ask_shared()
        self._run()
        self._flush()

    def _see_permission(self) -> None:
        if self.awaiting is None:
            return
        work, index = self.awaiting
        if work.dropped or work.permitted == index:
            self.awaiting = self.busy = None
        if work.permitted == index and not work.dropped:
            self._begin(work, index)

    def _leave(self) -> None:
        if self.world.grid is not None and self.machine.stopping == DRAINED and self.on_cpu:
            self.world.grid.left_at_work(self.agent.node, self.on_cpu_path)
        if self.awaiting is not None and not self.awaiting[0].dropped:
            self.machine.take_back(*self.awaiting)
        self.machine.hand_back_aside()
        self.machine.out.append(wire.encode(wire.Bye()))
        self._flush()
        self.done = True
        self.on_cpu = None
        self.cause, self.code = "asked", 0
        self.die()
        raise Died

    def _point(self, label: str) -> None:
        self.world.point(label, self)

    def _later(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self.world.at(delay_s, self, do, *args)

    def _flush(self) -> None:
        frames = self.reporter.due(self.world.now) if self.machine.greeted else []
        self.machine.out += frames
        message = self.machine.flush()
        for progress in map(wire.decode_up, frames):
            assert isinstance(progress, wire.Progress)
            self.sent_progress.append((self.machine.link, self.machine.link.sent, progress))
        if message is not None:
            self.flushed_at = self.world.now
            self.world.send_up(self.id, message)
            self.world.point("flushed", self)

    def _fence(self) -> None:
        fenced, self.machine.fenced = self.machine.fenced, []
        for path in fenced:
            self.world.checks.saves.lost(self.id, path)
            if path == ids.ROOT:
                self.on_cpu = None
                self.die()
                raise Died
            self.frames.pop(path, None)
            self.runnable = deque(each for each in self.runnable if each[0].path != path)
            if isinstance(self.busy, Frame) and self.busy.path == path:
                self._idle()

    def _idle(self) -> None:
        self.busy = None
        self.on_cpu = None

    def _run(self) -> None:
        """Run what comes next on the CPU, as the real loop does (`core.worker.choice`)."""
        while self.busy is None and self.alive:
            ready = bool(self.runnable)
            stopping = self.machine.stopping is not None
            match choice.next_step(stopping=stopping, ready=ready, slices=self._has_slices()):
                case Next.RESUME:
                    self.began_at = self.world.now
                    self._resume()
                case Next.BEGIN:
                    work = self._pick()
                    if work is not None:
                        self.began_at = self.world.now
                        self._start(work)
                case Next.WAIT:
                    self._wake_when_free()
                    return
                case Next.END:
                    return
                case _ as never:
                    assert_never(never)

    def _resume(self) -> None:
        frame, answer = min(self.runnable, key=lambda each: choice.turn_of(each[0].path))
        self.runnable.remove((frame, answer))
        self.world.checks.resumes_next(frame.path, [each.path for each, _ in self.runnable])
        self._take_cpu(frame, frame.work, frame.index, frame.path)
        if frame.work is not None and frame.parked:
            self.machine.unpark(frame.work, frame.index)
        self._step(frame, answer)

    def _has_slices(self) -> bool:
        may_begin, queue = self._bar(), self.machine.queue
        if may_begin is None:
            return bool(self.work or self.open or queue)
        return self.work is not None or any(may_begin(each) for each in (*self.open, *queue))

    def _bar(self) -> Callable[[Work], bool] | None:
        idle_s = self.world.now - self.began_at
        return choice.bar(self.frames, locks=0, careful=self.careful, idle_s=idle_s)

    def _wake_when_free(self) -> None:
        """Try again when an item that may not begin now may begin."""
        if (self.open or self.machine.queue) and self.world.now >= self.free_at:
            self.free_at = self.world.now + choice.BARRED_S
            self.world.at(choice.BARRED_S + 0.01, self, self._woken)

    def _pick(self) -> Work | None:
        """Return the slice that continues, or the next one; None if nothing of it may begin."""
        work = self.work
        if work is not None:
            more = work.next < work.stop and not work.dropped
            if more and not self.machine.outranked(work):
                return work
            self._settle(work)
        opened = list(self.open)
        self.work = work = choice.take_slice(self.open, self.machine.queue, self._bar())
        if work is None or work.next >= work.stop or work.dropped:
            self.work = None
            return None
        if work not in opened:
            work.since = self.world.now
        return work

    def _take_cpu(self, busy: Frame | Work, work: Work | None, index: int, path: str) -> None:
        self.busy = busy
        self.on_cpu = None if work is None else (work, index)
        self.on_cpu_path = path
        self.deadline_s = 0.0

    def _start(self, work: Work) -> None:
        """Begin an item as the real loop does; the deputy may act at each of three points."""
        self.world.checks.chosen(self, work)
        index = work.next
        if unfit := self.world.missing_functions.unfit(work):
            self._settle(work)
            self.machine.set_aside(work, index, unfit)
            self._flush()
            return
        work.next = index + 1
        look_first = self.world.chance(0.9)
        seen = look_first and index < work.stop
        if self.world.chance(0.1):
            self.busy = work
            self.world.at(
                0.002 * self.world.rng.random(), self, self._look_later, work, index, seen
            )
        else:
            self._look(work, index, seen)

    def _look(self, work: Work, index: int, seen: bool) -> None:
        if seen or index < work.stop:
            self._begin(work, index)
        else:
            work.next = index

    def _look_later(self, work: Work, index: int, seen: bool) -> None:
        self.busy = None
        self._look(work, index, seen)
        self._run()
        if self.alive:
            self._flush()

    def _begin(self, work: Work, index: int) -> None:
        task = work.task
        fn = programs.BY_ID[task.fn]
        assert work.callable.payload, "a task without its function"
        raw = task.args[index - task.start]
        path = ids.item_path(task.parent, task.call, index)
        if not fn.idempotent and work.permitted != index:
            self.awaiting, self.busy = (work, index), work
            self.world.checks.permissions.asked((path, fn.id + programs.digest(raw)))
            self.machine.ask_to_begin(work, index)
            self._flush()
            self.world.point("intent", self)
            return
        self.world.checks.started(fn, path, raw, work)
        self._take_cpu(work, work, index, path)
        if fn.body is not None:
            frame = Frame(path, fn, fn.body(programs.decode_arg(raw)), work, index)
            self._take_cpu(frame, work, index, path)
            self._step(frame, None)
            return
        spent_s = fn.mean_s * (0.2 + 1.6 * self.world.rng.random())
        if fn.timeout_s is not None:
            late = self.world.chance(fn.late)
            spent_s = 1e9 if late else min(spent_s, fn.timeout_s / 2)
            until_s = fn.timeout_s + 0.1 * self.world.rng.random()
            self.deadline_s = self.world.now + until_s - 1e-6
            self.world.at(until_s, self.agent, self.agent.end_late, self, work, index)
        if spent_s > _DEPUTY_S:
            self.world.at(_DEPUTY_S, self, self._deputize, work, index)
        if fn.steps:
            given = task.resume if index == task.start else b""
            self.world.checks.resumed(fn, path, raw, work, given)
            at, value = programs.decode_arg(given)[2:] if given else (0, None)
            self._long(work, index, fn, raw, at, value)
        elif fn.poison:
            self.world.at(spent_s, self, self.die)
        else:
            self.world.at(spent_s, self, self._end_leaf, work, index, fn, raw, path)

    def _deputize(self, work: Work, index: int) -> None:
        """Report finished and waiting items from another thread while an item keeps the CPU."""
        if self.on_cpu != (work, index):
            return
        self._settle(work)
        for frame, _ in self.runnable:
            if frame.parent is None or frame.work is None or frame.work.dropped:
                continue
            if self.world.now - frame.ready_at > _STUCK_S:
                stuck = wire.Stuck(frame.work.attempt, frame.index)
                self.machine.out.append(wire.encode(stuck))
        self._flush()
        self.world.at(_DEPUTY_S, self, self._deputize, work, index)

    def _long(self, work: Work, index: int, fn: Fn, raw: bytes, at: int, value: Any) -> None:
        """Run a long leaf: `at` of its steps are done, and `value` is its value so far."""
        path = ids.item_path(work.task.parent, work.task.call, index)
        arg = programs.decode_arg(raw)
        if work.dropped:
            self._idle()
            self._run()
        elif at == fn.steps:
            self._end_leaf(work, index, fn, raw, path, value)
            return
        else:
            if at:
                self._say(work, index, fn, [path, arg, at, value])
            value = programs.leaf_value(path, arg) if value is None else value
            step_s = fn.mean_s / fn.steps * (0.2 + 1.6 * self.world.rng.random())
            value = programs.step_value(value, at)
            self.world.at(step_s, self, self._long, work, index, fn, raw, at + 1, value)
        if self.alive and at:
            self._flush()

    def _say(self, work: Work, index: int, fn: Fn, kept: list[Any]) -> None:
        task = work.task
        message = wire.Progress(
            task.parent, work.attempt, task.call, index, fn.id, work.digests(index, index + 1),
            kept[2], fn.steps, programs.encode_arg(kept), task.tries,
        )  # fmt: skip
        self.reporter.put(kept[0], work, index, message, self.world.now)

    def _end_leaf(
        self, work: Work, index: int, fn: Fn, raw: bytes, path: str, value: Any = None
    ) -> None:
        if fn.large and not self._has_space(work):
            self.world.at(0.25, self, self._end_leaf, work, index, fn, raw, path, value)
            return
        self._idle()
        if fn.raises:
            work.failed.append(index)
            work.values.append(b"X")
        else:
            if value is None:
                value = programs.value_of(fn, path, programs.decode_arg(raw))
            work.values.append(programs.encode_value(value, large=fn.large))
        if self.world.now - self.flushed_at > _FLUSH_S:
            self._settle(work)
        self._run()
        if self.alive:
            self._flush()

    def _has_space(self, work: Work) -> bool:
        """Return whether a large result can be written; tell the broker when that changes."""
        full = self.world.now < self.world.full_until and not work.dropped
        epoch = self.machine.link.epoch if full else -1
        if epoch != self.reported_full:
            self.reported_full = epoch
            need = wire.NoRoom(1 << 21, "a result", "", result=True) if full else wire.NoRoom(0)
            self.machine.out.append(wire.encode(need))
            self._flush()
        return not full

    def _settle(self, work: Work) -> None:
        self.machine.settle(work, self.world.now)
        self.world.point("settled", self)

    def _start_root(self, task: wire.Task) -> None:
        machine = self.machine
        assert machine.root is not None
        machine.root_task = None
        frame = Frame(ids.ROOT, programs.SCRIPT, scripts.script(self.world.steps), None, 0)
        frame.parent = self.make_parent(ids.ROOT, machine.root, task)
        self.runnable.append((frame, None))

    def _step(self, frame: Frame, answer: Any) -> None:
        """Run a body until it waits, computes or ends."""
        while True:
            if frame.work is not None and frame.work.dropped:
                self._idle()
                return
            try:
                op = frame.body.send(answer)
            except StopIteration as stop:
                self._end(frame, stop.value)
                return
            except programs.RaisedError:
                self._end(frame, None, failed=True)
                return
            if op[0] == "sleep":
                frame.until = self.world.now + op[1]
                frame.ready = lambda: (None,) if self.world.now >= frame.until else None
                self.world.at(op[1], self, self._woken)
                self._park(frame)
                return
            if op[0] == "compute":
                self.world.at(op[1], self, self._computed, frame)
                return
            frame.ready = self.operate(frame, op)
            found = frame.ready()
            if found is None:
                self._park(frame)
                return
            answer = found[0]

    def _woken(self) -> None:
        self._react()

    def _computed(self, frame: Frame) -> None:
        if self.busy is frame:
            self._step(frame, None)
            self._run()
            if self.alive:
                self._flush()

    def _park(self, frame: Frame) -> None:
        work = frame.work
        if frame.parent is not None:
            self._ask(frame)
        self.frames[frame.path] = frame
        if work is not None:
            if not frame.parked:
                frame.parked = True
                self._settle(work)
                work.first = frame.index + 1
                if work.next < work.stop:
                    self.open.append(work)
                    self.work = None
            self.machine.park(work, frame.index)
            if self.careful:
                choice.give_back_upper(self.machine, self.open)
        self._idle()
        self._flush()

    def _ask(self, frame: Frame) -> None:
        wanted = None if frame.parent is None else frame.parent.page_wanted()
        if wanted is not None:
            self.machine.out.append(wanted)

    def _try(self, frame: Frame) -> None:
        assert frame.ready is not None
        if frame.parent is not None and frame.parent.judge.refusal is not None:
            self._refuse(frame)
            return
        found = frame.ready()
        if found is None:
            self._ask(frame)
        else:
            del self.frames[frame.path]
            frame.ready_at = self.world.now
            self.runnable.append((frame, found[0]))

    def _refuse(self, frame: Frame) -> None:
        """End a script that was changed before a block: only such a script may be refused."""
        assert frame.parent is not None
        if frame.work is not None or not self.world.edited:
            raise AssertionError(f"SAME-ANSWER: {frame.parent.judge.refusal}")
        assert self.machine.root is not None
        del self.frames[frame.path]
        self.world.note("refused", self)
        self.machine.ended = wire.RunEnded(self.machine.root, 70, failed=True)

    def _end(self, frame: Frame, value: Any, *, failed: bool = False) -> None:
        self._idle()
        self.world.checks.saves.left(frame.path)
        machine, work = self.machine, frame.work
        if work is None:
            assert machine.root is not None
            machine.ended = wire.RunEnded(machine.root, 0, failed=False)
            self._flush()
            return
        if not frame.parked:
            self._settle(work)
            work.first = frame.index + 1
        payload = b"X" if failed else programs.encode_value(value)
        machine.settle_one(work, frame.index, payload, failed=failed)
