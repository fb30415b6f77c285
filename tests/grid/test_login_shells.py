"""A run whose hosts are users of one sshd, each with another login shell that prints at its start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_sshd import make_key
from tests.real_sshd import MISSING, RealSshd

pytestmark = pytest.mark.grid

SHELLS = [name for name in ("bash", "dash", "zsh", "tcsh", "fish") if shutil.which(name)]
SCRIPT = """
import sys, time
from resilient_scoop import futures

def work(x):
    time.sleep(0.01)
    return futures.task_info().worker.name

if __name__ == "__main__":
    names, until = set(), time.monotonic() + 60
    while not names >= set(sys.argv[1:]) and time.monotonic() < until:
        names |= {name.partition(":")[0] for name in futures.map(work, range(100))}
    print(*sorted(names))
"""


def test_a_run_uses_hosts_with_each_login_shell(tmp_path: Path) -> None:
    if MISSING:
        pytest.skip(MISSING)
    assert len(SHELLS) > 1, "install fish, tcsh and zsh"
    key = make_key()
    key.write_private_key_file(str(tmp_path / "id"))
    users = {name: str(shutil.which(name)) for name in SHELLS}
    sshd = RealSshd(tmp_path / "sshd", users, f"{key.get_name()} {key.get_base64()}\n")
    try:
        home = tmp_path / "sshd" / "home"
        for file in (".bashrc", ".zshenv", ".cshrc"):
            (home / file).write_text("echo Welcome; printf 'no end of line'\n")
        (tmp_path / "known_hosts").write_text(sshd.known_line)
        (tmp_path / "ssh_config").write_text(
            f"IdentityFile {tmp_path}/id\nIdentityAgent none\nUserKnownHostsFile {tmp_path}/known_hosts\n"
        )
        (tmp_path / "hosts.txt").write_text(
            "".join(
                f"{name} slots=1 address=127.0.0.1 port={sshd.port} user={name} prolog='X=\"a b\"'\n"
                for name in SHELLS
            )
        )
        (tmp_path / "script.py").write_text(SCRIPT)
        command = [sys.executable, "-m", "resilient_scoop", "run", "--python", sys.executable]
        options = ["--hostfile", "hosts.txt", "--ssh-config", "ssh_config"]
        done = subprocess.run(
            [*command, *options, "script.py", *SHELLS], cwd=tmp_path, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
    finally:
        sshd.close()
    assert done.stdout.split() == sorted(SHELLS), done.stderr
