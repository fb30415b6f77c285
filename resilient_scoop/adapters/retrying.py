"""Retries of a failing item with tenacity, whose waits draw from a separate random stream.

Jittered waits of tenacity draw from the global `random`, which belongs to the user's item: its
state is saved and restored around the computation of a wait.
"""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity


def retried(
    call: Callable[[], Any],
    retries: int,
    policy: bytes | None,
    sleep: Callable[[float], None],
) -> Any:
    """Call until it succeeds, with at most `retries` more tries, or by the pickled policy.

    The last error is raised as itself. `Exception`s are retried, others (SystemExit) are not,
    unless the policy says so.
    """
    import tenacity

    if policy is None:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=tenacity.wait_exponential_jitter(initial=0.1, max=10.0),
            retry=tenacity.retry_if_exception_type(Exception),
            reraise=True,
        )
    else:
        retrying = pickle.loads(policy)
    return retrying.copy(sleep=sleep, wait=_aside(retrying.wait), reraise=True)(call)


def _aside(wait: Any) -> Callable[[tenacity.RetryCallState], float]:
    def waiting(state: tenacity.RetryCallState) -> float:
        kept = random.getstate()
        random.seed()
        try:
            return float(wait(state))
        finally:
            random.setstate(kept)

    return waiting
