"""Rounds: start a run, carry out its kills, resume it until it has ended, check it.

One seed is one round: the workload, the moments and the targets are drawn from it. The run's own
seed is the same in all rounds, so all are compared with one undisturbed run of each workload.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos import checker, command, evidence, nemesis, processes
from chaos.checker import Guarantee, Violation
from chaos.command import Place
from chaos.evidence import Journal, Ledger, Snapshot
from chaos.nemesis import Kill, Target
from chaos.processes import Process, Role
from chaos.workloads import as_completed

CALLS = ("ea", "nested", "as_completed", "mixed")
LOOPS = ("ea_simple", "ea_plus", "ea_comma", "ea_cma", "ea_pymoo")  # with checkpoints
WORKLOADS = CALLS + LOOPS
_FOLDER = Path(__file__).parent / "workloads"
_SILENCE_S = 5.0
_RESUMES_MAX = 8
_KILLED = -9


def script_of(workload: str) -> Path:
    """Return the script of one of our workloads."""
    return _FOLDER / f"{workload}.py"


@dataclass(frozen=True, slots=True)
class Reference:
    """The undisturbed run of a script."""

    script: Path
    output: bytes
    duration_s: float
    # duration of the work alone, without start and end; 0 if the script keeps no ledger
    span_s: float

    @property
    def lines(self) -> int:
        """How many lines it prints."""
        return self.output.count(b"\n")

    @property
    def is_history(self) -> bool:
        """Whether its output depends on the order of completion."""
        return self.script == script_of("as_completed")


@dataclass(slots=True)
class Result:
    """The result of a round."""

    seed: int
    script: Path
    kills: list[Kill]
    hits: list[tuple[Kill, list[Process]]] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    resumes: int = 0
    repeated: int = 0
    # the longest time from the death of a launcher until all its processes had ended
    silence_s: float = 0.0
    lives_s: float = 0.0  # duration of all commands together
    took_s: float = 0.0
    folder: Path | None = None  # kept if a guarantee was violated

    def by_role(self) -> Counter[str]:
        """Return how many kills hit a process, by the role of their target."""
        return Counter(str(kill.role) for kill, hit in self.hits if hit)

    @property
    def unproven(self) -> list[str]:
        """The faults that could not be proven."""
        return []

    def __str__(self) -> str:
        hits = ", ".join(f"{kill}" + ("" if hit else " (missed)") for kill, hit in self.hits)
        verdict = "ok" if not self.violations else "VIOLATED"
        text = (
            f"seed {self.seed:6d} {self.script.stem:12s} {verdict:8s} {self.took_s:5.1f} s, "
            f"{self.resumes} resumes, {self.repeated} repeated; {hits}"
        )
        return "\n".join([text, *(f"    {violation}" for violation in self.violations)])


def _deaths(kill: Kill) -> int:
    """Return how often a kill can cause an item to start again.

    If all are killed one after the other, the broker may see a worker's death and start its work
    elsewhere before it is killed too.
    """
    return 2 if kill.role is Role.EVERYTHING else 1


class RunHangsError(RuntimeError):
    """The undisturbed run of a script does not end."""


def measure(script: Path) -> Reference:
    """Run a script undisturbed.

    Raises:
        RunHangsError: it does not end with exit code 0 within two minutes, so nothing can be compared.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Place(Path(folder) / "r", "reference")
        began = time.monotonic()
        process = command.start(place, command.run_arguments(script))
        code = command.await_end(process, began + 120)
        took_s = time.monotonic() - began
        if code != 0:
            process.kill()
            process.wait()
            raise RunHangsError(
                f"{script} undisturbed: exit {code}; {place.err.read_text()[-2000:]}"
            )
        ledger = Ledger(place.root / "ledger")
        span_s = ledger.span_s() if ledger.length() else 0.0
        return Reference(script, place.output(), took_s, span_s)


def play(seed: int, references: list[Reference], kept: Path) -> Result:
    """Play the round of a seed; keep its files in a folder if a guarantee was broken."""
    rng = random.Random(seed)
    reference = references[rng.randrange(len(references))]
    return play_kills(seed, reference, nemesis.draw(rng), kept)


def play_kills(seed: int, reference: Reference, kills: list[Kill], kept: Path) -> Result:
    """Play a round of given kills; the seed only names it."""
    result = Result(seed, reference.script, kills)
    with staged(result, kept) as place:
        Round(result, reference, place).play()
    return result


@contextmanager
def staged(result: Result, kept: Path, above: Path | None = None) -> Iterator[Place]:
    """Make a round's `Place` and time the round; keep its files if a guarantee was broken.

    `above`: the folder in which the place is made; by default the one for temporary files.
    """
    with tempfile.TemporaryDirectory(
        prefix="chaos-", dir=above, ignore_cleanup_errors=True
    ) as folder:
        place = Place(Path(folder) / "r", f"{result.seed}-{time.time_ns()}")
        began = time.monotonic()
        yield place
        result.took_s = time.monotonic() - began
        if result.violations:
            result.folder = kept / f"seed-{result.seed}"
            shutil.rmtree(result.folder, ignore_errors=True)
            shutil.copytree(place.root, result.folder, ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_socket()}


class Round:
    """A round in progress."""

    parents_start_once = (
        True  # in the time that a round takes, a waiting parent is not replayed elsewhere
    )

    def __init__(self, result: Result, reference: Reference, place: Place) -> None:
        self.result = result
        self.reference = reference
        self.place = place
        self.ledger = Ledger(place.root / "ledger")
        self.snapshots: list[Snapshot] = []
        self.due = list(result.kills)
        self.kills = 0
        self.drafts = False  # a start was killed before it had published its run
        self.deadline_s = 30.0 + 4 * reference.duration_s

    def violate(self, guarantee: Guarantee, text: str) -> None:
        """Record that a guarantee was broken."""
        self.result.violations.append(Violation(guarantee, text))

    def play(self) -> None:
        """Kill and resume until the run has ended; check it."""
        code = self._command(self.run_arguments())
        while self._continues(code):
            self._mourn()
            run = self.place.run()
            if run is None:  # killed before there was a run: the user types the command again
                self.drafts = True
                code = self._command(self.run_arguments())
            else:
                self.result.resumes += 1
                code = self._command(["resume", run.name])
        self._judge(code)

    def run_arguments(self) -> list[str]:
        """Return the command line of a new run."""
        return command.run_arguments(self.reference.script)

    def _continues(self, code: int | None) -> bool:
        """Return whether another command follows a command with this end."""
        return code == _KILLED and self.result.resumes < _RESUMES_MAX

    def _judge(self, code: int | None) -> None:
        """Check the result of the round; `code` is that of the last command (None: it did not end)."""
        if code is None:
            self.violate(Guarantee.PROGRESS, self._picture())
        elif code != 0:
            output = self.place.err.read_text()[-600:]
            self.violate(Guarantee.PROGRESS, f"exit code {code}: {output}")
        self._silence()
        if code == 0:
            self._check()
        self._check_logs()

    def _command(self, arguments: list[str]) -> int | None:
        """Run a command to its end and carry out due kills; return its exit code, None if it hangs."""
        began = time.monotonic()
        process = command.start(self.place, arguments)
        target = self._target(process, began)
        while self.due and process.poll() is None:
            kill = self.due.pop(0)
            hit = nemesis.strike(kill, target)
            self.result.hits.append((kill, hit))
            self.kills += _deaths(kill) if hit else 0
            if any(each.role is Role.LAUNCHER for each in hit):
                process.wait()
            elif hit:
                self._snapshot()
        code = self._await_end(process)
        self.result.lives_s += time.monotonic() - began
        return code

    def _await_end(self, process: subprocess.Popen[bytes]) -> int | None:
        code = command.await_end(process, time.monotonic() + self.deadline_s)
        if code is None:
            self._keep_picture()
            process.kill()
            process.wait()
        return code

    def _target(self, process: subprocess.Popen[bytes], began: float) -> Target:
        place = self.place

        return Target(
            process.pid,
            place.run_key,
            lambda: process.poll() is not None,
            place.output_bytes,
            lambda: place.output().count(b"\n"),
            self.reference.lines,
            self.reference.duration_s,
            began,
        )

    def _mourn(self) -> None:
        """Check that after the death of the launcher all other processes end soon by themselves."""
        self._silence()
        self._snapshot()

    def _silence(self) -> None:
        began = time.monotonic()
        left = evidence.await_silence(self.place.token, _SILENCE_S)
        self.result.silence_s = max(self.result.silence_s, time.monotonic() - began)
        for pid, words in left.items():
            self.violate(Guarantee.NO_LEFTOVERS, f"process {pid} lives on: {words}")
            processes.kill(pid)

    def _snapshot(self) -> None:
        run = self.place.run()
        if run is None:
            return
        journal = Journal(run)
        snapshot = journal.snapshot(self.ledger)
        if snapshot is not None:
            self.snapshots.append(snapshot)
        for text in journal.unreadable:
            self.violate(Guarantee.ALWAYS_OPENS, text)

    _seen = ""

    def _keep_picture(self) -> None:
        """Record which processes existed when the run hung."""
        found = processes.with_token(self.place.token)
        self._seen = "; ".join(f"{pid} {words}" for pid, words in found.items())

    def _picture(self) -> str:
        code, status = command.ask(self.place, "status", "last")
        return f"no end after {self.deadline_s:.0f} s; {self._seen}; status ({code}): {status}"

    def _check(self) -> None:
        violations, output = self.result.violations, self.place.output()
        if self.reference.is_history:
            violations += checker.check_history(output, as_completed.ITEMS, as_completed.PENDING)
        else:
            violations += checker.check_output(output, self.reference.output)
        violations += checker.check_ledger(
            self.ledger, self.snapshots, self.kills, parents=self.parents_start_once
        )
        self.result.repeated = self.ledger.repeated()
        run = self.place.run()
        if run is None:
            self.violate(Guarantee.SOUND, "the run has no folder")
            return
        outcomes = Journal(run).outcomes()
        violations += checker.check_outcomes(Counter() if outcomes is None else outcomes)
        self._check_commands(run)
        for text in evidence.leftovers(run, self.place.temporary, drafts=self.drafts):
            self.violate(Guarantee.NO_LEFTOVERS, text)

    def _check_commands(self, run: Path) -> None:
        status = command.ask_json(self.place, "status", run.name)
        if (status.get("state"), status.get("exit_code")) != ("finished", 0):
            self.violate(Guarantee.SOUND, f"status says {status}")
        elif status["in_flight"] or status["launcher"]:
            self.violate(Guarantee.SOUND, f"status of a finished run: {status}")
        rows = command.ask_json(self.place, "runs").get("runs", [])
        if [(row["id"], row["state"]) for row in rows] != [(run.name, "finished")]:
            self.violate(Guarantee.SOUND, f"runs says {rows}")
        code, text = command.ask(self.place, "journal", "verify", run.name)
        if code != 0:
            self.violate(Guarantee.ALWAYS_OPENS, f"journal verify: exit {code}: {text}")
        before = self.place.output_bytes()
        again = command.start(self.place, ["resume", run.name])
        code = again.wait(30)
        if code != 0 or self.place.output_bytes() != before:
            self.violate(Guarantee.SOUND, f"resume of a finished run: exit {code}, or said more")

    def excuse(self, text: str) -> str:
        """Return a log without expected errors."""
        return text

    def _check_logs(self) -> None:
        run = self.place.run()
        files = [self.place.err] if run is None else [self.place.err, *(run / "logs").iterdir()]
        for file in files:
            text = self.excuse(file.read_text(errors="replace"))
            for mark in ("Traceback", "Fatal Python error", "refused a message", "replay:"):
                if mark in text:
                    piece = text[max(0, text.index(mark) - 200) :][:1500]
                    self.violate(Guarantee.SOUND, f"{file.name}: {piece}")
                    break
