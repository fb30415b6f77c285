"""When a script that dies repeatedly is no longer started (Z1 to Z3)."""

from __future__ import annotations

from resilient_scoop.core.broker.fruitless import KILLS_MAX
from resilient_scoop.wire import messages as wire
from tests.unit.bench import AGENT, ORIGIN, PLAIN, W1, Bench, calls, outcomes, part, sent


def die(bench: Bench, exit_code: int, *, in_code: bool = True) -> list[wire.Stop]:
    """Let the script's process die; another one arrives."""
    root = bench.broker.members.root
    assert root is not None
    on_cpu = root[0] if in_code else None
    actions = bench.tell(AGENT, wire.ProcessLost(ORIGIN, exit_code, "crash", on_cpu))
    bench.arrive(ORIGIN)
    return list(sent(actions, AGENT, wire.Stop))


def test_three_deaths_at_one_point_stop_the_run() -> None:
    bench = Bench()
    bench.begin(W1)
    assert [bool(die(bench, -11)) for _ in range(3)] == [False, False, True]


def test_more_deaths_by_sigkill_than_by_other_causes_are_allowed() -> None:
    bench = Bench()
    bench.begin(W1)
    assert [bool(die(bench, -9)) for _ in range(KILLS_MAX)] == [False] * (KILLS_MAX - 1) + [True]


def test_progress_resets_the_count_of_deaths() -> None:
    bench = Bench()
    bench.begin(W1)
    for call in range(5):
        assert not die(bench, 9)
        assert not die(bench, 9)
        root = bench.broker.members.root
        assert root is not None
        bench.tell(ORIGIN, PLAIN, *calls(part(call, 0, 1), attempt=root[0]))
        bench.tell(W1, outcomes(call, 0, 1))


def test_a_kill_while_the_script_waits_and_others_compute_does_not_count() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    assert not any(die(bench, -9, in_code=False) for _ in range(3 * KILLS_MAX))
