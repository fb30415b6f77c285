"""Retries with tenacity, of a failing item and of a login; waits draw from a separate random stream.

Jittered waits of tenacity draw from the global `random`, which belongs to the user's item: its
state is saved and restored around the computation of a wait.
"""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity

T = TypeVar("T")


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


def patiently(
    call: Callable[[], T],
    is_worth: Callable[[BaseException], bool],
    *,
    tries: int,
    wait_max_s: float,
) -> T:
    """Call until it succeeds, at most `tries` times, with waits that grow and are drawn at random.

    Only errors for which `is_worth` is true are retried; the last one is raised as itself. The
    waits draw from a stream of their own, so that the user's stream is not changed.
    """
    import tenacity

    rng = random.Random()  # noqa: S311 - spreads tries, not cryptography

    def wait_s(state: tenacity.RetryCallState) -> float:
        return min(2.0 ** (state.attempt_number - 1), wait_max_s) * rng.uniform(0.3, 1.0)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(tries),
        wait=wait_s,
        retry=tenacity.retry_if_exception(is_worth),
        reraise=True,
    )(call)
