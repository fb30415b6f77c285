"""Rounds on a grid: a run uses the workstations of a lab, whose hosts fail at random moments.

The moments are drawn from a seed. Each fault is injected and healed, and both are proven. The
answer must be that of `python script.py` (or, if random numbers come from the run, of an
undisturbed local run), nothing acknowledged may run again, and five seconds after the end no host
may have a process or a file of the run. An agent that a fault has cut off from its run may stay
until its orphan timeout; such hosts are counted.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos import command, hostfaults, processes, recovery, rounds
from chaos.checker import Guarantee
from chaos.command import Place
from chaos.evidence import Ledger
from chaos.hostfaults import LASTING, OF_ONE_PROCESS, Drawn, Fault, Injection, Injector
from chaos.lab import DESK, Lab
from chaos.lab.namespaces import network_of
from chaos.processes import Role
from chaos.recovery import Recovery
from chaos.rounds import Reference, Result, Round, RunHangsError
from chaos.workloads.ledger import END, SLOWNESS

GRID_WORKLOADS: Final = ("plain_ea", "plain_nested", "as_completed", "ea", "nested")
SLOW: Final = 10.0
"""How many times longer items take than in local rounds: a fault needs time to happen."""
WORKERS_PER_HOST: Final = 2
LIMIT_S: Final = 10.0
"""Silence after which a host is lost, the default of `rscoop run`."""
ORPHANS_S: Final = 20.0
"""How long agents that are cut off from their run live on."""
_LEFT_S: Final = 5.0
_POLL_S: Final = 0.01
_PAUSE_S: Final = 0.1
_START_SHARE: Final = 0.1
_START_S: Final = 3.0


@dataclass(slots=True)
class GridResult(Result):
    """The result of a round on a grid."""

    drawn: list[Drawn] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    orphans: list[str] = field(
        default_factory=list
    )  # hosts that were not empty five seconds after the end

    def by_role(self) -> Counter[str]:
        """Return how many faults hit, by kind."""
        return Counter(str(each.drawn.kind) for each in self.injections if each.is_hit)

    @property
    def unproven(self) -> list[str]:
        """The faults that could not be proven."""
        return [text for each in self.injections for text in each.unproven]

    def __str__(self) -> str:
        faults = ", ".join(
            f"{each.drawn}" + ("" if each.is_hit else " (missed)") for each in self.injections
        )
        verdict = "VIOLATED" if self.violations else "UNPROVEN" if self.unproven else "ok"
        text = (
            f"seed {self.seed:6d} {self.script.stem:12s} {verdict:8s} {self.took_s:5.1f} s, "
            f"{self.resumes} resumes, {self.repeated} repeated; {faults}"
        )
        lines = [f"    {each}" for each in [*self.violations, *self.unproven]]
        if self.orphans:
            lines.append(f"    empty after {self.silence_s:.1f} s only: {', '.join(self.orphans)}")
        return "\n".join([text, *lines])


@dataclass(slots=True)
class Grid:
    """A lab, and the data that all of its rounds share."""

    lab: Lab
    kept: Path
    workloads: tuple[str, ...] = GRID_WORKLOADS
    kinds: tuple[Fault, ...] = ()
    options: tuple[str, ...] = ()  # options of `rscoop run`, besides the hosts
    limit_s: float = LIMIT_S
    slow: float = SLOW
    orphans_s: float = ORPHANS_S
    references: dict[str, Reference] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)  # of each workload

    def __post_init__(self) -> None:
        if not self.kinds:
            shapes = hostfaults.SHAPES if self.lab.kind != "tun" else {}
            self.kinds = tuple(kind for kind in Fault if kind not in shapes)

    def run_arguments(self, script: Path) -> list[str]:
        """Return the command line of a run over all hosts of the lab."""
        hosts = [w for name in self.lab.hosts for w in ("--host", f"{name}:{WORKERS_PER_HOST}")]
        orphans = ["--orphan-timeout", f"{self.orphans_s:.0f}s"]
        seed = ["--seed", str(command.RUN_SEED)]
        return ["run", *seed, *hosts, *orphans, *self.options, str(script)]

    def settle(self, place: Place) -> Place:
        """Run the commands of a `Place` on the desk."""
        place.entering[:] = self.lab.command(DESK, [], place.root)
        place.environ[SLOWNESS] = str(self.slow)
        return place

    def reference(self, workload: str) -> Reference:
        """Return what a workload prints without faults, and how long it takes on this grid."""
        if workload not in self.references:
            script = rounds.script_of(workload)
            is_plain = workload.startswith("plain")
            output = serial_output(script) if is_plain else rounds.measure(script).output
            result = GridResult(0, script, [])
            blank = Reference(script, output, 30.0, 0.0)
            with rounds.staged(result, self.kept, self.lab.shared) as place:
                GridRound(result, blank, self.settle(place), self).measure()
                paths = {line.path for line in Ledger(place.root / "ledger").lines()}
            self.items[workload] = len(paths)
            self.references[workload] = Reference(script, output, result.lives_s, 0.0)
        return self.references[workload]

    def play(self, seed: int) -> GridResult:
        """Play the round of a seed."""
        rng = random.Random(f"grid {seed}")
        workload = self.workloads[rng.randrange(len(self.workloads))]
        return self.play_faults(
            seed, workload, hostfaults.draw(rng, self.lab.hosts, list(self.kinds), self.limit_s)
        )

    def play_faults(self, seed: int, workload: str, drawn: list[Drawn]) -> GridResult:
        """Play a round with given faults; the seed only names the round."""
        reference = self.reference(workload)
        result = GridResult(seed, reference.script, [], drawn=drawn)
        with rounds.staged(result, self.kept, self.lab.shared) as place:
            GridRound(result, reference, self.settle(place), self).play()
        return result


def serial_output(script: Path) -> bytes:
    """Return what `python script.py` prints, without the pauses of its items."""
    environ = {**os.environ, SLOWNESS: "0", "PYTHONPATH": str(command.CHECKOUT)}
    argv = [sys.executable, "-W", "ignore", str(script)]
    return subprocess.run(argv, env=environ, capture_output=True, check=True, timeout=120).stdout


class GridRound(Round):
    """A round in progress."""

    result: GridResult
    parents_start_once = False

    def __init__(self, result: GridResult, reference: Reference, place: Place, grid: Grid) -> None:
        super().__init__(result, reference, place)
        self.grid, self.lab = grid, grid.lab
        self.launcher = 0
        self.injector = Injector(self.lab, self.place.run_key, lambda: self.launcher)
        self.agenda = list(result.drawn)
        self.healing: list[tuple[float, Injection]] = []
        self.off: set[str] = set()  # hosts whose power was cut: nothing can remove their files
        self.deadline_s = 60.0 + 4 * reference.duration_s + 6 * grid.limit_s

    def run_arguments(self) -> list[str]:
        """Return the command line of a run over the lab."""
        return self.grid.run_arguments(self.reference.script)

    def measure(self) -> None:
        """Run undisturbed.

        Raises:
            RunHangsError: it does not end with exit code 0.
        """
        code = self._command(self.run_arguments())
        if code != 0:
            output = self.place.err.read_text()[-3000:]
            raise RunHangsError(f"{self.reference.script} on the grid: exit {code}; {output}")
        self._silence()

    def play(self) -> None:
        """Inject faults, resume, heal; check the result."""
        try:
            super().play()
        finally:
            self._restore()
        self._recoveries()

    def _command(self, arguments: list[str]) -> int | None:
        began = time.monotonic()
        process = command.start(self.place, arguments)
        self.launcher = process.pid
        until = began + self.deadline_s
        while process.poll() is None and time.monotonic() < until:
            if not self._act(began, process):
                time.sleep(_POLL_S)
        code = self._await_end(process)
        self.result.lives_s += time.monotonic() - began
        return code

    def _await_end(self, process: subprocess.Popen[bytes]) -> int | None:
        code = process.poll()
        if code is None:
            self._keep_picture()
            process.kill()
            process.wait()
        return code

    def _act(self, began: float, process: subprocess.Popen[bytes]) -> bool:
        """Inject and heal the faults that are due; return whether there were any."""
        now = time.monotonic()
        if self.healing and self.healing[0][0] <= now:
            self.injector.heal(self.healing.pop(0)[1])
            return True
        if not self.agenda or not self._is_due(self.agenda[0].fraction, now - began):
            return False
        drawn = self.agenda.pop(0)
        injection = self.injector.inject(drawn)
        self.result.injections.append(injection)
        if injection.is_hit:
            self._note(injection)
            if drawn.kind is Fault.LAUNCHER_KILL:
                process.wait()
        return True

    def _is_due(self, fraction: float, passed_s: float) -> bool:
        """Return whether a fault is due: by time while hosts start, then by the share of items done."""
        if fraction < _START_SHARE:
            return passed_s > _START_S * fraction / _START_SHARE
        done = len({line.path for line in self.ledger.lines() if line.mark == END})
        items = self.grid.items.get(self.reference.script.stem, 0)
        return done > items * (fraction - _START_SHARE) / (1 - _START_SHARE)

    def _note(self, injection: Injection) -> None:
        drawn = injection.drawn
        self.kills += 3 if drawn.kind is Fault.FLAP else 1
        if drawn.kind in (Fault.POWER_OFF, Fault.REBOOT, Fault.FLAP):
            self.off.add(drawn.host)
        if drawn.kind in LASTING:
            self.healing.append((time.monotonic() + drawn.lasts_s, injection))
            self.healing.sort(key=lambda each: each[0])
        if drawn.kind is not Fault.BROKER_STOP:
            self._snapshot()

    def _restore(self) -> None:
        """End all faults; switch on what is off."""
        for _, injection in self.healing:
            self.injector.heal(injection)
        self.healing.clear()
        for host in self.lab.hosts:
            if not self.lab.is_on(host):
                self.lab.boot(host)
            self.lab.heal(host)

    def _mourn(self) -> None:
        """Check that after the launcher's death the processes of its host end.

        Agents of other hosts wait for a resume.
        """
        self._silence_at_desk()
        self._snapshot()

    def _silence_at_desk(self) -> None:
        for pid, words in self._await_desk().items():
            self.violate(Guarantee.NO_LEFTOVERS, f"process {pid} lives on: {words}")
            processes.kill(pid)

    def _await_desk(self) -> dict[int, str]:
        ours = {
            network_of(self.lab.stations[name].pid)
            for name in self.lab.hosts
            if self.lab.is_on(name)
        }
        until = time.monotonic() + _LEFT_S
        while True:
            found = processes.with_token(self.place.token)
            found = {pid: words for pid, words in found.items() if network_of(pid) not in ours}
            if not found or time.monotonic() > until:
                return found
            time.sleep(_POLL_S)

    def _silence(self) -> None:
        """Heal everything after the run's end; check that five seconds later no host has anything of it."""
        self._restore()
        began = time.monotonic()
        self._silence_at_desk()
        if not self._await_hosts(began + _LEFT_S):
            self.result.orphans = sorted(h for h in self.lab.hosts if self._left(h))
            self._await_hosts(began + self.grid.orphans_s + _LEFT_S)
        self.result.silence_s = max(self.result.silence_s, time.monotonic() - began)
        for host in self.lab.hosts:
            found = self._left(host)
            for text in found:
                self.violate(Guarantee.NO_LEFTOVERS, text)
            if found or host in self.off:
                self.lab.power_off(host)
                self.lab.wipe(host)
                self.lab.boot(host)

    def _left(self, host: str) -> list[str]:
        return leftovers(self.lab, host, with_disk=host not in self.off)

    def _await_hosts(self, until: float) -> bool:
        """Wait until no host has anything of the run; return False if one still has at the end."""
        while any(self._left(host) for host in self.lab.hosts):
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _recoveries(self) -> None:
        lines = sorted(self.ledger.lines(), key=lambda line: line.at_s)
        for each in self.result.injections:
            if not each.is_hit or each.unproven:
                continue
            host = each.drawn.host
            pids = each.inner if OF_ONE_PROCESS.get(each.drawn.kind) is Role.WORKER else []
            lost = set() if host == DESK else recovery.interrupted(lines, each.at_s, pids, host)
            work_s = recovery.work_s(lines, each.at_s, lost)
            if host == DESK:  # the run itself stopped: measure until any item is started again
                work_s = recovery.any_s(lines, each.healed_s or each.at_s)
            host_s = (
                recovery.host_s(lines, each.healed_s, host)
                if each.healed_s and host != DESK
                else None
            )
            self.result.recoveries.append(Recovery(str(each.drawn.kind), work_s, host_s))


def leftovers(lab: Lab, host: str, *, with_disk: bool = True) -> list[str]:
    """Return what a host has of runs: processes, temporary files, sockets, and files on its disk."""
    found = [f"{host}: process {pid}: {words}" for pid, words in lab.processes(host).items()]
    folders = [lab.temporary(host), lab.temporary(host).parent / "dev/shm"]
    if with_disk:
        folders += [lab.var_tmp(host), lab.home(host)]
    for folder in folders:
        with suppress(FileNotFoundError):  # what was found first may be being removed
            found += [f"{host}: file {each}" for each in _files(folder)]
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield files that runs have left; our empty folders may stay."""
    for pattern in ("*rscoop*", ".local/state/rscoop", ".cache/rscoop"):
        for found in folder.glob(pattern):
            if found.is_dir():
                yield from (each for each in found.rglob("*") if not each.is_dir())
            else:
                yield found


def summary(results: list[GridResult]) -> str:
    """Return the results of the rounds."""
    hits: Counter[str] = Counter()
    for result in results:
        hits += result.by_role()
    bad = [result for result in results if result.violations]
    unproven = [text for result in results for text in result.unproven]
    lines = [
        f"{len(results)} rounds, {hits.total()} faults that hit",
        recovery.table(each for result in results for each in result.recoveries),
        f"{sum(r.resumes for r in results)} resumes",
        f"{sum(r.repeated for r in results)} items ran to their end more than once",
        f"silence after the end within {max((r.silence_s for r in results), default=0.0):.1f} s",
        f"{sum(len(r.orphans) for r in results)} hosts that were not empty {_LEFT_S:.0f} s after the end",
        f"{len(unproven)} faults not proven",
        f"{len(bad)} rounds with violations",
    ]
    lines += [
        f"  seed {r.seed}: {', '.join(sorted({v.guarantee for v in r.violations}))}; {r.folder}"
        for r in bad
    ]
    return "\n".join(lines)
