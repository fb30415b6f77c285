"""Explain an item's current state: the answer of `rscoop why`, from the journal and flight records.

Nothing is unpickled: a value is shown by its size, an exception by the text and traceback that its
worker stored with it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.recovery import name_of
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError, exit_text
from resilient_scoop.payload.exceptions import describe_failure
from resilient_scoop.runs.executing import ExecutingProcess, executing_processes, processes
from resilient_scoop.runs.status import is_live, read_ended
from resilient_scoop.runs.stored_state import read_state
from resilient_scoop.runs.troubles import troubles
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.journal.view import JournalView
    from resilient_scoop.runs.folder import RunDir

_PATH: Final = re.compile(r"0(\.\d+\[\d+\])*(\.\d+)?")
_SHOWN_MAX: Final = 8


class How(StrEnum):
    """The states of an item or a batch."""

    UNKNOWN = "unknown"  # not called, as far as the journal knows
    GONE = "gone"  # its parent is done, and records below it are dropped
    GIVEN_UP = "given up"  # its parent stopped reading the map
    DONE = "done"
    FAILED = "failed"
    DOUBT = "in doubt"
    RUNNING = "running"
    WAITING = "waiting"  # it waits for calls of its own
    READY = "ready"  # it waits for a worker
    STOPPED = "stopped"  # it is not done, and the run is stopped
    PARTLY = "partly done"  # a batch


class Why(msgspec.Struct, frozen=True):
    """The answer."""

    path: str
    name: str
    how: How
    text: str
    history: list[str]
    advice: str = ""
    traceback: str = ""


def parse_path(text: str) -> str:
    """Return the typed path of an item or a batch, without spaces.

    Raises:
        UsageError: it is not a path.
    """
    path = "".join(text.split())
    if not _PATH.fullmatch(path):
        raise UsageError(
            f"{text!r} is not the path of an item: 0 is the script, 0.3 its fourth batch (one "
            "map or submit), "
            "0.3[17] an item of it, 0.3[17].0 the first batch of that item"
        )
    return path


class Inquiry:
    """Answers questions about one run, at one moment."""

    def __init__(self, run: RunDir, view: JournalView) -> None:
        self.run = run
        self.view = view
        self.state: DurableState = read_state(view, view.run)
        self.ended = read_ended(view)
        self.live = is_live(run)
        everybody = processes(run.key(run.load())) if self.live else []
        self.busy: list[ExecutingProcess] = executing_processes(everybody)
        self.troubles = troubles(run, everybody)

    def answer(self, path: str) -> Why:
        """Return the state of an item or a batch, with the reason."""
        if path == ids.ROOT:
            return self._script()
        if path.endswith("]"):
            place = ids.parse_item(path)
            assert place is not None, "only the script's path is no item's"
            return self._missing(path, place[0], place[1]) or self._item(path, *place)
        parent, _, call = path.rpartition(".")
        return self._missing(path, parent, int(call)) or self._batch(path, parent, int(call))

    def _missing(self, path: str, parent: str, call: int) -> Why | None:
        """Answer for a path without records in the journal; None if there are records."""
        known = self.state.parents.get(parent)
        if known is not None and call < known.next_call():
            return None
        if known is None and parent != ids.ROOT:
            above = self.answer(parent)
            if above.how in (How.DONE, How.FAILED, How.GONE):
                text = (
                    f"{parent} is done, and the calls of a task are dropped from the journal when "
                    "the task ends"
                )
                return Why(path, "", How.GONE, text, [])
            if above.how is How.UNKNOWN:
                return Why(path, "", How.UNKNOWN, above.text, [])
        made = 0 if known is None else known.next_call()
        calls = (
            "none"
            if not made
            else f"{counted(made, 'batch', 'batches')} (up to {parent}.{made - 1})"
        )
        whose = "the script" if parent == ids.ROOT else parent
        text = f"this batch has not been made: {whose} has made {calls} so far"
        if self.live:
            text += ", or has not reached it again in its replay"
        return Why(path, "", How.UNKNOWN, text, [], "" if self.live else self._advice())

    def _item(self, path: str, parent: str, call: int, index: int) -> Why:
        known = self.state.parents[parent]
        if call in known.dropped:
            return _covered(path, known, call)
        story = Story(self.state, index, call)
        for record in self._records(known):
            story.visit(record)
        batch = known.batches.get(call)
        name = story.name
        if batch is not None and index in batch.undone:
            how, text, advice = self._undone(path, known, batch, index)
            return Why(path, name, how, text, [*story.events, *self.troubles], advice)
        if story.outcome is None and story.is_given_up:
            text = "it was not computed: its parent stopped reading the map before it was started"
            return Why(path, name, How.GIVEN_UP, text, [])
        if story.outcome is None:
            size = known.size_of(call)
            text = "there is no such item"
            text += f": {parent}.{call} has {size}" if size is not None else " (yet)"
            return Why(path, name, How.UNKNOWN, text, [])
        if not story.failed:
            text = f"it is done: a value of {counted(len(story.outcome), 'byte')}{story.spent}"
            return Why(path, name, How.DONE, text, story.events)
        failure = describe_failure(story.outcome)
        text = f"it failed: {failure.type_name}: {failure.text}"
        advice = f"rscoop resume --retry-failed {self.run.id}   computes failed calls again"
        if failure.type_name == "WorkerLostError":
            advice = f"rscoop resolve {self.run.id} '{path}' --again | --done JSON | --failed"
        return Why(path, name, How.FAILED, text, story.events, advice, failure.traceback_text)

    def _undone(
        self, path: str, parent: ParentFacts, batch: Batch, index: int
    ) -> tuple[How, str, str]:
        there = sorted(self.busy, key=lambda each: each.is_stopped)
        at = next((each for each in there if each.path == path), None)
        if at is not None:
            since = "which is stopped" if at.is_stopped else f"in its slice for {at.since_s:.1f} s"
            return How.RUNNING, f"it runs on {at.name} (process {at.pid}), {since}", ""
        doubt = index in parent.intents.get(batch.call, ())
        if not self.live and doubt:
            return How.DOUBT, (
                "it is idempotent=False and was started, and its outcome is not known; a resume ends it "
                "with WorkerLostError unless you record what happened"
            ), f"rscoop resolve {self.run.id} '{path}' --again | --done JSON | --failed"  # fmt: skip
        if not self.live:
            return How.STOPPED, f"it is not done, and run {self.run.id} is stopped", self._advice()
        own = self.state.parents.get(path)
        if own is not None:
            return How.WAITING, f"it is a parent: {self._waits_for(own)}", ""
        text = "it waits for a worker"
        if doubt:
            text = "a worker is starting it (idempotent=False: it will not be started twice)"
        details = [each.text for each in self.busy if each.name != "origin"]
        more = len(details) - _SHOWN_MAX
        details = details[:_SHOWN_MAX] + ([counted(more, "other")] if more > 0 else [])
        return How.READY, f"{text}: {', '.join(details) or 'no worker is connected'}", ""

    def _waits_for(self, parent: ParentFacts) -> str:
        waits = [
            f"{parent.path}.{batch.call} ({batch.undone.count()} of "
            f"{batch.undone.count() + batch.done.count()} not done)"
            for _, batch in sorted(parent.batches.items())
            if batch.undone
        ]
        if not waits:
            return "all its calls are done; it continues when its worker is free"
        more = f" and {len(waits) - 3} more batches" if len(waits) > 3 else ""  # noqa: PLR2004 - the text names three
        return f"it waits for {', '.join(waits[:3])}{more}"

    def _batch(self, path: str, parent: str, call: int) -> Why:
        known = self.state.parents[parent]
        if call in known.dropped:
            return _covered(path, known, call)
        batch = known.batches.get(call)
        name, failed, given_up = self._survey(known, call)
        size = known.size_of(call)
        details = (
            [f"{counted(len(failed), 'item')} failed: {_some(path, failed)}"] if failed else []
        )
        if given_up:
            details.append(
                f"{counted(given_up, 'other item was', 'other items were')} not computed: its parent "
                "stopped reading the map before they were started"
            )
        if batch is None:
            text = "its one item is done" if size == 1 else f"all its {size or 0} items are done"
            return Why(path, name, How.FAILED if failed else How.DONE, text, details)
        return self._open_batch(path, parent, batch, name, details)

    def _open_batch(
        self, path: str, parent: str, batch: Batch, name: str, details: list[str]
    ) -> Why:
        call = batch.call
        undone = [i for start, stop in batch.undone for i in range(start, min(stop, start + 1000))]
        total = batch.undone.count() + batch.done.count()
        end = "" if batch.last else ", and more may come"
        text = f"{batch.done.count()} of {counted(total, 'item is', 'items are')} done{end}"
        doubts = self.state.parents[parent].intents.get(call)
        if doubts and not self.live:
            spans = [s for low, high in batch.undone for s in doubts.overlap(low, high)]
            details.append(f"in doubt: {_some(path, [i for a, b in spans for i in range(a, b)])}")
        on_cpu = [each for each in self.busy if each.path.startswith(f"{path}[")]
        details += [f"running: {each.text}" for each in on_cpu]
        if undone:
            first = self._item(f"{path}[{undone[0]}]", parent, call, undone[0])
            details.append(f"not done: {_some(path, undone)}; of the first: {first.text}")
        details += self.troubles
        if not undone and not batch.last:
            details.append(f"{parent} has not given the last item of this batch yet")
        return Why(path, name, How.PARTLY, text, details, "" if self.live else self._advice())

    def _survey(self, parent: ParentFacts, call: int) -> tuple[str, list[int], int]:
        """Return a batch's function, the failed items, and how many were given up."""
        story = BatchStory(self.state, call)
        for record in self._records(parent):
            story.visit(record)
        return story.name, sorted(story.failed), story.left_out.count()

    def _script(self) -> Why:
        root = self.state.parent(ids.ROOT)
        if self.ended is not None and not self.live:
            if self.ended.failed:
                text, how = f"it raised {self.ended.message}", How.FAILED
                return Why(ids.ROOT, "the script", how, text, [], self._advice())
            text = f"it ended with exit code {self.ended.code}"
            return Why(ids.ROOT, "the script", How.DONE, text, [])
        details = [
            f"{counted(root.next_call(), 'batch', 'batches')} so far, {len(root.batches)} of them not done"
        ]
        if not self.live:
            text = f"run {self.run.id} is stopped before its script's end"
            return Why(ids.ROOT, "the script", How.STOPPED, text, details, self._advice())
        details += [each.text for each in self.busy if not each.trouble] + self.troubles
        return Why(ids.ROOT, "the script", How.RUNNING, self._waits_for(root), details)

    def _advice(self) -> str:
        return f"rscoop resume {self.run.id}"

    def _records(self, parent: ParentFacts) -> Iterator[wire.Logged]:
        after = None
        while page := self.view.read(Table.LOG, parent.prefix, after, 1 << 20):
            for key, raw in page:
                after = key
                yield wire.decode_logged(raw)


class BatchStory(LogVisitor):
    """The journaled history of one batch."""

    def __init__(self, state: DurableState, call: int) -> None:
        self.state = state
        self.call = call
        self.name = "?"
        self.failed: set[int] = set()
        self.left_out = Intervals()  # its parent stopped reading before they were computed

    def asked(self, _parent: str, part: wire.Part, _offset: int) -> None:
        """Record items that are called, perhaps again."""
        if part.call == self.call:
            self.name = name_of(self.state, part.fn)
            self.left_out.discard(part.start, part.start + part.count)

    def cut_off(self, _parent: str, call: int, stop: int) -> None:
        """Record the end of the batch: an earlier attempt of the parent may have had more items."""
        if call == self.call:
            self.failed = {index for index in self.failed if index < stop}
            self.left_out.discard(stop, 1 << 62)

    def renewed(self, _parent: str, call: int, start: int, stop: int) -> None:
        """Record that items are computed again."""
        if call == self.call:
            self.failed.difference_update(range(start, stop))

    def ended(self, _parent: str, outcome: wire.Outcome) -> None:
        """Record that items are done."""
        if outcome.call == self.call:
            self.failed.update(outcome.start + at for at in outcome.failed)

    def given_up(self, record: wire.Abandoned) -> None:
        """Record that its parent stopped reading it."""
        for low, high in record.spans if record.call == self.call else ():
            self.left_out.add(low, high)


class Story(LogVisitor):
    """The journaled history of one item."""

    def __init__(self, state: DurableState, index: int, call: int) -> None:
        self.state = state
        self.index = index
        self.call = call
        self.name = "?"
        self.events: list[str] = []
        self.outcome: bytes | None = None
        self.failed = False
        self.spent = ""
        self.is_given_up = False  # its parent stopped reading the batch
        self._made_by: tuple[bytes, bytes] | None = None

    def asked(self, _parent: str, part: wire.Part, _offset: int) -> None:
        """Record that the item is called, perhaps again."""
        if part.call == self.call and 0 <= self.index - part.start < part.count:
            self.is_given_up = False
            self._asked(part)

    def cut_off(self, _parent: str, call: int, stop: int) -> None:
        """Record that its batch ends before it, if `stop` is not above it."""
        if call == self.call and self.index >= stop and self._made_by is not None:
            self.events.append("its batch was made again, with fewer items")
            self._made_by = self.outcome = None
            self.is_given_up = False

    def ended(self, _parent: str, outcome: wire.Outcome) -> None:
        """Record that the item is done."""
        if outcome.call == self.call and 0 <= self.index - outcome.start < len(outcome.values):
            self._done(outcome)

    def died(self, record: wire.Crashed) -> None:
        """Record the death of a process that executed it."""
        if (record.call, record.index) == (self.call, self.index):
            self.events.append(_death(record))

    def began(self, record: wire.Intent) -> None:
        """Record that it began, or did not begin after all."""
        if record.call == self.call and 0 <= self.index - record.start < record.count:
            begins = "its worker returned it before it had started" if record.void else "it started"
            self.events.append(f"{begins} (idempotent=False)")

    def given_up(self, record: wire.Abandoned) -> None:
        """Record that its parent stopped reading the batch."""
        if record.call == self.call and any(low <= self.index < high for low, high in record.spans):
            self.is_given_up = True

    def _asked(self, part: wire.Part) -> None:
        at = self.index - part.start
        now = (self.state.fingerprint(part.fn), ids.digests_of(part.digests, at, at + 1))
        self.name = name_of(self.state, part.fn)
        if self._made_by is None:
            self.events.append(f"it was called: {self.name}")
        elif now != self._made_by:
            what = (
                "its code has changed" if now[0] != self._made_by[0] else "its arguments differed"
            )
            self.events.append(f"it was called again, to be computed again: {what}")
        elif self.outcome is not None and part.fresh:
            self.events.append("it was called again, to be computed again")
        else:
            return
        self._made_by, self.outcome = now, None

    def _done(self, item: wire.Outcome) -> None:
        at = self.index - item.start
        self.outcome, self.failed = item.values[at], at in item.failed
        each_s = item.spent_s / max(1, len(item.values))
        self.spent = f", after {each_s:.3g} s" if item.spent_s > 0 else ""
        who = "by a worker"
        if item.task is None:
            who = "with the result of an equal call" if item.pure else "by the broker"
        self.events.append(f"it {'failed' if self.failed else 'was done'}, {who}{self.spent}")


def _covered(path: str, parent: ParentFacts, call: int) -> Why:
    blocks = [
        f"{kept[-1].gen} of block {name!r}"
        for (name, _), kept in sorted(parent.blocks.items())
        if kept and kept[-1].entry <= call < kept[-1].calls
    ]
    by = f" ({', '.join(blocks)})" if blocks else ""
    text = f"it is done; a checkpoint of {parent.path}{by} covers it, and its records were dropped"
    return Why(path, "", How.DONE, text, [])


def _death(crashed: wire.Crashed) -> str:
    if crashed.reason == "timeout" and not crashed.exit:
        return "it exceeded its timeout= while it waited for its own calls"
    how = exit_text(crashed.exit)
    when = ""
    if crashed.at:
        when = f" at {datetime.fromtimestamp(crashed.at, UTC).isoformat(timespec='seconds')}"
    why = {"oom": " (out of memory)", "timeout": " (it exceeded its timeout=)"}.get(
        crashed.reason, ""
    )
    return f"its worker died{when}, {how}{why}, while it was executing this call"


def _some(path: str, indexes: list[int]) -> str:
    shown = ", ".join(f"{path}[{index}]" for index in indexes[:_SHOWN_MAX])
    more = len(indexes) - _SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
