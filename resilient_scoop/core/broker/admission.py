"""Check a bundle before the broker's machine sees it (NOBODY-IN).

msgspec has checked the types; this module checks relations between fields on which the machine
relies: equal counts, lengths of digests, valid paths. A peer that breaks them has another version
or is hostile; its bundle changes nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from resilient_scoop.ids import DIGEST_BYTES
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_BYTES_MAX = 200
_is_path = re.compile(r"[0t](?:\.\d{1,18}\[\d{1,18}\])*").fullmatch


def check(messages: Sequence[wire.Up]) -> None:  # noqa: C901, PLR0912 - a table
    """Check a bundle.

    Raises:
        ValueError: the text says what is wrong.
    """
    for at, message in enumerate(messages):
        match message:
            case wire.Outcomes(items=items):
                for outcome in items:
                    _check_outcome(outcome)
            case wire.Calls():
                follower = messages[at + 1] if at + 1 < len(messages) else None
                _check_calls(message, follower)
            case wire.Args():
                if at == 0 or not isinstance(messages[at - 1], wire.Calls):
                    raise ValueError("arguments without calls")
            case wire.Parked() | wire.Returned() | wire.Alive():
                pass
            case wire.Observed(parent=parent, observations=observations):
                if not observations or not _is_path(parent):
                    raise ValueError(f"observations: {len(observations)} of {parent!r}")
            case wire.Cancel(parent=parent) | wire.HistoryWanted(parent=parent):
                if not _is_path(parent):
                    raise ValueError(f"no path: {parent!r}")
            case wire.Abandon(parent=parent, calls=calls):
                if not _is_path(parent) or any(not 0 <= call < 1 << 63 for call in calls):
                    raise ValueError(f"calls given up: {len(calls)} of {parent!r}")
            case wire.Progress():
                _check_progress(message)
            case wire.Verified(parent=parent) | wire.Halted(parent=parent):
                if not _is_path(parent):
                    raise ValueError(f"no path: {parent!r}")
            case wire.Unfit(parent=parent):
                if parent and not _is_path(parent):
                    raise ValueError(f"no path: {parent!r}")
            case wire.OpenBlocks(parents=parents):
                if not all(map(_is_path, parents)):
                    raise ValueError(f"no path: {parents!r:.200}")
            case wire.Checkpoint():
                _check_checkpoint(message)
            case wire.Hello(held=held):
                for each in held:
                    _check_held(each)
            case (
                wire.Define() | wire.Output() | wire.Input() | wire.Const() | wire.Stuck()
                | wire.ProcessLost() | wire.RunEnded() | wire.Bye() | wire.Forgotten()
                | wire.NoRoom() | wire.BeginWanted()
            ):  # fmt: skip
                pass
            case _:
                assert_never(message)


def _check_outcome(outcome: wire.Outcome) -> None:
    count = len(outcome.values)
    if (
        not count
        or outcome.start < 0
        or outcome.call < 0
        or len(outcome.digests) != count * DIGEST_BYTES
    ):
        raise ValueError(f"outcome of {count} items with {len(outcome.digests)} bytes of digests")
    if outcome.failed and not 0 <= min(outcome.failed) <= max(outcome.failed) < count:
        raise ValueError("outcome: a failed item is none of its items")


def _check_calls(calls: wire.Calls, args: wire.Up | None) -> None:
    if not isinstance(args, wire.Args):
        raise ValueError("calls without arguments")  # noqa: TRY004 - it is about a message's content
    if not _is_path(calls.parent):
        raise ValueError(f"no path: {calls.parent!r}")
    total = 0
    for part in calls.parts:
        if part.start < 0 or part.call < 0 or len(part.digests) != part.count * DIGEST_BYTES:
            raise ValueError(f"part of {part.count} items, {len(part.digests)} bytes of digests")
        total += part.count
    if total != len(args.args):
        raise ValueError(f"calls of {total} items with {len(args.args)} arguments")


def _check_progress(progress: wire.Progress) -> None:
    if progress.parent and not _is_path(progress.parent):
        raise ValueError(f"no path: {progress.parent!r}")
    if not 0 <= progress.call < 1 << 63 or not 0 <= progress.index < 1 << 63:
        raise ValueError(f"progress of item {progress.index} of call {progress.call}")
    if progress.parent and len(progress.digest) != DIGEST_BYTES:
        raise ValueError(f"progress with {len(progress.digest)} bytes of digest")


def _check_held(held: wire.Held) -> None:
    total = 0
    for start, stop in held.spans:
        if not 0 <= start < stop:
            raise ValueError(f"held from {start} to {stop}")
        total += stop - start
    if len(held.digests) != total * DIGEST_BYTES:
        raise ValueError(f"held {total} items, {len(held.digests)} bytes of digests")


def _check_checkpoint(record: wire.Checkpoint) -> None:
    if not _is_path(record.parent) or len(record.name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"no checkpoint: {record.name[:20]!r} of {record.parent[:20]!r}")
    if not 0 <= record.base < record.gen or record.opening < 0:
        raise ValueError(f"checkpoint {record.gen} on {record.base}, opening {record.opening}")
    calls = 0 <= record.entry <= record.calls
    is_known = 0 <= record.entry_observation <= record.observations
    if not calls or not is_known or not record.payload:
        raise ValueError(f"checkpoint of calls {record.entry} to {record.calls}")
    if any(not 0 <= call < record.calls for call in (*record.pending, *record.held)):
        raise ValueError("checkpoint: a pending call that was not made")
