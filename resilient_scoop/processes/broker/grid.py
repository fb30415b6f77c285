"""The broker's code for other hosts: its door, requests of users, and files for views."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from resilient_scoop.core.events import DrainHost, JoinHost, RevokeHost
from resilient_scoop.processes.broker.door import RemoteDoor
from resilient_scoop.runs import asked
from resilient_scoop.runs.hosts import (
    LIVE_FILE,
    OUT_FILE,
    LiveHost,
    LiveHostsFile,
    read_hosts,
    read_live_hosts,
    read_out,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.broker.exchange import Exchange
    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.transport.sockets import RouterSocket

_DRAINED, _REVOKED = "drained", "revoked"
_GOODBYE_S: Final = 0.2
_WRITE_S: Final = 1.0
_PRUNE_S: Final = 10.0


def expected(live: LiveHostsFile | None) -> list[str]:
    """Return the hosts whose workers hold items of the last broker: they will soon connect.

    A broker that ended normally has told its hosts to end, and has removed the file.
    """
    hosts = {} if live is None else live.hosts
    return sorted(name for name, host in hosts.items() if host.state in ("up", "draining"))


class Grid:
    """The other hosts, as the broker's shell sees them."""

    def __init__(
        self, settings: ChildSettings, exchange: Exchange, socket: RouterSocket,
        tell_user: Callable[[str], None], wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._run_dir = Path(settings.run_dir)
        self._exchange = exchange
        self.door = RemoteDoor(settings, socket, tell_user, wake, self._joined)
        self._written_at = self._pruned_at = 0.0
        self._arrivals = 0  # that are written down
        self.renewals = 0
        self._out = read_out(self._run_dir)
        for host, how in self._out.items():
            exchange.add(RevokeHost(host) if how == _REVOKED else DrainHost(host))
        exchange.broker.membership.expect(expected(read_live_hosts(self._run_dir)))

    def receive(self, now: float) -> None:
        """Handle messages that have arrived."""
        for peer, frames, host in self.door.receive():
            self._exchange.receive(peer, frames, now, host)
        self.door.pass_files()

    def after_turn(self, now: float) -> None:
        """Carry out what the machine has decided, and keep the views up to date."""
        if self._exchange.cuts:
            cuts, self._exchange.cuts = self._exchange.cuts, []
            for cut in cuts:
                self.door.shut_out(cut.host, cut.why)
                self._set_out({**self._out, cut.host: _REVOKED})
        arrivals = self._exchange.broker.hosts.arrivals
        if now - self._written_at >= _WRITE_S or arrivals != self._arrivals:
            # The next broker waits for the hosts in this file.
            self._written_at, self._arrivals = now, arrivals
            self._write_live(now)
        if now - self._pruned_at >= _PRUNE_S:
            self._pruned_at = now
            self.door.prune(self._exchange.links)

    def states(self) -> dict[str, str]:
        """Return the state of each host, for the launcher."""
        hosts = self._exchange.broker.hosts.by_name
        return {name: host.state.value for name, host in hosts.items()}

    def answer(self, request: asked.Request) -> asked.Answer:
        """Carry out a request of a user."""
        known = self._exchange.broker.hosts.by_name.keys() | set(self.door.ring.hosts.values())
        if isinstance(request, asked.Drain | asked.Revoke) and request.host not in known:
            names = ", ".join(sorted(known)) or "none"
            return asked.Answer(refused=f"it has no host {request.host!r}; its hosts: {names}")
        match request:
            case asked.Listen():
                return asked.Answer()
            case asked.Drain(host=host, deadline_s=deadline_s):
                self._set_out({**self._out, host: _DRAINED})
                self._exchange.add(DrainHost(host, deadline_s))
                return asked.Answer(f"host {host} gets no more work, and leaves when it is done")
            case asked.Revoke(host=host):
                self.door.shut_out(host, "it was revoked")
                self._exchange.add(RevokeHost(host, "it was revoked (rscoop revoke)"))
                return asked.Answer(f"host {host} is cut off")
            case asked.Rekey():
                return asked.Answer(self._rekey())
            case _:
                assert_never(request)

    def _rekey(self) -> str:
        """Renew the keys; return the message for the user. Hosts that no place starts are told to end."""
        places = read_hosts(self._run_dir)
        started = set() if places is None else {each.name for each in places.hosts}
        invited = sorted(set(self.door.ring.hosts.values()) - started)
        for host in invited:
            self.door.say_goodbye(
                host,
                "the keys of the run were renewed. To take part again: rscoop invite, rscoop join",
            )
        if invited:
            time.sleep(_GOODBYE_S)  # so that it is sent before they are cut off
        self.door.rekey()
        self.renewals += 1
        again = f"; to be invited again: {', '.join(invited)}" if invited else ""
        return f"the keys are new; all hosts were cut off{again}"

    def _joined(self, host: str) -> None:
        """Handle the enrolment of a host."""
        self._set_out({name: how for name, how in self._out.items() if name != host})
        self._exchange.add(JoinHost(host))

    def _set_out(self, out: dict[str, str]) -> None:
        """Write which hosts must not be used: a new broker, and a resume, need this."""
        if out != self._out:
            self._out = out
            with suppress(OSError):  # a full disk: they will not know it
                self._replace(OUT_FILE, msgspec.json.encode(out))

    def _write_live(self, now: float) -> None:
        at = time.time()  # noqa: TID251 - a label for display
        hosts = {
            each.name: LiveHost(
                workers=each.workers, busy=each.busy, done=each.done, lost_items=each.lost,
                rtt_ms=each.rtt_s * 1000 or None, heard_s=each.heard_s, state=each.state,
                why=each.why, rate=each.rate, slack_s=each.slack_s, at_risk_s=each.at_risk_s,
            )
            for each in self._exchange.broker.hosts.statuses(now)
        }  # fmt: skip
        with suppress(OSError):  # a full disk: the views show the former state
            self._replace(LIVE_FILE, msgspec.json.encode(LiveHostsFile(at, hosts)))

    def close(self) -> None:
        """Close the door, after all hosts were told to end."""
        (self._run_dir / LIVE_FILE).unlink(missing_ok=True)
        self.door.close()

    def _replace(self, name: str, content: bytes) -> None:
        draft = self._run_dir / f"{name}.{os.getpid()}.tmp"
        draft.write_bytes(content)
        draft.rename(self._run_dir / name)
