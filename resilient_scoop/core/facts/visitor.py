"""A visitor over the records of LOG, for all modules that read a log for their own purpose.

A reader subclasses `LogVisitor`, overrides the methods that it needs, and calls `visit` with each
record in the order of the log. Parameters that it does not use begin with an underscore there.
`core.facts.fold` is not such a reader: it makes the state itself. Functions of a single record (the
part before a point, its events) are separate tables, closed by `assert_never`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from resilient_scoop.wire.messages import (
    Abandoned,
    Calls,
    Checkpoint,
    Crashed,
    Intent,
    Observed,
    Outcomes,
    Trimmed,
)

if TYPE_CHECKING:
    from resilient_scoop.wire.messages import Logged, Outcome, Part


class LogVisitor:
    """A reader of LOG. Methods that it does not override do nothing."""

    __slots__ = ()

    def visit(self, record: Logged) -> None:  # noqa: C901, PLR0912 - a table
        """Call the method for the kind of a record."""
        match record:
            case Outcomes(parent=parent, items=items):
                for outcome in items:
                    self.ended(parent, outcome)
            case Calls(parent=parent, parts=parts):
                offset = 0
                for part in parts:
                    self.asked(parent, part, offset)
                    if part.last:
                        self.cut_off(parent, part.call, part.start + part.count)
                    if part.fresh:
                        self.renewed(parent, part.call, part.start, part.start + part.count)
                    offset += part.count
            case Observed():
                self.observed(record)
            case Checkpoint():
                self.saved(record)
            case Crashed():
                self.died(record)
            case Intent():
                self.began(record)
            case Abandoned():
                self.given_up(record)
            case Trimmed():
                self.trimmed(record)
            case _:
                assert_never(record)

    def asked(self, parent: str, part: Part, offset: int, /) -> None:
        """A parent calls items; their arguments are in the record's `Args` from `offset` on."""

    def cut_off(self, parent: str, call: int, stop: int, /) -> None:
        """A batch ends at `stop`: items beyond it no longer count."""

    def renewed(self, parent: str, call: int, start: int, stop: int, /) -> None:
        """Items are called again, because their code or arguments differ: no earlier result counts."""

    def ended(self, parent: str, outcome: Outcome, /) -> None:
        """Items are done. `outcome.call` below 0: of a fork's source, bound to no place."""

    def observed(self, record: Observed, /) -> None:
        """A parent got an answer that could have been different."""

    def saved(self, record: Checkpoint, /) -> None:
        """A parent made a checkpoint."""

    def died(self, record: Crashed, /) -> None:
        """A process died, or was killed, while it executed an item."""

    def began(self, record: Intent, /) -> None:
        """Items start that must never start twice, or (`void`) have not started after all."""

    def given_up(self, record: Abandoned, /) -> None:
        """A batch ends, and the named items are not wanted."""

    def trimmed(self, record: Trimmed, /) -> None:
        """A checkpoint covers calls, whose records may be erased."""
