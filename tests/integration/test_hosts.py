"""Runs on other hosts: an SSH server in this program represents each, so neither root nor sshd is needed.

Each host has its own folder for its part of the run. All traffic uses the loopback, with the same
sockets, keys and files as between machines.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from resilient_scoop.runs.hosts import read_live_hosts
from resilient_scoop.transport.tickets import KEYS, door_of
from tests.fake_sshd import USER, FakeSshd, make_key
from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real
TIMEOUT_S = 60.0


class Grid:
    """Two hosts, and the place in which runs are started."""

    def __init__(self, place: Place) -> None:
        self.place = place
        key = make_key()
        ssh = place.folder / "ssh"
        ssh.mkdir()
        key.write_private_key_file(str(ssh / "id"))
        self.servers: dict[str, FakeSshd] = {}
        config, known = [], []
        for name in ("alice", "bob"):
            home = place.folder / name
            (home / "tmp").mkdir(parents=True)
            server = self.servers[name] = FakeSshd(home, key)
            server.environment["RSCOOP_HOST_DIR"] = str(home / "tmp")
            server.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
            known.append(server.known_line)
            config.append(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n"
                f"  IdentityFile {ssh / 'id'}\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {ssh / 'known'}\n"
            )
        (ssh / "config").write_text("".join(config))
        (ssh / "known").write_text("".join(known))
        self.options = [
            "--ssh-config", str(ssh / "config"), "--host", "alice:1", "--host", "bob:1",
            "--external-address", "127.0.0.1", "--min-hosts", "2",
        ]  # fmt: skip

    def folders(self, name: str) -> list[Path]:
        """Return the present folders of runs on a host."""
        return list((self.servers[name].home / "tmp").glob("rscoop-*/*"))

    def start(self, text: str, *more: str) -> subprocess.Popen[str]:
        path = self.place.write(text)
        return self.place.start("run", *self.options, *more, path.name)

    def agents(self, role: str = "remote-agent") -> list[int]:
        """Return the processes of a role on the hosts."""
        found = []
        for pid, words in self.place.processes().items():
            if f"processes.entry {role} " in words and (role != "worker" or ":w" in words):
                found.append(pid)
        return found

    def assert_nothing_left(self) -> None:
        self.place.assert_nothing_left()
        for name in self.servers:
            assert self.folders(name) == []


@pytest.fixture
def grid(place: Place) -> Iterator[Grid]:
    made = Grid(place)
    yield made
    for server in made.servers.values():
        server.close()
    for pid in made.place.processes():
        os.kill(pid, signal.SIGKILL)


def python(place: Place, text: str) -> str:
    """Return what a script prints under `python`."""
    path = place.write(text, "plain.py")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=place.folder, check=True
    )
    return done.stdout


NESTED = """
    import time
    from resilient_scoop import futures

    def leaf(x):
        time.sleep(0.02)
        return x * x

    def parent(n):
        return sum(futures.map(leaf, range(n)))

    def draw(_):
        import random
        time.sleep(0.01)
        return random.randrange(10**9)

    if __name__ == "__main__":
        print(sum(futures.map(leaf, range(40))), flush=True)
        print(list(futures.map(parent, range(8))))
        done = futures.as_completed([futures.submit(leaf, n) for n in range(20)])
        print(sorted(each.result() for each in done))
        print(len(set(futures.map(draw, range(20)))))
"""

LARGE = """
    import time
    from resilient_scoop import checkpoint, futures, shared

    SIZE = 3 << 20

    def make(n):
        return bytes([n]) * SIZE

    def take(data):
        return len(data), data[0], len(shared.getConst("table"))

    def both(n):
        return [each[1] for each in futures.map(take, [make(n), make(n + 1)])]

    def long(n):
        with checkpoint.durable(state=bytes([n]) * SIZE, step=0) as s:
            while s.step < 3:
                s.step += 1
                list(futures.map(abs, [s.step]))
                s.commit()
            return s.step, len(s.state), s.state[0]

    if __name__ == "__main__":
        shared.setConst(table=bytes(SIZE))
        made = list(futures.map(make, range(5)))
        print([(len(each), each[0]) for each in made], flush=True)
        print(list(futures.map(take, made)))
        print(list(futures.map(both, range(3))))
        print(list(futures.map(long, range(2))))
"""
LARGE_OUT = (
    "[(3145728, 0), (3145728, 1), (3145728, 2), (3145728, 3), (3145728, 4)]\n"
    "[(3145728, 0, 3145728), (3145728, 1, 3145728), (3145728, 2, 3145728), (3145728, 3, 3145728), "
    "(3145728, 4, 3145728)]\n"
    "[[0, 1], [1, 2], [2, 3]]\n"
    "[(3, 3145728, 0), (3, 3145728, 1)]\n"
)

SLOW = """
    import time
    from resilient_scoop import futures

    def slow(x):
        time.sleep(0.1)
        return x * x

    if __name__ == "__main__":
        print(sum(futures.map(slow, range(80))))
"""
SLOW_OUT = f"{sum(n * n for n in range(80))}\n"


def test_a_run_on_other_hosts_prints_what_python_prints(grid: Grid) -> None:
    wanted = python(grid.place, NESTED)
    done = finish(grid.start(NESTED), timeout_s=TIMEOUT_S)
    assert done.expect() == wanted
    grid.assert_nothing_left()


@pytest.mark.parametrize("more", [(), ("--tunnel",)], ids=["direct", "tunnel"])
def test_large_values_and_checkpoints_are_sent_between_hosts(
    grid: Grid, more: tuple[str, ...]
) -> None:
    done = finish(grid.start(LARGE, *more), timeout_s=TIMEOUT_S)
    assert done.expect() == LARGE_OUT
    grid.assert_nothing_left()


def computing(grid: Grid) -> None:
    """Wait until both hosts have computed something."""

    def both() -> bool:
        try:
            done = grid.place.status()["done"]
        except AssertionError:
            return False
        return bool(done) and len(grid.agents("worker")) == 2

    wait_until(both, 30.0, lambda: f"{grid.place.processes()}")
    time.sleep(0.5)


@pytest.mark.parametrize("role", ["worker", "remote-agent", "host", "broker", "places"])
def test_a_killed_process_of_the_grid_costs_no_result(grid: Grid, role: str) -> None:
    process = grid.start(SLOW)
    computing(grid)
    os.kill(grid.agents(role)[0], signal.SIGKILL)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    grid.assert_nothing_left()


GATED = """
    import os, time
    from resilient_scoop import futures

    def slow(x):
        time.sleep(0.1)
        return x * x

    if __name__ == "__main__":
        print(sum(futures.map(slow, range(30))), flush=True)
        while not os.path.exists("go"):
            time.sleep(0.02)
        more = range(30) if os.path.exists("more") else []
        print(sum(futures.map(slow, more)))
"""


def states(grid: Grid) -> dict[str, str]:
    live = read_live_hosts(grid.place.runs()[0])
    return {} if live is None else {name: host.state for name, host in live.hosts.items()}


def test_a_killed_agent_is_noticed_at_once(grid: Grid) -> None:
    # Given a host that has computed something, and its agent is killed
    process = grid.start(GATED)
    computing(grid)
    first, other = grid.agents()
    os.kill(first, signal.SIGKILL)

    # Then the broker does not wait for ten seconds of silence, and the agent is started again
    wait_until(lambda: "lost" in states(grid).values(), 4.0, lambda: f"{states(grid)}")
    wait_until(lambda: list(states(grid).values()) == ["up", "up"], 20.0)
    assert other in grid.agents()

    (grid.place.folder / "more").touch()
    (grid.place.folder / "go").touch()
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == f"{sum(n * n for n in range(30))}\n" * 2
    assert "is lost: its agent has died" in done.err
    grid.assert_nothing_left()


class Way:
    """A relay between the hosts and the broker, which can lose their messages."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.is_mute = False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.sockets = [self.server]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.server.accept()
                port = door_of(self.place.runs()[0], wait_s=5.0).port
                broker = socket.create_connection(("127.0.0.1", port))
                self.sockets += [client, broker]
                for words in ((client, broker, True), (broker, client, False)):
                    threading.Thread(target=self._carry, args=words, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65536):
                if not (is_up and self.is_mute):
                    target.sendall(data)
            if not (is_up and self.is_mute):  # otherwise the broker does not learn of the end
                target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_run_ends_at_once_if_the_last_messages_of_its_hosts_are_lost(grid: Grid) -> None:
    way = Way(grid.place)
    at = grid.options.index("--external-address") + 1
    grid.options[at] = f"127.0.0.1:{way.port}"
    process = grid.start(GATED)
    computing(grid)
    wait_until(lambda: list(states(grid).values()) == ["up", "up"], 10.0)
    wait_until(lambda: grid.place.status()["done"] == 30, 20.0)

    way.is_mute = True
    began = time.monotonic()
    (grid.place.folder / "go").touch()
    done = finish(process, timeout_s=TIMEOUT_S)
    took_s = time.monotonic() - began

    way.close()
    assert done.expect().endswith("\n0\n")
    assert took_s < 7.0, done.err
    grid.assert_nothing_left()


def test_results_reach_the_next_broker_if_their_workers_die_while_there_is_none(grid: Grid) -> None:
    for server in grid.servers.values():
        server.environment["RSCOOP_KEPT_MIB"] = "0"  # each copy is a file, so that the test sees it
    go, begun = grid.place.folder / "go", grid.place.folder / "begun"
    process = grid.start(
        f"""
        import pathlib, time
        from resilient_scoop import futures

        def once(x):
            with open({str(begun)!r}, "a") as file:
                file.write(f"{{x}} ")
            while not pathlib.Path({str(go)!r}).exists():
                time.sleep(0.01)
            return x * x

        if __name__ == "__main__":
            print(list(futures.map(once, [3, 4])))
        """
    )
    wait_until(lambda: begun.exists() and len(begun.read_text().split()) == 2, 30.0)

    def are_known() -> bool:
        live = read_live_hosts(grid.place.runs()[0])
        return live is not None and [host.state for host in live.hosts.values()] == ["up", "up"]

    wait_until(are_known, 10.0)  # the next broker waits for these hosts
    process.send_signal(signal.SIGSTOP)  # otherwise it starts another broker
    try:
        for pid in grid.agents("broker"):
            os.kill(pid, signal.SIGKILL)

        def copies() -> list[int]:
            return [
                len(list(grid.folders(name)[0].glob("unacknowledged/*"))) for name in grid.servers
            ]

        before = copies()
        go.touch()
        wait_until(
            lambda: all(now > then for now, then in zip(copies(), before, strict=True)), 10.0
        )
        for pid in grid.agents("worker"):
            os.kill(pid, signal.SIGKILL)
    finally:
        process.send_signal(signal.SIGCONT)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == "[9, 16]\n"
    assert sorted(begun.read_text().split()) == ["3", "4"], "no result is computed again"
    grid.assert_nothing_left()


def test_a_host_whose_ssh_connection_is_cut_continues(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    for server in grid.servers.values():
        server.cut()
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    grid.assert_nothing_left()


def test_a_resume_finds_the_hosts_of_a_launcher_that_was_killed(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    before = grid.agents()
    process.kill()
    process.communicate()
    wait_until(lambda: not grid.agents("broker"), 10.0)
    assert sorted(grid.agents()) == sorted(before), "agents outlive their launcher"
    done = grid.place.rscoop("resume", timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    grid.assert_nothing_left()


def test_agents_end_if_no_broker_comes_back(grid: Grid) -> None:
    process = grid.start(SLOW, "--orphan-timeout", "3s")
    computing(grid)
    process.kill()
    process.communicate()
    wait_until(lambda: not grid.agents("host") and not grid.agents(), 10.0)
    wait_until(lambda: not grid.place.processes(), 5.0)
    for name in grid.servers:
        assert grid.folders(name) == []


def test_ctrl_c_ends_the_agents_of_all_hosts(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    process.send_signal(signal.SIGINT)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.code == 130, str(done)
    grid.assert_nothing_left()


def test_a_drained_host_leaves_and_loses_nothing(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    grid.place.rscoop("drain", "alice").expect()
    wait_until(lambda: len(grid.agents()) == 1, 10.0)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert "host alice has left the run" in done.err
    assert grid.place.status()["resubmitted"] == 0
    grid.assert_nothing_left()


def test_agents_that_are_not_enrolled_yet_end_at_once(grid: Grid) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        grid.options += ["--external-address", f"127.0.0.1:{silent.getsockname()[1]}"]
        process = grid.start(SLOW)
        wait_until(lambda: len(grid.agents()) == 2, 15.0)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        done = finish(process, timeout_s=TIMEOUT_S)
        took_s = time.monotonic() - began
    assert done.code == 130, str(done)
    assert took_s < 3.0
    grid.assert_nothing_left()


def test_a_run_whose_hosts_were_all_taken_out_reports_it_and_continues_on_an_invited_host(
    grid: Grid,
) -> None:
    process = grid.start(SLOW)
    computing(grid)
    for how, name in (("drain", "alice"), ("revoke", "bob")):
        grid.place.rscoop(how, name).expect()
    text = "no host is left that may compute: alice was drained, bob was revoked"
    wait_until(lambda: any(text in each for each in grid.place.status()["troubles"]), 20.0)
    assert text in grid.place.rscoop("why").expect()

    home = grid.place.folder / "carol"
    home.mkdir()
    ticket = grid.place.rscoop("invite", "--host", "carol").expect()
    joined = grid.place.start(
        "join", "-n", "2", stdin=subprocess.PIPE,
        env={**grid.place.env(), "RSCOOP_HOST_DIR": str(home)},
    )  # fmt: skip
    assert joined.stdin is not None
    joined.stdin.write(ticket)
    joined.stdin.flush()
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert done.err.count(text) == 1
    joined.communicate(timeout=20.0)


def test_a_host_that_is_revoked_is_cut_off_at_once(grid: Grid) -> None:
    process = grid.start(SLOW, "--orphan-timeout", "3s")
    computing(grid)
    began = time.monotonic()
    grid.place.rscoop("revoke", "alice").expect()
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert "host alice is cut off" in done.err
    wait_until(lambda: not grid.place.processes(), max(0.1, began + 30 - time.monotonic()))


def test_a_host_joins_a_run_of_one_machine_with_a_ticket(grid: Grid) -> None:
    path = grid.place.write(SLOW)
    process = grid.place.start("run", "-n", "1", path.name)
    wait_until(lambda: len(grid.agents("origin")) == 1, 10.0)
    wait_until((grid.place.runs()[0] / "lock").exists, 10.0)
    ticket = grid.place.rscoop("invite", "--host", "carol").expect()
    home = grid.place.folder / "carol"
    home.mkdir()
    joined = grid.place.start(
        "join", "-n", "2", stdin=subprocess.PIPE,
        env={**grid.place.env(), "RSCOOP_HOST_DIR": str(home)},
    )  # fmt: skip
    assert joined.stdin is not None
    joined.stdin.write(ticket)
    joined.stdin.flush()
    wait_until(lambda: len(grid.agents("worker")) == 2, 20.0)
    os.kill(grid.agents("broker")[0], signal.SIGKILL)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert grid.place.status()["resubmitted"] == 0, "the next broker lets it in again"
    assert done.expect() == SLOW_OUT
    left = finish(joined, timeout_s=20.0)
    assert "computes for run" in left.err
    left.expect()
    again = grid.place.rscoop("join", stdin=ticket)
    assert again.code == 75
    grid.place.assert_nothing_left()


def test_a_folder_that_a_host_lacks_is_shipped_to_it(grid: Grid) -> None:
    """No host can see the script's folder: each works in its own copy."""
    text = """
        import pathlib
        from resilient_scoop import futures
        import helper

        def read(_):
            here = pathlib.Path(__file__)
            return helper.double(int((here.parent / "data" / "seed.txt").read_text())), str(here.parent)

        if __name__ == "__main__":
            found = list(futures.map(read, range(8)))
            print({value for value, _ in found})
            print(str(pathlib.Path(__file__).parent) in {folder for _, folder in found})
    """
    grid.place.write("def double(x): return 2 * x", "project/helper.py")
    grid.place.write("21", "project/data/seed.txt")
    grid.place.write("x" * 1000, "project/.venv/large")
    path = grid.place.write(text, "project/script.py")
    done = grid.place.rscoop(
        "run", *grid.options, "--ship", "script.py", cwd=path.parent, timeout_s=TIMEOUT_S
    )
    assert done.expect() == "{42}\nFalse\n"
    assert "3 files" in done.err
    grid.assert_nothing_left()


@pytest.mark.parametrize(
    ("how", "reason"),
    [("revoke", "does not take the key"), ("rekey", "keys of the run were renewed"),
     ("terminate", "leaving the run")],
)  # fmt: skip
def test_a_joined_host_ends_at_once_when_it_leaves_or_is_refused(
    grid: Grid, how: str, reason: str
) -> None:
    path = grid.place.write(SLOW)
    process = grid.place.start("run", "-n", "1", path.name)
    wait_until(lambda: len(grid.agents("origin")) == 1, 10.0)
    ticket = grid.place.rscoop("invite", "--host", "carol").expect()
    home = grid.place.folder / "carol"
    home.mkdir()
    joined = grid.place.start(
        "join", "-n", "1", stdin=subprocess.PIPE,
        env={**grid.place.env(), "RSCOOP_HOST_DIR": str(home)},
    )  # fmt: skip
    assert joined.stdin is not None
    joined.stdin.write(ticket)
    joined.stdin.flush()
    wait_until(lambda: len(grid.agents("worker")) == 1, 20.0)
    time.sleep(0.5)
    if how == "terminate":
        joined.terminate()
    else:
        answer = grid.place.rscoop(how, *["carol"] * (how == "revoke"))
        answer.expect()
        assert how != "rekey" or "to be invited again: carol" in answer.err
    done = finish(joined, timeout_s=10.0)
    assert reason in done.err
    assert not grid.agents("remote-agent")
    assert list(home.glob("rscoop-*/*")) == []
    assert finish(process, timeout_s=TIMEOUT_S).expect() == SLOW_OUT
    grid.place.assert_nothing_left()


def test_workers_of_different_hosts_have_different_indices(grid: Grid) -> None:
    text = """
        import time
        from resilient_scoop import futures

        def work(_):
            time.sleep(0.02)
            worker = futures.task_info().worker
            return worker.index, worker.name

        if __name__ == "__main__":
            found, until = set(), time.monotonic() + 30
            while len(found) < 2 and time.monotonic() < until:
                found |= set(futures.map(work, range(20)))
            indices, names = zip(*sorted(found))
            print(indices, sorted(names))
    """
    done = finish(grid.start(text), timeout_s=TIMEOUT_S)
    assert done.expect() == "(10000, 20000) ['alice:w1', 'bob:w1']\n"


def test_output_of_tasks_on_other_hosts_is_in_the_logs(grid: Grid) -> None:
    text = """
        from resilient_scoop import futures

        def say(x):
            print("hello from", x)
            print("." * 500_000)  # more than the agents can send by the way
            return x

        if __name__ == "__main__":
            print(sum(futures.map(say, range(10))))
    """
    done = finish(grid.start(text), timeout_s=TIMEOUT_S)
    assert done.expect() == "45\n"
    logs = "".join(path.read_text() for path in (grid.place.runs()[0] / "logs").glob("*:w1.log"))
    for number in range(10):
        assert f"hello from {number}" in logs
    assert logs.count("." * 500_000) == 10


def test_no_secret_is_in_a_command_line_or_an_environment(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    run = grid.place.runs()[0]
    secrets = [(run / KEYS / "server").read_bytes()]
    for pid in grid.place.processes():
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_bytes()
            for secret in secrets:
                assert secret not in text, (pid, name)
    process.send_signal(signal.SIGINT)
    finish(process, timeout_s=TIMEOUT_S)
    grid.assert_nothing_left()


def test_a_host_that_cannot_be_reached_is_left_out(grid: Grid) -> None:
    config = grid.place.folder / "ssh" / "config"
    closed = f"Port {grid.servers['bob'].port}"
    config.write_text(config.read_text().replace(closed, "Port 9"))
    path = grid.place.write(SLOW)
    options = [each if each != "2" else "1" for each in grid.options]
    done = grid.place.rscoop("run", *options, path.name, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert "host bob could not be started" in done.err
    grid.place.assert_nothing_left()


def test_too_few_hosts_stop_the_run(grid: Grid) -> None:
    """The servers refuse all logins of this user."""
    for server in grid.servers.values():
        server.user_keys = []
    path = grid.place.write(SLOW)
    process = grid.place.start("run", *grid.options, path.name)
    try:
        out, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert out == ""
    assert "could not be started" in err
    grid.assert_nothing_left()


def test_new_keys_reach_the_hosts_and_no_work_is_lost(grid: Grid) -> None:
    process = grid.start(SLOW)
    computing(grid)
    before = (grid.place.runs()[0] / KEYS / "server").read_bytes()
    grid.place.rscoop("rekey").expect()
    assert (grid.place.runs()[0] / KEYS / "server").read_bytes() != before
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert "is lost" not in done.err
    grid.assert_nothing_left()


def test_a_host_that_was_revoked_is_not_started_by_a_resume(grid: Grid) -> None:
    process = grid.start(SLOW, "--min-hosts", "1", "--orphan-timeout", "3s")
    computing(grid)
    grid.place.rscoop("revoke", "alice").expect()
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout_s=TIMEOUT_S).code == 130
    resumed = grid.place.start("resume", "--min-hosts", "1")
    wait_until(lambda: len(grid.agents("worker")) == 1, 20.0)
    done = finish(resumed, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    assert "alice:w1" not in " ".join(grid.place.processes().values())
    assert grid.servers["alice"].logins == 1
    wait_until(lambda: not grid.place.processes(), 20.0)


def test_a_host_whose_agent_and_guardian_were_killed_starts_again(grid: Grid) -> None:
    process = grid.start(SLOW.replace("80", "240"))
    computing(grid)
    alice = [pid for role in ("host", "remote-agent") for pid in grid.agents(role)
             if str(grid.servers["alice"].home) in Path(f"/proc/{pid}/environ").read_text()]  # fmt: skip
    for pid in alice:
        os.kill(pid, signal.SIGKILL)
    done = finish(process, timeout_s=TIMEOUT_S)
    assert done.expect() == f"{sum(n * n for n in range(240))}\n"
    assert "Address already in use" not in done.err
    grid.assert_nothing_left()


@pytest.mark.parametrize("ships", [False, True], ids=["shared", "shipped"])
def test_hosts_found_by_a_resume_run_the_edited_script(grid: Grid, *, ships: bool) -> None:
    """They have loaded the script before the edit, and have outlived the launcher."""
    process = grid.start(SLOW, *["--ship"] * ships)
    computing(grid)
    process.kill()
    process.communicate()
    wait_until(lambda: not grid.agents("broker"), 10.0)
    agents = grid.agents()
    assert len(agents) == 2
    grid.place.write(SLOW.replace("return x * x", "return x * x + 1000"))
    done = grid.place.rscoop("resume", "--recompute-changed", timeout_s=TIMEOUT_S)
    assert done.expect() == f"{sum(n * n + 1000 for n in range(80))}\n"
    grid.assert_nothing_left()


def test_a_run_that_starts_outside_the_shipped_folder_is_refused(grid: Grid) -> None:
    grid.place.write(SLOW, "project/script.py")
    done = grid.place.rscoop("run", *grid.options, "--ship", "project/script.py")
    assert done.code == 2
    assert "change to" in done.err
    assert grid.place.runs() == []


def test_a_resume_finds_the_agents_whose_guardians_were_killed(grid: Grid) -> None:
    process = grid.start(SLOW.replace("80", "200"))
    computing(grid)
    for pid in grid.agents("host"):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()
    wait_until(lambda: not grid.agents("broker"), 10.0)
    before = {*grid.agents(), *grid.agents("worker")}
    assert len(before) == 4
    resumed = grid.place.start("resume")
    seen = set[int]()
    while resumed.poll() is None:
        seen |= {*grid.agents(), *grid.agents("worker")}
        time.sleep(0.05)
    assert finish(resumed).expect() == f"{sum(n * n for n in range(200))}\n"
    assert seen == before
    grid.assert_nothing_left()


PRINTING = """
    import os, signal, time
    from resilient_scoop import futures

    def slow(x):
        print("item", x, flush=True)
        if x == 40 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.05)
        return x * x

    if __name__ == "__main__":
        print(sum(futures.map(slow, range(80))))
"""


def test_the_log_of_a_host_has_the_output_of_tasks_under_a_replaced_agent_and_its_successor(
    grid: Grid,
) -> None:
    path = grid.place.write(PRINTING)
    options = [*grid.options[:4], "--external-address", "127.0.0.1"]
    done = grid.place.rscoop("run", *options, path.name, timeout_s=TIMEOUT_S)
    assert done.expect() == SLOW_OUT
    (run,) = grid.place.runs()
    text = (run / "logs" / "alice:w1.log").read_text()
    printed = {int(line.rpartition(" ")[2]) for line in text.splitlines() if "item " in line}
    assert printed >= {*range(10), *range(42, 80)}
    assert "[alice:w1 0.0[79] slow] item 79\n" in grid.place.rscoop("logs", "--tasks").expect()
    grid.assert_nothing_left()


AUDITED = """
    import time
    from resilient_scoop import futures

    def leaf(x):
        return x * x

    def parent(n):
        time.time()
        return sum(futures.map(leaf, range(n)))

    if __name__ == "__main__":
        print(list(futures.map(parent, range(8))))
"""


def test_an_audit_reports_actions_of_tasks_on_other_hosts(grid: Grid) -> None:
    done = finish(grid.start(AUDITED, "--audit"), timeout_s=TIMEOUT_S)
    assert done.expect() == f"{[sum(n * n for n in range(m)) for m in range(8)]}\n"
    assert done.err.count("in parent: time.time reads the clock") == 1
    grid.assert_nothing_left()
