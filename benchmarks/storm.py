"""`python -m benchmarks.storm`: many agents at one broker, with real sockets and keys.

    python -m benchmarks.storm --agents 200          all enroll, then the broker is killed with SIGKILL:
                                                     how long until each has heard the next one
    python -m benchmarks.storm --agents 2000 --idle  what connections that say nothing but that they live
                                                     cost the broker, in CPU time

The agents are those of one process here: a CURVE connection each, with a key that was enrolled by a ticket,
and the agent's machine (`core.agent`), without workers. The run behind them waits.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import zmq

from resilient_scoop._version import __version__
from resilient_scoop.core.agent import Agent, AgentConfig, Beat, Received, Ticked, Transmit
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.transport.remote import HEARTBEAT_MS, RETRY_MS, RETRY_MS_MAX, SILENCE_MS
from resilient_scoop.transport.tickets import BrokerAddress, Ticket, door_of, issue, read_ticket
from resilient_scoop.wire import enrol

_SCRIPT = """
import time
from resilient_scoop import futures
if __name__ == "__main__":
    print(futures.submit(abs, -1).result(), flush=True)
    time.sleep(3600)
"""
WAIT_S: Final = 120.0
IDLE_S: Final = 20.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Host:
    """One agent on its connection."""

    def __init__(
        self, context: zmq.Context[Any], door: BrokerAddress, name: str, run: bytes
    ) -> None:
        self.name = name
        self.identity = b"a" + secrets.token_bytes(8)
        self.keys = zmq.curve_keypair()
        self.context, self.door = context, door
        config = AgentConfig(orphan_timeout_s=900.0)
        self.machine = Agent(config, [], node=name, name="agent", pid=os.getpid(), run=run[:8])
        self.epoch = 0
        self.socket: zmq.Socket[bytes]

    def connect(self, public: bytes, secret: bytes) -> zmq.Socket[bytes]:
        """Return a connection under a key."""
        made: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.IDENTITY, secrets.token_bytes(16))
        made.setsockopt(zmq.CURVE_PUBLICKEY, public)
        made.setsockopt(zmq.CURVE_SECRETKEY, secret)
        made.setsockopt(zmq.CURVE_SERVERKEY, self.door.key.encode())
        made.setsockopt(zmq.RECONNECT_IVL, RETRY_MS)
        made.setsockopt(zmq.RECONNECT_IVL_MAX, RETRY_MS_MAX)
        made.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        made.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
        made.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)
        made.connect(f"tcp://127.0.0.1:{self.door.port}")
        return made

    def enroll(self, ticket: Ticket) -> None:
        """Enroll, waiting for the answer."""
        entry = self.connect(ticket.public.encode(), ticket.secret.encode())
        request = enrol.Enroll(
            ticket.id, self.keys[0], self.name, sys.version.split()[0], __version__, sys.byteorder,
            os.getpid(), 1,
        )  # fmt: skip
        entry.send_multipart([b"E", enrol.encode(request)])
        if not entry.poll(int(WAIT_S * 1000)):
            raise SystemExit(f"{self.name} is not enrolled")
        entry.recv_multipart()
        entry.close()
        self.socket = self.connect(*self.keys)  # a refused key is not tried again

    def tick(self, now: float) -> None:
        """Tell the machine the time."""
        self.carry_out(self.machine.step(Ticked({}, {}), now))

    def hear(self, now: float) -> None:
        """Handle the messages that have arrived."""
        while self.socket.poll(0):
            channel, identity, *frames = self.socket.recv_multipart()
            if channel == b"M" and identity == self.identity:
                self.carry_out(self.machine.step(Received(frames, {}), now))
                self.epoch = self.machine.link.epoch

    def carry_out(self, actions: list[Any]) -> None:
        """Send the messages of the machine."""
        for action in actions:
            if isinstance(action, Transmit | Beat):
                self.socket.send_multipart([b"M", self.identity, *action.frames])


class Storm:
    """A run, and its agents."""

    def __init__(self, folder: Path, agents: int) -> None:
        self.folder = folder
        (folder / "script.py").write_text(_SCRIPT)
        environ = {**os.environ, "RSCOOP_STATE_DIR": str(folder / "state")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resilient_scoop", "run", "-n", "1", "script.py"], cwd=folder,
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout is not None, "it is a pipe"
        self.process.stdout.readline()
        self.run = RunDir(next((folder / "state" / "runs").iterdir()))
        subprocess.run(
            [sys.executable, "-m", "resilient_scoop", "invite"], env=environ, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.context: zmq.Context[Any] = zmq.Context(io_threads=2)
        self.context.set(zmq.MAX_SOCKETS, 2 * agents + 100)
        self.poller = zmq.Poller()
        door, run = door_of(self.run.path, wait_s=10), bytes.fromhex(self.run.load().uuid)
        self.hosts = [Host(self.context, door, f"h{n}", run) for n in range(agents)]
        line = issue(
            self.run.path,
            "",
            run_key=self.run.key(self.run.load()),
            valid_s=600,
            uses=agents,
            addresses=["127.0.0.1"],
        )
        for host in self.hosts:
            host.enroll(read_ticket(line))
            self.poller.register(host.socket, zmq.POLLIN)
        self.by_socket = {host.socket: host for host in self.hosts}

    def turn(self) -> None:
        """Run one step of all agents."""
        now = time.monotonic()
        for host in self.hosts:
            if host.machine.deadline() <= now:
                host.tick(now)
        for found, _ in self.poller.poll(20):
            self.by_socket[found].hear(time.monotonic())

    def until(self, epoch: int) -> float:
        """Return the seconds until all agents know a broker of this epoch."""
        began = time.monotonic()
        while any(host.epoch < epoch for host in self.hosts):
            if time.monotonic() - began > WAIT_S:
                late = sum(host.epoch < epoch for host in self.hosts)
                raise SystemExit(f"{late} agents have not heard the broker after {WAIT_S:.0f} s")
            self.turn()
        return time.monotonic() - began

    @property
    def broker(self) -> int:
        """The process of the broker."""
        key = self.run.key(self.run.load()).encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"broker" in words and key in words:
                return int(folder.name)
        raise SystemExit("there is no broker")

    def close(self) -> None:
        """End the run and all agents."""
        for host in self.hosts:
            host.socket.close()
        self.context.term()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        assert self.process.stdout is not None, "it is a pipe"
        self.process.stdout.close()


def cpu_s(pid: int) -> float:
    """Return the CPU time of the broker."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--agents", type=int, default=200, help="default: %(default)s")
    parser.add_argument(
        "--idle", action="store_true", help="measure the CPU time of idle connections"
    )
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="rscoop-storm-", dir="/var/tmp"))
    storm = Storm(folder, given.agents)
    try:
        storm.until(1)
        if given.idle:
            broker = storm.broker
            for host in storm.hosts:  # only ZeroMQ's own heartbeats are sent
                storm.poller.unregister(host.socket)
            before = cpu_s(broker)
            time.sleep(IDLE_S)
            share = (cpu_s(broker) - before) / IDLE_S
            print(f"{given.agents} idle connections: {share:.1%} of a core of the broker")
            return
        took = []
        for epoch in range(2, 5):
            os.kill(storm.broker, signal.SIGKILL)
            took.append(storm.until(epoch))
        times = ", ".join(f"{each:.2f}" for each in took)
        print(f"{given.agents} agents know the next broker after {times} s")
    finally:
        storm.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
