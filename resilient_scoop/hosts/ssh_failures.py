"""Failures of SSH in one sentence each: what happened, to which host, and what to do.

The same sentences serve paramiko and the `ssh` program. `PlaceRefusedError` is raised if another
try is useless until the user has changed something, `PlaceBusyError` if a later try may succeed; it
has a `retry_after_s` if a try within seconds may succeed.
"""

from __future__ import annotations

from typing import Final

from resilient_scoop.errors import PlaceBusyError, PlaceRefusedError, SilentServerError
from resilient_scoop.hosts.ssh_config import Target

RETRY_S: Final = 1.0


def unknown_name(to: Target, *, is_lasting: bool) -> PlaceRefusedError | PlaceBusyError:
    """The host's name has no address."""
    if not is_lasting:
        return PlaceBusyError(
            f"{to.name}: the name {to.hostname!r} could not be looked up; the name server does not answer: "
            "check the network"
        )
    return PlaceRefusedError(
        f"{to.name}: there is no host with the name {to.hostname!r}; correct the hostfile, give it "
        "address= there, or a Host entry in ~/.ssh/config"
    )


def nothing_listens(to: Target) -> PlaceBusyError:
    """The connection was refused by the kernel of the host."""
    return PlaceBusyError(
        f"{to.name}: nothing listens on port {to.port} of {to.hostname}; start sshd there, or give the "
        "right port (port= in the hostfile)"
    )


def no_answer(to: Target, seconds: float) -> PlaceBusyError:
    """The host drops packets, is off, or asleep."""
    return PlaceBusyError(
        f"{to.name}: {to.hostname} port {to.port} did not answer within {seconds:.0f} s; the host is off "
        "or asleep, or a firewall drops packets to this port"
    )


def no_route(to: Target, reason: str) -> PlaceBusyError:
    """The network has no route to the host."""
    return PlaceBusyError(
        f"{to.name}: {to.hostname} cannot be reached: {reason}; check the network, or name a jump host "
        "(ProxyJump in ~/.ssh/config)"
    )


def closed_at_login(to: Target, said: str = "") -> PlaceBusyError:
    """Sshd accepted the connection and closed it: it said so, or had begun as an SSH server does."""
    return PlaceBusyError(
        f"{to.name}: sshd on {to.hostname} closed the connection at login{said and f' ({said})'}; too many "
        "logins at once (MaxStartups, PerSourcePenalties in sshd_config) or a block list there "
        "(hosts.deny, fail2ban) can cause this",
        RETRY_S,
    )


def closed_without_a_word(to: Target) -> SilentServerError:
    """A server closed the connection and had said nothing: an old sshd that is full, or something else."""
    return SilentServerError(
        f"{to.name}: the server on port {to.port} of {to.hostname} closes the connection without a word. "
        "If it is not sshd, give the right port (port= in the hostfile); if it is, it has too many logins "
        "(MaxStartups in sshd_config), or a list there blocks this host (hosts.deny, fail2ban)",
        RETRY_S,
    )


def says_nothing(to: Target, seconds: float) -> PlaceBusyError:
    """A server accepted the connection and has said nothing."""
    return PlaceBusyError(
        f"{to.name}: the server on port {to.port} of {to.hostname} accepts connections and says nothing "
        f"for {seconds:.0f} s. If it is not sshd, give the right port (port= in the hostfile); if it is, "
        "the host is overloaded"
    )


def not_ssh(to: Target, said: str = "") -> PlaceRefusedError:
    """Something else listens there."""
    return PlaceRefusedError(
        f"{to.name}: the server on port {to.port} of {to.hostname} is not sshd"
        f"{said and f': it says {said!r}'}; give the right port (port= in the hostfile)"
    )


def unknown_key(to: Target, key: str, authority: str = "") -> PlaceRefusedError:
    """The host is in no file of known hosts; perhaps an authority that certifies its key is."""
    if authority:
        return PlaceRefusedError(
            f"{to.name}: the host key of {to.hostname} is known by a certificate authority only "
            f"({authority}), which paramiko cannot check; use the ssh program: --ssh system"
        )
    return PlaceRefusedError(
        f"{to.name}: the host key of {to.hostname} is not known ({key}); if this is its fingerprint, add "
        f"it (`ssh {to.typed}` once, or --accept-new-host-keys)"
    )


def changed_key(to: Target, key: str, expected: str, where: str) -> PlaceRefusedError:
    """The host presents another key than the known one."""
    known = f", not the known {expected}" if expected else ", and is not the known one"
    place = f" ({where})" if where else ""
    return PlaceRefusedError(
        f"{to.name}: possible attack: the host key of {to.hostname} has changed; it is {key}{known}"
        f"{place}. Nothing was sent. Ask its administrator; if the host was installed again, remove the "
        f"old key with `ssh-keygen -R '{to.key_name}'`"
    )


def revoked_key(to: Target, key: str, where: str) -> PlaceRefusedError:
    """The host presents a key that is marked as revoked."""
    return PlaceRefusedError(
        f"{to.name}: possible attack: the host key of {to.hostname} ({key}) is revoked ({where}). "
        "Nothing was sent. Ask its administrator for the present key"
    )


def login_refused(to: Target, tried: str, locked: str = "", hint: str = "") -> PlaceRefusedError:
    """The host refuses this user with every key that we have."""
    if locked:
        return PlaceRefusedError(
            f"{to.name}: {to.who} refuses the login: the key {locked} is encrypted and no SSH agent holds "
            f"it; load it with `ssh-add {locked}`{hint}"
        )
    return PlaceRefusedError(
        f"{to.name}: {to.who} refuses the login ({tried}); check the user's name, copy a key with "
        f"`ssh-copy-id {to.typed}`, or load one into the agent with `ssh-add`{hint}"
    )


def no_agreement(to: Target, reason: str) -> PlaceRefusedError:
    """No common algorithm."""
    return PlaceRefusedError(
        f"{to.name}: sshd on {to.hostname} offers no algorithm that this host accepts ({reason}); update "
        "sshd, or use the ssh program: --ssh system"
    )


def no_commands(to: Target, output: str) -> PlaceRefusedError:
    """The login succeeds, and no command can be run."""
    return PlaceRefusedError(
        f"{to.name}: {to.who} accepts the login and runs no command ({output or 'no output'}); the account "
        "needs a login shell such as /bin/sh, and no forced command (authorized_keys, ForceCommand)"
    )


def no_tunnel(to: Target) -> PlaceRefusedError:
    """Forwarding is off."""
    return PlaceRefusedError(
        f"{to.name}: sshd on {to.hostname} does not forward ports; set AllowTcpForwarding yes in its "
        "sshd_config (and no `restrict` in authorized_keys), or do without --tunnel"
    )


def jump_failed(to: Target, through: str, reason: str) -> PlaceBusyError:
    """A jump host or a proxy command did not connect us."""
    return PlaceBusyError(
        f"{to.name}: {through} does not connect to {to.hostname} port {to.port}: {reason}; check ProxyJump "
        "and ProxyCommand in ~/.ssh/config"
    )


def connection_broke(to: Target, reason: str) -> PlaceBusyError:
    """The connection ended in the middle of a login or a request."""
    return PlaceBusyError(
        f"{to.name}: the connection to {to.hostname} was lost ({reason}); it is tried again later",
        RETRY_S,
    )


def no_reply(to: Target, seconds: float) -> PlaceBusyError:
    """A short command has not ended."""
    return PlaceBusyError(
        f"{to.name}: a command on {to.hostname} did not end within {seconds:.0f} s; the host is "
        "overloaded, a file system there hangs, or the login shell waits for input"
    )
