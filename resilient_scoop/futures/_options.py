"""Options of calls, apart from the callable's own keywords."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from resilient_scoop.errors import UsageError
from resilient_scoop.wire.messages import Options

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
ATTRIBUTE = "__rscoop_options__"
PLAIN = Options()
"""Options of a call without any: one object, which can be recognized by identity."""


def make(
    *,
    timeout: float | None = None,
    retries: int = 0,
    retry: Any = None,
    idempotent: bool = True,
    priority: int = 0,
    name: str | None = None,
) -> Options:
    """Return options, checked.

    Raises:
        UsageError: one is out of its range, or two contradict each other.
    """
    if timeout is not None and not timeout > 0:
        raise UsageError(f"timeout={timeout!r} must be a number of seconds above 0")
    if retries < 0 or int(retries) != retries:
        raise UsageError(f"retries={retries!r} must be a whole number from 0")
    if not idempotent and (retries or retry is not None):
        raise UsageError(
            "idempotent=False calls are never started twice: leave out retries and retry"
        )
    if int(priority) != priority:
        raise UsageError(f"priority={priority!r} must be a whole number; higher ones go first")
    policy = None if retry is None else pickle.dumps(retry)
    return Options(timeout, retries, policy, idempotent, priority, name)


def of(function: object, given: Options | None = None) -> Options:
    """Return the options of a call: those given, or those that `task` set on the function."""
    if given is not None:
        return given
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, Options) else PLAIN


def named(options: Options, described: str) -> Options:
    """Return the options of a call whose function is wrapped; it is shown under the function's name.

    `described` is the result of `user_code.describe` for it.
    """
    if options.name is not None:
        return options
    return msgspec.structs.replace(options, name=described.rpartition(":")[2])


def set_on(function: F, options: Options) -> F:
    """Set options on a function and return it."""
    setattr(function, ATTRIBUTE, options)
    return function
