"""An SSH server in this process, made with paramiko, for tests that need no sshd.

It listens on a free port of the loopback, lets in one user with listed keys, and runs commands with a shell
of the test's choice. It forwards ports in both directions, and can misbehave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST

USER = "ann"


def make_key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


class FakeSshd:
    """The server; `home` is the home folder of its one user."""

    def __init__(
        self, home: Path, user_key: paramiko.PKey, *, shell: tuple[str, ...] = ("/bin/sh", "-c")
    ) -> None:
        self.home = home
        self.shell = shell
        self.host_key = make_key()
        self.more_host_keys: list[paramiko.PKey] = []
        self.user_keys = [user_key]
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": ""}
        self.before: Callable[[socket.socket], bool] = lambda _: True  # False: close the connection
        self.lets_forward = True
        self.runs_commands = True
        self.logins = 0
        self.most_at_once = 0
        self.commands: list[str] = []
        self._at_once = 0
        self._lock = threading.Lock()
        self._transports: list[paramiko.Transport] = []
        self._listeners: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._closing = False
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def known_line(self) -> str:
        name = self.host_key.get_name()
        return f"[127.0.0.1]:{self.port} {name} {self.host_key.get_base64()}\n"

    def _serve(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._take, args=(sock,), daemon=True).start()

    def _take(self, sock: socket.socket) -> None:
        if not self.before(sock):
            sock.close()
            return
        transport = _Transport(sock)
        for key in (self.host_key, *self.more_host_keys):
            transport.add_server_key(key)
        with self._lock:
            self._transports.append(transport)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=_Server(self, transport))

    def counted(self) -> contextlib.AbstractContextManager[None]:
        """Count a connection that is not authenticated yet."""
        return _counted(self)

    def cut(self) -> None:
        """End all connections at once; processes that they started continue."""
        with self._lock:
            transports, self._transports = self._transports, []
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for transport in transports:
            transport.close()

    def close(self) -> None:
        self._closing = True
        self._server.close()
        self.cut()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def run(self, channel: Any, command: str) -> None:
        self.commands.append(command)
        process = subprocess.Popen(
            [*self.shell, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self.home, env=self.environment, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._processes.append(process)
        threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True).start()
        outputs = [
            threading.Thread(target=_carry, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(
                target=_carry, args=(process.stderr, channel.sendall_stderr), daemon=True
            ),
        ]
        for output in outputs:
            output.start()
        status = process.wait()
        for output in outputs:
            output.join(5)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if status < 0:
                channel.close()
                return
            channel.send_exit_status(status)
            channel.shutdown_write()
            channel.close()

    def listen(self, transport: paramiko.Transport, address: str, port: int) -> int:
        try:
            listener = socket.create_server((address, port))
        except OSError:
            return 0
        self._listeners.append(listener)
        bound: int = listener.getsockname()[1]

        def serve() -> None:
            while transport.is_active():
                try:
                    sock, origin = listener.accept()
                except OSError:
                    return
                try:
                    channel = transport.open_forwarded_tcpip_channel(origin, (address, bound))
                except (paramiko.SSHException, EOFError, OSError):
                    sock.close()
                    continue
                _join(sock, channel)

        threading.Thread(target=serve, daemon=True).start()
        return bound


@contextlib.contextmanager
def _counted(server: FakeSshd) -> Iterator[None]:
    with server._lock:
        server._at_once += 1
        server.most_at_once = max(server.most_at_once, server._at_once)
    yield
    with server._lock:
        server._at_once -= 1


def _answer(channel: Any, message: Any) -> None:
    """Answer a request; only then start its command, which may end and close the channel at once."""
    paramiko.Channel._handle_request(channel, message)
    channel.transport.server_object.start(channel)


class _Transport(paramiko.Transport):  # type: ignore[misc]
    _channel_handler_table: ClassVar = {
        **paramiko.Transport._channel_handler_table, MSG_CHANNEL_REQUEST: _answer,
    }  # fmt: skip


class _Server(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, server: FakeSshd, transport: paramiko.Transport) -> None:
        self.server = server
        self.transport = transport
        self.accepted: str | None = None  # the command of the request that is being answered

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        with self.server.counted():
            if username == USER and any(key == known for known in self.server.user_keys):
                self.server.logins += 1
                return int(paramiko.AUTH_SUCCESSFUL)
        return int(paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        if not self.server.runs_commands:
            return False
        self.accepted = command.decode()
        return True

    def start(self, channel: Any) -> None:
        command, self.accepted = self.accepted, None
        if command is not None:
            threading.Thread(target=self.server.run, args=(channel, command), daemon=True).start()

    def check_port_forward_request(self, address: str, port: int) -> int | bool:
        return self.server.lets_forward and self.server.listen(self.transport, address, port)

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        try:
            sock = socket.create_connection(destination, timeout=5)
        except OSError:
            return int(paramiko.OPEN_FAILED_CONNECT_FAILED)

        def serve() -> None:
            channel = self.transport.accept(5)
            if channel is None:
                sock.close()
            else:
                _join(sock, channel)

        threading.Thread(target=serve, daemon=True).start()
        return int(paramiko.OPEN_SUCCEEDED)


def _feed(channel: Any, stdin: Any) -> None:
    """Carry a channel's input to a process until either ends."""
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(4096):
            stdin.write(data)
            stdin.flush()
    with contextlib.suppress(OSError):
        stdin.close()


def _carry(stream: Any, send: Callable[[bytes], Any]) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := os.read(stream.fileno(), 4096):
            send(data)
    stream.close()


def _join(sock: socket.socket, channel: Any) -> None:
    def inward() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := sock.recv(4096):
                channel.sendall(data)
        with contextlib.suppress(OSError, EOFError):
            channel.shutdown_write()

    def outward() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := channel.recv(4096):
                sock.sendall(data)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    sock.settimeout(None)
    for each in (inward, outward):
        threading.Thread(target=each, daemon=True).start()
