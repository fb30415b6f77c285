"""`python -m benchmarks.remote`: the cost of workers on another host, over the loopback.

It compares two workers on this host with two on "another" host, which is this machine behind a real
sshd: with a separate connection (CURVE), and through the SSH connection (CURVE in SSH, `--tunnel`).
All three are measured in turns in one session; each figure is the median of the rounds, and the
last columns are ratios to local workers. The network costs nothing here, so the figures show the
second hop, the encryption and the copies of files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MODES: Final = ("local", "ssh", "tunnel")
FIGURES: Final = {
    "first_s": "start to first result, s", "submits_per_s": "submits, /s", "map_per_s": "map, items/s",
    "latency_ms": "submit().result() p50, ms", "in_mb_s": "8 MB arrays in, MB/s",
    "out_mb_s": "8 MB arrays out, MB/s",
}  # fmt: skip
_LARGE: Final = 1000
SSHD: Final = "/usr/sbin/sshd"
_WORK = """
import json, sys, time
from resilient_scoop import futures
from benchmarks.load import filled, nap, noop, total

def main():
    began = float(sys.argv[1])
    futures.submit(noop, 0).result()
    figures = {"first_s": time.time() - began}
    list(futures.map(nap, [100.0] * 16))  # all workers are there
    t = time.perf_counter()
    done = [each.result() for each in [futures.submit(noop, n) for n in range(20_000)]]
    figures["submits_per_s"] = len(done) / (time.perf_counter() - t)
    t = time.perf_counter()
    figures["map_per_s"] = sum(1 for _ in futures.map(noop, range(200_000))) / (time.perf_counter() - t)
    took = []
    for n in range(500):
        t = time.perf_counter()
        futures.submit(noop, n).result()
        took.append(time.perf_counter() - t)
    figures["latency_ms"] = sorted(took)[250] * 1000
    arrays = [filled(n) for n in range(16)]
    t = time.perf_counter()
    list(futures.map(total, arrays))
    figures["in_mb_s"] = 128 / (time.perf_counter() - t)
    t = time.perf_counter()
    list(futures.map(filled, range(16)))
    figures["out_mb_s"] = 128 / (time.perf_counter() - t)
    print(json.dumps(figures))

if __name__ == "__main__":
    main()
"""


class Sshd:
    """A server of OpenSSH on the loopback, for this user, with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPidFile none\n"
            "PasswordAuthentication no\n"
        )
        key = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n")
        self.config = folder / "ssh_config"
        self.config.write_text(
            f"Host grid\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {folder}/user\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
        )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise SystemExit(f"sshd does not start: {(folder / 'log').read_text()}")

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(10)


def measure(mode: str, folder: Path, sshd: Sshd) -> dict[str, float]:
    """Return the figures of one run."""
    script = folder / "work.py"
    script.write_text(_WORK)
    options = ["-n", "2"]
    if mode != "local":
        options += [
            "--ssh-config",
            str(sshd.config),
            "--host",
            "grid:2",
            "--external-address",
            "127.0.0.1",
        ]
    if mode == "tunnel":
        options += ["--tunnel"]
    home = Path(__file__).resolve().parents[1]
    environ = {
        **os.environ, "RSCOOP_STATE_DIR": str(folder / "state"), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(home),
    }  # fmt: skip
    command = [sys.executable, "-m", "resilient_scoop", "run", "-q", *options, str(script)]
    done = subprocess.run(
        [*command, str(time.time())],  # noqa: TID251 - compared in another process
        check=False,
        capture_output=True,
        text=True,
        env=environ,
        timeout=240,
        cwd=home,
    )
    shutil.rmtree(folder / "state", ignore_errors=True)
    try:
        measured: dict[str, float] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{mode}: {done.stdout}{done.stderr}") from None
    return measured


def main() -> None:
    """Measure all modes in turns, and print medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a folder on a disk")
    given = parser.parse_args()
    if not Path(SSHD).exists():
        raise SystemExit(f"{SSHD} is missing: install openssh-server")
    folder = Path(tempfile.mkdtemp(prefix="rscoop-remote-", dir=given.folder))
    sshd = Sshd(folder)
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    try:
        for _ in range(given.rounds):
            for mode in MODES:
                found[mode].append(measure(mode, folder, sshd))
    finally:
        sshd.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'':28}" + "".join(f"{mode:>12}" for mode in MODES) + "   ssh/local tunnel/local")
    for key, title in FIGURES.items():
        at = [statistics.median(each[key] for each in found[mode]) for mode in MODES]
        values = "".join(f"{value:>12,.{0 if value > _LARGE else 3}f}" for value in at)
        print(f"{title:28}{values}   {at[1] / at[0]:9.2f} {at[2] / at[0]:12.2f}")


if __name__ == "__main__":
    main()
