"""OpenSSH's server on the loopback, in a mount namespace with users of its own; it needs root.

Its users are root under other names, each with a login shell: they are in an /etc/passwd that only the
server and what it starts can see.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = "" if SSHD and os.geteuid() == 0 else "needs root and OpenSSH's sshd"
_BOOT_S = 15

_START = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/sshd && \
mount --bind "$1" /etc/passwd && exec "$2" -D -e -f "$3"
"""


class RealSshd:
    """The server."""

    def __init__(
        self, folder: Path, users: Mapping[str, str], public_key: str, *, more: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.host_key = folder / "host_key"
        make_host_key(self.host_key)
        home = folder / "home"
        home.mkdir(exist_ok=True)
        lines = [f"{name}:*:0:0::{home}:{shell}\n" for name, shell in users.items()]
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(lines))
        (folder / "authorized_keys").write_text(public_key)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nPrintMotd no\n{more}\n"
        )
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _START, "sh", str(folder / "passwd"), str(SSHD),
                 str(folder / "config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + _BOOT_S
        while True:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)

    @property
    def known_line(self) -> str:
        kind, key, *_ = self.host_key.with_suffix(".pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def sessions(self) -> list[int]:
        """Return the processes of connections, the server's children."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def cut(self) -> None:
        """Cut all connections at once; processes that they started continue."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.cut()
        self._process.terminate()
        self._process.wait(10)


def make_host_key(path: Path) -> None:
    path.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
