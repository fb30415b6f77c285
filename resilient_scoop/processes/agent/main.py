"""The agent of a host: starts its processes, learns of their deaths from the kernel, replaces them.

It runs no user code, so nothing can keep it from vouching for those that do. A worker that is
stopped (state T) is not vouched for. A call's `timeout=` is kept here: the flight record says what
is on the CPU and until when it may be.

The origin is one of its processes on the launcher's host. A process that keeps dying at once is
started again ever later, up to half a minute.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.adapters import import_stack
from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.core.link import Link
from resilient_scoop.counts import counted
from resilient_scoop.processes import CTRL_C, LAUNCHER_GONE, STOPPED, leftovers, starting
from resilient_scoop.processes.agent.slots import Slot, oom_kills
from resilient_scoop.processes.disk_space import NO_SPACE
from resilient_scoop.processes.failures import (
    HOPELESS,
    REFUSED,
    how,
    last_words,
    limit_met,
)
from resilient_scoop.processes.stderr import write_note
from resilient_scoop.transport.sockets import DealerSocket, local_endpoint
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.processes.starting import ChildSettings

ALIVE_S = 0.5
CHECK_S = 0.1
BACKOFF_S_MAX = 30.0
FREED_MAX = 4
"""How often a worker may be started anew for what C code waits for: it may be no lock of a task."""
HASTY_S = 1.0
HASTY_MIN = 3
STILLBORN_MAX = 5
UNFIT_MAX = 4
"""How often a worker alone may fail to import the script before the run is stopped."""
REFUSED_AGAIN_S = 1.0
REFUSED_S_MAX = 10.0
LAST_S = 3.0
"""What an interrupted script has beyond the grace of tasks."""
EXIT_S = 10.0
"""What exit handlers, threads and finalizers of the user's have in a process whose work is done."""


class Agent:
    """The processes of one host."""

    def __init__(self, settings: ChildSettings) -> None:
        self.settings = settings
        self.link = Link(settings.run[:8], 0)
        self.pending: list[bytes] = []
        endpoint = local_endpoint(str(Path(settings.run_dir) / "sock"))
        self.socket = DealerSocket(endpoint, settings.incarnation)
        self.slots = [Slot("origin", "origin")]
        self.slots += [Slot("worker", f"w{n + 1}") for n in range(settings.workers)]
        self.greeted = False
        self.hopeless = 0  # exit status of an agent that gives up
        self.ooms = oom_kills()
        self.mark = leftovers.mark_of(settings.run_id, settings.incarnation)
        leftovers.adopt()
        self.stopping: str | None = None
        self.stop_at = self.abandon_at = 0.0
        self.alive_at = 0.0
        self.logs = Path(settings.run_dir) / "logs"
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.control_fd = settings.control_fd
        for fd in (self.control_fd, settings.stdin_fd, settings.errors_fd, settings.screen_fd):
            if fd >= 0:
                os.set_inheritable(fd, False)  # noqa: FBT003 - the system call takes it so
        self.socket.watch(self.control_fd)

    # --- processes ----------------------------------------------------------------------------

    def start(self, slot: Slot, now: float) -> None:
        """Start a slot's process."""
        slot.incarnation = slot.role[0].encode() + os.urandom(8)
        slot.record = FlightRecord.create(slot.name)
        settings = msgspec.structs.replace(
            self.settings, name=slot.name, incarnation=slot.incarnation,
            mark=f"{self.mark}{slot.incarnation.hex()}", record_fd=slot.record.fd, control_fd=-1,
            errors_fd=-1, screen_fd=-1, careful=slot.freed > 0,
            may_be_freed=slot.freed < FREED_MAX,
        )  # fmt: skip
        try:
            slot.process = self._spawn(slot, settings)
        except OSError as error:
            slot.record.close()
            slot.record = None
            full = error.errno in NO_SPACE  # for its log
            self._refused(slot, limit_met(error) or str(error), now, full=full)
            return
        slot.pidfd = os.pidfd_open(slot.process.pid)
        slot.started_at, slot.killed_for, slot.import_said = now, "", False
        self.socket.watch(slot.pidfd)

    def _refused(self, slot: Slot, why: str, now: float, *, full: bool = False) -> None:
        """The system has no room for a process: try again, as long as it is of any use.

        That a full disk has space again is waited for as long as it takes.
        """
        slot.start_at = now + REFUSED_AGAIN_S
        if not slot.refused_at:
            slot.refused_at = now
            self.say(f"{slot.name} cannot start: {why}; trying again every second")
        others = [s for s in self.slots if s.role == slot.role and s.process is not None]
        if full or others or self.stopping is not None:
            return
        if now - slot.refused_at > REFUSED_S_MAX:
            self.say(f"the run stops, because its {slot.role} cannot be started: {why}")
            self.hopeless = STOPPED
            self.stop("no room", now)

    def _spawn(self, slot: Slot, settings: ChildSettings) -> subprocess.Popen[bytes]:
        if slot.role == "origin":
            return starting.start(
                "origin", settings, stdin=0, stdout=1, stderr=2, user_code=True,
                refusal_said=slot.refused_at > 0,
            )  # fmt: skip
        settings = msgspec.structs.replace(settings, stdin_fd=-1)
        with (self.logs / f"{slot.name}.log").open("ab") as log:
            return starting.start(
                "worker", settings, stdin=subprocess.DEVNULL, stdout=log.fileno(),
                stderr=log.fileno(), user_code=True,
            )  # fmt: skip

    def say(self, text: str) -> None:
        """Say something to the user."""
        write_note(text)

    def reap(self, slot: Slot, now: float) -> None:
        """A process has ended: say so to the broker, plan its successor."""
        assert slot.process is not None, "a watched slot has a process"
        assert slot.record is not None, "a watched slot has a record"
        code = slot.process.wait()
        self.socket.unwatch(slot.pidfd)
        os.close(slot.pidfd)
        on_cpu, was_ready = slot.record.read(), slot.record.is_ready
        gets_on, slot.reached = (
            slot.record.reached > slot.reached,
            max(slot.reached, slot.record.reached),
        )
        slot.ended = slot.record.has_ended
        slot.record.close()
        self._kill_group(slot.process.pid)
        if not slot.ended:
            self._end_leftovers(slot)
        freed = slot.role == "worker" and code == starting.START_AGAIN
        slot.freed += freed
        anew = freed or (self.settings.always_replay and code == starting.START_AGAIN)
        unfit = slot.role == "worker" and code == starting.CANNOT_IMPORT
        orderly = slot.ended or self.stopping is not None or anew or unfit or code == REFUSED
        ooms, self.ooms = self.ooms, oom_kills()
        died = "oom" if code == -signal.SIGKILL and self.ooms > ooms else "crash"
        reason = slot.killed_for or ("asked" if orderly else died)
        at = time.time()  # noqa: TID251  a label for eyes
        lost = wire.ProcessLost(slot.incarnation, code, reason, at=at)
        if on_cpu is not None:
            attempt = wire.Attempt(on_cpu.epoch, on_cpu.no)
            lost = wire.ProcessLost(
                slot.incarnation, code, reason, attempt, on_cpu.item, on_cpu.parent, on_cpu.call, at,
                on_cpu.tries,
            )  # fmt: skip
        self.tell(lost)
        self._say_end(slot, code, reason, freed=freed)
        is_hasty = now - slot.started_at < HASTY_S and not (anew or unfit or gets_on)
        slot.hasty = slot.hasty + 1 if is_hasty else 0
        slot.stillborn = 0 if was_ready or orderly else slot.stillborn + 1
        if slot.stillborn >= STILLBORN_MAX:
            self._give_up(slot, how(code) + (", out of memory" if died == "oom" else ""))
        elif slot.role == "origin" and reason in ("crash", "oom"):
            self.say(f"the script's process died ({how(code)}); it starts again where it was")
        self._plan(slot, code, now)
        slot.unfit = slot.unfit + 1 if unfit else 0
        if unfit and self.stopping is None:
            self._unfit(slot, now)

    def _unfit(self, slot: Slot, now: float) -> None:
        """A worker could not import the script: try again where others can; else stop the run."""
        said = last_words(self.logs / f"{slot.name}.log").partition("rscoop: ")[
            2
        ]  # behind its mark
        reason = said or f"{slot.name} cannot import the script; see the logs in {self.logs}"
        others = any(s.role == "worker" and s.process is not None for s in self.slots)
        if slot.unfit >= UNFIT_MAX or not others:
            self.tell(wire.Unfit("", 0, b"", reason))
            slot.start_at = inf
            return
        wait_s = float(2 ** (slot.unfit - 1))
        slot.start_at = now + wait_s
        if slot.unfit > 1:
            cause = reason.partition(". No item")[0]
            self.say(f"{cause}. Other workers run; this one tries again in {wait_s:.0f} s")

    def _plan(self, slot: Slot, code: int, now: float) -> None:
        """Plan a process' successor."""
        wait_s = 0.0
        if slot.hasty >= HASTY_MIN:
            wait_s = min(BACKOFF_S_MAX, 0.25 * 2 ** (slot.hasty - HASTY_MIN))
        slot.process, slot.record, slot.start_at = None, None, now + wait_s
        if now - slot.started_at > REFUSED_S_MAX:
            slot.refused_at = 0.0
        if code == REFUSED and not slot.ended:
            why = last_words(self.logs / f"{slot.name}.log") if slot.role == "worker" else ""
            self._refused(slot, why.removeprefix(f": rscoop: {slot.name}: ") or "see above", now)

    def _say_end(self, slot: Slot, code: int, reason: str, *, freed: bool) -> None:
        if reason in ("crash", "oom") and slot.role == "worker":
            died_of = "out of memory" if reason == "oom" else how(code)
            self.say(f"{slot.name} died ({died_of}); it is replaced, and its calls run again")
        if freed:
            self.say(
                f"{slot.name} is restarted, because its tasks wait for each other's locks; from now "
                "on it runs the script's calls one after another"
            )

    def _give_up(self, slot: Slot, death: str) -> None:
        """A process ends before it has begun, again and again: the run cannot go on."""
        self.say(
            f"{slot.name} cannot start: it ended {counted(slot.stillborn, 'time')} before it began "
            f"({death}), most likely while it imported the script; see the logs in {self.logs}. Nothing "
            f"is lost: correct the cause, then `rscoop resume {self.settings.run_id}`"
        )
        self.hopeless = HOPELESS
        self.stop("cannot start", time.monotonic())

    def _kill_group(self, pid: int) -> None:
        """End what a process of ours has left behind."""
        with contextlib.suppress(ProcessLookupError):  # it left nothing
            os.killpg(pid, signal.SIGKILL)

    def _end_leftovers(self, slot: Slot) -> None:
        """End what a process that was killed had started, though it may have left the group."""
        assert slot.process is not None, "it has only just ended"
        session, mark = slot.process.pid, f"{self.mark}{slot.incarnation.hex()}"
        leftovers.end_all(lambda: leftovers.of_session(session, mark))

    # --- talking ------------------------------------------------------------------------------

    def tell(self, message: wire.Up) -> None:
        """Send a message, or keep it until there is a broker.

        With the launcher gone the broker hears nothing more: it ends as well, perhaps a moment later,
        and would take the deaths of that end for deaths of a run that goes on.
        """
        if self.stopping == LAUNCHER_GONE:
            return
        self.pending.append(wire.encode(message))
        if self.greeted:
            self.socket.send(self.link.pack(self.pending))
            self.pending = []

    def hear(self, frames: list[bytes], now: float) -> None:
        """Take in a message of the broker."""
        header = wire.unpack_header(frames[0])
        if header.epoch < self.link.epoch:
            return
        if header.epoch > self.link.epoch:
            self._meet(header.epoch)
            return
        fresh, answers = self.link.take(header, now)
        for answer in answers:
            self.socket.send(answer)
        if not fresh:
            return
        self.link.acked = self.link.received
        for frame in frames[1:]:
            self._handle(wire.decode_down(frame), now)

    def _meet(self, epoch: int) -> None:
        owed = [frame for frames in self.link.pending() for frame in frames]
        self.link = Link(self.settings.run[:8], epoch)
        self.greeted = True
        hello = wire.Hello(
            "agent", "local", "agent", os.getpid(),
            incarnations=[slot.incarnation for slot in self.slots if slot.process is not None],
        )  # fmt: skip
        self.socket.send(self.link.pack([wire.encode(hello), *owed, *self.pending]))
        self.pending = []

    def _handle(self, message: wire.Down, now: float) -> None:
        match message:
            case wire.Stop(reason=reason):
                self.stop(reason, now)
            case wire.Kill(incarnation=incarnation, reason=reason, attempt=attempt):
                for slot in self.slots:
                    if slot.incarnation == incarnation and slot.executes(attempt):
                        self.kill(slot, reason)
            case _:
                pass  # Welcome; nothing else is for agents

    def stop(self, reason: str, now: float) -> None:
        """Start nothing more; give what runs the time of grace."""
        if self.stopping is None:
            self.stopping = reason
            self.abandon_at = now + self.settings.stop_grace_s
            self.stop_at = now + EXIT_S if reason == "ended" else self.abandon_at
            if reason == "now":
                self.stop_at = now

    def kill(self, slot: Slot, reason: str) -> None:
        """End a process now."""
        assert slot.process is not None, "only a running process is killed"
        slot.killed_for = reason
        slot.process.kill()

    # --- the loop -----------------------------------------------------------------------------

    def serve(self) -> int:
        """Supervise until the run ends; return the exit status."""
        self.socket.send(self.link.beat())
        while True:
            now = time.monotonic()
            self._start_due(now)
            ready = self.socket.wait(CHECK_S)
            now = time.monotonic()
            if self.control_fd in ready and not os.read(self.control_fd, 4096):
                self.socket.unwatch(self.control_fd)
                self.stop(LAUNCHER_GONE, now)
                self.stop_at = now
            while (frames := self.socket.receive()) is not None:
                self.hear(frames, now)
            for slot in self.slots:
                if slot.process is not None and slot.pidfd in ready:
                    self.reap(slot, now)
            self._vouch(now)
            self._end_late(now)
            if self.stopping is not None and not any(slot.process for slot in self.slots):
                return self._end()

    def _start_due(self, now: float) -> None:
        for slot in self.slots:
            due = slot.process is None and not slot.ended and slot.start_at <= now
            if self.stopping is None and due:
                self.start(slot, now)

    def _vouch(self, now: float) -> None:
        if now - self.alive_at < ALIVE_S:
            return
        passed_s, self.alive_at = min(now - self.alive_at, 2 * ALIVE_S), now
        there = [slot for slot in self.slots if slot.process is not None]
        seen = [slot.incarnation for slot in there if slot.look(passed_s, self.say)]
        self._look_at_imports(there)
        leftovers.bury({slot.process.pid for slot in there if slot.process is not None})
        if self.greeted:
            self.tell(wire.Alive(seen))
        else:
            self.socket.send(self.link.beat())
        self.socket.send(self.link.beat())

    def _look_at_imports(self, there: list[Slot]) -> None:
        for slot in there:
            assert slot.process is not None, "only a started process is there"
            assert slot.record is not None, "a process has a record"
            if (
                slot.role == "worker"
                and not slot.import_said
                and slot.record.starts_s > import_stack.SAY_S
            ):
                slot.import_said = True
                log = self.logs / f"{slot.name}.log"
                self.say(import_stack.said(slot.name, slot.process.pid, log, self.settings.run_id))

    def _end_late(self, now: float) -> None:
        """Kill what has run out of its time: the call's `timeout=`, or the grace at a stop."""
        now_ns = time.monotonic_ns()
        for slot in self.slots:
            if slot.process is None or slot.record is None:
                continue
            interrupted = slot.role == "origin" and self.stopping == CTRL_C
            if self.stopping is not None and now >= self.stop_at + interrupted * LAST_S:
                if self.stopping == "ended" and slot.record.has_ended and not slot.late:
                    slot.late = True
                    self.say(
                        f"{slot.name} did not end within {EXIT_S:.0f} s of the run's end: an exit "
                        "handler, a finalizer or a thread of the script's code keeps it; killed"
                    )
                slot.process.kill()
                continue
            on_cpu = slot.record.read()
            if self.stopping == "ended" and slot.role == "worker" and on_cpu is not None:
                if now >= self.abandon_at:  # nobody wants what it computes
                    slot.process.kill()
                continue
            if on_cpu is not None and 0 < on_cpu.deadline_ns < now_ns and not slot.killed_for:
                self.kill(slot, "timeout")

    def _end(self) -> int:
        if self.stopping != "ended":
            leftovers.end_all(lambda: leftovers.below(set()) | leftovers.of_session(-1, self.mark))
        self.tell(wire.Bye())
        self.socket.close()
        return self.hopeless


def main() -> int:
    """Run an agent."""
    return Agent(starting.take_settings()).serve()
