"""One host as a place: an agent is started by a command, and reports its state by lines.

The command gets the ticket as one line on its standard input, which then stays open: its end means
that the launcher is gone. A line `stop SECONDS` requests a normal end. The same program answers
`--find` and `--stop` for agents whose launcher, or whose connection, is gone.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.errors import PlaceBusyError, PlaceError, PlaceRefusedError
from resilient_scoop.hosts.base import Seen, Unit, UnitState
from resilient_scoop.hosts.conversation import Conversation, HearOver, ignored
from resilient_scoop.hosts.door import Done, Door, Pipe
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.remote_command import (
    RemoteSettings,
    agent_command,
    candidates,
    failed_search,
    read_found,
    search_command,
    search_script,
    usable,
)

START_S: Final = 120.0
"""The time from a start to the agent's "running"; slow file systems take a minute to load Python."""
ENDED_KEPT: Final = 32
"""Units that have ended and are still remembered."""
_STOP_SPARE_S: Final = 0.5
"""An agent that has not ended this long after its grace is ended by a command."""
_ASK_S: Final = 20.0
_CLOSE_S: Final = 2.0


class _Pids(msgspec.Struct, frozen=True):
    """The answer to `--find`."""

    pids: list[int]


class _Started(msgspec.Struct, frozen=True):
    """A unit that this process has started."""

    unit: Unit
    talk: Conversation
    pipe: Pipe
    reader: threading.Thread


class HostPlace:
    """One host as a place, reached through a door."""

    def __init__(
        self,
        host: Host,
        door: Door,
        settings: RemoteSettings,
        *,
        run_key: str,
        start_s: float = START_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = host.name
        self._host = host
        self._door = door
        self._settings = settings
        self._run_key = run_key
        self._start_s = start_s
        self._clock = clock
        self._starting = threading.Lock()  # one start at a time, so that a tag has one unit
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._started: dict[str, _Started] = {}  # by id of the unit
        self._python = ""
        self._hear_over: HearOver = ignored

    def start(self, n: int, ticket: bytes, *, tag: str) -> Sequence[Unit]:
        """Start the agent of this host; see `base.Place`."""
        if n > 1:
            raise PlaceRefusedError(f"{self.name} is one host and takes one agent, not {n}")
        if n < 1:
            return []
        with self._starting:
            known = self._of_tag(tag)
            if known is not None and not known.talk.is_lost:
                return [known.unit]
            return [self._start(ticket, tag, known)]

    def look(self, units: Sequence[Unit]) -> Mapping[Unit, Seen]:
        """Return the states of units; for a unit of an earlier launcher, the host is asked."""
        found: dict[Unit, Seen] = {}
        for unit in units:
            started = self._get(unit)
            if started is None:
                found[unit] = self._asked(unit)
                continue
            if started.talk.give_up(self._clock()):
                started.pipe.close()
            found[unit] = started.talk.seen()
        return found

    def stop(self, units: Sequence[Unit], *, grace_s: float) -> None:
        """End units; see `base.Place`. Takes at most the time of grace and half a minute per unit."""
        waiting = []
        for unit in units:
            started = self._get(unit)
            if started is not None and started.talk.is_over:
                continue
            is_asked = started is not None and _ask_to_stop(started, grace_s)
            waiting.append((unit, started if is_asked else None))
        until = self._clock() + grace_s + _STOP_SPARE_S
        for unit, asked in waiting:
            if asked is not None:
                asked.talk.ended.wait(max(until - self._clock(), 0))
                if asked.talk.is_over:
                    asked.pipe.close()
                    continue
            self._run_agent_command(
                unit.tag, "--stop", f"{0 if asked else grace_s:g}", within_s=grace_s + _ASK_S
            )
            self._forget(unit)

    def renew(self, ticket: bytes) -> None:
        """Give a new ticket to the agent; see `base.Place`. Without a connection, its next start does."""
        with self._lock:
            all_started = list(self._started.values())
        for started in all_started:
            if not started.talk.is_lost and not started.talk.is_over:
                with contextlib.suppress(OSError):  # the connection was lost at this moment
                    started.pipe.write(b"ticket " + ticket.rstrip(b"\n") + b"\n")

    def find(self, tag: str) -> Sequence[Unit]:
        """Return the unit of a tag if it still exists, also one of an earlier launcher."""
        started = self._of_tag(tag)
        if started is not None and not started.talk.is_lost:
            return [started.unit]
        if not self._pids(tag):
            return []
        if started is not None:
            return [started.unit]
        return [Unit(tag, f"{tag}/found", self.name)]

    def dry_run(self, n: int) -> str:
        """Return the command that `start` would run; the search for Python is not done."""
        if n < 1:
            return ""
        python = self._python or candidates(self._host, self._settings)[0]
        command = agent_command(python, [self._run_key, "TAG"], self._host, self._settings)
        return self._door.shell_line(command)

    def close(self) -> None:
        """End the connection; the agent sees the end of its input and lives on."""
        with self._lock:
            all_started = list(self._started.values())
        for started in all_started:
            started.pipe.close()
        self._door.close()
        for started in all_started:
            started.reader.join(_CLOSE_S)

    def connect(self) -> None:
        """Log in and find Python, so that a start takes no time.

        Raises:
            PlaceRefusedError: another try is of no use until the user has changed something.
            PlaceBusyError: a later try may succeed.
        """
        self._door.connect()
        self.python()

    def hear_over(self, hear: HearOver) -> None:
        """Set a function to call when an agent started from now on has ended; it must not wait."""
        self._hear_over = hear

    def route(self) -> str | None:
        """Return the address of this machine as the host sees it; None if there is no direct route."""
        return self._door.route()

    def tunnel(self, port: int, address: str = "127.0.0.1") -> str:
        """Let the host reach a port of this machine; return `address:port` on the host's loopback."""
        return self._door.tunnel(port, address)

    def python(self) -> str:
        """Return the Python of the host that runs agents; it is looked for once.

        Raises:
            PlaceRefusedError: there is none with our package.
        """
        if not self._python:
            self._python = self._searched()
        return self._python

    def _searched(self) -> str:
        command = search_command(self._host, self._settings)
        done = self._door.run(command, search_script(self._host, self._settings))
        found = read_found(done.lines)
        best = usable(found)
        if best is not None:
            return best.path
        if not found:
            raise PlaceRefusedError(
                f"{self.name}: {failed_search(done, self._host, self._settings)}"
            )
        what = "; ".join(each.text for each in found)
        raise PlaceRefusedError(
            f"{self.name}: no Python there can run an agent: {what}. Install it there (`python3 -m pip "
            f"install resilient-scoop=={__version__}`, for Python {sys.version_info[0]}."
            f"{sys.version_info[1]}), or name another Python with python= in the hostfile or with --python"
        )

    def _start(self, ticket: bytes, tag: str, lost: _Started | None) -> Unit:
        if lost or self._has_failed():
            self._python = ""  # it may have moved; and a failed login is noticed here
        command = self._command(tag)
        pipe = self._door.open(command)
        try:
            pipe.write(ticket.rstrip(b"\n") + b"\n")
        except OSError as error:
            pipe.close()
            raise PlaceBusyError(
                f"{self.name}: the connection was lost at the start of the agent ({error})"
            ) from error
        talk = Conversation(
            self.name, start_s=self._start_s, now=self._clock(), hear_over=self._hear_over
        )
        unit = lost.unit if lost else Unit(tag, f"{tag}/{secrets.token_hex(4)}", self.name)
        reader = threading.Thread(target=_listen, args=(pipe, talk), daemon=True)
        with self._lock:
            self._started[unit.id] = _Started(unit, talk, pipe, reader)
            self._drop_ended()
        reader.start()
        return unit

    def _drop_ended(self) -> None:
        ended = [key for key, started in self._started.items() if started.talk.is_over]
        for key in ended[: max(len(ended) - ENDED_KEPT, 0)]:
            del self._started[key]

    def _has_failed(self) -> bool:
        with self._lock:
            talks = [started.talk for started in self._started.values()]
        return any(talk.seen().state is UnitState.NEVER_CAME for talk in talks)

    def _get(self, unit: Unit) -> _Started | None:
        with self._lock:
            return self._started.get(unit.id)

    def _of_tag(self, tag: str) -> _Started | None:
        with self._lock:
            units = [each for each in self._started.values() if each.unit.tag == tag]
        return next((each for each in units if not each.talk.is_over), None)

    def _forget(self, unit: Unit) -> None:
        """Close the connection of a unit that was stopped on the host."""
        started = self._get(unit)
        if started is not None:
            started.talk.ended.wait(_CLOSE_S)
            started.pipe.close()

    def _command(self, tag: str, *options: str) -> str:
        words = [self._run_key, tag, *options]
        return agent_command(self.python(), words, self._host, self._settings)

    def _run_agent_command(self, tag: str, *options: str, within_s: float = _ASK_S) -> Done:
        return self._door.run(self._command(tag, *options), within_s=within_s)

    def _pids(self, tag: str) -> list[int]:
        done = self._run_agent_command(tag, "--find")
        for line in done.lines:
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(line, type=_Pids).pids
        raise PlaceBusyError(
            f"{self.name}: it is not known which agents run there; the answer was: "
            f"{' '.join(done.output.split())[-200:] or 'nothing'}"
        )

    def _asked(self, unit: Unit) -> Seen:
        try:
            is_there = bool(self._pids(unit.tag))
        except PlaceError as error:
            return Seen(UnitState.UNKNOWN, str(error))
        return Seen(UnitState.RUNNING if is_there else UnitState.GONE)


def _ask_to_stop(started: _Started, grace_s: float) -> bool:
    """Ask a connected agent to end; return whether the request was sent."""
    if started.talk.is_lost or started.talk.is_over:
        return False
    try:
        started.pipe.write(f"stop {grace_s:g}\n".encode())
    except OSError:
        return False
    return True


def _listen(pipe: Pipe, talk: Conversation) -> None:
    """Read an agent's output to its end, in the thread of one start."""
    try:
        for line in pipe.lines():
            talk.line(line)
        talk.exited(pipe.status())
    except OSError as error:  # ConnectionLostError, or an error of the system for a pipe
        talk.lost(str(error))
    finally:
        talk.lost("what its agent says could not be read")  # has no effect if its end is known
        pipe.close()
