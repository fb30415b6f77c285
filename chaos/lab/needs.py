"""Finds out by trying what a lab needs of its machine; a missing part is named, never worked around."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_TOOLS = {
    "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux", "mount": "mount",
    "ip": "iproute2", "ss": "iproute2", "nft": "nftables", "ssh-keygen": "openssh-client",
}  # fmt: skip
_SSHD = Path("/usr/sbin/sshd")
_TUN = Path("/dev/net/tun")
_TRY_S = 10.0


class LabError(RuntimeError):
    """A lab cannot be made, or a fault could not be injected."""


def missing_needs(network: str = "bridge") -> list[str]:
    """Return what this machine lacks for a lab, one sentence each; empty if a lab can be made."""
    found = []
    if os.geteuid() != 0:
        found.append("not root: network namespaces, mounts and an sshd on port 22 need it")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None and not Path("/usr/sbin", tool).exists():
            found.append(f"no `{tool}`: install {package}")
    if not _SSHD.exists():
        found.append("no sshd: install openssh-server (it need not be running)")
    if network == "tun" and not _TUN.exists():
        found.append(f"no {_TUN}: a network with delay, loss and rates is made of TUN devices")
    return found or _problems()


def _problems() -> list[str]:
    """Return why namespaces cannot be made; a container may forbid it even to root."""
    command = [
        "unshare", "--net", "--pid", "--fork", "--mount", "--uts", "--mount-proc",
        "--propagation", "private", "sh", "-c", "ip link add lab0 type bridge && nft add table bridge lab",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S, check=False)
    return [] if done.returncode == 0 else [f"no namespaces here: {done.stderr.strip()}"]


def call(command: list[str], text: str = "") -> str:
    """Run a command with a text as its standard input; return its output.

    Raises:
        LabError: it failed.
    """
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_TRY_S, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout
