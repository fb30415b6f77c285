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
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import paramiko

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.hostfile import Host, duplicates

PORT: Final = 22
_SYSTEM_FILE: Final = Path("/etc/ssh/ssh_config")
_GLOBAL_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_USER_KNOWN_HOSTS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_KEY_NAMES: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_INCLUDES_MAX: Final = 16
_COMMAND: Final = "RscoopProxyCommand"
"""A name that paramiko does not know: it would neither keep the order of settings nor `none` and `%n`."""
_CERTIFICATE: Final = "certificate\x1f"
_SEPARATOR: Final = "\x1f"
"""Between the words of a setting, which may have spaces."""
_SETTING: Final = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(\S.*)")
_WITH_VALUE: Final = ("host", "originalhost", "user", "localuser", "exec")
_WITHOUT_VALUE: Final = ("all", "canonical", "final")
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
    certificate_files: tuple[str, ...] = ()

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
            found = {key: value for key, value in config.lookup(host.alias).items() if value}
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


def same_hosts(hosts: Sequence[Host], file: str = "") -> list[str]:
    """Return a warning for each host that has two names.

    Raises:
        UsageError: the configuration cannot be understood.
    """
    config = SshConfig(file)

    def resolve(host: Host) -> tuple[str, int, str]:
        target = config.target(host)
        return target.hostname, target.port, target.user

    return duplicates(hosts, resolve)


def _lines(path: Path, folder: Path, outer: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the lines of a file, with the lines of included files at their position.

    `outer` are the criteria, as `Match` takes them, under which the file is included.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    block = outer
    for line in text.splitlines():
        keyword, value = _setting(line)
        match keyword:
            case "host" | "match":
                inner = _criteria(keyword, value, path)
                block = f"{outer} {inner}".strip()
                is_plain = not outer and "final" not in inner.lower()
                yield f"{keyword} {value}" if is_plain else f"Match {block}"
            case "include":
                if depth == _INCLUDES_MAX:
                    raise UsageError(
                        f"{path} includes itself, {_INCLUDES_MAX} files deep; correct it"
                    )
                for pattern in _words(value):
                    for each in _matching(pattern, folder):
                        yield from _lines(each, folder, block, depth + 1)
                        yield (
                            f"Match {block}" if block else "Host *"
                        )  # what follows belongs to it again
            case _:
                yield _translated(keyword, value) if value else line


def _translated(keyword: str, value: str) -> str:
    """Return a line that paramiko reads as OpenSSH reads this one."""
    match keyword:
        case "proxycommand":
            return f"{_COMMAND} :{value}"  # paramiko would remove quotes at both ends
        case "userknownhostsfile" | "globalknownhostsfile":
            return f"{keyword} {_SEPARATOR.join(_words(value))}"
        case "certificatefile":  # it may be repeated, which paramiko supports only for IdentityFile
            return f"IdentityFile {_CERTIFICATE}{' '.join(_words(value))}"
        case _:
            return f"{keyword} {value}"


def _setting(line: str) -> tuple[str, str]:
    """Return keyword and value of a line; commands keep what looks like a comment, as in OpenSSH."""
    found = _SETTING.fullmatch(line)
    if found is None:
        return "", ""
    keyword, value = found[1].lower(), found[2].strip()
    if not keyword.endswith("command"):
        value = _without_comment(value)
    return keyword, value


def _without_comment(value: str) -> str:
    """Return a value up to a word that begins with `#`, outside of quotes."""
    quote = ""
    for index, char in enumerate(value):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (index == 0 or value[index - 1].isspace()):
            return value[:index].rstrip()
    return value


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return value.replace('"', " ").split()


def _criteria(keyword: str, value: str, path: Path) -> str:
    """Return a `Host` or `Match` line as criteria that can stand beside others.

    Raises:
        UsageError: one of them is of a kind that paramiko takes for fulfilled.
    """
    if keyword == "host":
        return f"originalhost {','.join(_words(value))}"
    words = iter(_words(value))
    for word in words:
        kind = word.lstrip("!").lower()
        if kind in _WITH_VALUE:
            next(words, "")
        elif kind not in _WITHOUT_VALUE:
            raise UsageError(
                f"{path}: paramiko does not understand `Match {kind}`; let OpenSSH read the file (--ssh "
                "system), or use another one (--ssh-config FILE)"
            )
    return re.sub(r"(?i)(^|\s)all(\s|$)", r"\1originalhost *\2", value)


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
        for word in found.get(key, usual).split(_SEPARATOR if key in found else None)
        if word != "none"
    ]
    jumps, command = _proxies(found, tokens)
    return Target(
        name=name,
        hostname=hostname,
        port=port,
        user=user,
        key_name=key_name.lower(),
        identity_files=_identity_files(found, tokens),
        identities_only=found.get("identitiesonly", "no").lower() == "yes",
        agent=_agent(found.get("identityagent", "SSH_AUTH_SOCK"), tokens),
        jumps=jumps,
        proxy_command=command,
        known_hosts=tuple(files),
        accept_new=found.get("stricthostkeychecking", "").lower() == "accept-new",
        certificate_files=tuple(
            _expanded(word, tokens) for word in _listed(found, is_certificate=True)
        ),
        family=_family(found.get("addressfamily", "any").lower()),
    )


def _proxies(found: dict[str, str], tokens: dict[str, str]) -> tuple[tuple[str, ...], str]:
    """Return jump hosts and the proxy command: of the two settings, the first in the files counts."""
    kinds = [key for key in found if key in ("proxyjump", _COMMAND.lower())]
    value = found[kinds[0]].removeprefix(":").strip() if kinds else "none"
    if value.lower() == "none":
        return (), ""
    if kinds[0] == "proxyjump":
        return tuple(re.split(r"\s*,\s*", value)), ""
    return (), re.sub(r"%[%hnpr]", lambda match: tokens[match[0]], value)


def _family(word: str) -> str:
    if word not in _FAMILIES:
        raise ValueError(f"AddressFamily is {word!r}, not one of {', '.join(_FAMILIES)}")
    return word


def _identity_files(found: dict[str, str], tokens: dict[str, str]) -> tuple[str, ...]:
    listed = _listed(found, is_certificate=False)
    if listed:
        return tuple(_expanded(word, tokens) for word in listed if word.lower() != "none")
    return tuple(_expanded(f"~/.ssh/{name}", tokens) for name in _KEY_NAMES)


def _listed(found: dict[str, str], *, is_certificate: bool) -> list[str]:
    """Return the files of `IdentityFile`, or of `CertificateFile`; paramiko collects them into a list."""
    return [
        each.removeprefix(_CERTIFICATE)
        for each in found.get("identityfile", ())
        if each.startswith(_CERTIFICATE) == is_certificate
    ]


def _agent(word: str, tokens: dict[str, str]) -> str:
    if word.lower() == "none":
        return ""
    if word == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if re.fullmatch(r"\$(\w+|\{\w+\})", word):
        return os.environ.get(word.strip("${}"), "")
    return _expanded(word, tokens)


def _expanded(word: str, tokens: dict[str, str]) -> str:
    text = re.sub(r"%[%\w]", lambda match: tokens.get(match[0], match[0]), word)
    text = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], match[0]), text)
    return str(Path(text).expanduser())
