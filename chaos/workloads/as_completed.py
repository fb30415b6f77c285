"""A steady-state search: the next call depends on the order in which results arrive.

No two undisturbed runs print the same, but each run prints one consistent history: line n names the
future that was completed as number n, its argument and value, and the argument of the next call,
which is a digest of all results so far. `chaos.checker` computes it again from the lines.
"""

from __future__ import annotations

import hashlib
import time

from chaos.workloads.ledger import pause, running
from resilient_scoop import futures

ITEMS, PENDING = 90, 6


def digest(*parts: object) -> str:
    """Return a short digest of some values."""
    text = "|".join(map(str, parts))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def work(path: str, arg: str) -> str:
    """Return a digest of the argument, after a time that depends on it."""
    with running(path):
        pause(0.01 + int(arg[:2], 16) / 256 * 0.06)
        return digest("value", arg)


def main() -> None:
    """Keep several calls running until enough are done; print each when it is completed."""
    token = futures.once(lambda: digest(time.monotonic_ns()))
    print(f"token {token}", flush=True)
    history = digest(token)
    pending = {}
    for call in range(PENDING):
        arg = digest("first", call)
        pending[futures.submit(work, f"0.{call}[0]", arg)] = (call, arg)
    asked = PENDING
    for line in range(ITEMS):
        future = next(futures.as_completed(list(pending)))
        call, arg = pending.pop(future)
        history = digest(history, call, future.result())
        print(f"{line} {call} {arg} {future.result()} {history}", flush=True)
        if asked < ITEMS:
            pending[futures.submit(work, f"0.{asked}[0]", history)] = (asked, history)
            asked += 1
    print(f"end {token} {history}")


if __name__ == "__main__":
    main()
