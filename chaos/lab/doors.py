"""SSH in a lab: a key for its user, a key for each host, and the files that both ends read."""

from __future__ import annotations

from pathlib import Path

from chaos.lab.needs import call

_SSHD = """\
HostKey {key}
AuthorizedKeysFile {authorized}
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
AllowTcpForwarding yes
Subsystem sftp internal-sftp
"""


class Doors:
    """The keys of a lab."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(mode=0o700)
        _make_key(self.user_key, "user")

    @property
    def user_key(self) -> Path:
        """The user's private key."""
        return self.folder / "id_ed25519"

    def host_key(self, name: str) -> Path:
        """Return the private key of a host."""
        return self.folder / f"host_{name}"

    def sshd_config(self, name: str) -> Path:
        """Write the configuration of a host's sshd; make its key if it has none."""
        if not self.host_key(name).exists():
            _make_key(self.host_key(name), name)
        text = _SSHD.format(key=self.host_key(name), authorized=self.user_key.with_suffix(".pub"))
        path = self.folder / f"sshd_{name}.conf"
        path.write_text(text)
        return path

    def furnish(self, home: Path, hosts: dict[str, list[str]]) -> None:
        """Write the user's `.ssh` folder: key, known hosts, and an entry for each host."""
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        for source in (self.user_key, self.user_key.with_suffix(".pub")):
            target = ssh / source.name
            target.touch(mode=0o600)
            target.write_bytes(source.read_bytes())
        known = [
            f"{','.join([name, *addresses])} {' '.join(self._public(name).split()[:2])}\n"
            for name, addresses in hosts.items()
        ]
        (ssh / "known_hosts").write_text("".join(known))
        (ssh / "config").write_text("".join(_entry(name, each) for name, each in hosts.items()))

    def _public(self, name: str) -> str:
        return self.host_key(name).with_suffix(".pub").read_text()


def _entry(name: str, addresses: list[str]) -> str:
    four, six = addresses
    return f"Host {name}\n  HostName {four}\n  User root\nHost {name}-six\n  HostName {six}\n  User root\n"


def _make_key(path: Path, comment: str) -> None:
    call(
        [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"{comment} of a lab",
            "-f",
            str(path),
        ]
    )
