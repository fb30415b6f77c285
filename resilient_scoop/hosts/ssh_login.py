"""Logging in with paramiko: an authenticated connection to a `Target`, or the reason why it fails.

The order is that of OpenSSH: connect (through jump hosts or a proxy command), compare the host key with the
files of known hosts, and only then offer keys: those of an agent and of files. Nothing is sent to a host
whose key is not known.

At most `LOGINS_MAX` logins happen at once in the process: sshd refuses more than 10 that are not yet
authenticated (MaxStartups), with a chance that grows, and a jump host meets all of them.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import paramiko

from resilient_scoop.adapters.retrying import patiently
from resilient_scoop.errors import PlaceBusyError, PlaceError, SilentServerError
from resilient_scoop.hosts import greeting, known_hosts, ssh_failures
from resilient_scoop.hosts.addresses import addresses_of
from resilient_scoop.hosts.greeting import Greeting
from resilient_scoop.hosts.known_hosts import KnownHosts, Verdict
from resilient_scoop.hosts.ssh_config import SshConfig, Target

LOGINS_MAX: Final = 8
TRIES: Final = 5
SILENT_TRIES: Final = 3
"""Tries at a server that closes the connection without a word, and may be no SSH server."""
KEEPALIVE_S: Final = 5
DEAD_AFTER_S: Final = 15
"""TCP_USER_TIMEOUT: bytes unacknowledged for this long end the connection; a keepalive does not."""
WAIT_MAX_S: Final = 4.0
_JUMPS_MAX: Final = 8
_SAID_BYTES: Final = 300
_ENDS_S: Final = 0.5
_OPENSSH_KEY: Final = b"openssh-key-v1\0"
_PEM_PART: Final = 2
_FAMILIES: Final = {
    "any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6,
}  # fmt: skip
_KEY_TYPES: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Algorithms that are agreed on, for a type of key; for other types the two have one name."""

logins = threading.BoundedSemaphore(LOGINS_MAX)
"""Held during a login; the `ssh` program's logins count too."""
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it would write to standard error


class LoginSettings(msgspec.Struct, frozen=True):
    """How to log in, for all hosts."""

    accept_new_host_keys: bool = False
    connect_s: float = 10.0  # limit for TCP, the banner, and each step of the login


class Login:
    """An authenticated connection, and the connections on which it depends."""

    def __init__(
        self, transport: paramiko.Transport, *, is_direct: bool, below: contextlib.ExitStack
    ) -> None:
        self.transport = transport
        self.is_direct = is_direct
        self._below = below

    @property
    def is_alive(self) -> bool:
        """Whether the connection exists, as far as is known."""
        return bool(self.transport.is_active())

    def close(self) -> None:
        """End the connection, and those to jump hosts."""
        self._below.close()


def log_in(
    to: Target, config: SshConfig, settings: LoginSettings, go_ahead: Callable[[], None]
) -> Login:
    """Log in at a host; a login that sshd cuts off is tried again, with growing waits.

    `go_ahead` is called before each try, and raises PlaceError if the login is not wanted any more.

    Raises:
        PlaceRefusedError: another try is of no use until the user has changed something.
        PlaceBusyError: a later try may succeed.
    """

    def once() -> Login:
        with logins:
            go_ahead()
            return _through(to, config, settings, depth=0)

    return patiently(once, Patience(), tries=TRIES, wait_max_s=WAIT_MAX_S)


class Patience:
    """Whether a login may succeed if it is tried again within seconds."""

    def __init__(self) -> None:
        self._silent = 0

    def __call__(self, error: BaseException) -> bool:
        """Judge the failure of one try."""
        if isinstance(error, SilentServerError):
            self._silent += 1
            if self._silent >= SILENT_TRIES:
                return False
        return isinstance(error, PlaceBusyError) and error.retry_after_s is not None


def _through(to: Target, config: SshConfig, settings: LoginSettings, depth: int) -> Login:
    """Log in through the jump hosts of a target; each of them may have its own jump hosts."""
    with contextlib.ExitStack() as stack:
        sock: Any
        proxy: _Proxy | None = None
        if to.jumps and not to.proxy_command:
            if depth == _JUMPS_MAX:
                raise ssh_failures.jump_failed(to, "ProxyJump", f"more than {_JUMPS_MAX} jumps")
            sock = _jumped(to, config, settings, stack, depth)
        elif to.proxy_command:
            proxy = _Proxy(to, stack)
            sock = proxy.sock
        else:
            sock = _dial(to, settings.connect_s)
        try:
            transport = _logged_in(sock, to, settings)
        except PlaceBusyError as error:
            if proxy is not None and (reason := proxy.failure()):
                raise ssh_failures.jump_failed(to, "ProxyCommand", reason) from error
            raise
        stack.callback(transport.close)
        is_direct = not (to.jumps or to.proxy_command)
        return Login(transport, is_direct=is_direct, below=stack.pop_all())


def _jumped(
    to: Target, config: SshConfig, settings: LoginSettings, stack: contextlib.ExitStack, depth: int
) -> Any:
    *before, last = to.jumps
    hop = msgspec.structs.replace(config.jump(last))
    if before:
        hop = msgspec.structs.replace(hop, jumps=tuple(before))
    login = _through(hop, config, settings, depth + 1)
    stack.callback(login.close)
    try:
        channel = login.transport.open_channel(
            "direct-tcpip", (to.hostname, to.port), ("127.0.0.1", 0), timeout=settings.connect_s
        )
        return _QuietChannel(channel)
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise ssh_failures.jump_failed(to, f"the jump host {last}", str(error)) from error


class _QuietChannel:
    """A channel of a jump host, as the socket of a connection.

    paramiko's thread closes it at its end, and would die with a traceback if the jump host has
    vanished.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        """Close the channel, if it is still open."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()


class _Proxy:
    """A proxy command on one end of a pair of sockets; the other is `sock`."""

    def __init__(self, to: Target, stack: contextlib.ExitStack) -> None:
        self.sock, theirs = socket.socketpair()
        self._said = b""  # the last of what it wrote to standard error
        try:
            with theirs:
                end = theirs.fileno()
                command = f"exec {to.proxy_command}"
                self._process = subprocess.Popen(  # noqa: S603 - the user's own configuration
                    ["/bin/sh", "-c", command], stdin=end, stdout=end, stderr=subprocess.PIPE,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self.sock.close()
            raise ssh_failures.jump_failed(to, "ProxyCommand", str(error)) from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        stack.callback(self._end)

    def _read(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None, "it is a pipe"
        with stderr, contextlib.suppress(OSError):
            while data := os.read(stderr.fileno(), _SAID_BYTES):
                self._said = (self._said + data)[-_SAID_BYTES:]

    def failure(self) -> str:
        """Return how it failed; empty if it did not."""
        try:
            code = self._process.wait(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            return ""
        self._reader.join(_ENDS_S)
        ended = f"exit status {code}" if code >= 0 else f"signal {-code}"
        said = " ".join(self._said.decode(errors="replace").split())
        return f"it ended with {ended}{said and f' ({said})'}" if code else ""

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _dial(to: Target, within_s: float) -> socket.socket:
    """Connect by TCP; each address of the name is tried, IPv6 and IPv4."""
    try:
        found = addresses_of(to.hostname, to.port, _FAMILIES[to.family], within_s=within_s)
    except (OSError, UnicodeError) as error:
        is_passing = isinstance(error, TimeoutError) or (
            isinstance(error, OSError) and error.errno == socket.EAI_AGAIN
        )
        raise ssh_failures.unknown_name(to, is_lasting=not is_passing) from error
    failures: list[OSError] = []
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(within_s)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failures.append(error)
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_S * 1000)
        return sock
    raise _unreached(to, failures, within_s) from failures[-1]


def _unreached(to: Target, failures: list[OSError], within_s: float) -> PlaceError:
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return ssh_failures.nothing_listens(to)
    if any(isinstance(error, TimeoutError) for error in failures):
        return ssh_failures.no_answer(to, within_s)
    return ssh_failures.no_route(to, failures[-1].strerror or str(failures[-1]))


def _logged_in(sock: Any, to: Target, settings: LoginSettings) -> paramiko.Transport:
    known = KnownHosts(to.known_hosts)
    sock = Greeting(sock)
    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        transport = paramiko.Transport(sock)
        stack.callback(transport.close)
        transport.banner_timeout = settings.connect_s
        transport.handshake_timeout = settings.connect_s
        transport.auth_timeout = settings.connect_s
        transport.channel_timeout = settings.connect_s
        _prefer(transport, known.kinds(to.key_name))
        _shake_hands(transport, sock, to, settings)
        _check_key(transport.get_remote_server_key(), known, to, settings)
        with within(transport, settings.connect_s * 3):
            _authenticate(transport, to)
        transport.set_keepalive(KEEPALIVE_S)
        stack.pop_all()
        return transport


def _prefer(transport: paramiko.Transport, kinds: list[str]) -> None:
    """Request a known type of key first: otherwise a known host would look like a changed one."""
    options = transport.get_security_options()
    wanted = [name for kind in kinds for name in _KEY_TYPES.get(kind, (kind,))]
    first = [name for name in options.key_types if name in wanted]
    options.key_types = [*first, *(name for name in options.key_types if name not in wanted)]


def _shake_hands(
    transport: paramiko.Transport, sock: Greeting, to: Target, settings: LoginSettings
) -> None:
    began = time.monotonic()
    try:
        transport.start_client(timeout=settings.connect_s * 2)
    except paramiko.IncompatiblePeer as error:
        raise ssh_failures.no_agreement(to, str(error)) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        # paramiko itself closes a connection whose banner or handshake takes too long.
        is_late = time.monotonic() - began >= settings.connect_s
        raise _cut_off(to, str(error), settings, sock.heard, is_late=is_late) from error
    if not transport.initial_kex_done:
        late_s = settings.connect_s * 2
        raise greeting.failure(to, sock.heard, late_s) or ssh_failures.no_answer(to, late_s)


def _cut_off(
    to: Target, text: str, settings: LoginSettings, heard: bytes, *, is_late: bool
) -> PlaceError:
    """Find the reason for the end of a connection before the key exchange."""
    if to.proxy_command and not heard and not is_late:
        return ssh_failures.jump_failed(to, "ProxyCommand", text or "it ended")
    failure = greeting.failure(to, heard, settings.connect_s if is_late else None)
    if failure is not None:
        return failure
    if is_late:
        return ssh_failures.no_answer(to, settings.connect_s)
    return ssh_failures.closed_at_login(to)


def _check_key(key: Any, known: KnownHosts, to: Target, settings: LoginSettings) -> None:
    kind, data = key.get_name(), key.asbytes()
    judged = known.judge(to.key_name, kind, data)
    key_text = f"{kind} {known_hosts.fingerprint(data)}"
    if judged.verdict is Verdict.CHANGED:
        raise ssh_failures.changed_key(to, key_text, judged.expected, judged.where)
    if judged.verdict is Verdict.REVOKED:
        raise ssh_failures.revoked_key(to, key_text, judged.where)
    if judged.verdict is Verdict.UNKNOWN:
        if not (settings.accept_new_host_keys or to.accept_new):
            raise ssh_failures.unknown_key(to, key_text, known.authority(to.key_name))
        if to.known_hosts:
            with contextlib.suppress(OSError):  # a home folder that cannot be written to
                known_hosts.learn(to.known_hosts[0], to.key_name, kind, data)


class _Agent(paramiko.agent.AgentSSH):  # type: ignore[misc]  # paramiko has no types
    """An SSH agent at a named socket; paramiko's own looks only at SSH_AUTH_SOCK."""

    def __init__(self, path: str, within_s: float) -> None:
        super().__init__()
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.settimeout(within_s)
            sock.connect(path)
            self._connect(sock)
            stack.pop_all()

    def close(self) -> None:
        """End the connection to the agent."""
        self._close()


def _authenticate(transport: paramiko.Transport, to: Target) -> None:
    """Offer every available key, those of the agent first."""
    locked: list[str] = []
    tried: list[str] = []
    with contextlib.ExitStack() as stack:
        for label, load in _keys(to, stack):
            try:
                key = load()
            except paramiko.PasswordRequiredException:
                locked.append(label)
                continue
            except (paramiko.SSHException, OSError, ValueError, TypeError) as error:
                tried.append(f"{label} cannot be read: {error}")
                continue
            try:
                missing = transport.auth_publickey(to.user, key)
            except paramiko.BadAuthenticationType as error:
                accepted = ", ".join(error.allowed_types)
                raise ssh_failures.login_refused(
                    to, f"it accepts {accepted or 'nothing that we have'}, not keys"
                ) from error
            except paramiko.AuthenticationException:
                tried.append(f"{label} is not accepted")
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not tried:
                    raise ssh_failures.connection_broke(to, str(error) or "at login") from error
                tried.append(f"then it closed the connection: {error}")
                break
            else:
                if not missing:
                    return
                wanted = ", ".join(missing)
                raise ssh_failures.login_refused(to, f"it wants {wanted} besides a key")
    hint = "" if to.agent else " (no SSH agent runs: `eval $(ssh-agent)`)"
    raise ssh_failures.login_refused(
        to, "; ".join(tried) or "there is no key to offer", locked[0] if locked else "", hint
    )


def _keys(to: Target, stack: contextlib.ExitStack) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield keys in the order of OpenSSH: the agent's that are listed, its others, then those of files."""
    files = [Path(name) for name in to.identity_files if Path(name).is_file()]
    if to.agent:
        with contextlib.suppress(OSError, paramiko.SSHException):
            agent = _Agent(to.agent, 5.0)
            stack.callback(agent.close)
            listed = {public_part(Path(name)) for name in to.identity_files}
            keys = sorted(agent.get_keys(), key=lambda key: key.get_base64() not in listed)
            for key in keys:
                if key.get_base64() in listed or not to.identities_only:
                    label = f"the agent's {key.comment or key.get_name()}"
                    yield label, lambda key=key: key  # type: ignore[misc]  # mypy does not infer a default argument
    for file in files:
        if _public_text(file):
            continue  # it names a key of the agent
        for certificate in [*map(Path, to.certificate_files), Path(f"{file}-cert.pub")]:
            if certificate.is_file() and _is_certificate_of(certificate, file):
                label = f"{file} with {certificate}"
                yield label, lambda file=file, more=certificate: load_key(file, more)  # type: ignore[misc]  # mypy does not infer a default argument
        yield str(file), lambda file=file: load_key(file)  # type: ignore[misc]  # mypy does not infer a default argument


def _is_certificate_of(certificate: Path, file: Path) -> bool:
    """Return whether a certificate is that of a key: it has the numbers of the key."""
    key, text = (base64.b64decode(each) for each in (public_part(file), _public_text(certificate)))
    kind_bytes = 4 + int.from_bytes(key[:4])
    return bool(key[kind_bytes:]) and key[kind_bytes:] in text


def public_part(file: Path) -> str:
    """Return the public part of a key in a file, in base64; empty if it cannot be found out.

    It is in the file `.pub` beside it, or in the file itself: in plain text, in the unencrypted head of
    OpenSSH's format, or as part of a key that can be loaded.
    """
    found = _public_text(Path(f"{file}.pub")) or _public_text(file)
    if found:
        return found
    with contextlib.suppress(OSError, ValueError, TypeError, paramiko.SSHException):
        lines = file.read_text(encoding="ascii", errors="replace").split("-----")
        data = base64.b64decode("".join(lines[2].split())) if len(lines) > _PEM_PART else b""
        if not data.startswith(_OPENSSH_KEY):
            return str(load_key(file).get_base64())
        message = paramiko.Message(data.removeprefix(_OPENSSH_KEY))
        for _ in range(3):  # cipher, key derivation, its options
            message.get_binary()
        message.get_int()  # keys in the file
        return base64.b64encode(message.get_binary()).decode()
    return ""


def _public_text(file: Path) -> str:
    """Return the base64 of a file with a public key or a certificate; empty if it is none."""
    with contextlib.suppress(OSError):
        fields = file.read_text(encoding="utf-8", errors="replace").split(maxsplit=2)
        if len(fields) > 1 and fields[0].startswith(("ssh-", "ecdsa-", "sk-")):
            return fields[1]
    return ""


def load_key(file: Path, certificate: Path | None = None) -> Any:
    """Load a private key, with a certificate if one is given.

    Raises:
        paramiko.PasswordRequiredException: it is encrypted.
        paramiko.SSHException, OSError, ValueError, TypeError: it cannot be read.
    """
    try:
        key = paramiko.PKey.from_path(file)
    except (TypeError, ValueError) as error:
        text = str(error).lower()
        if "password" in text or "encrypted" in text:
            raise paramiko.PasswordRequiredException(str(file)) from error
        raise
    key.public_blob = None  # `from_path` takes a certificate that lies beside the key
    if certificate is not None:
        key.load_certificate(str(certificate))
    return key


@contextlib.contextmanager
def within(transport: paramiko.Transport, seconds: float) -> Iterator[None]:
    """Close a connection whose answer takes too long: some calls of paramiko wait without a limit."""
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
