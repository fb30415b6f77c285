"""OpenSSH's configuration: the settings for a host in `~/.ssh/config` (or `--ssh-config FILE`).

paramiko reads the file; what it does not know is done here: `Include`, the system's file after the
user's, values of the hostfile before both, the files of known hosts.

An unknown host key is refused whatever `StrictHostKeyChecking` says, except `accept-new`: a configuration
can make us as strict as OpenSSH's default or learn new keys, never accept a changed one.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import paramiko

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.hostfile import Host

PORT: Final = 22
_SYSTEM_FILE: Final = Path("/etc/ssh/ssh_config")
_GLOBAL_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_USER_KNOWN_HOSTS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_KEY_NAMES: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_INCLUDES_MAX: Final = 16
_FAMILIES: Final = ("any", "inet", "inet6")


class Target(msgspec.Struct, frozen=True):
    """Where and how to log in, with everything looked up."""

    name: str  # as the user wrote it
    hostname: str  # name or address for the connection
    port: int
    user: str
    key_name: str  # name of the host in files of known hosts
    identity_files: tuple[str, ...]  # in the order in which they are tried; some may not exist
    identities_only: bool
    agent: str  # the socket of an SSH agent, or empty
    jumps: tuple[str, ...]  # `[user@]host[:port]`, the nearest first
    proxy_command: str
    known_hosts: tuple[str, ...]  # the user's files first; new keys go to the first
    accept_new: bool
    family: str = "any"

    @property
    def who(self) -> str:
        """`ann@ws1.lab`, with the port if it is not the usual one."""
        port = "" if self.port == PORT else f" port {self.port}"
        return f"{self.user}@{self.hostname}{port}"

    @property
    def typed(self) -> str:
        """`-p 2222 ann@ws1.lab`, as a user types it after `ssh`."""
        port = "" if self.port == PORT else f"-p {self.port} "
        return f"{port}{self.user}@{self.hostname}"


class SshConfig:
    """The configuration files, read once."""

    def __init__(self, file: str = "") -> None:
        """Read `file`, or the user's and the system's.

        Raises:
            UsageError: a file that was named cannot be read.
        """
        self._file = file or "~/.ssh/config"
        if file == "none":
            lines = []
        elif file:
            path = Path(file).expanduser()
            if not path.is_file():
                raise UsageError(f"there is no SSH configuration {file}; correct --ssh-config")
            lines = list(_lines(path, Path("~/.ssh").expanduser()))
        else:
            folder = Path("~/.ssh").expanduser()
            lines = list(_lines(folder / "config", folder))
            lines += ["Host *", *_lines(_SYSTEM_FILE, _SYSTEM_FILE.parent)]
        self._text = "\n".join(lines)

    def target(self, host: Host) -> Target:
        """Return where and how to log in at a host.

        Raises:
            UsageError: the configuration cannot be understood.
        """
        given = {
            "HostName": host.address,
            "User": host.user,
            "Port": "" if host.port is None else str(host.port),
        }
        first = [f"{key} {value}" for key, value in given.items() if value]
        try:
            config = paramiko.SSHConfig.from_text("\n".join([*first, self._text]))
            found = {key: value for key, value in config.lookup(host.name).items() if value}
            return _target(host.name, found)
        except (paramiko.SSHException, ValueError, KeyError, ImportError) as error:
            raise UsageError(
                f"{host.name}: the SSH configuration {self._file} cannot be used: {error}; correct it, use "
                "another file (--ssh-config FILE), or let OpenSSH read it (--ssh system)"
            ) from error

    def jump(self, word: str) -> Target:
        """Return where and how to log in at a jump host, written as `[user@]host[:port]`."""
        match = re.fullmatch(r"(?:ssh://)?(?:([^@]+)@)?(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?/?", word)
        if match is None:
            raise UsageError(f"{word!r} is not a jump host; write ProxyJump [user@]host[:port]")
        user, ipv6, name, port = match.groups()
        return self.target(
            Host(name=ipv6 or name, user=user or "", port=int(port) if port else None)
        )


def _lines(path: Path, folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a file, with the lines of included files at their position."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    block = "Host *"
    for line in text.splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() in ("host", "match"):
            block = line
        if word.lower() != "include":
            yield line
            continue
        if depth == _INCLUDES_MAX:
            raise UsageError(f"{path} includes itself, {_INCLUDES_MAX} files deep; correct it")
        for pattern in rest.replace('"', " ").split():
            for each in _matching(pattern, folder):
                yield from _lines(each, folder, depth + 1)
                yield block  # what follows belongs to it again


def _matching(pattern: str, folder: Path) -> list[Path]:
    path = folder / Path(pattern).expanduser()
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _target(name: str, found: dict[str, str]) -> Target:
    hostname, port = found["hostname"], int(found.get("port", PORT))
    user = found.get("user") or getpass.getuser()
    alias = found.get("hostkeyalias")
    key_name = alias or (hostname if port == PORT else f"[{hostname}]:{port}")
    tokens = {"%h": hostname, "%n": name, "%p": str(port), "%r": user, "%u": getpass.getuser()}
    tokens |= {"%d": str(Path.home()), "%%": "%", "%k": alias or name}
    files = [
        _expanded(word, tokens)
        for key, usual in (
            ("userknownhostsfile", _USER_KNOWN_HOSTS),
            ("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
        )
        for word in found.get(key, usual).split()
        if word != "none"
    ]
    jumps = found.get("proxyjump", "none")
    return Target(
        name=name,
        hostname=hostname,
        port=port,
        user=user,
        key_name=key_name.lower(),
        identity_files=_identity_files(found, tokens),
        identities_only=found.get("identitiesonly", "no").lower() == "yes",
        agent=_agent(found.get("identityagent", "SSH_AUTH_SOCK"), tokens),
        jumps=() if jumps.lower() == "none" else tuple(re.split(r"\s*,\s*", jumps.strip())),
        proxy_command=found.get("proxycommand", ""),
        known_hosts=tuple(files),
        accept_new=found.get("stricthostkeychecking", "").lower() == "accept-new",
        family=_family(found.get("addressfamily", "any").lower()),
    )


def _family(word: str) -> str:
    if word not in _FAMILIES:
        raise ValueError(f"AddressFamily is {word!r}, not one of {', '.join(_FAMILIES)}")
    return word


def _identity_files(found: dict[str, str], tokens: dict[str, str]) -> tuple[str, ...]:
    listed = found.get("identityfile")  # paramiko collects these into a list
    if listed:
        return tuple(_expanded(word, tokens) for word in listed if word.lower() != "none")
    return tuple(_expanded(f"~/.ssh/{name}", tokens) for name in _KEY_NAMES)


def _agent(word: str, tokens: dict[str, str]) -> str:
    if word.lower() == "none":
        return ""
    if word == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if word.startswith("$"):
        return os.environ.get(word.strip("${}"), "")
    return _expanded(word, tokens)


def _expanded(word: str, tokens: dict[str, str]) -> str:
    text = re.sub(r"%[%\w]", lambda match: tokens.get(match[0], match[0]), word)
    return str(Path(text).expanduser())
