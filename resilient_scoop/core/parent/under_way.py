"""The amount of a parent's unfinished calls: it makes no more while this is too much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_scoop.core.parent.call import Call


@dataclass(slots=True)
class UnderWay:
    """The size of the arguments of unsettled items, in messages and in files."""

    in_messages: int = 0  # bytes
    in_files: int = 0  # bytes
    files: int = 0  # unsettled items whose arguments are in files
    ended_files: list[tuple[int, int]] = field(default_factory=list)  # (call, item), to be removed

    def add(self, call: Call, count: int, args_bytes: int, files: dict[int, int] | None) -> None:
        """Count new items, after those that the call has; `files`: see `Parent.add`."""
        if files:
            start = call.count
            call.files = {} if call.files is None else call.files
            call.files.update((start + at, size) for at, size in files.items())
            self.files += len(files)
            self.in_files += sum(files.values())
        cost = args_bytes + 64 * count
        call.cost_bytes += cost
        self.in_messages += cost

    def end(self, call: Call, low: int, high: int) -> None:
        """Discount settled items of a call."""
        if call.files:
            for index in [index for index in call.files if low <= index < high]:
                self.files -= 1
                self.in_files -= call.files.pop(index)
                self.ended_files.append((call.number, index))
        if not call.left:  # these are the last ones
            self.in_messages -= call.cost_bytes
            call.cost_bytes = 0
            return
        share = call.cost_bytes * (high - low) // (call.left.count() + high - low)
        call.cost_bytes -= share
        self.in_messages -= share
