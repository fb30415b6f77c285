"""The lab injects the faults that it promises: each is seen from both ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chaos.lab import DESK, Lab, LabError, clean, undo
from tests.integration.runs import wait_until

pytestmark = pytest.mark.grid

PORT = 7700
HEARD_S = 0.3
COUNTING = "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; sleep 0.01; done"


def hears(lab: Lab, name: str, source: str, version: int = 4) -> bool:
    """Return whether a datagram of one host reaches another one."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    address = lab.address(name, 4 if version == 4 else 6)

    def bound() -> socket.socket:
        inbox = socket.socket(family, socket.SOCK_DGRAM)
        inbox.bind((address, PORT))
        inbox.settimeout(HEARD_S)
        return inbox

    def send() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as outbox:
            outbox.sendto(b"hello", (address, PORT))

    with lab.in_network(name, bound) as inbox:
        lab.in_network(source, send)
        try:
            return inbox.recv(16) == b"hello"
        except TimeoutError:
            return False


def pair(lab: Lab, name: str) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection from a host to the desk."""
    with lab.in_network(DESK, lambda: socket.create_server((lab.address(DESK), PORT))) as server:
        theirs = lab.connect(name, lab.address(DESK), PORT)
        ours, _ = server.accept()
    ours.settimeout(HEARD_S)
    theirs.settimeout(HEARD_S)
    return ours, theirs


def test_a_host_boots_within_a_second(lab: Lab) -> None:
    took_s = [lab.reboot(name) for name in lab.hosts for _ in range(2)]
    assert min(took_s) < 1.0  # the machine may be busy for some time


def test_a_host_has_a_name_processes_and_a_tmp_of_its_own(lab: Lab) -> None:
    for name in lab.hosts:
        (lab.temporary(name) / name).touch()
    for name in lab.hosts:
        done = lab.exec(
            name, ["bash", "-c", 'hostname; echo $(ls /tmp | grep -v "^v"); echo /proc/[0-9]*']
        )
        hostname, files, processes = done.stdout.splitlines()
        assert hostname == name
        assert set(files.split()) & set(lab.hosts) == {name}
        assert len(processes.split()) <= 3
        (lab.temporary(name) / name).unlink()


def test_hosts_share_the_other_files_of_the_machine(lab: Lab) -> None:
    (lab.shared / "x").write_text("shared")
    command = f"import resilient_scoop; print(open('{lab.shared}/x').read())"
    for name in lab.hosts:
        done = lab.exec(name, [sys.executable, "-c", command])
        assert done.stdout == "shared\n", done.stderr


@pytest.mark.parametrize("suffix", ["", "-six"])
def test_the_desk_logs_in_to_a_host_by_ssh(lab: Lab, suffix: str) -> None:
    for name in lab.hosts:
        done = lab.exec(DESK, ["ssh", "-o", "BatchMode=yes", name + suffix, "hostname"])
        assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr


@pytest.mark.parametrize("version", [4, 6])
def test_hosts_reach_each_other(lab: Lab, version: int) -> None:
    assert hears(lab, DESK, "alice", version)
    assert hears(lab, "alice", DESK, version)
    assert hears(lab, "carol", "bob", version)


def test_a_power_off_kills_every_process_without_a_message(lab: Lab) -> None:
    ours, theirs = pair(lab, "bob")
    sleeping = lab.start("bob", ["setsid", "sleep", "1000"])
    wait_until(lambda: bool(lab.processes("bob")))
    numbers = set(lab.processes("bob"))
    with ours:
        assert lab.power_off("bob") < 1.0
        sleeping.wait()
        theirs.close()  # this program holds the host's end: it must not close the connection either
        assert not any(Path(f"/proc/{number}").exists() for number in numbers)
        with pytest.raises(TimeoutError):
            ours.recv(1)
        lab.boot("bob")
        ours.send(b"are you there?")
        ours.settimeout(5)
        with pytest.raises(ConnectionResetError):  # by a kernel that does not know the connection
            ours.recv(1)


def test_disks_survive_a_reboot_and_tmp_does_not(lab: Lab) -> None:
    (lab.temporary("alice") / "x").touch()
    assert lab.exec("alice", ["touch", str(Path("~/x").expanduser())]).returncode == 0
    assert lab.exec("alice", ["touch", "/var/tmp/x"]).returncode == 0
    lab.reboot("alice")
    assert (lab.home("alice") / "x").exists()
    assert (lab.var_tmp("alice") / "x").exists()
    assert not Path("/var/tmp/x").exists()
    assert not (lab.temporary("alice") / "x").exists()
    (lab.home("alice") / "x").unlink()
    (lab.var_tmp("alice") / "x").unlink()


def test_a_cut_loses_the_packets_of_its_direction_only(lab: Lab) -> None:
    for direction, reaches_host, leaves_host in (
        ("in", False, True), ("out", True, False), ("both", False, False),
    ):  # fmt: skip
        before = lab.dropped("bob")
        lab.cut("bob", direction)  # type: ignore[arg-type]
        assert hears(lab, "bob", DESK) is reaches_host
        assert hears(lab, DESK, "bob") is leaves_host
        assert hears(lab, DESK, "alice")
        after = lab.dropped("bob")
        assert (after["in"] > before["in"]) is not reaches_host
        assert (after["out"] > before["out"]) is not leaves_host
        lab.heal("bob")
        assert hears(lab, "bob", DESK)
        assert hears(lab, DESK, "bob")


def test_a_connection_survives_a_cut(lab: Lab) -> None:
    ours, theirs = pair(lab, "carol")
    with ours, theirs:
        lab.cut("carol")
        theirs.send(b"x")
        with pytest.raises(TimeoutError):
            ours.recv(1)
        lab.heal("carol")
        ours.settimeout(5)
        assert ours.recv(1) == b"x"


def test_a_pulled_cable_is_seen_by_the_host_and_not_by_the_desk(lab: Lab) -> None:
    ours, theirs = pair(lab, "carol")
    with ours, theirs:
        lab.unplug("carol")
        shown = lab.exec("carol", ["ip", "link", "show", "eth0"]).stdout
        assert "NO-CARRIER" in shown
        with pytest.raises(TimeoutError):
            ours.recv(1)
        lab.plug("carol")
        theirs.send(b"x")
        ours.settimeout(5)
        assert ours.recv(1) == b"x"


def test_a_host_that_sleeps_runs_nothing_and_sends_nothing(lab: Lab) -> None:
    counting = lab.start("alice", ["sh", "-c", COUNTING])
    file = lab.temporary("alice") / "n"
    wait_until(file.exists)
    lab.sleep("alice")
    assert lab.is_asleep("alice")
    before = file.read_text()
    assert not hears(lab, "alice", DESK)
    time.sleep(0.2)
    assert file.read_text() == before
    lab.wake("alice")
    assert not lab.is_asleep("alice")
    wait_until(lambda: file.read_text() != before)
    assert hears(lab, "alice", DESK)
    lab.power_off("alice")
    counting.wait()


def test_a_host_that_sleeps_can_be_switched_off(lab: Lab) -> None:
    lab.sleep("alice")
    assert lab.power_off("alice") < 1.0


def test_a_cut_outlasts_sleep(lab: Lab) -> None:
    lab.cut("bob", "in")
    lab.sleep("bob")
    lab.wake("bob")
    assert not hears(lab, "bob", DESK)
    assert hears(lab, DESK, "bob")


def test_reset_connections_are_reset_at_both_ends(lab: Lab) -> None:
    ours, theirs = pair(lab, "bob")
    with ours, theirs:
        assert lab.reset_connections("bob") == 1
        with pytest.raises(ConnectionResetError):
            ours.recv(1)
        with pytest.raises(ConnectionError):
            theirs.recv(1)
    again, back = pair(lab, "bob")
    again.close()
    back.close()


def test_a_firewall_refuses_new_connections_and_keeps_those_that_exist(lab: Lab) -> None:
    ours, theirs = pair(lab, "bob")
    with ours, theirs:
        lab.refuse_connections(DESK)
        with pytest.raises(ConnectionRefusedError):
            pair(lab, "bob")
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        lab.accept_connections(DESK)
    for end in pair(lab, "bob"):
        end.close()


def test_a_capture_holds_the_packets_that_passed(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "packets"
    capture = lab.capture(file)
    ours, theirs = pair(lab, "bob")
    with ours, theirs:
        theirs.send(b"this is in the clear")
        assert ours.recv(99) == b"this is in the clear"
    wait_until(lambda: b"this is in the clear" in file.read_bytes())
    capture.terminate()
    capture.communicate()


def test_a_command_on_a_switched_off_host_is_an_error(lab: Lab) -> None:
    lab.power_off("bob")
    with pytest.raises(LabError, match="bob is switched off"):
        lab.exec("bob", ["true"])
    assert lab.processes("bob") == {}


def round_trips_s(lab: Lab, name: str, count: int) -> list[float]:
    ours, theirs = pair(lab, name)
    ours.settimeout(10)
    found = []
    with ours, theirs:
        theirs.settimeout(10)
        for _ in range(count):
            began = time.monotonic()
            theirs.send(b"x")
            ours.recv(1)
            ours.send(b"y")
            theirs.recv(1)
            found.append(time.monotonic() - began)
    return sorted(found)


def test_a_cut_at_the_switch_loses_the_packets_of_its_direction(tun_lab: Lab) -> None:
    test_a_cut_loses_the_packets_of_its_direction_only(tun_lab)


def test_a_power_off_at_the_switch_sends_no_message(tun_lab: Lab) -> None:
    test_a_power_off_kills_every_process_without_a_message(tun_lab)


@pytest.mark.parametrize("version", [4, 6])
def test_hosts_reach_each_other_over_the_switch(tun_lab: Lab, version: int) -> None:
    test_hosts_reach_each_other(tun_lab, version)


def test_the_delay_of_packets_is_the_requested_one(tun_lab: Lab) -> None:
    assert round_trips_s(tun_lab, "alice", 20)[0] < 0.02
    tun_lab.delay("alice", 0.05)
    slow = round_trips_s(tun_lab, "alice", 20)
    assert slow[0] >= 0.1
    assert slow[0] < 0.15
    assert round_trips_s(tun_lab, "bob", 20)[0] < 0.02
    tun_lab.heal("alice")
    assert round_trips_s(tun_lab, "alice", 20)[0] < 0.02


def test_the_share_of_lost_packets_is_the_requested_one(tun_lab: Lab) -> None:
    tun_lab.loss("bob", 0.3, "out")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outbox:
            for _ in range(1000):
                outbox.sendto(b"x", (tun_lab.address(DESK), PORT))
                time.sleep(0.0001)

    before = tun_lab.dropped("bob")
    tun_lab.in_network("bob", send)
    wait_until(lambda: tun_lab.dropped("bob")["out"] > before["out"] + 200)
    time.sleep(0.1)
    after = tun_lab.dropped("bob")
    assert 240 < after["out"] - before["out"] < 360
    assert after["in"] == before["in"]


def test_a_connection_survives_lost_and_reordered_packets(tun_lab: Lab) -> None:
    tun_lab.loss("bob", 0.1)
    tun_lab.reorder("bob", 0.2)
    tun_lab.delay("bob", 0.002, 0.002)
    text = os.urandom(200_000)
    ours, theirs = pair(tun_lab, "bob")
    ours.settimeout(30)
    theirs.settimeout(30)
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=[text])
        sender.start()
        got = b""
        while len(got) < len(text):
            got += ours.recv(1 << 16)
        sender.join()
    assert got == text


def test_the_rate_of_a_link_is_the_requested_one(tun_lab: Lab) -> None:
    tun_lab.rate("carol", 8e6, "out")
    ours, theirs = pair(tun_lab, "carol")
    ours.settimeout(10)
    with ours, theirs:
        theirs.setblocking(False)
        sent = got = 0
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            with contextlib.suppress(BlockingIOError):
                sent += theirs.send(bytes(1 << 14))
            got += len(ours.recv(1 << 16))
        rate_bps = got * 8 / (time.monotonic() - began)
    assert 2e6 < rate_bps < 9e6, (sent, got)


PROGRAM = """
import sys, time
from chaos.lab import Lab
with Lab(2) as lab:
    lab.start("alice", ["setsid", "sleep", "1000"])
    while not lab.processes("alice"):
        time.sleep(0.01)
    print(lab.folder, *[s.pid for s in lab.stations.values()], *lab.processes("alice"), flush=True)
    time.sleep(100)
"""


@pytest.mark.usefixtures("lab")
def test_a_lab_ends_when_its_program_is_killed_and_can_be_cleaned_up() -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    folder, *numbers = program.stdout.readline().split()
    assert folder not in clean()  # the lab is in use
    program.send_signal(signal.SIGKILL)
    program.communicate()
    wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in numbers), 3.0)
    assert Path(folder).exists()
    groups = [Path(path) for kind, path, _ in undo.entries(Path(folder)) if kind == "group"]
    assert folder in clean()
    assert not Path(folder).exists()
    assert not any(group.exists() for group in groups)
