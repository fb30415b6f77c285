"""The launcher's end of the process that holds the run's places (`processes.places`).

Running agents do not need the places: they continue without them. So a places process that dies is
started again a few times, and the run continues without it after that; it stops if it has no host by then.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.processes import starting
from resilient_scoop.processes.failures import how
from resilient_scoop.processes.places.reports import PlacesReport
from resilient_scoop.runs.hosts import none_left, read_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.runs.folder import RunDir
    from resilient_scoop.runs.hosts import HostReport

DEATHS_MAX: Final = 5
FAILED: Final = 70
"""The exit code of a run of which a process failed repeatedly."""
AGAIN_S: Final = 1.0
STOP_S: Final = 10.0
"""How long hosts may take to end their agents, beyond the grace of tasks."""
LOST_S: Final = 20.0
"""After this time a host counts as lost of which a new broker has heard nothing."""
_THERE: Final = frozenset({"up", "draining"})
_HOST_COMMANDS: Final = frozenset({"drained", "revoked"})


class PlacesPart:
    """The places of one launch."""

    def __init__(
        self, run: RunDir, selector: selectors.BaseSelector, note: Callable[[str], None],
        settings: Callable[[], ChildSettings], tell_broker: Callable[[str], None], *,
        workers_here: int = 0,
    ) -> None:  # fmt: skip
        self._run = run
        self._selector = selector
        self._note = note
        self._settings = settings
        self._tell_broker = tell_broker
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._start_at = inf
        self._buffer = b""
        self._states = read_out(run.path)  # of hosts, from the broker
        self._missing_at: dict[str, float] = {}  # hosts that were there, unknown to a new broker
        self._ending = False
        self._computes_here = workers_here > 0
        self._alone = ""  # the last message that no host is left
        self.hosts: list[HostReport] = []
        self.fatal = 0
        self._renewals = 0  # of the present broker

    def start(self) -> None:
        """Start the process."""
        self._start_at = inf
        with (self._run.logs / "places.log").open("ab") as log:
            self._process = process = starting.start(
                "places", self._settings(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log.fileno(), cwd=str(self._run.path),
            )  # fmt: skip
        assert process.stdout is not None, "it is a pipe"
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._hear)
        for host, state in self._states.items():
            self._tell_state(host, "", state)

    def _tell(self, **command: Any) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):  # it is dead; its successor gets the same commands
                process.stdin.write(msgspec.json.encode(command) + b"\n")
                process.stdin.flush()

    @property
    def names(self) -> set[str]:
        """The hosts that places start."""
        return {each.name for each in self.hosts}

    def tell_hosts(self, states: Mapping[str, str], *, is_ending: bool = False) -> None:
        """Pass on the broker's reports about agents of other hosts.

        At the end of the run these leave.
        """
        now = time.monotonic()
        for host, state in states.items():
            before = self._states.get(host, "")
            if state != before:
                self._tell_state(host, before, state)
        for host in self._states.keys() - states.keys():
            since = self._missing_at.setdefault(host, now)
            if now - since >= LOST_S and self._states[host] in _THERE:
                self._tell(agent=host, **{"is": "lost"})
                self._states[host] = "lost"
        self._missing_at = {host: at for host, at in self._missing_at.items() if host not in states}
        self._states = {**self._states, **states}
        if not is_ending:
            self._report_none_left()

    def _report_none_left(self) -> None:
        """Report once that the run has no host left, and again if hosts came and left in between."""
        if self._computes_here or not self.hosts or self._ending:
            return
        alone = none_left(self._run.id, self.names, self._states)
        if alone and not self._alone:
            self._note(alone)
        self._alone = alone

    def renew(self, renewals: int) -> None:
        """Give new tickets to agents, if the broker has renewed its keys."""
        if renewals > self._renewals:
            self._tell(renew=True)
        self._renewals = renewals

    def _tell_state(self, host: str, before: str, state: str) -> None:
        if state in _THERE and before not in _THERE:
            self._tell(agent=host, **{"is": "came"})
        elif before in _THERE and state not in _THERE:
            left = state in ("unknown", "drained")
            self._tell(agent=host, **{"is": "left" if left else "lost"})
        if state in _HOST_COMMANDS:
            self._tell(host=host, **{"is": state})

    def _hear(self) -> None:
        process = self._process
        assert process is not None, "it is heard while it is there"
        assert process.stdout is not None, "it is a pipe"
        try:
            data = os.read(process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._ended(process)
            return
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._take(msgspec.json.decode(line, type=PlacesReport))

    def _take(self, report: PlacesReport) -> None:
        if report.note:
            self._note(report.note)
        if report.hosts is not None:
            self.hosts = report.hosts
        if report.over is not None:
            how_ended = "died" if report.over.died else "left"
            self._tell_broker(f"over {report.over.host} {report.over.agent} {how_ended}")
        self.fatal = self.fatal or report.fatal

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None, "it is a pipe"
        self._selector.unregister(process.stdout)
        process.stdout.close()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        code = process.wait()
        self._process, self._buffer = None, b""
        if self._ending:
            return
        self._deaths += 1
        if self._deaths > DEATHS_MAX:
            computes = self._computes_here or any(each in _THERE for each in self._states.values())
            after = (
                "continues with the hosts that are there" if computes else "stops: it has no host"
            )
            self.fatal = self.fatal or (0 if computes else FAILED)
            self._note(
                f"the process that starts hosts died {self._deaths} times ({how(code)}): the run {after}; "
                f"see {self._run.logs / 'places.log'}"
            )
            return
        self._note(
            f"the process that starts hosts died ({how(code)}); it is started again, and the hosts continue"
        )
        self._start_at = time.monotonic() + AGAIN_S

    def tick(self) -> None:
        """Start the process again, when that is due."""
        if self._process is None and time.monotonic() >= self._start_at:
            self.start()

    def due_s(self, now: float) -> float:
        """Return the seconds until `tick` has something to do."""
        return max(0.0, self._start_at - now)

    def end(self, grace_s: float) -> None:
        """End the agents of all hosts, and the process, within a limited time."""
        self._ending, self._start_at = True, inf
        process = self._process
        if process is None:
            return
        self._tell(stop=grace_s)
        with suppress(subprocess.TimeoutExpired):
            self._drain(process, time.monotonic() + grace_s + STOP_S)
        process.kill()
        if self._process is not None:
            self._ended(process)

    def _drain(self, process: subprocess.Popen[bytes], until: float) -> None:
        """Read its last reports until it has ended."""
        assert process.stdout is not None, "it is a pipe"
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while self._process is process and (left_s := until - time.monotonic()) > 0:
                if selector.select(left_s):
                    self._hear()
