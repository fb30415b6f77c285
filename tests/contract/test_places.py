"""Each kind of place passes the same tests, with programs on the host that behave or misbehave."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resilient_scoop.errors import PlaceBusyError, PlaceError, PlaceRefusedError
from resilient_scoop.hosts.base import Seen, Unit, UnitState
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.make import DoorKind, ReachablePlace, SshOptions, make_place
from resilient_scoop.hosts.remote_command import RemoteSettings
from tests import stand_in_host, stand_in_ssh
from tests.fake_sshd import FakeSshd, make_key
from tests.real_sshd import MISSING, RealSshd

TICKET = b'{"secret": "a b\'c\\\\d"}'
RUN = "20260101-abcdef"
WITHIN_S = 20.0
SHELLS = ("bash", "dash", "zsh", "tcsh", "fish")


class World:
    """A host that can be reached in one way, and the programs on it."""

    def __init__(
        self, kind: DoorKind, folder: Path, sshd: FakeSshd | RealSshd | None, user: str = "ann"
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.sshd = sshd
        self.user = user
        self.places: list[ReachablePlace] = []
        self.python = str(stand_in_host.write_python(folder))
        stand_in_ssh.write_ssh(folder)

    def behave(self, mode: str, version: str | None = "0.1", python: str = "3.11.9") -> None:
        """Set the mode in which the program on the host behaves from now on."""
        stand_in_host.write_python(self.folder, mode, version, python)

    def place(
        self, *, start_s: float = 60.0, python: str | None = None, prolog: str = ""
    ) -> ReachablePlace:
        """Return a place as a new launcher would make it."""
        port = self.sshd.port if self.sshd else None
        host = Host(name="ws1", address="127.0.0.1", user=self.user, port=port)
        options = SshOptions(
            kind=self.kind,
            config_file=str(self.folder / "ssh_config") if self.sshd else "",
            remote=RemoteSettings(python=self.python if python is None else python, prolog=prolog),
            start_s=start_s,
            ssh_program="ssh" if isinstance(self.sshd, RealSshd) else str(self.folder / "ssh"),
        )
        place = make_place(host, options, RUN)
        self.places.append(place)
        return place

    def cut(self) -> None:
        """Cut the connection."""
        if self.sshd:
            self.sshd.cut()
        else:
            stand_in_ssh.cut(self.folder)

    def alive(self, tag: str) -> list[int]:
        return stand_in_host.alive(self.folder, tag)

    def close(self) -> None:
        for place in self.places:
            place.close()
        stand_in_host.end_all(self.folder)
        if self.sshd:
            self.sshd.close()


REAL = [
    pytest.param(f"{kind.value} sshd", marks=pytest.mark.grid)
    for kind in (DoorKind.PARAMIKO, DoorKind.SYSTEM)
]


@pytest.fixture(params=["local", "paramiko", "system", *REAL])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from made(request.param, tmp_path)


@pytest.fixture(params=["paramiko", "system", *REAL])
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from made(request.param, tmp_path)


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from made(request.param, tmp_path)


def made(name: str, folder: Path) -> Iterator[World]:
    """Yield a world of a kind; `sshd` in its name means OpenSSH's server."""
    word, _, server = name.partition(" ")
    kind = DoorKind(word)
    sshd: FakeSshd | RealSshd | None = None
    if server:
        sshd = serve_really(folder)
    elif kind is DoorKind.PARAMIKO:
        sshd = serve(folder)
    world = World(kind, folder, sshd)
    yield world
    world.close()


def serve(folder: Path) -> FakeSshd:
    """Start a server, and write an SSH configuration for it."""
    key = make_key()
    sshd = FakeSshd(folder, key)
    key.write_private_key_file(str(folder / "id"))
    write_config(folder, sshd.known_line)
    return sshd


def serve_really(folder: Path) -> RealSshd:
    """Start OpenSSH's server with a user for each login shell."""
    if MISSING:
        pytest.skip(MISSING)
    key = make_key()
    key.write_private_key_file(str(folder / "id"))
    shells = {name: shutil.which(name) or f"/usr/bin/{name}" for name in SHELLS}
    users = {"ann": "/bin/bash", "guest": "/usr/sbin/nologin", **shells}
    sshd = RealSshd(folder / "sshd", users, f"{key.get_name()} {key.get_base64()}\n")
    write_config(folder, sshd.known_line)
    return sshd


def write_config(folder: Path, known: str) -> None:
    (folder / "known_hosts").write_text(known)
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/id\nIdentityAgent none\nUserKnownHostsFile {folder}/known_hosts\n"
        "GlobalKnownHostsFile none\n"
    )


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def become(place: ReachablePlace, unit: Unit, *states: UnitState) -> Seen:
    """Wait until a unit is in one of the states."""
    wait(lambda: place.look([unit])[unit].state in states)
    return place.look([unit])[unit]


def run(place: ReachablePlace, tag: str = "t1") -> Unit:
    [unit] = place.start(1, TICKET, tag=tag)
    become(place, unit, UnitState.RUNNING)
    return unit


def test_a_started_agent_runs_with_its_ticket_and_ends_when_asked(world: World) -> None:
    place = world.place()
    unit = run(place)
    assert (unit.tag, unit.host) == ("t1", "ws1")
    assert stand_in_host.tickets(world.folder, "t1") == [TICKET.decode()]
    assert len(world.alive("t1")) == 1

    place.stop([unit], grace_s=10)
    assert place.look([unit])[unit].state is UnitState.GONE
    wait(lambda: world.alive("t1") == [])


def test_starting_none_starts_none(world: World) -> None:
    assert world.place().start(0, TICKET, tag="t1") == []


def test_a_host_takes_one_agent(world: World) -> None:
    with pytest.raises(PlaceRefusedError, match="one agent, not 2"):
        world.place().start(2, TICKET, tag="t1")


def test_a_tag_starts_one_agent_however_often_it_is_asked_for(world: World) -> None:
    place = world.place()
    unit = run(place)
    assert place.start(1, TICKET, tag="t1") == [unit]
    assert place.start(1, TICKET, tag="t1") == [unit]
    assert len(stand_in_host.started(world.folder, "t1")) == 1
    assert len(stand_in_host.tickets(world.folder, "t1")) == 1


def test_two_tags_are_two_units(world: World) -> None:
    place = world.place()
    first, second = run(place, "t1"), run(place, "t2")
    assert first.id != second.id
    place.stop([first], grace_s=5)
    assert place.look([second])[second].state is UnitState.RUNNING


def test_a_tag_whose_unit_has_ended_gives_a_new_unit(world: World) -> None:
    place = world.place()
    first = run(place)
    place.stop([first], grace_s=5)
    second = run(place)
    assert second.id != first.id
    assert place.look([first])[first].state is UnitState.GONE


def test_an_agent_outlives_its_launcher_and_the_next_launcher_adopts_it(world: World) -> None:
    first = world.place()
    run(first)
    first.close()
    [pid] = world.alive("t1")

    second = world.place()
    [unit] = second.find("t1")
    assert (unit.tag, unit.host) == ("t1", "ws1")
    assert second.look([unit])[unit].state is UnitState.RUNNING
    run(second)
    assert stand_in_host.started(world.folder, "t1") == [pid]
    assert len(stand_in_host.tickets(world.folder, "t1")) == 2


def test_an_agent_of_an_earlier_launcher_can_be_stopped(world: World) -> None:
    first = world.place()
    run(first)
    first.close()

    second = world.place()
    units = second.find("t1")
    second.stop(units, grace_s=1)
    assert world.alive("t1") == []
    assert second.find("t1") == []
    assert second.look(units)[units[0]].state is UnitState.GONE


def test_a_unit_of_a_closed_place_is_unknown_and_its_agent_lives(world: World) -> None:
    place = world.place()
    unit = run(place)
    place.close()
    assert place.look([unit])[unit].state is UnitState.UNKNOWN
    assert len(world.alive("t1")) == 1


def test_an_unknown_tag_has_no_units(world: World) -> None:
    assert world.place().find("nothing") == []


def test_stopping_an_unknown_or_ended_unit_is_no_error(world: World) -> None:
    place = world.place()
    unit = run(place)
    place.stop([unit, unit], grace_s=5)
    place.stop([unit, Unit("t9", "t9/x", "ws1")], grace_s=0)


def test_a_dry_run_starts_nothing_and_shows_the_command(world: World) -> None:
    text = world.place().dry_run(1)
    assert "-m resilient_scoop.processes.entry host" in text
    assert "my python" in text
    assert TICKET.decode() not in text
    assert not list(world.folder.glob("*.agents"))


def test_the_ticket_is_in_no_command_line(world: World) -> None:
    place = world.place()
    run(place)
    if isinstance(world.sshd, FakeSshd):
        assert world.sshd.commands
        assert not any("secret" in command for command in world.sshd.commands)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b'"secret"' in line for line in lines)


def test_a_route_is_an_address_of_this_machine(world: World) -> None:
    assert world.place().route() == "127.0.0.1"


def test_noise_does_not_hide_what_the_program_says(world: World) -> None:
    world.behave("banner")
    place = world.place()
    run(place)


def test_an_output_without_line_ends_does_not_hide_what_the_program_says(world: World) -> None:
    world.behave("unbroken")
    run(world.place())


def test_the_unit_of_a_silent_program_is_unknown_after_the_start_timeout(world: World) -> None:
    world.behave("hang")
    place = world.place(start_s=1.0)
    [unit] = place.start(1, TICKET, tag="t1")
    assert place.look([unit])[unit].state is UnitState.STARTING
    seen = become(place, unit, UnitState.UNKNOWN, UnitState.NEVER_CAME)
    assert seen.state is UnitState.UNKNOWN
    assert "has not said that it runs" in seen.why
    assert "rscoop doctor" in seen.why
    assert place.find("t1") == []
    place.stop([unit], grace_s=0)


def test_a_start_after_a_silent_program_gives_the_same_unit(world: World) -> None:
    world.behave("hang")
    place = world.place(start_s=1.0)
    [unit] = place.start(1, TICKET, tag="t1")
    become(place, unit, UnitState.UNKNOWN)
    world.behave("good")
    assert place.start(1, TICKET, tag="t1") == [unit]
    become(place, unit, UnitState.RUNNING)


def test_a_refusal_of_the_host_is_passed_on(world: World) -> None:
    world.behave("refused")
    place = world.place()
    [unit] = place.start(1, TICKET, tag="t1")
    seen = become(place, unit, UnitState.NEVER_CAME)
    assert seen.why == "Python 3.9 there, 3.11 here; install 3.11 there"


def test_a_program_that_dies_before_it_runs_counts_as_never_started_and_its_last_lines_are_shown(
    world: World,
) -> None:
    world.behave("dies before")
    place = world.place()
    [unit] = place.start(1, TICKET, tag="t1")
    seen = become(place, unit, UnitState.NEVER_CAME)
    assert "exit status 3" in seen.why
    assert "ImportError: no module named zmq" in seen.log


@pytest.mark.parametrize(
    ("mode", "why"), [("dies after", "exit status 9"), ("killed", "killed by")]
)
def test_a_unit_is_gone_when_its_program_dies_while_the_agent_runs(
    world: World, mode: str, why: str
) -> None:
    if mode == "killed" and world.kind is DoorKind.SYSTEM:
        pytest.skip("`ssh` ends with 255 then, as it does when the connection is lost")
    world.behave(mode)
    place = world.place()
    [unit] = place.start(1, TICKET, tag="t1")
    assert why in become(place, unit, UnitState.GONE).why


def test_a_unit_is_starting_until_its_program_answers_late(world: World) -> None:
    world.behave("late")
    place = world.place()
    [unit] = place.start(1, TICKET, tag="t1")
    assert place.look([unit])[unit].state is UnitState.STARTING
    become(place, unit, UnitState.RUNNING)


def test_a_program_that_says_running_twice_is_one_unit(world: World) -> None:
    world.behave("twice")
    place = world.place()
    run(place)
    assert len(place.find("t1")) == 1


def test_nonsense_after_the_prefix_is_ignored(world: World) -> None:
    world.behave("lies")
    run(world.place())


def test_a_running_unit_is_not_gone_when_its_host_forgets_its_agents(world: World) -> None:
    world.behave("forgets")
    place = world.place()
    unit = run(place)
    assert place.find("t1") == [unit]
    assert place.look([unit])[unit].state is UnitState.RUNNING


def test_a_unit_is_unknown_and_not_gone_after_an_answer_that_is_not_understood(
    world: World,
) -> None:
    world.behave("mumbles")
    place = world.place()
    with pytest.raises(PlaceBusyError, match="what do you mean"):
        place.find("t1")
    unit = Unit("t1", "t1/found", "ws1")
    assert place.look([unit])[unit].state is UnitState.UNKNOWN


def test_the_host_ends_an_agent_that_ignores_a_stop(world: World) -> None:
    world.behave("deaf")
    place = world.place()
    unit = run(place)
    place.stop([unit], grace_s=0.2)
    assert world.alive("t1") == []


def test_a_python_that_is_missing_is_named_with_the_cure(world: World) -> None:
    with pytest.raises(PlaceRefusedError) as caught:
        world.place(python="/nowhere/python").start(1, TICKET, tag="t1")
    assert "/nowhere/python is not there" in str(caught.value)
    assert "pip install resilient-scoop==" in str(caught.value)


def test_a_python_that_is_too_old_is_named(world: World) -> None:
    world.behave("good", python="3.9.2")
    with pytest.raises(PlaceRefusedError, match=r"my python is Python 3\.9\.2"):
        world.place().start(1, TICKET, tag="t1")


def test_a_python_without_the_package_is_named(world: World) -> None:
    world.behave("good", version=None)
    with pytest.raises(PlaceRefusedError, match=r"\(Python 3\.11\.9\) lacks resilient_scoop"):
        world.place().start(1, TICKET, tag="t1")


def test_a_python_that_was_installed_after_a_failed_start_is_found(world: World) -> None:
    world.behave("good", version=None)
    place = world.place()
    with pytest.raises(PlaceError):
        place.start(1, TICKET, tag="t1")
    world.behave("good")
    run(place)


@pytest.mark.parametrize(
    "prolog", ["X='it''s; a \"test\" \\ !'; export X", "echo loaded python/3.11"]
)
def test_a_prolog_runs_first(world: World, prolog: str) -> None:
    run(world.place(prolog=prolog))


def test_a_cut_connection_makes_a_unit_unknown_and_the_agent_lives(connected: World) -> None:
    place = connected.place()
    unit = run(place)
    connected.cut()
    seen = become(place, unit, UnitState.UNKNOWN, UnitState.GONE, UnitState.NEVER_CAME)
    assert seen.state is UnitState.UNKNOWN
    assert "was lost" in seen.why
    assert len(connected.alive("t1")) == 1


def test_a_start_after_a_cut_adopts_the_agent_under_the_same_unit(connected: World) -> None:
    place = connected.place()
    unit = run(place)
    connected.cut()
    become(place, unit, UnitState.UNKNOWN)
    assert place.find("t1") == [unit]
    assert place.start(1, TICKET, tag="t1") == [unit]
    become(place, unit, UnitState.RUNNING)
    assert len(stand_in_host.started(connected.folder, "t1")) == 1


def test_a_stop_after_a_cut_ends_the_agent(connected: World) -> None:
    place = connected.place()
    unit = run(place)
    connected.cut()
    become(place, unit, UnitState.UNKNOWN)
    place.stop([unit], grace_s=1)
    assert connected.alive("t1") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_an_agent_runs_with_each_login_shell(real: World, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    real.user = shell
    place = real.place(prolog='X="it\'s"; echo loaded $X!')
    unit = run(place)
    assert place.find("t1") == [unit]
    place.stop([unit], grace_s=5)
    assert real.alive("t1") == []


def test_an_account_without_a_shell_is_named(real: World) -> None:
    real.user = "guest"
    with pytest.raises(PlaceRefusedError, match="This account is currently not available"):
        real.place().start(1, TICKET, tag="t1")


def test_an_agent_runs_with_a_login_shell_that_prints_at_its_start(real: World) -> None:
    assert isinstance(real.sshd, RealSshd)
    (real.sshd.folder / "home" / ".bashrc").write_text("echo Welcome; printf 'no end of line'\n")
    real.place()
    run(real.place())


def test_a_changed_host_key_is_refused(real: World) -> None:
    other = make_key()
    assert real.sshd is not None
    write_config(
        real.folder,
        f"[127.0.0.1]:{real.sshd.port} {other.get_name()} {other.get_base64()}\n",
    )
    with pytest.raises(PlaceRefusedError, match="possible attack: the host key"):
        real.place().start(1, TICKET, tag="t1")


def test_an_unknown_host_key_is_refused(real: World) -> None:
    write_config(real.folder, "")
    with pytest.raises(PlaceRefusedError, match=r"is not known .* --accept-new-host-keys"):
        real.place().start(1, TICKET, tag="t1")


def test_a_wrong_user_is_refused(real: World) -> None:
    real.user = "eve"
    with pytest.raises(PlaceRefusedError, match="refuses the login"):
        real.place().start(1, TICKET, tag="t1")


def test_a_tunnel_carries_bytes_and_is_opened_again_on_the_same_port(real: World) -> None:
    place = real.place()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                sock, _ = server.accept()
                with sock:
                    sock.sendall(sock.recv(100).upper())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = place.tunnel(server.getsockname()[1])
        assert answered(address) == b"HELLO"
        real.cut()
        assert opened_again(place, server.getsockname()[1]) == address
        thread.join(WITHIN_S)


def opened_again(place: ReachablePlace, port: int) -> str:
    """Open tunnels until one carries bytes: the loss of the first is noticed after some time."""
    until = time.monotonic() + WITHIN_S
    while True:
        assert time.monotonic() < until
        try:
            address = place.tunnel(port)
            if answered(address) == b"HELLO":
                return address
        except (PlaceBusyError, OSError):
            time.sleep(0.1)


def answered(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(b"hello")
        return sock.recv(100)


@pytest.mark.grid
def test_forty_logins_at_once_all_succeed_on_a_server_with_default_limits(tmp_path: Path) -> None:
    world = World(DoorKind.PARAMIKO, tmp_path, serve_really(tmp_path))
    try:
        places = [world.place() for _ in range(40)]
        with ThreadPoolExecutor(len(places)) as pool:
            list(pool.map(lambda place: place.connect(), places))
    finally:
        world.close()
