"""Checkpoints in the machines: made, used, erased; and a parent that continues from one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from resilient_scoop.core.broker.admission import check
from resilient_scoop.core.events import Discard, Erase, Put, Send, Sweep, Swept, Table
from resilient_scoop.ids import ROOT, log_prefix
from resilient_scoop.wire import messages as wire
from tests.sim.durable_part import durable_part
from tests.unit.bench import ORIGIN, PLAIN, RUN, W1, Bench, calls, outcomes, part, record, sent

FILE = b"Bfile of %d"


class Desk(Bench):
    """A bench whose root makes calls and checkpoints."""

    asked: Sequence[Sweep] = ()  # the last requested sweep

    def start(self) -> Desk:
        self.root = self.begin(W1)
        self.tell(ORIGIN, PLAIN)
        return self

    def call(self, number: int, items: int = 1, *, done: bool = True) -> None:
        self.tell(ORIGIN, *calls(part(number, 0, items), attempt=self.root))
        if done:
            self.tell(W1, outcomes(number, 0, items))

    def observed(self, no: int, at_call: int) -> None:
        self.tell(ORIGIN, wire.Observed(ROOT, self.root, [wire.Observation(no, "k", at_call, b"")]))

    def save(self, gen: int, calls: int, **more: Any) -> list[Any]:
        return self.tell(ORIGIN, record(self.root, gen, calls, **more))

    def verify(self, gen: int, name: str = "main", opening: int = 0) -> list[Any]:
        return self.tell(ORIGIN, wire.Verified(ROOT, self.root, name, opening, gen))

    def sweep(self, size: int = 3) -> int:
        """Answer all sweeps, a few records at a time; return how many pages that took."""
        pages = 0
        while self.broker.keeper.is_sweeping:
            pages += 1
            assert pages < 100, "a sweep without end"
            (wanted,) = self.asked or [a for a in self.feed_tick() if isinstance(a, Sweep)]
            self.answer(wanted, size)
        return pages

    def feed_tick(self) -> list[Any]:
        return self.wait(1)

    def answer(self, wanted: Sweep, size: int) -> None:
        start = wanted.prefix + wanted.after.to_bytes(8, "big")
        stop = wanted.prefix + wanted.seq.to_bytes(8, "big")
        keys = sorted(k for t, k in self.journal if t is Table.LOG and start < k < stop)
        page = [
            (int.from_bytes(k[16:], "big"), wire.decode_logged(self.journal[Table.LOG, k]))
            for k in keys[:size]
        ]
        last = len(keys) <= size
        upto = wanted.seq if last else page[-1][0]
        actions = self.feed(Swept(wanted.parent, wanted.seq, page, upto, last))
        self.asked = [a for a in actions if isinstance(a, Sweep)]

    def feed(self, event: Any) -> list[Any]:
        actions = super().feed(event)
        found = [a for a in actions if isinstance(a, Sweep)]
        self.asked = found or self.asked
        return actions

    def kept_calls(self) -> list[int]:
        found = [r for r in self.logged() if isinstance(r, wire.Calls)]
        return [part.call for r in found for part in r.parts]


def loop(desk: Desk, generations: int, *, verify: bool = True, **more: Any) -> None:
    """Let the root make one call, and one checkpoint, for each generation."""
    for gen in range(1, generations + 1):
        desk.call(gen - 1, 2)
        desk.save(gen, gen, **more)
        if verify:
            desk.verify(gen)


def test_a_checkpoint_is_forced_and_confirmed_after_its_commit() -> None:
    desk = Desk().start()
    desk.call(0)

    actions = desk.save(1, 1)

    (put,) = [a for a in actions if isinstance(a, Put)]
    assert put.forced
    assert put.table is Table.LOG
    (answer,) = [a for a in actions if isinstance(a, Send)]
    assert wire.decode_down(answer.frames[0]) == wire.Saved(ROOT, "main", 0, 1)


def test_a_checkpoint_that_arrives_again_is_confirmed_and_not_written_again() -> None:
    desk = Desk().start()
    desk.save(1, 0)

    actions = desk.save(1, 0)

    assert not [a for a in actions if isinstance(a, Put)]
    assert sent(actions, ORIGIN, wire.Saved)


def test_a_fenced_parent_makes_no_checkpoint() -> None:
    desk = Desk().start()
    loop(desk, 2)
    old = wire.Attempt(desk.root.epoch, desk.root.no + 7)

    actions = desk.tell(ORIGIN, record(old, 3, 2)) + desk.tell(
        ORIGIN, wire.Verified(ROOT, old, "main", 0, 2)
    )

    assert not [a for a in actions if isinstance(a, Put | Erase)]
    assert not sent(actions, ORIGIN, wire.Saved)
    assert sent(actions, ORIGIN, wire.Drop)


@pytest.mark.parametrize(
    "change",
    [{"parent": "1"}, {"gen": 0}, {"base": 3}, {"entry": 3}, {"observations": -1},
     {"payload": b""}, {"pending": [2]}, {"held": [2]}, {"name": "n" * 201}, {"opening": -1}],
)  # fmt: skip
def test_an_inconsistent_checkpoint_is_refused(change: dict[str, Any]) -> None:
    import msgspec

    good = record(wire.Attempt(1, 1), 3, 2)
    check([good])
    with pytest.raises(ValueError, match="checkpoint"):
        check([msgspec.structs.replace(good, **change)])


def test_nothing_is_trimmed_before_a_second_generation_is_verified() -> None:
    desk = Desk().start()
    loop(desk, 1)
    desk.call(1, 2)
    actions = desk.save(2, 2)

    assert not [a for a in actions if isinstance(a, Erase | Sweep)]
    assert desk.kept_calls() == [0, 1]


def test_records_covered_by_the_base_of_a_verified_generation_are_removed() -> None:
    desk = Desk().start()
    loop(desk, 2)
    desk.sweep()

    assert desk.kept_calls() == [1], "what came after the base must stay"
    kept = [r for r in desk.logged() if isinstance(r, wire.Outcomes)]
    assert [item.call for r in kept for item in r.items] == [1]
    root = desk.broker.state.parents[ROOT]
    assert list(root.finished) == [(0, 2)]
    assert list(root.dropped) == [(0, 1)]
    assert root.sizes.runs(0, 9) == [(1, 2, 2)]
    assert desk.broker.state.items_done == desk.broker.state.items_known == 4


def test_memory_and_journal_stay_flat_over_many_generations() -> None:
    desk = Desk().start()
    loop(desk, 300)
    desk.sweep(50)

    root = desk.broker.state.parents[ROOT]
    assert len(desk.logged()) < 10, desk.logged()
    assert len(root.sizes) <= 2
    assert len(root.index) <= 3
    assert len(root.trims) == 1
    assert len(root.blocks["main", 0]) == 2
    assert not [key for table, key in desk.journal if table is Table.ARGS]
    assert desk.broker.state.items_done == 600


def test_a_sweep_reads_the_log_page_by_page() -> None:
    desk = Desk().start()
    for call in range(20):
        desk.call(call)
    for gen in (1, 2):
        desk.save(gen, 20)
        desk.verify(gen)

    assert desk.sweep(3) > 5
    assert desk.kept_calls() == []


def test_calls_before_the_block_and_after_the_base_are_kept() -> None:
    desk = Desk().start()
    for call in range(6):
        desk.call(call)
    for gen, calls_ in ((1, 4), (2, 5)):
        desk.save(gen, calls_, entry=2)
        desk.verify(gen)
    desk.sweep()

    assert desk.kept_calls() == [0, 1, 4, 5]


def test_pending_and_unfinished_calls_are_kept_as_long_as_they_are_needed() -> None:
    desk = Desk().start()
    desk.call(0, done=False)
    desk.call(1, done=False)
    desk.call(2)
    for gen in (1, 2):
        desk.save(gen, 3, pending=[0])
        desk.verify(gen)
    desk.sweep()
    assert desk.kept_calls() == [0, 1]

    # When they are done, and no kept generation waits for them
    desk.tell(W1, outcomes(0, 0, 1))
    desk.tell(W1, outcomes(1, 0, 1))
    for gen in (3, 4, 5):
        desk.save(gen, 3)
        desk.verify(gen)
    desk.sweep()

    assert desk.kept_calls() == []


def test_a_held_call_is_kept_as_long_as_a_generation_holds_it() -> None:
    desk = Desk().start()
    for call in range(3):
        desk.call(call)
    for gen in (1, 2):
        desk.save(gen, 3, held=[1] if gen == 1 else [])
        desk.verify(gen)
    desk.sweep()
    assert desk.kept_calls() == [1]
    assert durable_part(desk.again().broker.state) == durable_part(desk.broker.state)

    desk.save(3, 3)
    desk.verify(3)
    desk.sweep()
    assert desk.kept_calls() == []


def test_a_partly_covered_record_is_kept_whole() -> None:
    desk = Desk().start()
    desk.tell(ORIGIN, *calls(part(0, 0, 1), part(1, 0, 1), attempt=desk.root))
    desk.tell(W1, outcomes(0, 0, 1), outcomes(1, 0, 1))
    for gen, calls_ in ((1, 1), (2, 2)):
        desk.save(gen, calls_)
        desk.verify(gen)
    desk.sweep()

    assert desk.kept_calls() == [0, 1]
    again = desk.again()
    assert durable_part(again.broker.state) == durable_part(desk.broker.state)


def test_observations_are_erased_with_the_calls_that_a_checkpoint_covers() -> None:
    desk = Desk().start()
    for no in range(4):
        desk.observed(no, 0)
    for gen, observed in ((1, 2), (2, 3)):
        desk.save(gen, 0, entry_observation=1, observations=observed)
        desk.verify(gen)
    desk.sweep()

    kept = [r for r in desk.logged() if isinstance(r, wire.Observed)]
    assert [each.no for r in kept for each in r.observations] == [0, 2, 3]
    assert desk.again().broker.state.parents[ROOT].next_observation == 4


def test_inner_blocks_are_erased_with_their_outer_block_and_not_earlier() -> None:
    desk = Desk().start()
    inner = {"name": "inner", "outer": [("main", 0)]}
    for opening in range(3):
        desk.call(opening)
        for gen in (1, 2):
            desk.save(gen, opening + 1, entry=opening, opening=opening, **inner)
            desk.verify(gen, "inner", opening)
        if opening == 0:
            desk.save(1, 1, openings={"main": 1, "inner": 1})
            desk.verify(1)
    blocks = desk.broker.state.parents[ROOT].blocks
    assert [key for key in blocks if key[0] == "inner"] == [("inner", n) for n in range(3)]

    # When the outer block has a checkpoint after the first inner block
    desk.save(2, 2, openings={"main": 1, "inner": 2})
    desk.verify(2)

    assert [key for key in blocks if key[0] == "inner"] == [("inner", 1), ("inner", 2)]


def test_generations_that_could_not_be_loaded_are_erased() -> None:
    desk = Desk().start()
    loop(desk, 3)
    for gen in range(4, 40):
        desk.call(gen - 1)
        desk.save(gen, gen, base=3)

    assert [kept.gen for kept in desk.broker.state.parents[ROOT].blocks["main", 0]] == [2, 3, 39]


def test_a_file_is_removed_when_no_generation_names_it_any_more() -> None:
    desk = Desk().start()
    same = FILE % 0
    discarded: list[bytes] = []
    for gen, name in enumerate([same, same, FILE % 1, FILE % 2, FILE % 3], start=1):
        found = desk.save(gen, 0, payload=name) + desk.verify(gen)
        discarded += [a.name for a in found if isinstance(a, Discard)]

    assert discarded == [same[1:], (FILE % 1)[1:]]


@pytest.mark.parametrize("pages", range(8))
def test_a_broker_restarted_during_a_sweep_has_the_same_state(pages: int) -> None:
    desk = Desk().start()
    desk.call(0, done=False)
    for call in range(1, 12):
        desk.call(call, call % 3)
    for gen, calls_ in ((1, 7), (2, 11)):
        desk.save(gen, calls_, pending=[0])
        desk.verify(gen)
    for _ in range(pages):
        if desk.asked and desk.broker.keeper.is_sweeping:
            desk.answer(desk.asked[0], 2)

    other = desk.again()

    assert durable_part(other.broker.state) == durable_part(desk.broker.state)
    assert other.broker.state.items_done == desk.broker.state.items_done
    assert other.broker.keeper.is_sweeping, "what is left is gone over again"


def test_a_trimmed_call_that_is_made_again_is_a_new_call() -> None:
    desk = Desk().start()
    loop(desk, 3)
    desk.sweep()

    # When a changed script makes it
    desk.call(0, 3, done=False)

    state = desk.broker.state.parents[ROOT]
    assert list(state.batches[0].undone) == [(0, 3)]
    assert durable_part(desk.again().broker.state) == durable_part(desk.broker.state)


def test_a_future_that_the_journal_has_lost_stops_the_run() -> None:
    desk = Desk().start()
    desk.call(0)
    desk.save(1, 3, pending=[2])

    actions = desk.verify(1)

    assert "waits for future 0.2[0]" in desk.broker.keeper.halted
    assert sent(actions, ORIGIN, wire.Stop)


def test_a_future_that_cannot_continue_stops_the_run_with_the_reason() -> None:
    desk = Desk().start()
    actions = desk.tell(ORIGIN, wire.Halted(ROOT, desk.root, "no checkpoint can be used"))

    assert desk.broker.keeper.halted == "no checkpoint can be used"
    assert sent(actions, ORIGIN, wire.Stop)


def test_the_log_prefix_of_a_parent_covers_only_this_parent() -> None:
    assert Desk().start().broker.state.parent(ROOT).prefix == log_prefix(RUN, ROOT)


SAVED, VERIFIED = "saved", "verified"
STATES = {
    "none": [],
    "one": [(SAVED, 1, 0)],
    "one good": [(SAVED, 1, 0), (VERIFIED, 1, 0)],
    "two": [(SAVED, 1, 0), (VERIFIED, 1, 0), (SAVED, 2, 1)],
    "two good": [(SAVED, 1, 0), (VERIFIED, 1, 0), (SAVED, 2, 1), (VERIFIED, 2, 1)],
    "three": [(SAVED, 1, 0), (VERIFIED, 1, 0), (SAVED, 2, 1), (VERIFIED, 2, 1), (SAVED, 3, 2)],
}


class Block(Desk):
    """A block of the root, with the generations of a state."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.start()
        for event in STATES[state]:
            self.do(*event)

    def do(self, event: str, gen: int, base: int) -> None:
        if event == SAVED:
            self.call(gen - 1, 2)
            self.save(gen, gen, base=base)
        else:
            self.verify(gen)

    @property
    def generations(self) -> list[int]:
        parent = self.broker.state.parents[ROOT]
        return [kept.gen for kept in parent.blocks.get(("main", 0), [])]

    @property
    def trimmed(self) -> list[tuple[int, int]]:
        return list(self.broker.state.parents[ROOT].dropped)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", ["saved on n", "saved on b", "verified", "unknown", "again"])
def test_every_event_changes_the_generations_of_every_state_as_the_table_says(
    state: str, event: str
) -> None:
    block = Block(state)
    before, trimmed = block.generations, block.trimmed
    b, n = [0, 0, *before][-2:]

    match event:
        case "saved on n":
            block.do(SAVED, n + 1, n)
            after = [*before, n + 1]
        case "saved on b":
            block.do(SAVED, n + 1, b)
            after = [*before[:-1], n + 1]
        case "verified":
            block.do(VERIFIED, n, b)
            after = before[-2:]
        case "unknown":
            block.do(VERIFIED, n + 5, n)
            after = before
        case _:
            block.do(SAVED, max(n, 1), b)
            after = before or [1]

    assert block.generations == after
    covered = [(0, b)] if event == "verified" and b else trimmed
    assert block.trimmed == covered, "only a verified generation trims, and what its base covers"
