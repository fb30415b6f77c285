"""Watches a long run: does memory or the journal grow without reason?

An evolutionary load, with or without checkpoints, runs for some minutes; every few seconds, the
anonymous memory of broker, origin and workers and the size of the journal are measured; at the end
they are plotted.

    python -m benchmarks.soak --minutes 60 --out soak

writes `soak.json` and `soak.png`. It exits with 1 if the memory of broker or origin has grown by
more than `--memory-mb`, or the journal by more than `--journal-mb`, between the first fifth of the
time, which is the warm-up, and its end. The journal of a run without checkpoints has to grow, so
with `--plain` only memory is judged. `--rest` leaves the machine's cores to others between
generations.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

_SCRIPT = """
import random
import sys
import time
from contextlib import nullcontext

from resilient_scoop import checkpoint, futures


def evaluate(individual):
    return sum(gene * gene for gene in individual)


def vary(individual):
    return [gene + random.gauss(0, 0.1) if random.random() < 0.2 else gene for gene in individual]


def generation(population, fitness):
    chosen = [min(random.sample(range(50), 3), key=fitness.__getitem__) for _ in range(50)]
    offspring = [vary(population[index]) for index in chosen]
    changed = [index for index in range(50) if offspring[index] != population[chosen[index]]]
    values = [fitness[index] for index in chosen]
    for index, value in zip(changed, futures.map(evaluate, [offspring[i] for i in changed])):
        values[index] = value
    return offspring, values


def main(kind, seconds, rest_s):
    until = time.monotonic() + seconds
    population = [[random.uniform(-5, 5) for _ in range(20)] for _ in range(50)]
    fitness = list(futures.map(evaluate, population))
    initial = {"population": lambda: population, "fitness": lambda: fitness, "count": 0}
    with checkpoint.durable(**initial) if kind == "durable" else nullcontext(Plain(initial)) as s:
        while time.monotonic() < until:
            s.population, s.fitness = generation(s.population, s.fitness)
            s.count += 1
            if s.count % 1000 == 0:
                print(s.count, min(s.fitness), flush=True)
            time.sleep(rest_s)
            s.commit("auto")
    print("generations", s.count)


class Plain:
    def __init__(self, initial):
        for name, value in initial.items():
            setattr(self, name, value() if callable(value) else value)

    def commit(self, every_s):
        pass


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
"""
_WARM_SHARE = 0.2
_END_SHARE = 0.1


@dataclass
class Samples:
    """The measured values, second by second; memory in MB."""

    at_s: list[float] = field(default_factory=list)
    broker_mb: list[float] = field(default_factory=list)
    origin_mb: list[float] = field(default_factory=list)
    workers_mb: list[float] = field(default_factory=list)
    journal_mb: list[float] = field(default_factory=list)
    generations: int = 0

    def growth_mb(self, of: list[float]) -> float:
        """Return the growth between the end of the warm-up and the end of the run."""
        first, last = int(_WARM_SHARE * len(of)), int((1 - _END_SHARE) * len(of))
        width = max(1, len(of) - last)
        return mean(of[last:]) - mean(of[first : first + width])


@dataclass(frozen=True, slots=True)
class Load:
    """What runs, and for how long."""

    kind: str  # "durable" or "plain"
    seconds: float
    rest_s: float = 0.0
    workers: int = 2


def soak(load: Load, every_s: float) -> Samples:
    """Run the load; return a sample every few seconds.

    Raises:
        RuntimeError: the run failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="rscoop-soak-", dir="/var/tmp"))
    try:
        (folder / "evolve.py").write_text(_SCRIPT)
        env = {**os.environ, "RSCOOP_STATE_DIR": str(folder / "state")}
        command = [sys.executable, "-m", "resilient_scoop", "run", "-q", "-n", str(load.workers)]
        script = ["evolve.py", load.kind, str(load.seconds), str(load.rest_s)]
        began = time.monotonic()
        with (folder / "out").open("wb") as out:
            process = subprocess.Popen([*command, *script], cwd=folder, env=env, stdout=out)
        samples = Samples()
        while process.poll() is None:
            time.sleep(every_s)
            _look(samples, folder, time.monotonic() - began)
        output = (folder / "out").read_text().split()
        if process.returncode != 0 or len(output) < 2:  # noqa: PLR2004  "generations N"
            raise RuntimeError(f"the run ended with {process.returncode}")
        samples.generations = int(output[-1])
        return samples
    finally:
        shutil.rmtree(folder)


def _look(samples: Samples, folder: Path, at_s: float) -> None:
    memory: dict[str, float] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if str(folder).encode() not in (place / "environ").read_bytes():
                continue
            role = words[words.index(b"resilient_scoop.processes.entry") + 1].decode()
            lines = (place / "status").read_text().splitlines()
        except (OSError, ValueError):
            continue
        kb = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        memory[role] = memory.get(role, 0.0) + kb / 1000
    if "broker" not in memory:
        return
    samples.at_s.append(round(at_s, 1))
    samples.broker_mb.append(memory["broker"])
    samples.origin_mb.append(memory.get("origin", 0.0))
    samples.workers_mb.append(memory.get("worker", 0.0))
    size = sum(path.stat().st_blocks * 512 for path in folder.glob("state/runs/*/journal/**/*.mdb"))
    samples.journal_mb.append(size / 1e6)


def draw(samples: Samples, kind: str, path: Path) -> None:
    """Plot the samples over time into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 7))
    minutes = [at / 60 for at in samples.at_s]
    lines: dict[str, list[float]] = {
        "broker": samples.broker_mb, "origin": samples.origin_mb, "workers": samples.workers_mb,
    }  # fmt: skip
    for name, values in lines.items():
        above.plot(minutes, values, label=name)
    above.set_ylabel("anonymous memory, MB")
    above.set_ylim(bottom=0)
    above.legend()
    above.set_title(f"{samples.generations} generations, {kind}")
    below.plot(minutes, samples.journal_mb, color="black")
    below.set_ylabel("journal, MB")
    below.set_ylim(bottom=0)
    below.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(samples: Samples) -> dict[str, Any]:
    """Return the figures of a soak."""
    return {
        "seconds": samples.at_s[-1],
        "generations": samples.generations,
        "broker_mb": round(samples.broker_mb[-1], 1),
        "broker_growth_mb": round(samples.growth_mb(samples.broker_mb), 2),
        "origin_growth_mb": round(samples.growth_mb(samples.origin_mb), 2),
        "workers_growth_mb": round(samples.growth_mb(samples.workers_mb), 2),
        "journal_mb": round(samples.journal_mb[-1], 1),
        "journal_max_mb": round(max(samples.journal_mb), 1),
        "journal_growth_mb": round(samples.growth_mb(samples.journal_mb), 2),
        "journal_bytes_per_generation": round(
            1e6 * samples.journal_mb[-1] / max(1, samples.generations)
        ),
    }


def main() -> int:
    """Run the soak, plot it, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="without the ending")
    parser.add_argument("--plain", action="store_true", help="without checkpoints")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between two generations")
    parser.add_argument("--memory-mb", type=float, default=5.0, help="what a process may grow")
    parser.add_argument("--journal-mb", type=float, default=5.0, help="what the journal may grow")
    given = parser.parse_args()
    kind = "plain" if given.plain else "durable"
    samples = soak(Load(kind, 60 * given.minutes, given.rest, given.workers), given.every)
    measured = report(samples)
    print(json.dumps(measured))
    given.out.with_suffix(".json").write_text(json.dumps({**measured, "samples": asdict(samples)}))
    draw(samples, kind, given.out.with_suffix(".png"))
    grown = max(measured["broker_growth_mb"], measured["origin_growth_mb"]) > given.memory_mb
    journal = kind == "durable" and measured["journal_growth_mb"] > given.journal_mb
    return int(grown or journal)


if __name__ == "__main__":
    sys.exit(main())
