"""Rounds of signals: a run is asked to end at random moments and is resumed.

Its answer is compared. A volley is one to three signals, to the launcher alone, to all processes at
once (as batch systems and service managers do), or to one of the other processes alone, which
ignores them. The exit code must be one that the signals explain, and after the resumes the output
must be that of the undisturbed run.
"""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos import command, nemesis, processes
from chaos.checker import Guarantee
from chaos.command import Place
from chaos.nemesis import Kill, Moment
from chaos.processes import Process, Role
from chaos.rounds import WORKLOADS, Reference, Result, Round, staged

SIGNAL_WORKLOADS: Final = (*WORKLOADS, "saves")
_IMPORTING: Final = re.compile(
    r"Traceback \(most recent call last\):\n  File \"<frozen runpy>\"(?:.*\n  )+.*\nKeyboardInterrupt\n"
)
_VOLLEYS_MAX: Final = 3
_TAIL_S: Final = 60.0  # the longest grace period and the time to end, on a loaded machine
_CODES: Final = {
    signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 75, signal.SIGUSR2: 75,
}  # fmt: skip
_NUMBERS: Final = {
    signal.SIGTERM: 6, signal.SIGUSR1: 3, signal.SIGINT: 2, signal.SIGUSR2: 1, signal.SIGHUP: 1,
}  # fmt: skip
_TARGETS: Final = {
    Role.LAUNCHER: 5, Role.EVERYTHING: 5, Role.ORIGIN: 1, Role.WORKER: 1, Role.BROKER: 1, Role.AGENT: 1,
}  # fmt: skip
_MOMENTS: Final = {Moment.UNIFORM: 8, Moment.STARTUP: 4, Moment.OUTPUT: 3, Moment.END: 3}


@dataclass(frozen=True, slots=True)
class Volley:
    """Signals to one target, with the seconds between them."""

    at: Kill  # the target, and the moment
    numbers: tuple[signal.Signals, ...]
    gaps_s: tuple[float, ...]

    def __str__(self) -> str:
        return f"{'+'.join(number.name for number in self.numbers)}:{self.at}"

    @property
    def is_heard(self) -> bool:
        """Whether the target reacts to the volley."""
        return self.at.role in (Role.LAUNCHER, Role.EVERYTHING)


def draw(rng: random.Random) -> list[Volley]:
    """Return the volleys of one round, in their order."""
    volleys = []
    for _ in range(rng.randrange(1, _VOLLEYS_MAX + 1)):
        (role,) = rng.choices(list(_TARGETS), list(_TARGETS.values()))
        (moment,) = rng.choices(list(_MOMENTS), list(_MOMENTS.values()))
        (count,) = rng.choices((1, 2, 3), (6, 2, 1))
        numbers = rng.choices(list(_NUMBERS), list(_NUMBERS.values()), k=count)
        # A SIGINT to a broker is a death of its own.
        if role not in (Role.LAUNCHER, Role.EVERYTHING):
            numbers = [signal.SIGTERM if n == signal.SIGINT else n for n in numbers]
        gaps_s = tuple(rng.choice((0.0, 0.05, 1.0)) * rng.random() for _ in numbers[1:])
        kill = Kill(role, moment, rng.random(), rng.randrange(1 << 16))
        volleys.append(Volley(kill, tuple(numbers), gaps_s))
    return volleys


def play(seed: int, references: list[Reference], kept: Path) -> Result:
    """Play the round of a seed; keep its files in a folder if a guarantee was broken."""
    rng = random.Random(f"signals {seed}")
    reference = references[rng.randrange(len(references))]
    return play_volleys(seed, reference, draw(rng), kept)


def play_volleys(seed: int, reference: Reference, volleys: list[Volley], kept: Path) -> Result:
    """Play a round of given volleys; the seed only names it."""
    result = Result(seed, reference.script, [volley.at for volley in volleys])
    with staged(result, kept) as place:
        _SignalRound(result, reference, place, volleys).play()
    return result


class _SignalRound(Round):
    def __init__(
        self, result: Result, reference: Reference, place: Place, volleys: list[Volley]
    ) -> None:
        super().__init__(result, reference, place)
        self.volleys = list(volleys)
        self.explained: set[int] = set()
        self.deadline_s += _TAIL_S

    def _continues(self, code: int | None) -> bool:
        return code in self.explained and code != 0

    def _mourn(self) -> None:
        self._silence()

    def excuse(self, text: str) -> str:
        """Return the log without the traceback that Python shows for a Ctrl-C during our imports."""
        return _IMPORTING.sub("", text)

    def _command(self, arguments: list[str]) -> int | None:
        """Run a command to its end, and send it the next volley."""
        began = time.monotonic()
        process = command.start(self.place, arguments)
        self.explained = set()
        target = self._target(process, began)
        while self.volleys and process.poll() is None and not self.explained:
            volley = self.volleys.pop(0)
            hit = nemesis.strike(volley.at, target, functools.partial(self._fire, volley))
            self.result.hits.append((volley.at, hit))
            self.kills += bool(hit)
            if hit and volley.is_heard:
                for number in volley.numbers:
                    self.explained |= {_CODES[number], -number}
                if signal.SIGINT in volley.numbers and self.place.run() is None:
                    self.explained.add(1)  # by the interpreter itself, before any line of ours runs
        return self._await_end(process)

    def _fire(self, volley: Volley, found: Sequence[Process]) -> list[Process]:
        """Send a volley to some processes; return which of them existed."""
        if volley.at.role is Role.EVERYTHING:
            pids = {*processes.with_token(self.place.token), *(each.pid for each in found)}
            found = [*found, *(Process(p, Role.EVERYTHING) for p in pids - {f.pid for f in found})]
        hit = [each for each in found if _send(each.pid, volley.numbers[0])]
        for number, gap_s in zip(volley.numbers[1:], volley.gaps_s, strict=True):
            time.sleep(gap_s)
            for each in hit:
                _send(each.pid, number)
        return hit

    def _await_end(self, process: subprocess.Popen[bytes]) -> int | None:
        code = super()._await_end(process)
        if code not in self.explained | {0, None}:
            self.violate(Guarantee.SOUND, f"exit code {code}, explained: {sorted(self.explained)}")
        return code


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
