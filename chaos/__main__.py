"""`python -m chaos`: the campaigns.

Exit codes: 0 all guarantees held; 1 a guarantee was violated; 2 a run did not end; 3 processes or
files were left over; 4 no fault hit its target, or a fault could not be proven, so the campaign
proves nothing; 5 there was nothing to compare; 77 this machine cannot run the campaign (`grid`
needs root).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos import cost, grid, lab, loops, nemesis, processes, rounds, signals
from chaos.checker import Guarantee
from chaos.hostfaults import Fault
from chaos.rounds import Reference, Result, RunHangsError

_ROUNDS = 200
_GRID_ROUNDS = 100
_CANNOT = 77


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["rounds", *given]
    options = _parser().parse_args(given)
    match options.command:
        case "list":
            _list()
            return 0
        case "grid":
            return _grid(options)
        case "clean":
            return _clean()
        case "cost":
            return cost.report(options.kills, options.roles)
        case "loops":
            return _loops(options)
        case _:
            return _rounds(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Kill runs; check them.")
    commands = parser.add_subparsers(dest="command", required=True)
    play = commands.add_parser("rounds", help="random rounds (also without a command)")
    play.add_argument("--rounds", type=int, help=f"how many  [default: {_ROUNDS}]")
    play.add_argument("--minutes", type=float, help="begin no round later than this")
    play.add_argument("--seed", type=int, default=1, help="seed of the first round; others follow")
    play.add_argument("--workload", choices=rounds.WORKLOADS, action="append")
    play.add_argument(
        "--script", type=Path, help="your own script; it must print the same each time"
    )
    play.add_argument("--keep", type=Path, help="where what failed is kept")
    asks = commands.add_parser("signals", help="rounds in which signals ask a run to end")
    asks.add_argument("--rounds", type=int, help=f"how many  [default: {_ROUNDS}]")
    asks.add_argument("--minutes", type=float, help="begin no round later than this")
    asks.add_argument("--seed", type=int, default=1, help="seed of the first round; others follow")
    asks.add_argument("--workload", choices=signals.SIGNAL_WORKLOADS, action="append")
    asks.add_argument("--keep", type=Path, help="where what failed is kept")
    asks.set_defaults(script=None, play=signals.play, workloads=signals.SIGNAL_WORKLOADS)
    play.set_defaults(play=rounds.play, workloads=rounds.WORKLOADS)
    commands.add_parser("list", help="workloads, roles, moments")
    hosts = commands.add_parser("grid", help="rounds on simulated hosts that fail; needs root")
    hosts.add_argument("--rounds", type=int, default=_GRID_ROUNDS, help="how many  [default: 100]")
    hosts.add_argument("--seed", type=int, default=1, help="seed of the first round; others follow")
    hosts.add_argument("--hosts", type=int, default=3, choices=range(2, 9), help="how many")
    hosts.add_argument("--network", choices=("bridge", "tun"), default="tun")
    hosts.add_argument("--workload", choices=grid.GRID_WORKLOADS, action="append")
    hosts.add_argument("--fault", type=Fault, choices=list(Fault), action="append")
    hosts.add_argument("--keep", type=Path, help="where what failed is kept")
    commands.add_parser("clean", help="remove what a killed `grid` left")
    turns = commands.add_parser("loops", help="loops with checkpoints; each is killed once")
    turns.add_argument("--kills", type=int, default=50, help="of each kind of loop")
    turns.add_argument("--seed", type=int, default=1, help="of the first kill; others follow")
    turns.add_argument("--kind", dest="kinds", action="append", choices=rounds.LOOPS)
    turns.add_argument("--keep", type=Path, help="where what failed is kept")
    price = commands.add_parser("cost", help="time lost by the death of a process, by role")
    price.add_argument("--kills", type=int, default=10, help="of each role")
    price.add_argument("--role", dest="roles", action="append", choices=cost.ROLES)
    return parser


def _list() -> None:
    for name in rounds.WORKLOADS:
        text = rounds.script_of(name).read_text().partition('"""')[2].splitlines()[0].rstrip('"')
        print(f"workload {name:13s} {text}")
    for role in processes.Role:
        print(f"role     {role}")
    for moment in nemesis.Moment:
        print(f"moment   {moment}")


def _grid(options: argparse.Namespace) -> int:
    missing = lab.missing_needs(options.network)
    if missing:
        print("the grid was NOT tested; this machine lacks:", *missing, sep="\n  ")
        return _CANNOT
    results = []
    with lab.Lab(options.hosts, options.network, seed=options.seed) as hosts:
        workloads = tuple(options.workload or grid.GRID_WORKLOADS)
        game = grid.Grid(hosts, _kept(options), workloads, tuple(options.fault or ()))
        for seed in range(options.seed, options.seed + options.rounds):
            try:
                results.append(game.play(seed))
            except RunHangsError as error:
                print(error)
                return 5
            print(results[-1], flush=True)
    print(grid.summary(results))
    return verdict(results)


def _clean() -> int:
    found = lab.clean()
    for folder in found:
        print(f"removed {folder}")
    print(f"{len(found)} labs removed")
    return 0


def _rounds(options: argparse.Namespace) -> int:
    names = options.workload or options.workloads
    scripts = [options.script.absolute()] if options.script else map(rounds.script_of, names)
    try:
        references = [rounds.measure(script) for script in scripts]
    except RunHangsError as error:
        print(error)
        return 5
    for reference in references:
        print(f"undisturbed: {reference.script.stem} {reference.duration_s:.1f} s", flush=True)
    results = _play(options, references, _kept(options))
    print(summary(results))
    return verdict(results)


def _kept(options: argparse.Namespace) -> Path:
    return options.keep or Path(tempfile.gettempdir()) / "chaos-failures"


def _loops(options: argparse.Namespace) -> int:
    try:
        campaigns = [
            loops.play(name, options.kills, options.seed, _kept(options))
            for name in options.kinds or rounds.LOOPS
        ]
    except RunHangsError as error:
        print(error)
        return 5
    for campaign in campaigns:
        print(campaign)
    return verdict([result for campaign in campaigns for result in campaign.results])


def _play(options: argparse.Namespace, references: list[Reference], kept: Path) -> list[Result]:
    count = options.rounds or (_ROUNDS if options.minutes is None else 1 << 30)
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    results = []
    for seed in range(options.seed, options.seed + count):
        if until is not None and time.monotonic() > until:
            break
        result = options.play(seed, references, kept)
        results.append(result)
        print(result, flush=True)
    return results


def summary(results: list[Result]) -> str:
    """Return the results of the rounds."""
    hits: Counter[str] = Counter()
    for result in results:
        hits += result.by_role()
    moments = Counter(str(kill.moment) for r in results for kill, hit in r.hits if hit)
    bad = [result for result in results if result.violations]
    silence_s = max((r.silence_s for r in results), default=0.0)
    roles = ", ".join(f"{count} {role}" for role, count in hits.most_common())
    lines = [
        f"{len(results)} rounds, {hits.total()} kills that hit ({roles})",
        "moments: " + ", ".join(f"{count} {moment}" for moment, count in moments.most_common()),
        f"{sum(r.resumes for r in results)} resumes",
        f"{sum(r.repeated for r in results)} items ran to their end more than once",
        f"silence after the end within {silence_s:.1f} s",
        f"{len(bad)} rounds with violations",
    ]
    lines += [
        f"  seed {r.seed}: {', '.join(sorted({v.guarantee for v in r.violations}))}; {r.folder}"
        for r in bad
    ]
    return "\n".join(lines)


def verdict(results: Sequence[Result]) -> int:
    """Return the exit code."""
    broken = {violation.guarantee for result in results for violation in result.violations}
    if broken - {Guarantee.PROGRESS, Guarantee.NO_LEFTOVERS}:
        return 1
    if broken:
        return 2 if Guarantee.PROGRESS in broken else 3
    if any(result.unproven for result in results):
        return 4
    return 0 if any(result.by_role() for result in results) else 4


if __name__ == "__main__":
    sys.exit(main())
