"""The broker's shell: the only place where its machine, socket, journal and clock meet.

One turn: wait, receive all messages that have arrived, step the machine, give the records to the
writer, send the messages that depend on no record; when the writer reports that a turn is durable,
send the messages that depend on it. A failed commit ends the process (the launcher restarts it from
the journal), except if the disk is full: then no work is assigned until there is space.

Standard input is connected to the launcher: a line `stop REASON` asks for an orderly end,
`checkpoint NO hand-over SECONDS` (or `go-on`) asks for checkpoints, and end of file means that the
launcher has ended. Standard output carries reports to the launcher, one JSON line each.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop import ids
from resilient_scoop.config import BrokerConfig
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.exchange import Exchange
from resilient_scoop.core.broker.handover import Stage
from resilient_scoop.core.endings import HOPELESS, LAUNCHER_GONE, STOPPED
from resilient_scoop.core.events import (
    FAILED_KEY,
    INPUT_KEY,
    PYTHON_KEY,
    AgentOver,
    AskCheckpoints,
    Change,
    Erase,
    Interrupt,
    Put,
    Table,
)
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.outcomes import succeeded
from resilient_scoop.core.facts.recovery import (
    forget_items,
    forget_undone,
    forget_without_args,
    recover,
)
from resilient_scoop.errors import RscoopError
from resilient_scoop.journal.committer import Committer
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import GENERATION_FILE
from resilient_scoop.journal.state_store import StateStore
from resilient_scoop.processes.broker.disk import Disk, wait_for_room
from resilient_scoop.processes.broker.report_pipe import ReportPipe
from resilient_scoop.processes.failures import script_dies
from resilient_scoop.processes.starting import take_settings
from resilient_scoop.runs import asked
from resilient_scoop.runs.asked import Requests
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.reports import JournalFindings, Report, broker_report
from resilient_scoop.transport.sockets import RouterSocket, local_endpoint
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.tally import TALLY_KEY, Tally, decode_tally

if TYPE_CHECKING:
    from resilient_scoop.core.broker.exchange import Mail
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.processes.broker.grid import Grid
    from resilient_scoop.processes.starting import ChildSettings

MINOR: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The minor version of this Python."""
_REPORT_S = 0.2
_SPEAK_S = 1.0
"""Longest time between two reports to the launcher (`processes.launcher.watchdog`)."""
LOST_AT_BOOT = b"Ba"  # first byte of a payload that names the file of an argument
_QUIET_S = 3  # of an agent; a shorter silence is not reported
_FAREWELL_S = 8.0
_ASKED_S = 0.25
_FAREWELL_MIN_S = 1.0


def open_journal(settings: ChildSettings) -> Journal:
    """Open the run's journal for writing, made on first use."""
    directory = Path(settings.run_dir) / "journal"
    if (directory / GENERATION_FILE).exists():
        journal = Journal.open(directory, run=settings.run)
    else:
        journal = Journal.create(directory, settings.run)
    journal.keep_history = settings.keep_history
    if not settings.adopt:
        journal.sweep_files()
    return journal


def load_state(journal: Journal, run: bytes) -> tuple[DurableState, dict[str, bytes]]:
    """Return the state and the constants that the journal holds."""
    defines = [
        define
        for _, raw in journal.scan(Table.DEFINE)
        if isinstance(define := wire.decode_up(raw), wire.Define)
    ]
    log = ((key, wire.decode_logged(raw)) for key, raw in journal.scan(Table.LOG))
    output = 0
    for key, raw in journal.scan(Table.OUTPUT):
        written = wire.decode_up(raw)
        assert isinstance(written, wire.Output), "a foreign record in OUTPUT"
        output = max(output, int.from_bytes(key, "big") + len(written.data))
    consts = {key.decode(): raw for key, raw in journal.scan(Table.CONST)}
    progress = (
        (key, message)
        for key, raw in journal.scan(Table.PROGRESS)
        if isinstance(message := wire.decode_up(raw), wire.Progress)
    )
    state = recover(run, defines, log, output, progress, read_tally(journal))
    after = None
    while page := journal.read(Table.META, INPUT_KEY, after, 1 << 20):
        state.inputs, after = state.inputs + len(page), page[-1][0]
    return state, consts


def read_tally(journal: Journal) -> Tally | None:
    """Return the counts of erased records; None in a journal of an earlier version."""
    raw = journal.get(Table.META, TALLY_KEY)
    return None if raw is None else decode_tally(raw)


def read_ended(journal: Journal) -> wire.RunEnded | None:
    """Return how the script ended, if it has ended."""
    raw = journal.get(Table.META, b"ended")
    ended = None if raw is None else wire.decode_up(raw)
    assert ended is None or isinstance(ended, wire.RunEnded), "a foreign record as `ended`"
    return ended


def next_epoch(journal: Journal, *, continues: bool) -> int:
    """Begin a new epoch: committed before any connection is accepted."""
    raw = journal.get(Table.META, b"epoch")
    epoch = (0 if raw is None else int.from_bytes(raw, "big")) + 1
    changes: list[Change] = [Put(Table.META, b"epoch", epoch.to_bytes(4, "big"))]
    ended = journal.get(Table.META, b"ended") if continues else None
    if ended is not None:  # a failed run continues
        changes += [Erase(Table.META, b"ended"), Put(Table.META, FAILED_KEY, ended)]
    journal.commit(changes)
    return epoch


def forget_lost_arguments(journal: Journal, state: DurableState) -> int:
    """After another boot, forget items whose large arguments were never synced; return how many."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    known = journal.get(Table.META, b"boot")
    if known == boot:
        return 0
    forgotten = 0
    for key, raw in journal.scan(Table.ARGS) if known is not None else ():
        frame = wire.decode_up(raw)
        assert isinstance(frame, wire.Args), "a foreign record in ARGS"
        lost = {at for at, arg in enumerate(frame.args) if arg[:2] == LOST_AT_BOOT}
        if lost:
            forgotten += forget_items(state, ids.seq_of(key), lost)
    journal.commit([Put(Table.META, b"boot", boot)])
    return forgotten


def forget_of_another_python(journal: Journal, state: DurableState, python: str) -> int:
    """Forget the items that were in flight under another minor version of Python; return how many.

    Definitions of callables hold its bytecode, so no worker here could run them. The replay makes the
    calls again. `python` is the version under which the run began.
    """
    raw = journal.get(Table.META, PYTHON_KEY)
    then = python if raw is None else raw.decode()
    if raw is None or then != MINOR:
        journal.commit([Put(Table.META, PYTHON_KEY, MINOR.encode())])
    return 0 if _minor_of(then) == MINOR else forget_undone(state)


def _minor_of(version: str) -> str:
    return ".".join(version.split(".")[:2])


def forget_failures(journal: Journal, state: DurableState) -> int:
    """Remove the outcomes that are exceptions from the journal; return how many there were.

    Outcomes that a checkpoint covers stay: no parent asks for them.
    """
    over = {path: checkpoints.covered(parent) for path, parent in state.parents.items()}
    changes: list[Change] = []
    forgotten = 0
    for key, raw in journal.scan(Table.LOG):
        record = wire.decode_logged(raw)
        if isinstance(record, wire.Crashed):
            changes.append(Erase(Table.LOG, key))
        elif isinstance(record, wire.Outcomes):
            known = over.get(record.parent, ())
            failed = [
                item
                for item in record.items
                if item.failed and item.call not in known and not item.once  # never started twice
            ]
            if not failed:
                continue
            kept = [
                part
                for item in record.items
                for part in (succeeded(item) if item in failed else [item])
            ]
            forgotten += sum(len(item.failed) for item in failed)
            changes.append(Erase(Table.LOG, key))  # with the names of the files to be removed
            changes.append(Put(Table.LOG, key, wire.encode(wire.Outcomes(record.parent, kept))))
    if changes:
        journal.commit(changes)
    return forgotten


class BrokerShell:
    """Holds the machine and its adapters."""

    def __init__(  # noqa: PLR0915 - all that a broker is
        self, settings: ChildSettings, reports: ReportPipe
    ) -> None:
        self.settings = settings
        self.reports = reports
        self.journal = open_journal(settings)
        state, consts = self._load_state()
        self.states = StateStore(Path(settings.run_dir))
        if not settings.adopt:  # no process writes files now
            self.states.sweep(checkpoints.files(state.parents.values()))
        self.found = JournalFindings.begin(state, adopt=settings.adopt)
        epoch = next_epoch(self.journal, continues=not settings.adopt)
        config = BrokerConfig(
            adopt=settings.adopt, crashes_max=settings.crashes_max, lease_s=settings.lease_s
        )
        self.broker = Broker(config, state, epoch=epoch, seed=settings.seed, consts=consts)
        self.broker.membership.agent_alive_at = time.monotonic()
        # The last broker died after the end of the script: its processes must still be told.
        self.broker.ended = read_ended(self.journal)
        self.farewell_min_at = 0.0
        if self.broker.ended is not None:
            self.broker.ledger.stopping = "ended"
            self.farewell_min_at = time.monotonic() + _FAREWELL_MIN_S
        defines = self.broker.callable_cache(self.journal)
        self.exchange = Exchange(self.broker, settings.run[:8], self.tell_user, defines)
        self.disk = Disk(settings.run_dir)
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.committer = Committer(
            self.journal, lambda: os.eventfd_write(self.wake, 1), self.journal.tend
        )
        self.socket = RouterSocket(local_endpoint(str(Path(settings.run_dir) / "sock")))
        self.socket.watch(self.wake)
        self.socket.watch(0)
        os.set_blocking(0, False)
        self.grid: Grid | None = None
        self.asked, self.asked_at = Requests(Path(settings.run_dir)), 0.0
        if settings.options.grid or (Path(settings.run_dir) / "keys" / "enrolled").exists():
            self._open_door()  # hosts that were invited to an earlier broker may still be there
        self.launcher, self.halt_reported = True, False
        # set when the launcher has ended, and other hosts wait for the next one
        self.is_left = False
        self.reported_at = 0.0
        self.reported, self.spoke_at = b"", 0.0
        self.output_bytes = self.output_durable = self.broker.state.output_bytes
        self.ask = 0  # the launcher's number of the last request for checkpoints
        self.over_no = self.over_turn = (
            0  # of the last hand-over, and of the last records before its end
        )
        self.turn = 0  # the last turn
        self.put_turn = 0  # the last turn that had records
        self.output_turn = 0  # the turn that recorded output, if that is not reported yet
        self.farewell_at: float | None = None

    def _load_state(self) -> tuple[DurableState, dict[str, bytes]]:
        """Load the state from the journal, without what has to be computed again."""
        settings = self.settings
        if settings.options.retry_failed and not settings.adopt:
            forget_failures(self.journal, load_state(self.journal, settings.run)[0])
        state, consts = load_state(self.journal, settings.run)
        forget_lost_arguments(self.journal, state)
        python = RunDir(Path(settings.run_dir)).load().python_version
        forget_of_another_python(self.journal, state, python)
        forget_without_args(state, lambda key: self.journal.get(Table.ARGS, key) is not None)
        return state, consts

    def _open_door(self) -> None:
        """Let other hosts in, from now on."""
        from resilient_scoop.processes.broker.grid import Grid  # slow, and not for local runs

        self.grid = Grid(
            self.settings, self.exchange, self.socket, self.tell_user,
            lambda: os.eventfd_write(self.wake, 1),
        )  # fmt: skip

    def tell_user(self, text: str) -> None:
        """Send a message for the user to the launcher."""
        self._report(Report(note=text))

    def serve(self) -> int:
        """Run turns until the run has ended or was stopped; return the exit status."""
        self._report(self._make_report(self.output_durable))  # the journal is read
        while True:
            now = time.monotonic()
            timeout_s = max(0.0, min(self.broker.deadline(now) - now, _REPORT_S))
            ready = self.socket.wait(timeout_s)
            committed = self.wake in ready
            if committed:
                os.eventfd_read(self.wake)
                self._send_durable()  # first, because a process waits for it
            if 0 in ready:
                self._hear_launcher()
            now = time.monotonic()
            for peer, frames in self.socket.receive():
                self.exchange.receive(peer, frames, now)
            if self.grid is not None:
                self.grid.receive(now)
            if self._mind_disk() or self.exchange.has_work or not committed:
                self._turn(now)
            self._tell(now)
            self._mind_asked(now)
            if self.grid is not None:
                self.grid.after_turn(now)
            self._mind_halt()
            if self._is_over(now):
                return self._end()

    def _mind_asked(self, now: float) -> None:
        """Answer what users ask by `rscoop invite`, `drain`, `revoke`, `rekey`."""
        if now - self.asked_at >= _ASKED_S:
            self.asked_at = now
            self.asked.answer_all(self._answer)

    def _answer(self, request: asked.Request) -> asked.Answer:
        if self.grid is None:
            if not isinstance(request, asked.Listen):
                return asked.Answer(refused="it has no other hosts")
            self._open_door()
        assert self.grid is not None, "it was made"
        return self.grid.answer(request)

    def _mind_halt(self) -> None:
        """Report why a future, or the run, cannot continue."""
        fruitless = self.broker.membership.fruitless
        if self.halt_reported:
            return
        if self.broker.keeper.halted:
            self.halt_reported = True
            self.tell_user(self.broker.keeper.halted)
        elif fruitless.is_over:
            self.halt_reported = True
            self._report(
                Report(note=script_dies(fruitless.deaths, self.settings.run_id), fatal=HOPELESS)
            )

    def _turn(self, now: float) -> None:
        number, changes, mails = self.exchange.turn(now)
        self.turn = number
        self._send(mails)
        if changes:
            # If no worker has work, all processes wait for this commit.
            self.committer.put(number, changes, here=not self.broker.scheduler.leases)
            self.put_turn = number
        if self.exchange.is_awaited and self.committer.committed < self.put_turn:
            self.committer.hurry()
        handover = self.broker.handover
        if handover.stage is Stage.OVER and self.over_no != handover.no:
            self.over_no, self.over_turn = handover.no, self.put_turn
        if self.broker.state.output_bytes != self.output_bytes:
            self.output_bytes, self.output_turn = self.broker.state.output_bytes, number
        self._send_durable()

    def _send_durable(self) -> None:
        """Send messages that depend on turns that are now on disk."""
        if self.committer.error is not None:
            raise self.committer.error
        committed = self.committer.committed
        durable = self.turn if committed >= self.put_turn else committed
        self._send(self.exchange.committed(durable, self.journal))
        if self.exchange.garbage:
            garbage, self.exchange.garbage = self.exchange.garbage, []
            for name in garbage:
                self.states.remove(name)

    def _tell(self, now: float) -> None:
        """Send a sign of life to the peers and to the launcher."""
        self._send(self.exchange.beats(now))
        shown = self.output_turn and self.committer.committed >= self.output_turn
        if shown or now - self.reported_at >= _REPORT_S:
            if shown:
                self.output_turn, self.output_durable = 0, self.output_bytes
            self.reported_at = now
            self._report(self._make_report(self.output_durable))

    def _make_report(self, output_bytes: int, *, durable: bool = False) -> Report:
        """Return a report; checkpoints count as made when they are durable."""
        durable = durable or self.committer.committed >= self.over_turn
        over = self.broker.handover.stage is Stage.OVER and durable
        quiet_s = int(time.monotonic() - self.broker.membership.agent_alive_at)
        report = broker_report(
            self.broker, self.found, output_bytes, ask=self.ask, asked_over=over,
            agent_quiet_s=quiet_s if quiet_s >= _QUIET_S else 0,
        )  # fmt: skip
        if self.grid is not None:
            report = msgspec.structs.replace(
                report, hosts=self.grid.states(), renewals=self.grid.renewals
            )
        full = self.disk.full()
        at_limit = self.disk.at_limit
        return msgspec.structs.replace(report, full=full, at_limit=at_limit) if full else report

    def _mind_disk(self) -> bool:
        """Assign no work while the disk is full; return whether that has changed."""
        while self.journal.notes:
            self.tell_user(self.journal.notes.popleft())
        full, before = self.committer.full, self.broker.busy_disk
        self.broker.busy_disk = full
        reports = self.broker.membership.roomless.reported.values()
        if text := self.disk.look(reports, journal=full, reason=self.committer.full_reason):
            self.tell_user(text)
        return full != before

    def _send(self, mails: list[Mail]) -> None:
        # A peer without connection gets it again after it reconnects.
        door = None if self.grid is None else self.grid.door
        for to, frames in mails:
            if door is not None and door.is_guest(to):
                door.send(to, frames)
            else:
                self.socket.send(to, frames)

    def _hear_launcher(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self.socket.unwatch(0)
            self.launcher = False
            if self.grid is None:
                self.exchange.add(Interrupt(LAUNCHER_GONE))
            else:  # a stop would end the agents of other hosts, which must outlive the launcher
                self.is_left = True
        for line in data.decode().splitlines():
            if line.startswith("stop"):
                self.exchange.add(Interrupt(line[5:] or "asked"))
            elif line.startswith("checkpoint"):
                _, ask, what, grace_s = line.split()
                self.ask = int(ask)
                self.exchange.add(AskCheckpoints(what == "hand-over", float(grace_s)))
            elif line.startswith("over"):
                _, host, agent, how = line.split()
                self.exchange.add(AgentOver(host, ids.PeerId(bytes.fromhex(agent)), how == "died"))

    def _is_over(self, now: float) -> bool:
        """Return whether all processes that were told to stop have ended, or their time is over."""
        if self.is_left:
            return True
        if self.broker.membership.stopping is None:
            return False
        if self.committer.full:
            # A resume repeats what was not sent; the end of the script waits for space.
            return self.broker.ended is None
        if self.farewell_at is None:
            self.farewell_at = now + _FAREWELL_S + self.settings.stop_grace_s
        if now < self.farewell_min_at:
            return False
        return self.broker.is_deserted or now > self.farewell_at

    def _end(self) -> int:
        if self.committer.flush(0.0 if self.committer.full else 5.0):
            self._send(self.exchange.committed(1 << 62, self.journal))
        last = self._make_report(self.broker.state.output_bytes, durable=True)
        self.reports.keep(msgspec.json.encode(last) + b"\n", is_final=True)
        self.committer.close()
        self.journal.close(clean=True)
        if self.grid is not None:
            self.grid.close()
        self.socket.close()
        self.reports.finish()
        return 0 if self.broker.ended is not None else STOPPED

    def _report(self, report: Report) -> None:
        if not self.launcher:
            return
        line, now = msgspec.json.encode(report) + b"\n", time.monotonic()
        if report.note:
            self.reports.keep(line, is_final=report.fatal > 0)
        elif line != self.reported or now - self.spoke_at >= _SPEAK_S:
            is_sent = self.reports.offer(line)
            self.reported, self.spoke_at = line if is_sent else b"", now
        else:
            self.reports.flush()
        self.launcher = not self.reports.is_broken


def main() -> int:
    """Run a broker."""
    settings = take_settings()
    # Most objects here live long and hold no cycles; by default the collector would walk them
    # thousands of times.
    gc.set_threshold(100_000, 50, 100)
    if not wait_for_room(settings.run_dir):
        return STOPPED
    reports = ReportPipe(1)
    try:
        return BrokerShell(settings, reports).serve()
    except RscoopError as error:
        line = msgspec.json.encode(Report(note=str(error), fatal=error.exit_code))
        reports.keep(line + b"\n", is_final=True)
        reports.finish()
        return error.exit_code
