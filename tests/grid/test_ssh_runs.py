"""Runs reach their hosts in each possible way, from hostfiles that also name unreachable hosts."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from chaos.lab import DESK, Lab
from resilient_scoop.errors import PlaceError

pytestmark = pytest.mark.grid

SCRIPT = """
import socket, sys, time
from resilient_scoop import futures

def work(x):
    time.sleep(0.01)
    return x * x, socket.gethostname()

if __name__ == "__main__":
    names, until = set(), time.monotonic() + 60
    while not names >= set(sys.argv[1:]) and time.monotonic() < until:
        found = list(futures.map(work, range(100)))
        names |= {name for _, name in found}
    print(sum(value for value, _ in found), *sorted(names))
"""
"""Maps until each host in its arguments has computed: on a busy machine, one may come late."""
ANSWER = sum(x * x for x in range(100))


def run(
    lab: Lab, hosts: str, *words: str, names: tuple[str, ...] = ("alice", "bob")
) -> subprocess.CompletedProcess[str]:
    """Run the script on the hosts of a hostfile, until those of the names have computed."""
    (lab.shared / "script.py").write_text(SCRIPT)
    (lab.shared / "hosts.txt").write_text(hosts)
    command = [
        sys.executable,
        "-m",
        "resilient_scoop",
        "--state-dir",
        str(lab.shared / "state"),
        "run",
    ]
    options = ["--hostfile", str(lab.shared / "hosts.txt"), "--python", sys.executable, *words]
    script = str(lab.shared / "script.py")
    return lab.exec(DESK, [*command, *options, script, *names], timeout=100)


@pytest.mark.parametrize("ssh", ["paramiko", "system"])
def test_a_run_uses_hosts_over_each_kind_of_ssh(lab: Lab, ssh: str) -> None:
    done = run(lab, "alice 2\nbob:2", "--ssh", ssh)
    assert done.stdout.split() == [str(ANSWER), "alice", "bob"], done.stderr


@pytest.mark.parametrize("ssh", ["paramiko", "system"])
def test_a_tunnel_needs_no_port_of_the_desk(lab: Lab, ssh: str) -> None:
    lab.refuse_connections(DESK, silently=True)
    try:
        done = run(lab, "alice 2\nbob:2", "--ssh", ssh, "--tunnel")
    finally:
        lab.accept_connections(DESK)
    assert done.stdout.split() == [str(ANSWER), "alice", "bob"], done.stderr


def test_a_host_is_reached_over_ipv6(lab: Lab) -> None:
    done = run(lab, f"alice slots=2 address={lab.address('alice', 6)}", names=("alice",))
    assert done.stdout.split() == [str(ANSWER), "alice"], done.stderr


@pytest.mark.parametrize("ssh", ["paramiko", "system"])
def test_a_host_may_be_given_by_its_ipv6_address(lab: Lab, ssh: str) -> None:
    done = run(lab, f"[{lab.address('alice', 6)}]:2", "--ssh", ssh, names=("alice",))
    assert done.stdout.split() == [str(ANSWER), "alice"], done.stderr


def test_a_host_that_cannot_be_used_is_named_and_the_run_uses_the_others(lab: Lab) -> None:
    done = run(lab, "alice 2\neve@carol 2\nbob slots=2 port=7", names=("alice",))
    assert done.stdout.split() == [str(ANSWER), "alice"], done.stderr
    assert "refuses the login" in done.stderr
    assert "nothing listens on port 7 of" in done.stderr


def test_a_run_stops_at_once_if_its_only_host_lacks_its_folder(lab: Lab) -> None:
    (lab.shared / "script.py").write_text(SCRIPT)
    rscoop = f"{sys.executable} -m resilient_scoop --state-dir {lab.shared / 'state'}"
    text = (
        f"mkdir -p /tmp/mine && cd /tmp/mine && cp {lab.shared / 'script.py'} . && "
        f"exec {rscoop} run --host alice:1 --python {sys.executable} script.py alice"
    )
    done = lab.exec(DESK, ["sh", "-c", text], timeout=30)
    assert done.returncode == PlaceError.exit_code, done.stderr
    assert "alice has no folder /tmp/mine" in done.stderr
    assert "(--ship)" in done.stderr


@pytest.mark.parametrize("silently", [True, False])
def test_a_run_stops_in_seconds_if_its_only_host_cannot_reach_this_one(
    lab: Lab,
    silently: bool,  # noqa: FBT001
) -> None:
    lab.refuse_connections(DESK, silently=silently)
    began = time.monotonic()
    try:
        done = run(lab, "alice 2", names=("alice",))
    finally:
        lab.accept_connections(DESK)
    assert done.returncode == PlaceError.exit_code, done.stderr
    assert "alice cannot reach the broker" in done.stderr
    assert "(--tunnel)" in done.stderr
    assert time.monotonic() - began < 40
