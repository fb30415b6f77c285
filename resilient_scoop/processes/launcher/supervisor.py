"""The launcher: starts the broker and the local agent, restarts them, shows the run, ends it in order.

It decides nothing about the work. It shows the broker's reports and the journal's OUTPUT table, so
that the output on screen is also on disk.

A first Ctrl-C or SIGHUP stops the run in order: no more work is assigned, finished results are
kept, running calls have a few seconds. A first SIGTERM makes parents write checkpoints before that.
A second signal ends everything at once. In each case `rscoop resume` continues.
`processes.launcher.stopping` has the details.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.core.endings import REFUSED, SESSION_CLOSED, STOPPED
from resilient_scoop.counts import counted
from resilient_scoop.errors import JournalError, JournalGoneError, RunStoppedError
from resilient_scoop.journal.view import JournalView
from resilient_scoop.payload.files import remove_arguments
from resilient_scoop.processes import BLOCK_BYTES, UNWRITTEN, kept_code, leftovers, starting
from resilient_scoop.processes.failures import hopeless, hopeless_loop, how, refusal
from resilient_scoop.processes.launcher.cleanup import show_last_lines, show_new, tidy
from resilient_scoop.processes.launcher.shown_output import ShownOutput
from resilient_scoop.processes.launcher.signals import SignalReceiver
from resilient_scoop.processes.launcher.stdin_feeder import Feeder
from resilient_scoop.processes.launcher.stopping import Stopping
from resilient_scoop.processes.launcher.watchdog import KILLS_MAX, REPORT_S, Watchdog
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.processes.stderr import LOG as ERRORS_LOG
from resilient_scoop.processes.stderr import ErrorStream
from resilient_scoop.processes.task_output import TaskLogs
from resilient_scoop.processes.ticket_extra import write_options
from resilient_scoop.runs import decisions
from resilient_scoop.runs.audit_findings import AuditTail
from resilient_scoop.runs.display import (
    Display,
    Rate,
    RemainingTime,
    RunProgress,
)
from resilient_scoop.runs.lifetimes import Lives, ran_s
from resilient_scoop.runs.reports import (
    Report,
    finished,
    resuming,
    started,
)
from resilient_scoop.runs.status import OutputTail, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.processes.launcher.places import PlacesPart
    from resilient_scoop.runs.folder import RunDir, RunInfo

LEFT_S = 2.0
"""Longest time until a killed agent has ended."""
_FATAL = frozenset({70, 73, 74})
_RESTARTS_MAX, _STILLBORN_MAX = 8, 2
_STDOUT, _STDERR = 1, 2
_TASKS_EVERY_S = 0.2
_RESTART_WINDOW_S = 20.0
_FRUITLESS_WINDOW_S = 3600.0
"""Deaths without progress in between count together for this longer time."""


@dataclass(slots=True, eq=False)
class ChildProcess:
    """One process that the launcher keeps alive."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    deaths: list[float] = field(default_factory=list)
    mark: tuple[int, ...] = ()  # the progress of the run at the last one


def launch(
    run: RunDir,
    options: RunOptions,
    made: Sequence[decisions.Decision] = (),
    owner_fd: int = -1,
    report_held: Callable[[], None] = lambda: None,
) -> int:
    """Run a run to its end; return the exit code for the shell.

    `made`: new decisions about changed code, to be kept with the run. `owner_fd`: a descriptor that a
    session's program closes when the run is to end. `say_held` is called once no other launcher can
    hold the run.

    Raises:
        RunBusyError: another launcher holds the run.
        JournalGoneError: the run's folder was deleted or moved.
        RunStoppedError: the system refused what a run needs; nothing is lost.
    """
    try:
        with run.hold() as lock:
            report_held()
            decisions.save(run.path, made)
            run.limit_met.unlink(missing_ok=True)
            launcher = Launcher(run, options, lock)
            launcher.owner_fd = owner_fd
            code = launcher.serve()
            met = launcher.report.full and launcher.report.at_limit
            if met or launcher.fatal_code in (STOPPED, JournalError.exit_code):
                _note_limit(run)
            return code
    except OSError as error:
        _note_limit(run)
        raise RunStoppedError(run.id, refusal(error)) from error


def _note_limit(run: RunDir) -> None:
    """Make a resume use the limits of its shell, which the user may have raised for it."""
    with contextlib.suppress(OSError):  # the disk is full: no limit of the shell helps
        run.limit_met.touch(mode=0o600)


class Launcher:
    """One launcher, from its start to the end of the run."""

    def __init__(self, run: RunDir, options: RunOptions, lock: int) -> None:
        self.run = run
        self.lock = lock  # its descriptor
        self.options = options
        self.info: RunInfo = run.load()
        tty = sys.stderr.isatty() and not options.detach and os.environ.get("TERM") != "dumb"
        self.display = Display(
            sys.stdout, sys.stderr, run.id, tty, quiet=options.quiet or options.detach
        )
        self.selector = selectors.DefaultSelector()
        self.feeder = Feeder(self.selector, folder=run.path, resumed=options.resume)
        self.broker = ChildProcess("broker")
        self.agent = ChildProcess("agent")
        self.places: PlacesPart | None = None
        self.report = Report()
        self.rate, self.course, self.batch_course = Rate(), RemainingTime(), RemainingTime()
        self.computed_s = -1.0  # seconds of computing before this launcher started
        self.view: JournalView | None = None
        self.errors: ErrorStream | None = None
        self.screen: ErrorStream | None = (
            None  # stream for text that children of the script write to a terminal
        )
        self.shown = ShownOutput(run.shown_file, sys.stdout.fileno())
        self.tail = OutputTail(self.shown.count)
        self.buffer = b""
        self.signals: SignalReceiver | None = None
        self.handover = Stopping(run, self.display.note, self._tell_broker, options.limit)
        self.fatal_code = 0
        self.broker_code: int | None = None
        self.reports_fd = -1
        self.recovered_reported = False
        self.most_workers = 0
        self.first_epoch = self.recovered = self.reused = 0
        self.audit = AuditTail.start(run.logs) if options.audit else None
        self.tasks = TaskLogs.start(run.logs) if options.task_output else None
        self.broker_watch = Watchdog("broker", self.display.note)
        self.agent_watch = Watchdog("agent", self.display.note, kills_sleepers=False)
        self.started_at = self.looked_at = time.monotonic()
        self.lives = Lives(run.path, time.time())  # noqa: TID251 - for display

    def settings(self, *, adopt: bool) -> starting.ChildSettings:
        """Return the settings for the processes."""
        return starting.settings_for(self.run, self.info, self.options, adopt=adopt)

    def start_broker(self, *, adopt: bool) -> None:
        """Start the broker; its reports come through a pipe."""
        if self.reports_fd >= 0:
            self.selector.unregister(self.reports_fd)
            os.close(self.reports_fd)
        self.reports_fd, theirs = os.pipe()
        os.set_blocking(self.reports_fd, False)
        with (self.run.logs / "broker.log").open("ab") as log:
            process = starting.start(
                "broker", self.settings(adopt=adopt), stdin=subprocess.PIPE, stdout=theirs,
                stderr=log.fileno(), cwd=str(self.run.path),
            )  # fmt: skip
        os.close(theirs)
        self.buffer = b""
        self.selector.register(self.reports_fd, selectors.EVENT_READ, self._hear_reports)
        self._watch(self.broker, process)
        self.broker_watch.started()

    def start_agent(self) -> None:
        """Start the local agent; it learns from its control pipe that the launcher has ended."""
        assert self.errors is not None, "made before any process is started"
        theirs, ours = os.pipe()
        incarnation = b"a" + os.urandom(8)
        self.agent_mark = leftovers.mark_of(self.run.key(self.info), incarnation)
        settings = msgspec.structs.replace(
            self.settings(adopt=False), incarnation=incarnation, control_fd=theirs,
            stdin_fd=self.feeder.child_fd, stdin_source=self.feeder.source,
            errors_fd=self.errors.ours,
            screen_fd=-1 if self.screen is None else self.screen.ours,
        )  # fmt: skip
        process = starting.start(
            "agent", settings, stdout=None if self.screen is None else self.screen.theirs,
            stderr=self.errors.theirs, cwd=str(self.run.path),
        )  # fmt: skip
        os.close(theirs)
        self.agent_control = ours
        self._watch(self.agent, process)
        self.agent_watch.started()

    def _start_places(self) -> None:
        """Start the process that starts agents on other hosts, if there are any."""
        if not self.options.grid:
            return
        from resilient_scoop.processes.launcher.places import PlacesPart  # not for local runs

        self.places = PlacesPart(
            self.run, self.selector, self.display.note, lambda: self.settings(adopt=False),
            self._tell_broker, workers_here=self.options.workers,
        )  # fmt: skip
        self.places.start()

    def _mind_places(self) -> None:
        places = self.places
        if places is None:
            return
        places.tick()
        if places.fatal and not self.fatal_code and not self.handover.stops:
            self.fatal_code = places.fatal
            self.handover.stop()

    def _end_places(self, grace_s: float) -> None:
        """End the agents of other hosts: the broker has told them already, if it could."""
        places, self.places = self.places, None
        if places is not None:
            places.end(grace_s)

    owner_fd = -1
    agent_control = -1
    agent_mark = ""
    others: frozenset[int] = (
        frozenset()
    )  # children from before exec: of the program that this process was

    def _watch(self, part: ChildProcess, process: subprocess.Popen[bytes]) -> None:
        part.process = process
        part.pidfd = os.pidfd_open(process.pid)
        self.selector.register(part.pidfd, selectors.EVENT_READ, lambda: self._reap(part))

    def serve(self) -> int:
        """Supervise until the run has ended or is stopped."""
        try:
            self.others = frozenset(leftovers.below(set()))
            leftovers.adopt()
            self._make_folders()
            self._watch_owner()
            self.signals = SignalReceiver(self.selector, self.handover.hear, self._leave)
            errors = self._open_streams()
            if not self.options.resume:
                size = self.options.total if self.options.grid else self.options.workers
                self.display.begin(
                    started(self.run.id, self.info.command, size, self.options.hosts)
                )
            else:
                self._end_orphans()
            self._keep_code()
            self.start_broker(adopt=False)
            self.start_agent()
            self._start_places()
            while self.broker.process is not None or self.agent.process is not None:
                for key, _ in self.selector.select(self._timeout_s()):
                    key.data()
                self._show_errors(errors)
                self._end_late()
            self._check_there()
            self._end_places(self.settings(adopt=False).stop_grace_s)
            return self._finish()
        finally:
            self._kill_all()
            self._end_errors()
            self.lives.end(time.time())  # noqa: TID251 - wall clock time, which other commands read
            self.feeder.close()
            self.display.close()
            self.selector.close()
            if self.signals is not None:
                self.signals.close()
            self.run.remove_socket_dir()  # last, because it needs descriptors, which may have run out

    def _open_streams(self) -> ErrorStream:
        """Open the pipes for what the script's processes write; return that of standard error."""
        terminal = _STDERR if not self.options.detach and os.isatty(_STDERR) else None
        errors = self.errors = ErrorStream(self.run.logs / ERRORS_LOG, self.display.error, terminal)
        self.selector.register(errors.ours, selectors.EVENT_READ, errors.hear)
        if terminal is not None and os.isatty(_STDOUT):
            self.screen = ErrorStream(None, self.display.output, _STDOUT)
            self.selector.register(self.screen.ours, selectors.EVENT_READ, self.screen.hear)
        return errors

    def _watch_owner(self) -> None:
        if self.owner_fd >= 0:
            self.selector.register(self.owner_fd, selectors.EVENT_READ, self._hear_owner)

    def _hear_owner(self) -> None:
        """Handle the end of a session: its program has closed it, or has ended."""
        self.selector.unregister(self.owner_fd)
        self.handover.word = SESSION_CLOSED
        self.handover.stop()

    def _make_folders(self) -> None:
        self.run.logs.mkdir(mode=0o700, exist_ok=True)
        self.run.make_socket_dir()
        (self.run.path / "keys" / "door.json").unlink(
            missing_ok=True
        )  # of a broker that was killed
        with suppress(OSError):  # a full disk: the file is for hosts that join later
            write_options(self.run, self.options)

    def _end_orphans(self) -> None:
        """End processes that tasks of the run had started, if the agent was killed before it could."""
        ended = leftovers.end_all(lambda: leftovers.of_run(self.run.key(self.info)))
        if ended:
            self.display.note(
                f"ended {counted(ended, 'process', 'processes')} that tasks of this run had started "
                "before it was killed"
            )

    def _end_code(self) -> None:
        """Keep the code of this launch, unless it added nothing: it may not even have been imported."""
        counts = self.report.ended or self.report.done > self.report.recovered
        with contextlib.suppress(OSError):  # a full disk: the next launch starts with what is there
            kept_code.end(self.run.path, counts=counts)

    def _keep_code(self) -> None:
        try:
            kept_code.begin(self.run.path, None if self.info.script_kept else self.info.script)
        except OSError as error:
            self.display.note(
                f"the script's code cannot be kept in {self.run.path} ({error.strerror}): do not "
                "edit it during the run, since workers that are replaced would run the new code"
            )

    def _timeout_s(self) -> float:
        now = time.monotonic()
        held_s = 1.0 if self.errors is None else self.errors.due_s(now)
        poll_s = 1.0 if self.tasks is None else _TASKS_EVERY_S
        if self.places is not None:
            poll_s = min(poll_s, self.places.due_s(now))
        return min(poll_s, held_s, self.handover.due_s(now))

    def _reap(self, part: ChildProcess) -> None:
        process = part.process
        assert process is not None, "only a started process ends"
        code = process.wait()
        self.selector.unregister(part.pidfd)
        os.close(part.pidfd)
        part.process = None
        if process.stdin is not None:
            process.stdin.close()
        if part is self.broker:
            self._hear_reports()
            self._broker_ended(code)
        else:
            os.close(self.agent_control)
            self._agent_ended(code)

    def _broker_ended(self, code: int) -> None:
        handover, now = self.handover, time.monotonic()
        killed = handover.is_late(now)
        # If a broker has reported why the run stops, the run stops, even if the broker is killed
        # before its end.
        over = killed or code in (0, STOPPED) or code in _FATAL or self.fatal_code > 0
        if over or self._is_hopeless(self.broker, code):
            self.broker_code = code
            handover.kill_at = min(handover.kill_at or inf, now + (1 if handover.ends else 5))
            if code not in (0, STOPPED) and self.agent.process is not None:
                self.agent.process.kill()
            return
        if code != REFUSED:
            died = how(code)
            self.display.note(f"the broker died ({died}); it is restarted from the journal")
        self.start_broker(adopt=True)
        if self.agent.process is None and not handover.stops:
            self.start_agent()
        handover.again()

    def _agent_ended(self, code: int) -> None:
        if code < 0:
            self._end_leftovers()  # it was killed
        if self.broker_code is not None or self.report.ended or self.handover.stops:
            return
        if self.handover.is_late(time.monotonic()):
            return  # this launcher has killed it
        if code == 0:
            return  # the broker told it to stop
        if code in _FATAL or code == STOPPED or self._is_hopeless(self.agent, code):
            self.fatal_code = self.fatal_code or code
            self.handover.stop()
            return
        if code != REFUSED:
            self.display.note("the agent died; it and its workers are restarted")
        self.start_agent()

    def _is_hopeless(self, part: ChildProcess, code: int) -> bool:
        """Return whether a part that has died must not be started again, and report it."""
        now = time.monotonic()
        report = self.report
        mark = (int(report.epoch > 0), report.done, report.known, report.output_bytes)
        window_s = _FRUITLESS_WINDOW_S if mark == part.mark else _RESTART_WINDOW_S
        part.deaths = [at for at in part.deaths if now - at < window_s] + [now]
        part.mark = mark
        stillborn = code == REFUSED or not self.report.epoch
        if len(part.deaths) <= (_STILLBORN_MAX if stillborn else _RESTARTS_MAX):
            return False
        self.display.note(hopeless(part.role, len(part.deaths), code, self.run.logs))
        self.fatal_code = self.fatal_code or (STOPPED if code == REFUSED else 70)
        return True

    def _tell_broker(self, line: str) -> None:
        process = self.broker.process
        if process is not None and process.stdin is not None:
            with suppress(OSError):  # it is dead; its successor gets the same requests
                # Unbuffered: what a buffer keeps of a failed write makes its `close` fail, too.
                os.write(process.stdin.fileno(), line.encode() + b"\n")

    def _check_there(self) -> None:
        """Raise JournalGoneError if the run's folder is gone and the broker has not reported it."""
        if not self.fatal_code and self.run.is_gone(self.lock):
            raise JournalGoneError(str(self.run.path))

    def _end_late(self) -> None:
        self._show_tasks()
        self._check_there()
        self._mind_places()
        self.lives.live(time.time())  # noqa: TID251 - wall clock time, which other commands read
        now = time.monotonic()
        self.feeder.look()
        self._mind_silence(now)
        self.handover.look_at_clock(now)
        if self.handover.ends and not self.report.epoch and self.report.full:
            # the broker still waits for disk space, so there is nothing to save
            self.handover.kill_at = now
        if self.handover.is_late(now):
            self._kill_all()

    def _mind_silence(self, now: float) -> None:
        """Handle a broker or an agent that does not report; during the end of the run, `kill_at` does."""
        ran_s, self.looked_at = now - self.looked_at, now
        broker, agent = self.broker.process, self.agent.process
        if self.handover.stops or self.report.ended or broker is None:
            return
        if self.broker_watch.tick(broker.pid, ran_s):
            if self.broker_watch.kills >= KILLS_MAX:
                self.display.note(hopeless_loop(KILLS_MAX, self.run.id))
                self.fatal_code = 70
            broker.kill()
        elif not self.report.agent_quiet_s:
            self.agent_watch.heard()
        elif agent is None or self.broker_watch.silent_s >= REPORT_S:
            return
        elif self.agent_watch.tick(agent.pid, ran_s):
            agent.kill()

    def _note(self, text: str) -> None:
        """Show a message of the broker, after all that the script had written."""
        if self.errors is not None:
            self.errors.hear()
            self._show_errors(self.errors)
        self.display.note(text)

    def _show_errors(self, errors: ErrorStream) -> None:
        now = time.monotonic()
        errors.show(now, self.shown.count)
        if self.screen is not None:
            self.screen.show(now, 0)

    def _show_direct(self) -> None:
        """Display what children of the script wrote before the script's next output."""
        if self.screen is not None:
            self.screen.hear()
            self.screen.show(time.monotonic(), 0)

    def _end_errors(self) -> None:
        for stream in (self.screen, self.errors):
            if stream is not None:
                self.selector.unregister(stream.ours)
                stream.close()
        self.screen = self.errors = None

    def _leave(self, code: int) -> None:
        """End at once, in the middle of a blocked write."""
        self._kill_all()
        self.run.remove_socket_dir()
        os._exit(code)

    def _kill_all(self) -> None:
        for part in (self.agent, self.broker):
            if part.process is not None:
                part.process.kill()
        self._end_places(0.0)
        if self.agent.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.agent.process.wait(LEFT_S)
            self._end_leftovers()

    def _end_leftovers(self) -> None:
        """End processes that tasks had started, if the agent does not."""
        parts = {p.process.pid for p in (self.broker, self.agent) if p.process is not None}
        kept = self.others | parts

        def found() -> set[int]:
            return leftovers.of_session(-1, self.agent_mark) | leftovers.below(kept)

        leftovers.end_all(found)
        leftovers.bury(parts)

    def _hear_reports(self) -> None:
        if self.reports_fd < 0:
            return  # it ends already
        try:
            data = os.read(self.reports_fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(self.reports_fd)
            os.close(self.reports_fd)
            self.reports_fd = -1
            return
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            report = msgspec.json.decode(line, type=Report)
            self.broker_watch.heard()
            if report.note:
                self._note(report.note)
                self.fatal_code = self.fatal_code or report.fatal
            elif not report.epoch:  # it waits for space to open the journal
                self.report = msgspec.structs.replace(self.report, full=report.full)
            else:
                self.report = report = self._since_start(report)
                if self.computed_s < 0:
                    self.computed_s = report.computed_s
                self._report_recovered(report)
                self.most_workers = max(self.most_workers, report.workers)
                if self.places is not None:
                    is_ending = bool(report.ended or self.handover.ends)
                    self.places.tell_hosts(report.hosts, is_ending=is_ending)
                    self.places.renew(report.renewals)
                self.handover.hear_report(report)
        if lines:
            self._show()

    def _since_start(self, report: Report) -> Report:
        """Return a report with the counts that the first broker of this launch found.

        A restarted broker also finds results that this launch computed.
        """
        if not self.first_epoch:
            self.first_epoch, self.recovered = report.epoch, report.recovered
        if report.epoch == self.first_epoch:
            self.reused = report.reused if self.options.resume else 0
        return msgspec.structs.replace(report, recovered=self.recovered, reused=self.reused)

    def _report_recovered(self, report: Report) -> None:
        """Report, once per resume, what was found in the journal."""
        if not self.options.resume or self.recovered_reported or self.options.in_process:
            return
        self.recovered_reported = True
        for text in resuming(self.run.id, report):
            self.display.note(text)

    def _show(self) -> None:
        """Show new output, and the progress of the run."""
        if self.report.output_bytes > self.shown.count:
            self._show_direct()
            self._show_output()
        self._report_audit()
        report, now = self.report, time.monotonic()
        total = None if report.batch_total < 0 else report.batch_total
        running = min(report.running, report.workers)  # the others wait in the queue of a worker
        share = None if report.share < 0 else report.share
        batch_share = report.batch_done / total if total else None
        self.display.progress(
            RunProgress(
                elapsed_s=float(int(now - self.started_at)), done=report.done, running=running,
                workers=report.workers, crashes=report.crashes,
                resubmitted=report.resubmitted, reused=report.reused,
                rate_per_s=self.rate.add(now, report.done), label=report.label, share=share,
                eta_s=self.course.eta_s(now, "script", share), batch=report.batch,
                batch_done=report.batch_done, batch_total=total,
                batch_eta_s=self.batch_course.eta_s(now, report.batch, batch_share),
                items=report.items, full=report.full,
                hosts_there=sum(state == "up" for state in report.hosts.values()),
                hosts=len(report.hosts if self.places is None else self.places.names | report.hosts.keys()),
            )
        )  # fmt: skip

    def _report_audit(self) -> None:
        for finding in () if self.audit is None else self.audit.new():
            self.display.note(finding.message)

    def _show_tasks(self) -> None:
        for line in () if self.tasks is None else self.tasks.new():
            self.display.error(line.short)

    def _show_output(self) -> None:
        if self.view is None:
            self.view = JournalView.open(self.run.journal)
        show_new(self.run, self.view, self.tail, self.shown, self.display, self.errors)

    def _finish(self) -> int:
        if self.run.is_gone(self.lock):
            return self.fatal_code or JournalGoneError.exit_code
        if self.report.output_bytes > self.shown.count:
            self._show_output()
        self._report_audit()
        show_last_lines(self.run, self.display)
        if self.view is not None:
            self.view.close()
        self._end_errors()
        self._show_tasks()
        self.display.close()
        self.shown.close()
        tidy(self.run)
        self._end_code()
        self.handover.end()
        report = self.report
        if report.ended and self.broker_code == 0:
            remove_arguments(self.run.path / "payloads")
            return self._finish_ended(report)
        resume = f"rscoop resume {self.run.id}"
        if self.fatal_code not in (0, STOPPED):
            return self.fatal_code
        if self.options.in_process:
            return self.fatal_code
        ended = "saved and stopped" if self.handover.whole and self.handover.ends else "stopped"
        self.display.note(f"run {self.run.id} {ended}; {self._kept()}; to continue: {resume}")
        return self.handover.code

    def _workers(self) -> int:
        """Return how many workers the run had: of other hosts, the most that were there at once."""
        return self.most_workers if self.options.grid else self.options.workers

    def _kept(self) -> str:
        """Return what is kept of a stopped run: part of what its broker counted may not be on disk."""
        done = self.report.done if self.report.epoch else None
        if done is not None and (self.report.full or self.broker_code not in (0, STOPPED)):
            try:
                done = read_status(self.run, self.info).done
            except JournalError:
                done = None
        if done is None:
            return "its results are kept"
        return f"{counted(done, 'result is', 'results are')} kept"

    def _failed(self, report: Report) -> int:
        """Return how many calls have failed: the broker also counts those that were computed again."""
        try:
            return read_status(self.run, self.info).failed if report.raised else 0
        except JournalError:
            return report.raised

    def _finish_ended(self, report: Report) -> int:
        if report.failed or not self.options.quiet:
            took_s = time.monotonic() - self.started_at
            computed_s = report.computed_s - self.computed_s
            all_s = ran_s(self.run.path, time.time())  # noqa: TID251 - wall clock time, which other commands read
            report = msgspec.structs.replace(report, raised=self._failed(report))
            self.display.note(
                finished(self.run.id, report, took_s, self._workers(), computed_s, all_s)
            )
        if report.code or self.display.lost_bytes < BLOCK_BYTES:
            return report.code
        self.display.note(
            f"the reader of the output ended before the run; to see all of it: rscoop logs {self.run.id}"
        )
        return UNWRITTEN
