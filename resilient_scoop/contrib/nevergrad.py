"""nevergrad: an executor for `optimizer.minimize`.

    from resilient_scoop.contrib.nevergrad import FuturesExecutor

    optimizer.minimize(loss, executor=FuturesExecutor(), batch_mode=True)

In a session, give nevergrad an `Executor` of ours itself. With `batch_mode=True` the answer does not
depend on time. Without it, nevergrad acts on the order in which calls end; a resume repeats that order,
but two runs differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

__all__ = ["FuturesExecutor"]


class FuturesExecutor:
    """The part of an executor that nevergrad needs: `submit`."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> futures.Future[T]:
        """Submit a call."""
        return futures.submit(fn, *args, **kwargs)
