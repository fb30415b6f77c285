"""What a server says first: is it an SSH server, and if not, what is it?

An SSH server begins with a line `SSH-2.0-…`; it may say other lines before (RFC 4253, section 4.2). An sshd
with too many logins says `Exceeded MaxStartups` or `Not allowed at this time` and closes the connection; an
old one closes it without a word. Everything else is another kind of server: a web server that answers
`HTTP/1.1 400`, a mail server that waits after `220 …`.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Final

from resilient_scoop.errors import PlaceBusyError, PlaceRefusedError
from resilient_scoop.hosts import ssh_failures
from resilient_scoop.hosts.addresses import addresses_of
from resilient_scoop.hosts.ssh_config import Target

_KEPT_BYTES: Final = 8 * 1024
_SHOWN_CHARS: Final = 60
_MARK: Final = b"SSH-"
_FULL: Final = (b"exceeded maxstartups", b"not allowed at this time")
_OURS: Final = b"SSH-2.0-rscoop\r\n"
_ASK_S: Final = 3.0


class Greeting:
    """A connected socket that remembers how the other side began."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.heard = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        """Receive from the socket, and keep the first bytes in `heard`."""
        data: bytes = self._sock.recv(size)
        if len(self.heard) < _KEPT_BYTES:
            self.heard += data
        return data


def is_ssh(heard: bytes) -> bool:
    """Return whether a server has sent the line of an SSH server."""
    return any(line.startswith(_MARK) for line in heard.split(b"\n"))


def failure(
    to: Target, heard: bytes, silent_s: float | None
) -> PlaceBusyError | PlaceRefusedError | None:
    """Say why a login failed, from what the server said; None if it is an SSH server.

    `silent_s` is the time after which the server was given up, None if it has closed the connection.
    """
    if is_ssh(heard):
        return None
    shown = _shown(heard)
    if any(word in heard.lower() for word in _FULL):
        return ssh_failures.closed_at_login(to, shown)
    if heard:
        return ssh_failures.not_ssh(to, shown)
    if silent_s is not None:
        return ssh_failures.says_nothing(to, silent_s)
    return ssh_failures.closed_without_a_word(to)


def _shown(heard: bytes) -> str:
    lines = (line.strip() for line in heard.splitlines())
    first = next((line for line in lines if line), b"")
    text = first.decode("ascii", errors="replace")[:_SHOWN_CHARS]
    return "".join(char if char.isprintable() else "?" for char in text.replace("\ufffd", "?"))


def asked(to: Target, given_up_s: float) -> PlaceBusyError | PlaceRefusedError | None:
    """Connect to a server whose login failed, and judge how it begins; None if that says nothing more.

    `given_up_s` is the time after which that login was given up, if the server says nothing.
    """
    try:
        heard, is_closed = _ask(to)
    except OSError:
        return None
    return failure(to, heard, None if is_closed else max(given_up_s, _ASK_S))


def _ask(to: Target) -> tuple[bytes, bool]:
    """Return how a server begins, and whether it closed the connection then."""
    heard = b""
    until = time.monotonic() + _ASK_S
    family, kind, protocol, _, address = addresses_of(to.hostname, to.port, within_s=_ASK_S)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(_ASK_S)
        sock.connect(address)
        try:
            sock.sendall(_OURS)
            while not is_ssh(heard) and len(heard) < _KEPT_BYTES:
                sock.settimeout(max(until - time.monotonic(), 0.01))
                data = sock.recv(_KEPT_BYTES)
                if not data:
                    return heard, True
                heard += data
        except TimeoutError:
            return heard, False
        except ConnectionError:
            return heard, True
    return heard, False
