"""A host of the lab: how it is made, and how its power is cut.

Its first process is a shell that waits for the network, mounts the host's own folders, and becomes
sshd (on the desk: a process that only waits). When it is killed, the kernel kills all others.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chaos.lab import namespaces
from chaos.lab.freezing import Freezer
from chaos.lab.needs import LabError

_DEAD_S = 5.0
_POLL_S = 0.001
_FIRST_FD = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a host."""

    name: str
    is_desk: bool
    home: Path  # home folder of the user, as the host sees it
    disk: Path  # the folder with what survives a reboot: `home`, and `var-tmp` for /var/tmp
    hosts_file: Path
    shared: tuple[Path, ...]  # paths that stay visible also below the host's own folders
    sshd_config: Path
    log: Path

    @property
    def spaces(self) -> tuple[str, ...]:
        """The namespaces of the host, as `nsenter` calls them."""
        return ("net", "mount", "uts") if self.is_desk else ("net", "mount", "uts", "pid")


@dataclass(slots=True)
class Station:
    """A host that is switched on."""

    plan: Plan
    process: subprocess.Popen[str]  # waits for the first process, in the machine's namespaces
    pid: int  # its first process
    freezer: Freezer | None = None
    is_asleep: bool = False

    @property
    def network(self) -> str:
        """The name of its network namespace."""
        return namespaces.network_of(self.pid)

    def processes(self) -> dict[int, str]:
        """Return what runs on it, without its first process and sshd's own processes."""
        ours = {self.pid, self.process.pid}
        return {
            pid: words for pid, words in namespaces.members(self.network).items() if pid not in ours
        }

    def kill(self) -> None:
        """Kill the first process and thereby all others; return when none is left.

        On the desk, all that runs in its network is killed at the same moment instead.
        """
        members = namespaces.members(self.network)
        if self.plan.is_desk:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in members:
                    _send(pid, number)
        _send(self.pid, signal.SIGKILL)
        if self.freezer is not None:  # a frozen process does not die
            self.freezer.thaw()
        until = time.monotonic() + _DEAD_S
        while any(namespaces.state_of(pid) not in ("", "Z") for pid in members):
            if time.monotonic() > until:
                raise LabError(f"{self.plan.name} has processes that do not die")
            time.sleep(_POLL_S)
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def switch_on(plan: Plan) -> Station:
    """Start a host's first process; it waits for `let_in` before it does anything."""
    own = ["--net", "--mount", "--uts", "--propagation", "private"]
    if not plan.is_desk:
        own += ["--pid", "--fork", "--kill-child=SIGKILL"]
    with plan.log.open("a") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *own, "bash", "-c", _script(plan)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.communicate()
        raise LabError(f"{plan.name} cannot be switched on: {plan.log.read_text()[-500:]}")
    return Station(plan, process, int(line))


def let_in(station: Station) -> None:
    """Continue a host after its network is ready; return when it has mounted everything."""
    stdin, stdout = station.process.stdin, station.process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write("go\n")
    stdin.close()
    station.process.stdin = None
    if stdout.readline() != "up\n":
        raise LabError(f"{station.plan.name}: {station.plan.log.read_text()[-500:]}")


def _script(plan: Plan) -> str:
    """Return the shell text of the first process."""
    own = [] if plan.is_desk else [Path("/tmp"), Path("/run"), Path("/dev/shm")]
    kept_dirs = {plan.home: plan.disk / "home"}
    if not plan.is_desk:
        kept_dirs[Path("/var/tmp")] = plan.disk / "var-tmp"
    hidden = {*own, *kept_dirs}
    kept = _outermost(path for path in plan.shared if hidden & set(path.parents))
    lines = [
        "set -e",
        "read -r pid rest < /proc/self/stat",  # this /proc still shows the machine's ids
        "echo $pid",
        "read -r go",
        f"hostname {plan.name}",
    ]
    if not plan.is_desk:
        lines.append("mount -t proc proc /proc")
    lines += [f"exec {fd}<{_quoted(path)}" for fd, path in enumerate(kept, _FIRST_FD)]
    sources = enumerate(kept_dirs, _FIRST_FD + len(kept))  # the first mount may hide the others
    opened = {target: fd for fd, target in sources}
    for target, fd in opened.items():
        lines.append(f"exec {fd}<{_quoted(kept_dirs[target])}")
    for target, fd in opened.items():
        lines.append(f"mount -c --bind /proc/self/fd/{fd} {_quoted(target)}; exec {fd}<&-")
    lines += [f"mount -t tmpfs -o mode=1777,size=2g lab {path}" for path in own]
    for fd, path in enumerate(kept, _FIRST_FD):
        make = "mkdir -p" if path.is_dir() else f"mkdir -p {_quoted(path.parent)}; touch"
        word = _quoted(path)
        lines.append(f"{make} {word}; mount -c --bind /proc/self/fd/{fd} {word}; exec {fd}<&-")
    lines.append(f"mount --bind {_quoted(plan.hosts_file)} /etc/hosts")
    if plan.is_desk:
        end = "exec sleep infinity"
    else:
        lines.append("mkdir -p /run/sshd")
        files = f"-f {_quoted(plan.sshd_config)} -E {_quoted(plan.log)}"
        end = f"exec env -i PATH=$PATH /usr/sbin/sshd -D {files}"
    return "\n".join([*lines, "echo up", "exec </dev/null >/dev/null 2>&1", f"cd / && {end}"])


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return paths without those that lie below another one."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in found):
            found.append(path)
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
