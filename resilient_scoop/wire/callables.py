"""What is said of callables: what they are, and that they are to be forgotten."""

from __future__ import annotations

import msgspec


class _Struct(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):
    """Base of every frame."""


class Options(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What `futures.options` and `futures.task` say of a call; part of a definition."""

    timeout_s: float | None = None
    retries: int = 0
    retry: bytes | None = None  # a tenacity policy, pickled
    idempotent: bool = True
    priority: int = 0
    name: str | None = None


class Define(_Struct, frozen=True):
    """A callable and its options, sent to each process that needs it, again once it is forgotten."""

    fn: bytes  # FnId
    fingerprint: bytes  # 16 bytes: digest of normalized source, closure, defaults, callees
    name: str  # for eyes: module:qualname
    payload: bytes  # the pickled callable
    options: Options
    pure: bool = False  # provably draws no random numbers: not seeded
    style: int = 0  # how an item's argument is passed: 0 fn(x), 1 fn(*x), 2 fn(*x[0], **x[1])


class Forget(_Struct, frozen=True):
    """To origin and workers: forget the callables that you don't use, and announce what you call."""

    no: int  # rises over all epochs
    keep: list[bytes]  # of tasks that may still be on their way


class Forgotten(_Struct, frozen=True):
    """Answer to `Forget`, behind the definitions of what is still called."""

    no: int
