"""What is said of callables: what they are, what they mean, and that they are to be forgotten."""

from __future__ import annotations

from typing import Final

from resilient_scoop.wire.base import Frame, Piece


class Options(Piece, frozen=True):
    """What `futures.options` and `futures.task` say of a call; part of a definition."""

    timeout_s: float | None = None
    retries: int = 0
    retry: bytes | None = None  # a tenacity policy, pickled
    idempotent: bool = True
    priority: int = 0
    name: str | None = None


AS_IMPORTED: Final = 1
"""Of `Reference.flags`: the value is the one that importing the module gave."""
VOLATILE: Final = 2
"""Of `Reference.flags`: differs between processes by its nature; its source stands for it."""


class Reference(Piece, frozen=True):
    """Something of the user's that a callable refers to: a global, a class attribute, a closure cell."""

    home: (
        str  # `module:qualname`, where a worker finds its own; empty: it travels with the callable
    )
    label: str  # for display: `helper.FACTOR`
    digest: bytes  # of what it means, in this and every later run
    here: bytes  # of the value, compared within one run; empty: as `digest`
    text: str = ""  # the value for display, shortened
    at: str = ""  # `model.py:14`
    flags: int = 0

    @property
    def value(self) -> bytes:
        """The digest that a worker compares with its own."""
        return self.here or self.digest


class Setting(Piece, frozen=True):
    """What a call finds otherwise than a worker at its base, by the script's doing; names as bytes."""

    environ: dict[bytes, bytes | None] = {}  # None: removed
    search_path: list[str] = []  # all of `sys.path`; empty: as it was
    arguments: list[str] = []  # all of `sys.argv`; empty: as it was
    more: bytes = b""  # pickled settings of the process by name; empty: as they were


class Define(Frame, frozen=True):
    """A callable and its options, sent to each process that needs it, again once it is forgotten."""

    fn: bytes  # FnId
    fingerprint: bytes  # 16 bytes: digest of normalized source, closure, defaults, callees
    name: str  # for display: module:qualname
    payload: bytes  # the pickled callable
    options: Options
    pure: bool = False  # provably draws no random numbers: not seeded
    style: int = 0  # how an item's argument is passed: 0 fn(x), 1 fn(*x), 2 fn(*x[0], **x[1])
    references: list[Reference] = []  # none in journals of older versions
    values: bytes = b""  # pickled: {home: value}, for workers whose own differ; empty: none
    setting: Setting | None = None
    brought: list[Reference] = []  # what arguments refer to, and the script has changed
    brought_values: bytes = b""  # as `values`, of these


class Forget(Frame, frozen=True):
    """To origin and workers: forget the callables that you don't use, and announce what you call."""

    no: int  # rises over all epochs
    keep: list[bytes]  # of tasks that may still be on their way


class Forgotten(Frame, frozen=True):
    """Answer to `Forget`, behind the definitions of what is still called."""

    no: int
