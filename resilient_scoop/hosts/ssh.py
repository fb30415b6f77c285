"""A host over SSH, by paramiko: commands, the route, reverse forwarding.

One connection serves a host: each command is a channel of it. It is made when it is first needed, and again
when it was lost.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import paramiko

from resilient_scoop.errors import PlaceBusyError
from resilient_scoop.hosts import ssh_failures
from resilient_scoop.hosts.door import (
    RUN_S,
    ConnectionLostError,
    Done,
    Pipe,
    lines_of,
    run_on,
)
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.ssh_config import SshConfig
from resilient_scoop.hosts.ssh_login import Login, LoginSettings, log_in, within

_CHUNK: Final = 32 * 1024
_REQUEST_S: Final = 15.0
_LOOK_S: Final = 1.0
_CLOSE_S: Final = 1.0
TUNNELED_MAX: Final = 64
"""Connections through one tunnel at once; an agent has one, and a few more while it reconnects."""
_LOOPBACK: Final = "127.0.0.1"
_UNKNOWN_STATUS: Final = -1


_BROKEN: Final = (paramiko.SSHException, EOFError, OSError)
"""What paramiko raises when a connection breaks. Reading sends, too: it makes room for more output."""


class ChannelPipe:
    """A command in a channel of an SSH connection; a broken connection raises ConnectionLostError."""

    def __init__(self, channel: Any, transport: paramiko.Transport, who: str) -> None:
        self._channel = channel
        self._transport = transport
        self._who = who
        self._is_closed = False

    def write(self, data: bytes) -> None:
        """Write to standard input."""
        try:
            self._channel.sendall(data)
        except _BROKEN as error:
            raise self._lost(error) from error

    def end_input(self) -> None:
        """Close standard input."""
        with contextlib.suppress(*_BROKEN):
            self._channel.shutdown_write()

    def lines(self) -> Iterator[str]:
        """Yield lines of standard output and standard error, until both have ended."""
        return lines_of(self._chunk)

    def _chunk(self) -> bytes:
        while True:
            try:
                return bytes(self._channel.recv(_CHUNK))
            except TimeoutError:
                if not self._transport.is_active():
                    return b""
            except _BROKEN as error:
                raise self._lost(error) from error

    def status(self) -> int | None:
        """Wait for the exit status; None is a signal, which paramiko does not name."""
        while not self._channel.status_event.wait(_LOOK_S):
            if not self._transport.is_active():
                break
        status = int(self._channel.exit_status)
        if status != _UNKNOWN_STATUS:
            return status
        if self._is_closed:
            raise self._lost(None)
        # Channels are notified of a lost connection before the connection itself reports it.
        self._transport.join(_LOOK_S)
        if self._transport.is_alive() and self._transport.is_active():
            return None
        raise self._lost(self._transport.get_exception())

    def _lost(self, error: BaseException | None) -> ConnectionLostError:
        if self._is_closed:
            return ConnectionLostError("the connection was closed here")
        reason = str(error or "").strip()
        return ConnectionLostError(
            f"the connection to {self._who} was lost{reason and f': {reason}'}"
        )

    def close(self) -> None:
        """Close the channel; the command sees the end of its input."""
        self._is_closed = True
        _close(self._channel)

    def kill(self) -> None:
        """Close the channel; SSH has no way to end a command that ignores the end of its input."""
        self.close()


class SshDoor:
    """Commands on a host over SSH."""

    kind = "ssh"

    def __init__(self, host: Host, config: SshConfig, settings: LoginSettings) -> None:
        self._to = config.target(host)
        self._config = config
        self._settings = settings
        self._lock = threading.Lock()  # one login, and one request without a channel, at a time
        self._login: Login | None = None
        self._is_closed = False
        self._tunnel: _Tunnel | None = None
        self._port = 0  # that of the last tunnel, asked for again

    def connect(self) -> None:
        """Log in, unless there is a connection."""
        self._connected()

    def _connected(self) -> Login:
        with self._lock:
            login = self._login
            if login is not None and login.is_alive:
                return login
            if login is not None:
                login.close()
            self._login = self._tunnel = None
            new = log_in(self._to, self._config, self._settings, self._go_ahead)
            if self._is_closed:  # another thread has logged in meanwhile
                new.close()
                self._go_ahead()
            self._login = new
            return new

    def _go_ahead(self) -> None:
        if self._is_closed:
            raise PlaceBusyError(f"{self._to.name}: the connection was closed here")

    def open(self, command: str) -> Pipe:
        """Start a command."""
        transport = self._connected().transport
        channel = self._session(transport)
        try:
            with within(transport, _REQUEST_S):
                channel.settimeout(self._settings.connect_s)
                channel.set_combine_stderr(True)
                channel.exec_command(command)
        except _BROKEN as error:
            if transport.is_active():
                raise ssh_failures.no_commands(self._to, str(error)) from error
            raise ssh_failures.connection_broke(self._to, str(error) or "no answer") from error
        return ChannelPipe(channel, transport, self._to.who)

    def _session(self, transport: paramiko.Transport) -> Any:
        try:
            with within(transport, _REQUEST_S):
                return transport.open_session(timeout=self._settings.connect_s)
        except paramiko.ChannelException as error:
            raise PlaceBusyError(
                f"{self._to.name}: sshd on {self._to.hostname} opens no further session ({error.text}); "
                "raise MaxSessions in its sshd_config"
            ) from error
        except _BROKEN as error:
            if transport.is_active():  # the host is asleep or cut off, and TCP has not noticed yet
                transport.close()
                raise ssh_failures.no_answer(self._to, self._settings.connect_s) from error
            raise ssh_failures.connection_broke(self._to, str(error) or "no answer") from error

    def run(self, command: str, text: str = "", *, within_s: float = RUN_S) -> Done:
        """Run a short command; its time and its output are limited."""
        try:
            return run_on(self.open(command), text, within_s)
        except TimeoutError as error:
            raise ssh_failures.no_reply(self._to, within_s) from error
        except OSError as error:
            raise ssh_failures.connection_broke(self._to, str(error)) from error

    def route(self) -> str | None:
        """Return our address on the way to the host; None behind a jump host or a proxy command."""
        login = self._connected()
        if not login.is_direct:
            return None
        try:
            address: str = login.transport.sock.getsockname()[0]
        except OSError:
            return None
        return address.partition("%")[0].removeprefix("::ffff:")

    def tunnel(self, port: int, address: str = _LOOPBACK) -> str:
        """Forward a port of the host's loopback to `address`:`port` here."""
        transport = self._connected().transport
        with self._lock:
            tunnel = self._tunnel
            if tunnel is None or tunnel.target != (address, port):
                tunnel = _Tunnel((address, port))
                wanted, self._port = self._port, 0
                self._port = self._forwarded(transport, tunnel, wanted)
                self._tunnel = tunnel
        return f"{_LOOPBACK}:{self._port}"

    def _forwarded(self, transport: paramiko.Transport, tunnel: _Tunnel, wanted: int) -> int:
        for port in dict.fromkeys([wanted, 0]):
            try:
                with within(transport, _REQUEST_S):
                    return int(transport.request_port_forward(_LOOPBACK, port, tunnel.accept))
            except _BROKEN as error:
                if not transport.is_active():
                    raise ssh_failures.connection_broke(self._to, str(error)) from error
        raise ssh_failures.no_tunnel(self._to)

    def shell_line(self, command: str) -> str:
        """Return a command line that a user could type."""
        quoted = command.replace("'", "'\\''")
        return f"ssh {self._to.typed} '{quoted}'"

    def close(self) -> None:
        """End the connection; a login in progress ends itself after its present step."""
        self._is_closed = True
        if not self._lock.acquire(timeout=_CLOSE_S):
            return
        try:
            if self._login is not None:
                self._login.close()
            self._login = self._tunnel = None
        finally:
            self._lock.release()


class _Tunnel:
    """Connections that arrive from the host, each carried to one address here by two threads."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._free = threading.BoundedSemaphore(TUNNELED_MAX)

    def accept(self, channel: Any, _origin: Any, _server: Any) -> None:
        """Take a connection; called by paramiko's thread, which must not wait."""
        threading.Thread(target=self._take, args=(channel,), daemon=True).start()

    def _take(self, channel: Any) -> None:
        if not self._free.acquire(blocking=False):
            _close(channel)
            return
        try:
            self._carry(channel)
        finally:
            self._free.release()

    def _carry(self, channel: Any) -> None:
        try:
            sock = socket.create_connection(self.target, timeout=_REQUEST_S)
        except OSError:
            _close(channel)
            return
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_copy_in, args=(sock, channel), daemon=True)
        back.start()
        _copy_out(channel, sock)
        back.join()
        sock.close()
        _close(channel)


def _close(channel: Any) -> None:
    with contextlib.suppress(*_BROKEN):
        channel.close()


def _copy_out(channel: Any, sock: socket.socket) -> None:
    """Carry bytes from the host to here; pass on the end."""
    with contextlib.suppress(*_BROKEN):
        while data := channel.recv(_CHUNK):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(
            socket.SHUT_WR if channel.eof_received and not channel.closed else socket.SHUT_RDWR
        )


def _copy_in(sock: socket.socket, channel: Any) -> None:
    """Carry bytes from here to the host; pass on the end."""
    with contextlib.suppress(*_BROKEN):
        while data := sock.recv(_CHUNK):
            channel.sendall(data)
    with contextlib.suppress(*_BROKEN):
        channel.shutdown_write()
