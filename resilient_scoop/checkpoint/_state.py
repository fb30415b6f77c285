"""The state of a block: an object with the user's attributes."""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Literal, Protocol

from resilient_scoop.errors import UsageError

_MAKERS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, type,
)  # fmt: skip


class Value:
    """A value that is itself a function or a class; made by `value`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def value(given: Any) -> Value:
    """Make `durable` use a function or a class as the value itself, and not call it."""
    return Value(given)


def initialize(initial: Any, name: str) -> Any:
    """Return the value of an initializer.

    Raises:
        UsageError: it is a function that needs arguments.
    """
    if isinstance(initial, Value):
        return initial.value
    if not isinstance(initial, _MAKERS):
        return initial
    try:
        inspect.signature(initial).bind()
    except TypeError as error:
        raise UsageError(
            f"{name}={initial!r}: an initializer is called without arguments ({error}); to have the "
            f"function itself as the value, write {name}=checkpoint.value(…)"
        ) from None
    except ValueError:
        pass  # a builtin without a readable signature
    return initial()


class Saves(Protocol):
    """The block to which a state belongs."""

    def commit(self, state: Any, every_s: float | Literal["auto"] | None) -> None:
        """Save the state, unless it is not due. See `State.commit`."""


class State:
    """The state of a `durable` block: whatever attributes are set on it are saved by `commit`."""

    __slots__ = ("__dict__", "__weakref__", "_rscoop_block")

    def __repr__(self) -> str:
        return f"<state of {', '.join(vars(self)) or 'nothing'}>"

    def __reduce__(self) -> str:
        raise TypeError(
            "the state of a durable block belongs to its parent: send attributes of it to tasks"
        )

    def commit(self, every_s: float | Literal["auto"] | None = None) -> None:
        """Save the state; it is on disk when this returns.

        `every_s`: only if the last save is at least this number of seconds ago. "auto": at
        intervals that cost at most 1 % of the time (or the interval of Young and Daly for the
        measured cost, if that is longer). Skipped rounds are computed again after a crash, with the
        same results. The program cannot see whether a commit was skipped, because it must not
        depend on it.

        Raises:
            PicklingFailedError: something in the state cannot be saved; the text says what, and
            what to do. UsageError: another block, opened inside, is open; or this task makes no
            calls. CheckpointUnusableError: the saved state cannot be loaded back. JournalError: the
            folder of the run cannot be written. (On a full disk, the call waits for space.)
        """
        self._rscoop_block.commit(self, every_s)

    if TYPE_CHECKING:
        _rscoop_block: Saves

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the state has no attribute {name!r}, only {', '.join(vars(self)) or 'none at all'}: "
            f"give its initial value in durable({name}=…), or set it before it is read",
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if is_taken(name):
            raise AttributeError(f"state.{name}: this name is taken; choose another one")
        object.__setattr__(self, name, value)


def is_taken(name: str) -> bool:
    """Return whether a name cannot be an attribute of user code."""
    return name == "commit" or name.startswith("_rscoop")
