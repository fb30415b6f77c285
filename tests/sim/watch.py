"""Checks from outside the machine what an agent must never do, whatever happens to its processes.

The checks have the names of the invariants of `resilient_scoop.core.agent`: G1 to G7.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from resilient_scoop.core import agent
from resilient_scoop.core.endings import CANNOT_IMPORT, ENDED, LAUNCHER_GONE, ORPHANED
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.core.link import Link
    from tests.sim.children import Child
    from tests.sim.host import AgentShell

LATE_S = 0.5
"""How much later than at its deadline a process may be found running at a stop."""
YOUNG_MAX = 6
FAILED_MAX = 5


class Watch:
    """Records the actions of one agent, and its processes."""

    def __init__(self, host: AgentShell) -> None:
        self.host = host
        self.stopped_at: float | None = None
        self.met: Link | None = None
        self.late_looks = 0
        self.owed: list[
            tuple[Link, int, bytes]
        ] = []  # reported deaths: on which link, in which message
        self.died_at: dict[str, float] = {}
        self.gone = False
        self.heard_at = self.stepped_at = host.world.now
        self.starting: set[str] = set()
        self.over: set[str] = set()  # processes whose work is done
        self.born_at: dict[str, float] = {}
        self.young: Counter[str] = Counter()  # how many times in sequence it died at once
        self.stillborn: Counter[str] = Counter()
        self.unfit: Counter[str] = Counter()
        # by role: deaths in sequence, while no process of it runs
        self.refused: Counter[str] = Counter()

    def stepped(self, event: agent.Event, actions: Sequence[agent.Action]) -> None:
        """Check a step of the machine."""
        stopping = self.stopped_at is not None
        self._orphaned()
        if self.host.machine.stopping is not None and not stopping:
            self.stopped_at = self.host.world.now
        frames = [
            f for each in actions if isinstance(each, agent.Transmit) for f in each.frames[1:]
        ]
        messages = [wire.decode_up(frame) for frame in frames]
        self._check_sent(actions)
        match event:
            case agent.Started(name=name):
                self.starting.discard(name)
                self.born_at[name] = self.host.world.now
                self.refused.clear()
            case agent.NotStarted(name=name, full=full):
                self.starting.discard(name)
                self._not_started(name, full=full)
            case agent.Exited():
                self._exited(event, messages, stopping=stopping)
            case agent.LauncherGone():
                has_met = self.host.is_remote and self.host.machine.link.epoch > 0
                self.gone = self.gone or (not stopping and not has_met)
            case agent.Ticked(states=states) if states is not None:
                self._looked(messages)
            case _:
                pass
        for action in actions:
            if isinstance(action, agent.Start):
                self._start(action.name)
            elif isinstance(action, agent.KillProcess):
                self._kill(action.name, event)

    def hears(self, frames: Sequence[bytes]) -> None:
        """Note a message of a broker."""
        self._mind_pause()
        if wire.unpack_header(frames[0]).epoch >= self.host.machine.link.epoch:
            self.heard_at = self.host.world.now

    def _orphaned(self) -> None:
        """Check that the agent of another host ends as an orphan exactly when it should."""
        machine, now = self.host.machine, self.host.world.now
        limit_s = machine.config.orphan_timeout_s
        if limit_s is None:
            return
        self._mind_pause()
        silent_s = now - self.heard_at
        if machine.stopping is None and silent_s > limit_s + 2.0:
            raise Broken(f"G8: {self.host.name} is an orphan for {silent_s:.1f} s, and stays")
        is_known = self.stopped_at is not None  # whether it stops, and whether it may
        if machine.stopping == LAUNCHER_GONE and is_known and not self.gone:
            raise Broken(f"G8: {self.host.name} ends with its launcher")
        if machine.stopping == ORPHANED and self.stopped_at is None and silent_s < limit_s - 3.0:
            raise Broken(f"G8: {self.host.name} has heard a broker {silent_s:.1f} s ago, and ends")

    def _mind_pause(self) -> None:
        now = self.host.world.now
        if now - self.stepped_at > self.host.machine.lease_s:
            self.heard_at += now - self.stepped_at
        self.stepped_at = now

    def _check_sent(self, actions: Sequence[agent.Action]) -> None:
        """Check the messages to a new broker, and record which deaths are not acknowledged."""
        link = self.host.machine.link
        for action in actions:
            if not isinstance(action, agent.Transmit):
                continue
            messages = [wire.decode_up(frame) for frame in action.frames[1:]]
            lost = [each.incarnation for each in messages if isinstance(each, wire.ProcessLost)]
            if (
                messages and isinstance(messages[0], wire.Hello) and link is not self.met
            ):  # not sent again
                self.met = link
                owed = {each for on, no, each in self.owed if on is not link and no in on.unacked}
                if not owed <= set(lost):
                    raise Broken(
                        f"G2: the new broker is not told of {len(owed - set(lost))} deaths"
                    )
                there = {child.id for child in self.host.children.values()}
                if there != set(messages[0].incarnations):
                    raise Broken(f"G7: a Hello names {messages[0].incarnations}, there are {there}")
                self.owed = []
            no = wire.unpack_header(action.frames[0]).seq
            self.owed = [owed for owed in self.owed if owed[1] in owed[0].unacked]
            self.owed += [(link, no, each) for each in lost]

    def _child(self, name: str) -> Child:
        return self.host.children[name]

    def _start(self, name: str) -> None:
        if self.stopped_at is not None:
            raise Broken(f"G4: {name} is started after the stop")
        if name in self.starting or name in self.host.children:
            raise Broken(f"G1: {name} is started, and runs")
        if name in self.over and not self.host.is_remote:
            raise Broken(f"G5: {name} is started, and its work was done")
        if self.young[name] > YOUNG_MAX and self.host.world.now - self.died_at[name] < 0.5:
            raise Broken(
                f"G6: {name} died at once {self.young[name]} times, and is started at once"
            )
        self.starting.add(name)

    def _kill(self, name: str, event: agent.Event) -> None:
        child = self._child(name)
        if self.stopped_at is not None or child.cause == "timeout":
            return
        on_cpu = child.flight().on_cpu
        if on_cpu is not None and 0 < on_cpu.deadline_ns < self.host.world.now * 1e9:
            return
        wanted = event.frames[1:] if isinstance(event, agent.Received) else []
        for message in map(wire.decode_down, wanted):
            if isinstance(message, wire.Kill) and message.incarnation == child.id:
                attempt = message.attempt
                if attempt is None or (
                    on_cpu is not None and on_cpu[:2] == (attempt.epoch, attempt.no)
                ):
                    return
        raise Broken(f"G3: {name} is killed, and has given no reason to")

    def _not_started(self, name: str, *, full: bool) -> None:
        role = "origin" if name == "origin" else "worker"
        alone = not any(child.role == role for child in self.host.children.values())
        self.refused[role] = self.refused[role] + 1 if alone and not full else 0
        most = 14 * (1 if role == "origin" else self.host.world.climate.workers)
        if self.refused[role] > most and self.stopped_at is None:
            raise Broken(f"G6: {name} was refused {self.refused[role]} times, and no end")

    def _exited(self, event: agent.Exited, messages: Sequence[wire.Up], *, stopping: bool) -> None:
        name, flight, child = event.name, event.flight, self.host.reaped
        self.died_at[name] = now = self.host.world.now
        if not self.gone:
            unsent = [wire.decode_up(frame) for frame in self.host.machine.pending]
            losses = [m for m in (*messages, *unsent) if isinstance(m, wire.ProcessLost)]
            losses += self.host.machine.ends.values()
            mine = [m for m in losses if m.incarnation == child.id]
            if len(mine) != 1:
                raise Broken(f"G2: of the end of {name} the broker is told {len(mine)} times")
            causes = {"asked" if stopping and child.cause in ("crash", "oom") else child.cause}
            if self.host.is_remote and child.cause == "timeout":  # or it had lied
                causes.add("asked")
            # its time limit and that of the stop had passed
            if stopping and child.cause == "timeout":
                causes.add("asked")
            if mine[0].reason not in causes and not child.is_race:
                raise Broken(f"G3: {name} died of {child.cause}, told is {mine[0].reason}")
            others = any(each.role == "worker" for each in self.host.children.values())
            unfit = event.code == CANNOT_IMPORT and not others and not stopping
            if unfit and not any(
                isinstance(message, wire.Unfit) for message in (*messages, *unsent)
            ):
                raise Broken(f"G6: {name} alone cannot import the script, and tries again")
        elif any(isinstance(message, wire.ProcessLost) for message in messages):
            raise Broken("G2: a death is told, and the launcher is gone")
        if flight.has_ended:
            self.over.add(name)
        dies = child.cause in ("crash", "oom", "timeout")
        is_young = dies and now - self.born_at[name] < agent.HASTY_S and not flight.reached
        self.young[name] = self.young[name] + 1 if is_young else 0
        self.stillborn[name] = self.stillborn[name] + 1 if dies and not flight.is_ready else 0
        self.unfit[name] = self.unfit[name] + 1 if event.code == CANNOT_IMPORT else 0
        if max(self.stillborn[name], self.unfit[name]) > FAILED_MAX:
            raise Broken(f"G6: {name} has not begun {self.stillborn[name]} times, and no end")

    def _looked(self, messages: Sequence[wire.Up]) -> None:
        now = self.host.world.now
        states = {child.id: child.state(now) for child in self.host.children.values()}
        for message in messages:
            if isinstance(message, wire.Alive):
                for each in message.incarnations:
                    if states.get(PeerId(each)) != "R":
                        raise Broken(f"G7: {each!r} is vouched for, and does not run")
                if any(
                    state == "R" and each not in message.incarnations
                    for each, state in states.items()
                ):
                    raise Broken("G7: a process that runs is not vouched for")
        machine = self.host.machine
        has_s = agent.EXIT_S if machine.stopping == ENDED else machine.config.stop_grace_s
        is_late = self.stopped_at is not None and now - self.stopped_at > has_s + LATE_S
        self.late_looks += is_late
        if self.late_looks > 1:  # the first time, the agent itself may have been paused
            living = [name for name, child in self.host.children.items() if child.alive]
            raise Broken(f"G4: the agent stays after the stop, with {living}")
