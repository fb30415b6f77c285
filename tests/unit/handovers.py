"""A bench with a requested hand-over."""

from __future__ import annotations

from collections.abc import Sequence

from resilient_scoop.core.events import Action, AskCheckpoints
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    ORIGIN,
    PLAIN,
    W1,
    W2,
    Bench,
    calls,
    granted,
    part,
    sent,
)

KID = "0.0[0]"
W3 = PeerId(b"Wworker3.")


def asked(*, hands_over: bool = True, grace_s: float = 30.0) -> AskCheckpoints:
    return AskCheckpoints(hands_over, grace_s)


def checkpoint(path: str, attempt: wire.Attempt, gen: int = 1) -> wire.Checkpoint:
    return wire.Checkpoint(path, attempt, "block", 0, gen, gen - 1, 0, 0, 0, 0, b"state")


def opened(bench: Bench, *paths: str) -> wire.OpenBlocks:
    return wire.OpenBlocks(bench.broker.handover.no, list(paths))


def stops(actions: Sequence[Action]) -> list[str]:
    return [stop.reason for stop in sent(actions, ORIGIN, wire.Stop)]


def anywhere(actions: Sequence[Action]) -> list[wire.Task]:
    return granted(actions, W1) + granted(actions, W2)


def with_kid(bench: Bench, *workers: bytes) -> tuple[wire.Attempt, wire.Attempt]:
    """Let a nested parent run on the first worker; return the attempts of the root and of that parent."""
    root = bench.begin(*workers)  # type: ignore[arg-type]
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    (task,) = granted(actions, W1)
    kid = wire.Attempt(1, task.no)
    bench.tell(W1, wire.Parked(kid, 0), *calls(part(0, 0, 1), parent=KID, attempt=kid))
    return root, kid
