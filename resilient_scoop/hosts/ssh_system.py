"""A host over SSH, by the `ssh` program: for GSSAPI, smart cards, configurations that only OpenSSH reads.

Each command is a process `ssh` with a connection of its own, unless the user's configuration shares
one. `ssh` ends with 255 when it fails itself; its error message is translated into a sentence of
`ssh_failures`. A tunnel is one more process, whose command on the host waits for the end of its
input.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import paramiko

from resilient_scoop.adapters.retrying import patiently
from resilient_scoop.errors import PlaceBusyError, PlaceError, PlaceRefusedError
from resilient_scoop.hosts import greeting, ssh_failures
from resilient_scoop.hosts.addresses import addresses_of
from resilient_scoop.hosts.child import ChildPipe
from resilient_scoop.hosts.door import RUN_S, ConnectionLostError, Done, Pipe, run_on
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.ssh_config import PORT, Target
from resilient_scoop.hosts.ssh_login import (
    KEEPALIVE_S,
    TRIES,
    WAIT_MAX_S,
    LoginSettings,
    Patience,
    load_key,
    logins,
)

_OWN_FAILURE: Final = 255
_TAIL_LINES: Final = 40
_LOOK_UP_S: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"
_READY: Final = "rscoop-tunnel"
_TUNNEL_COMMAND: Final = f"exec sh -c 'echo {_READY}; exec cat'"
_BEFORE_KEYS: Final = "kex_exchange_identification|timed out during banner exchange"
"""What `ssh` names if the server has not begun as an SSH server does."""
_OPTIONS: Final = (
    "-T", "-o", "BatchMode=yes", "-o", f"ServerAliveInterval={KEEPALIVE_S}",
    "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=no", "-o", "ForwardAgent=no",
    "-o", "ForwardX11=no", "-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none",
)  # fmt: skip


class SystemPipe(ChildPipe):
    """A command that `ssh` runs on a host."""

    def __init__(self, words: list[str], to: Target, connect_s: float) -> None:
        """Start it; raises OSError if there is no such program."""
        super().__init__(words)
        self.to = to
        self._connect_s = connect_s
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._failure: PlaceError | None = None

    def lines(self) -> Iterator[str]:
        """Yield lines of output; the last ones are kept, for a failure of `ssh` itself."""
        for line in super().lines():
            self._tail.append(line)
            yield line

    def status(self) -> int | None:
        """Wait for the command's exit status."""
        status = super().status()
        if status is not None and status != _OWN_FAILURE and status >= 0:
            return status
        raise ConnectionLostError(str(self.failure()))

    def failure(self) -> PlaceError:
        """Return the error message of `ssh`."""
        if self._failure is None:
            self._failure = self._judged()
        return self._failure

    def _judged(self) -> PlaceError:
        text = "\n".join(self._tail)
        failure = failure_of(text, self.to, self._connect_s)
        if re.search(_BEFORE_KEYS, text) and not (self.to.jumps or self.to.proxy_command):
            return (
                greeting.asked(self.to, self._connect_s) or failure
            )  # `ssh` does not show what the server said
        return failure

    def close(self) -> None:
        """End `ssh`; the command on the host sees the end of its input."""
        super().close()
        self.kill()


class SystemDoor:
    """Commands on a host by the `ssh` program."""

    kind = "ssh-system"

    def __init__(
        self, host: Host, config_file: str, settings: LoginSettings, program: str = "ssh"
    ) -> None:
        self._host = host
        self._settings = settings
        self._program = program
        self._words = _words(host, config_file, settings)
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._accept_new = settings.accept_new_host_keys
        self._tunnel: SystemPipe | None = None
        self._tunnel_to = ("", 0)
        self._port = 0

    def connect(self) -> None:
        """Read the configuration; each command logs in for itself."""
        self._to()

    def open(self, command: str) -> Pipe:
        """Start a command; a login that fails is reported as a lost connection."""
        return self._ssh(command)

    def _ssh(self, command: str, *options: str) -> SystemPipe:
        to = self._to()
        checking = "accept-new" if self._accept_new else "yes"
        words = [
            self._program, *_OPTIONS, *self._words, "-o", f"StrictHostKeyChecking={checking}",
            *options, "--", self._host.alias, command,
        ]  # fmt: skip
        try:
            return SystemPipe(words, to, self._settings.connect_s)
        except OSError as error:
            raise self._no_program(error) from error

    def _no_program(self, error: OSError) -> PlaceRefusedError:
        return PlaceRefusedError(
            f"{self._host.name}: the program {self._program} cannot be started ({error.strerror}); install "
            "OpenSSH's client here, or do without it: --ssh paramiko"
        )

    def run(self, command: str, text: str = "", *, within_s: float = RUN_S) -> Done:
        """Run a short command; a login that sshd cuts off is tried again."""

        def once() -> Done:
            with logins:
                return self._run(command, text, within_s)

        return patiently(once, Patience(), tries=TRIES, wait_max_s=WAIT_MAX_S)

    def _run(self, command: str, text: str, within_s: float) -> Done:
        pipe = self._ssh(command)
        try:
            return run_on(pipe, text, within_s)
        except TimeoutError as error:
            raise ssh_failures.no_reply(pipe.to, within_s) from error
        except OSError as error:
            raise pipe.failure() from error

    def route(self) -> str | None:
        """Return our address on the way to the host, by the kernel's routes; None behind a jump host."""
        to = self._to()
        if to.jumps or to.proxy_command:
            return None
        try:
            found = addresses_of(to.hostname, to.port, within_s=self._settings.connect_s)
            family, _, _, _, address = found[0]
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(address)  # sends nothing
                return str(sock.getsockname()[0]).partition("%")[0]
        except OSError:
            return None

    def tunnel(self, port: int, address: str = _LOOPBACK) -> str:
        """Forward a port of the host's loopback to `address`:`port` here."""
        with self._lock:
            if (
                self._tunnel is None
                or not self._tunnel.is_running
                or self._tunnel_to != (address, port)
            ):
                self._close_tunnel()
                self._open_tunnel(address, port)
            return f"{_LOOPBACK}:{self._port}"

    def _open_tunnel(self, address: str, port: int) -> None:
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        failure: PlaceError | None = None
        for wanted in dict.fromkeys([self._port, 0]):
            pipe = self._ssh(
                _TUNNEL_COMMAND, "-o", "ExitOnForwardFailure=yes",
                "-R", f"{_LOOPBACK}:{wanted}:{target}",
            )  # fmt: skip
            found = _forwarded(pipe, wanted, RUN_S)
            if found:
                self._tunnel, self._tunnel_to, self._port = pipe, (address, port), found
                return
            failure = pipe.failure()
            pipe.close()
        raise failure or ssh_failures.no_tunnel(self._to())

    def _close_tunnel(self) -> None:
        if self._tunnel is not None:
            self._tunnel.close()
        self._tunnel = None

    def shell_line(self, command: str) -> str:
        """Return a command line that a user could type."""
        quoted = command.replace("'", "'\\''")
        return " ".join(["ssh", *self._words, self._host.alias, f"'{quoted}'"])

    def close(self) -> None:
        """End the tunnel; other processes are ended with their pipes."""
        with self._lock:
            self._close_tunnel()

    def _to(self) -> Target:
        """Return OpenSSH's configuration for the host, as `ssh -G` prints it."""
        if self._target is None:  # two threads may look it up at once, and find the same
            self._target = self._looked_up()
        return self._target

    def _looked_up(self) -> Target:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own configuration
                [self._program, "-G", *self._words, "--", self._host.alias], capture_output=True,
                encoding="utf-8", errors="replace", timeout=_LOOK_UP_S, check=False,
            )  # fmt: skip
        except OSError as error:
            raise self._no_program(error) from error
        except subprocess.TimeoutExpired as error:
            raise PlaceBusyError(
                f"{self._host.name}: `ssh -G` does not end; a `Match exec` in ~/.ssh/config hangs"
            ) from error
        if done.returncode:
            raise PlaceRefusedError(
                f"{self._host.name}: OpenSSH does not accept its configuration: "
                f"{' '.join(done.stderr.split())[-300:]}; correct it"
            )
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key.lower(), []).append(value)
        if found.get("stricthostkeychecking") == ["accept-new"]:
            self._accept_new = True
        return _target(self._host, found)


def _words(host: Host, config_file: str, settings: LoginSettings) -> list[str]:
    words = ["-F", config_file] if config_file else []
    words += ["-o", f"ConnectTimeout={max(round(settings.connect_s), 1)}"]
    words += ["-o", f"HostName={host.address}"] if host.address else []
    words += ["-l", host.user] if host.user else []
    words += ["-p", str(host.port)] if host.port is not None else []
    return words


def _target(host: Host, found: dict[str, list[str]]) -> Target:
    def one(key: str, default: str = "") -> str:
        return found.get(key, [default])[0]

    hostname, port = one("hostname", host.target), int(one("port", str(PORT)))
    jumps = one("proxyjump", "none")
    command = one("proxycommand", "none")
    return Target(
        name=host.name,
        hostname=hostname,
        port=port,
        user=one("user", host.user or "?"),
        key_name=one("hostkeyalias") or (hostname if port == PORT else f"[{hostname}]:{port}"),
        identity_files=tuple(
            str(Path(name).expanduser()) for name in found.get("identityfile", [])
        ),
        identities_only=one("identitiesonly") == "yes",
        agent=one("identityagent"),
        jumps=() if jumps == "none" else tuple(jumps.split(",")),
        proxy_command="" if command == "none" else command,
        known_hosts=tuple(one("userknownhostsfile").split()),
        accept_new=one("stricthostkeychecking") == "accept-new",
    )


def _forwarded(pipe: SystemPipe, wanted: int, within_s: float) -> int:
    """Return the forwarded port when the tunnel is ready; 0 if it fails."""
    timer = threading.Timer(within_s, pipe.kill)
    timer.daemon = True
    timer.start()
    port = wanted
    lines = pipe.lines()
    try:
        for line in lines:
            match = re.search(r"Allocated port (\d+) for remote forward", line)
            port = int(match[1]) if match else port
            if _READY in line:
                threading.Thread(target=_drain, args=(lines,), daemon=True).start()
                return port
    finally:
        timer.cancel()
    return 0


def _drain(lines: Iterator[str]) -> None:
    for _ in lines:
        pass


def failure_of(text: str, to: Target, connect_s: float) -> PlaceError:
    """Translate the message that `ssh` wrote before it ended with 255."""
    for pattern, make in _FAILURES:
        match = re.search(pattern, text)
        if match:
            return make(to, text, connect_s)
    last = next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message"
    )
    return ssh_failures.connection_broke(to, last)


def _changed(to: Target, text: str, _: float) -> PlaceError:
    key = re.search(
        r"fingerprint for the (\S+) key sent by the remote host is\s+(SHA256:\S+?)\.?\s", text
    )
    where = re.search(r"Offending (?:\S+ )?key in (.+):(\d+)", text)
    return ssh_failures.changed_key(
        to,
        f"{key[1]} {key[2]}" if key else "another one",
        "",
        f"{where[1]} line {where[2]}" if where else "",
    )


def _unknown(to: Target, text: str, _: float) -> PlaceError:
    kind = re.search(r"No (\S+) host key is known", text)
    return ssh_failures.unknown_key(to, kind[1] if kind else "no fingerprint was shown")


def _denied(to: Target, text: str, _: float) -> PlaceError:
    accepted = re.search(r"Permission denied \(([^)]*)\)", text)
    tried = f"it accepts {accepted[1]}" if accepted else "Permission denied"
    return ssh_failures.login_refused(to, tried, _locked(to))


def _locked(to: Target) -> str:
    for name in to.identity_files:
        if Path(name).is_file():
            try:
                load_key(Path(name))
            except paramiko.PasswordRequiredException:
                return name
            except (paramiko.SSHException, OSError, ValueError, TypeError):
                continue
    return ""


def _first(pattern: str, text: str) -> str:
    return next((line.strip() for line in text.splitlines() if re.search(pattern, line)), "")


_FAILURES: Final = (
    (
        r"REVOKED HOST KEY DETECTED",
        lambda to, _, __: ssh_failures.revoked_key(to, "a key", "known hosts"),
    ),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", _changed),
    (r"host key is known for|Host key verification failed", _unknown),
    (r"remote port forwarding failed", lambda to, _, __: ssh_failures.no_tunnel(to)),
    (
        r"open failed:|stdio forwarding failed",
        lambda to, text, _: ssh_failures.jump_failed(
            to, "the jump host", _first(r"open failed:|stdio forwarding failed", text)
        ),
    ),
    (
        r"Temporary failure in name resolution",
        lambda to, _, __: ssh_failures.unknown_name(to, is_lasting=False),
    ),
    (
        r"Could not resolve hostname",
        lambda to, _, __: ssh_failures.unknown_name(to, is_lasting=True),
    ),
    (r"Permission denied \(|Too many authentication failures", _denied),
    (
        r"no matching .* found",
        lambda to, text, _: ssh_failures.no_agreement(to, _first("no matching", text)),
    ),
    (r"Connection refused", lambda to, _, __: ssh_failures.nothing_listens(to)),
    (
        r"timed out during banner exchange",
        lambda to, _, seconds: ssh_failures.says_nothing(to, seconds),
    ),
    (r"timed out", lambda to, _, seconds: ssh_failures.no_answer(to, seconds)),
    (
        r"No route to host|is unreachable",
        lambda to, text, _: ssh_failures.no_route(to, _first("No route|unreachable", text)),
    ),
    (
        rf"{_BEFORE_KEYS}|Connection (?:closed|reset) by|banner exchange",
        lambda to, _, __: ssh_failures.closed_at_login(to),
    ),
    (
        r"Bad owner or permissions|Bad configuration option|Can't open user config|UNPROTECTED",
        lambda to, text, _: PlaceRefusedError(
            f"{to.name}: OpenSSH does not accept its files: "
            f"{_first('Bad|open user config|UNPROTECTED', text)}; correct them"
        ),
    ),
)
"""What `ssh` writes, and the sentence for it; the first that fits is used."""
