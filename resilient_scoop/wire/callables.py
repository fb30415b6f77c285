"""Messages about callables: their definitions, their references, and requests to forget them."""

from __future__ import annotations

from typing import Final

from resilient_scoop.wire.base import Frame, MessagePart


class Options(MessagePart, frozen=True):
    """Options of a call, from `futures.options` and `futures.task`; part of a definition."""

    timeout_s: float | None = None
    retries: int = 0
    retry: bytes | None = None  # a tenacity policy, pickled
    idempotent: bool = True
    priority: int = 0
    name: str | None = None


AS_IMPORTED: Final = 1
"""Flag in `Reference.flags`: the value is the one that the import of the module gave."""
VOLATILE: Final = 2
"""Flag in `Reference.flags`: differs between processes by its nature; compared by its source."""


class Reference(MessagePart, frozen=True):
    """A user's object that a callable refers to: a global, a class attribute, a closure cell."""

    home: (
        str  # `module:qualname`, where a worker finds its own; empty: it is sent with the callable
    )
    label: str  # for display: `helper.FACTOR`
    digest: bytes  # digest of its meaning, for this and every later run
    here: bytes  # digest of the value, compared within one run; empty: as `digest`
    text: str = ""  # the value for display, shortened
    at: str = ""  # `model.py:14`
    flags: int = 0

    @property
    def value(self) -> bytes:
        """The digest that a worker compares with its own."""
        return self.here or self.digest


class Setting(MessagePart, frozen=True):
    """Changes by the script that a call needs and a worker in its base state lacks; names as bytes."""

    environ: dict[bytes, bytes | None] = {}  # None: removed
    search_path: list[str] = []  # all of `sys.path`; empty: unchanged
    arguments: list[str] = []  # all of `sys.argv`; empty: unchanged
    more: bytes = b""  # pickled settings of the process by name; empty: unchanged


class Define(Frame, frozen=True):
    """A callable and its options, sent to each process that needs it, and again after it was forgotten."""

    fn: bytes  # id of the function
    fingerprint: bytes  # 16 bytes: digest of normalized source, closure, defaults, callees
    name: str  # for display: module:qualname
    payload: bytes  # the pickled callable
    options: Options
    pure: bool = False  # provably draws no random numbers: not seeded
    style: int = 0  # how an item's argument is passed: 0 fn(x), 1 fn(*x), 2 fn(*x[0], **x[1])
    references: list[Reference] = []  # empty in journals of older versions
    values: bytes = b""  # pickled: {home: value}, for workers with other values; empty: none
    setting: Setting | None = None
    brought: list[Reference] = []  # changes of the script in what arguments refer to
    brought_values: bytes = b""  # as `values`, of these


class Forget(Frame, frozen=True):
    """To origin and workers: forget unused callables, and announce those that you call."""

    no: int  # rises over all epochs
    keep: list[bytes]  # callables of tasks that may still be in transit


class Forgotten(Frame, frozen=True):
    """Answer to `Forget`, after the definitions of callables that are still called."""

    no: int
