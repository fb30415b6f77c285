"""The connection of a worker or the origin to the broker: machine, socket, and two threads that take turns.

User code runs in the main thread. Between items and while it waits, the main thread itself receives
and sends. While it runs user code for long, a deputy thread does this: it acknowledges, answers
retractions, sends finished items, and greets a new broker. A message that arrives during an item is
read soon: it may be a question whether the item, or the next one, can be canceled. Code that changes
the machine does so in `with session.turn():`, and sends with `session.send(frame)` there. The deputy
cannot run while user code holds the interpreter's lock; no process depends on it then, because the
agent vouches for this one.
"""

from __future__ import annotations

import select
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.core.worker.reporter import Reporter
from resilient_scoop.core.worker.worker import Work, Worker
from resilient_scoop.ids import seed_of
from resilient_scoop.payload.files import LargeStore
from resilient_scoop.processes import user_signals
from resilient_scoop.processes.disk_space import Room, Waiter
from resilient_scoop.transport.sockets import DealerSocket, local_endpoint
from resilient_scoop.wire.messages import unpack_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.pump import Pump
    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.task_state.rng import StreamBook
    from resilient_scoop.transport.mirror import HostFiles

BEAT_S = 0.25
DEPUTY_S = 0.1
EARLY_S = 0.01
"""How long a message waits in a worker for the end of the running item."""
FLUSH_S = 0.09
ACK_MESSAGES = 16
UNACKED_MAX = 32
"""Limit of unacknowledged messages for progress reports: the broker's disk may be full for hours."""


def _mirror(sockets: str) -> HostFiles:
    """Return the way to the files of a run on another host."""
    from resilient_scoop.transport.mirror import HostFiles  # `socket` is slow, and seldom needed

    return HostFiles(sockets)


class Context:
    """The running future, to which its calls belong. `prefix` is the path of its batch."""

    __slots__ = (
        "again", "aside", "blocks", "called_back", "classes", "consts", "fenced", "in_once", "index",
        "learned", "listeners", "parent", "parked", "prefix", "rngs", "until", "work",
    )  # fmt: skip

    def __init__(self, prefix: str, work: Work | None) -> None:
        self.prefix = prefix
        self.work = work
        self.index = 0
        self.parent: Parent | None = None
        self.parked = False
        self.fenced = False
        self.in_once = 0  # number of running functions of `futures.once`: if any, it is not moved
        self.again = False  # it has a history, so it runs from the top
        self.listeners: Any = None  # futures with callbacks to call
        self.called_back: list[bytes] | None = None  # callbacks that wait for the running one
        self.learned = 0  # number of futures whose outcomes the parent knows
        self.blocks: dict[str, Any] = {}  # opened by `checkpoint.restore`
        self.classes: dict[tuple[str, str, str], int] = {}  # see `payload.SendingFuture`
        self.until: float | None = None  # when its `timeout=` is over (monotonic)
        self.consts: dict[str, Any] = {}  # constants returned by `shared.getConst`
        self.rngs: StreamBook | None = None  # streams returned by `futures.rng()`
        self.aside = ""  # suffix of the path during separate draws (`processes.random_streams`)

    @property
    def path(self) -> str:
        """The future's path."""
        return self.prefix if self.work is None else f"{self.prefix}[{self.index}]"


def live_outcomes(parent: Parent | None) -> int:
    """Return how many of a parent's items were settled live, not by its history."""
    return 0 if parent is None else parent.calls.settled - parent.calls.recovered


class Position(Protocol):
    """The script's position in its output, or its input."""

    def position(self) -> int:
        """Return how many bytes the script has written, or read."""

    def become_child(self) -> None:
        """Bypass the run from now on: this process is a forked child."""

    def skip_to(self, position: int) -> None:
        """Count everything before a position as written, or read."""


class Written(Position, Protocol):
    """The script's output."""

    def open_line(self, since: int) -> str:
        """Return the unfinished line written from a position on: it may be a prompt."""


class Connection:
    """One incarnation of a worker or the origin."""

    output: Written | None = None  # only at the origin
    input: Position | None = None
    is_cut = False  # nothing is sent or recorded any more (`processes.origin.interrupt`)
    saves = True  # the time for `commit`; else it is only checked
    call_back: Callable[[], None] | None = None  # calls the callbacks of settled futures

    def __init__(self, role: str, settings: ChildSettings, node: str, pid: int) -> None:
        self.settings = settings
        self.role = role
        self.machine = Worker(
            role=role, node=node, name=settings.name, pid=pid, run=settings.run[:8]
        )
        # Grants may overtake the greeting, which also holds the seed.
        self.machine.seed = settings.seed
        self._lock = threading.Lock()  # one turn at a time
        self.reporter = Reporter()
        self.record = FlightRecord(settings.record_fd)
        self.room = Room(self)
        sockets = str(Path(settings.run_dir) / "sock")
        self.mirror = _mirror(sockets) if settings.is_remote else None
        self.store = LargeStore(Path(settings.run_dir) / "payloads", self.room.store, self.mirror)
        self.socket = DealerSocket(local_endpoint(sockets), settings.incarnation)
        self.context = Context("0", None)
        self.waiter: Waiter | None = None
        self.running: Work | None = None  # what the main thread is executing
        self.pumped_at = time.monotonic()
        self.heard_at = self.pumped_at
        self.flushed_at = 0.0
        self.beat_at = 0.0
        self._files: dict[str, dict[tuple[int, int], bytes]] = {}  # files by parent, call and item
        self.on_stop: Callable[[], None] | None = None
        self.report_stuck: Callable[[], None] | None = None  # called by the deputy, in its turn
        self.look_idle: Callable[[], None] | None = None  # called by the deputy, outside of turns
        self.is_waiting = False  # the script's main thread waits for outcomes
        self._closed = threading.Event()
        self.shared: Any = None  # the calls of threads (`futures._shared`)
        # the thread that receives, once threads other than the main one wait
        self.pumping: Pump | None = None

    def pump_by_thread(self) -> Pump:
        """Return the thread that receives for all threads; start it at the first call."""
        with self._lock:
            if self.pumping is None:
                from resilient_scoop.processes.pump import Pump  # only where threads make calls

                self.pumping = Pump(self)
                self.pumping.start()
            return self.pumping

    @property
    def fd(self) -> int:
        """The descriptor that is readable when a message has arrived."""
        return self.socket.fd

    @property
    def is_closed(self) -> bool:
        """Whether nothing is sent or received any more."""
        return self._closed.is_set()

    def turn(self) -> threading.Lock:
        """Return the lock of the main thread and the deputy: `with session.turn():`."""
        return self._lock

    def send(self, frame: bytes) -> None:
        """Send a frame, in a turn: it is sent with the next `pump` or `flush`."""
        assert self._lock.locked(), "frames are sent in a turn"
        self.machine.out.append(frame)

    @property
    def checkpoint_asked(self) -> int:
        """The number of requests for checkpoints.

        A parent's next `commit` writes a checkpoint, regardless of `every_s`, if it has written
        none since this last rose.
        """
        return self.machine.checkpoint_requests.count

    def seed_here(self) -> int:
        """Return the seed of the running future's random streams."""
        context = self.context
        return seed_of(self.machine.seed, context.path + context.aside)

    def seed_of_mark(self, mark: str) -> int:
        """Return the seed of a stream that the running future has under a mark."""
        context = self.context
        return seed_of(self.machine.seed, context.path + context.aside + mark)

    def keep_files(self, path: str, call: int, refs: dict[int, bytes]) -> None:
        """Keep the files of items' arguments, to be removed when the items are settled."""
        self._files.setdefault(path, {}).update(((call, i), ref) for i, ref in refs.items())

    def sync_files(self, path: str, calls: set[int]) -> None:
        """Make the files of calls' arguments durable."""
        refs = [ref for (call, _), ref in self._files.get(path, {}).items() if call in calls]
        if refs:
            self.room.patiently(lambda: self.store.sync(refs), 0, "arguments")

    def _remove_files(self) -> None:
        for path, refs in self._files.items():
            parent = self.machine.parents.get(path)
            if parent is not None and parent.calls.under_way.ended_files:
                ended, parent.calls.under_way.ended_files = parent.calls.under_way.ended_files, []
                for key in ended:
                    self.store.remove(refs.pop(key))

    def remove_files_of(self, path: str) -> None:
        """Remove files of an ended parent: of calls that it did not wait for."""
        for ref in self._files.pop(path, {}).values():
            self.store.remove(ref)

    def pump(self, timeout_s: float = 0.0) -> None:
        """Receive messages (in a turn), with a limited wait for the first; answer; send what is due."""
        if self.is_cut:
            return
        now = time.monotonic()
        self.flush(now)
        if timeout_s > 0:
            user_signals.breakable(lambda: self.socket.wait(timeout_s))
            now = time.monotonic()
        heard = False
        while (frames := self.socket.receive()) is not None:
            heard = True
            for answer in self.machine.hear(unpack_header(frames[0]), frames[1:], now):
                self.socket.send(answer)
        self.pumped_at = now
        if heard:
            self.heard_at = now
            self.machine.give_back()
            if self._files:
                self._remove_files()
            self.flush(now)
            link = self.machine.link
            if link.acked - link.acked_sent >= ACK_MESSAGES:
                self.beat(now)
        if now - self.beat_at >= BEAT_S:
            self.beat(now)

    def flush(self, now: float) -> None:
        """Send what is due (in a turn)."""
        if self.is_cut:
            return
        machine = self.machine
        if self.reporter.items and machine.greeted and len(machine.link.unacked) < UNACKED_MAX:
            machine.out += self.reporter.due(now, everything=machine.stopping is not None)
        message = machine.flush()
        if message is not None:
            self.socket.send(message)
            self.flushed_at = self.beat_at = now

    def beat(self, now: float) -> None:
        """Send a sign of life and acknowledgements (in a turn)."""
        if self.is_cut:
            return
        self.socket.send(self.machine.link.beat())
        self.beat_at = now

    def ask_early(self, parent: Parent) -> bool:
        """Request a page of a parent's history that it will need soon; return whether one was requested."""
        with self._lock:
            page = parent.page_wanted(early=True)
            if page is not None:
                self.send(page)
        return page is not None

    def start_deputy(self) -> None:
        """Start the deputy thread, which works while user code runs."""
        threading.Thread(target=self._deputize, name="rscoop-deputy", daemon=True).start()

    def _deputize(self) -> None:
        # The main thread handles the signals of the process; it may have blocked them to wait for
        # them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        messages = select.poll()
        messages.register(self.fd, select.POLLIN)
        while not self._wait_in_item(messages):
            if self.machine.stopping is not None and self.on_stop is not None:
                self.on_stop()
            user_signals.send_due()
            if self.look_idle is not None:
                self.look_idle()
            if time.monotonic() - self.pumped_at < DEPUTY_S or not self._lock.acquire(timeout=1.0):
                continue
            try:
                if self._closed.is_set():
                    return
                running = self.running
                if running is not None:
                    self.machine.settle(running, time.monotonic())
                if self.report_stuck is not None:
                    self.report_stuck()
                self.pump()
            finally:
                self._lock.release()

    def _wait_in_item(self, messages: select.poll) -> bool:
        """Wait for the deputy's turn, and receive messages meanwhile; return whether this is closed."""
        until = time.monotonic() + DEPUTY_S
        while (left_s := until - time.monotonic()) > 0:
            if not messages.poll(left_s * 1000):
                break
            before = self._position()
            if self._closed.wait(min(EARLY_S, left_s)):
                break
            is_in_item = before is not None and before == self._position()
            if is_in_item and self._lock.acquire(blocking=False):
                try:
                    if not self._closed.is_set():
                        at = self.pumped_at
                        self.pump()
                        self.pumped_at = at  # it does not replace a whole turn of the deputy
                finally:
                    self._lock.release()
        return self._closed.is_set()

    def _position(self) -> tuple[Work, int, float] | None:
        """Return where the main thread is in its items; None outside of them."""
        running = self.running
        return None if running is None else (running, running.next, self.pumped_at)

    def become_child(self) -> None:
        """Leave the run, of which this process has a copy: it is a forked child."""
        self._closed.set()
        self._lock = threading.Lock()  # its holder does not exist in this process
        self.pumping = None
        self.machine.stopping = "forked"
        self.flushed_at = float("inf")
        for stream in (self.output, self.input):
            if stream is not None:
                stream.become_child()

    def cut(self) -> None:
        """Send what is due, and nothing afterwards."""
        self.close()
        self.is_cut, self.saves = True, False

    def close(self) -> None:
        """Send the rest and close."""
        self._closed.set()
        with self._lock:
            self.flush(time.monotonic())
            self.socket.close()
