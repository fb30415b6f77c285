"""One block of one parent: entered, committed, left.

In a process that `rscoop` did not start, blocks start with their initial values and commits do
nothing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resilient_scoop import ids
from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.checkpoint._content import Loading, Saving
from resilient_scoop.checkpoint._pace import Pace
from resilient_scoop.core.broker.admission import NAME_BYTES_MAX
from resilient_scoop.errors import (
    CheckpointsLostError,
    CheckpointUnusableError,
    JournalError,
    PicklingFailedError,
    ReplayDivergedError,
    UsageError,
)
from resilient_scoop.futures import _engine
from resilient_scoop.hashing import blake2b
from resilient_scoop.journal.blobs import BlobError
from resilient_scoop.journal.state_store import INLINE_BYTES_MAX, StateStore
from resilient_scoop.processes.here import Process
from resilient_scoop.task_state import rng
from resilient_scoop.values import source
from resilient_scoop.wire.messages import Halted, encode
from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.parent.durable import OpenBlock
    from resilient_scoop.futures._engine import Here
    from resilient_scoop.states.codec import Dumped
    from resilient_scoop.wire.messages import Checkpoint


_alone: dict[str, Block] = {}
"""The open blocks of a process without a run."""


class Block:
    """One block; see `durable` and `restore` for its meaning to users."""

    def __init__(self, name: Any, on_unsavable: Literal["raise", "warn"]) -> None:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise UsageError(
                f"a block's name must be a string of 1 to {NAME_BYTES_MAX} bytes, not {name!r:.40}"
            )
        if on_unsavable not in ("raise", "warn"):
            raise UsageError(f'on_unsavable={on_unsavable!r} must be "raise" or "warn"')
        self.name: str = name
        self._warns = on_unsavable == "warn"
        self._at: Here | None = None
        self._machine: OpenBlock | None = None
        self._pace = Pace()
        self._asked = 0  # `Connection.checkpoint_asked` when it was last saved
        self._young = 0  # streams without a name that were obtained before the block
        self._drawn: dict[int, Any] = {}  # positions of newer streams at the last commit
        self._held: set[str | int] = set()  # streams that the state itself holds
        self._reported: set[str] = set()
        self._code = b""

    def enter(self, *, kept: bool = False) -> Any:
        """Open the block; return the state of its last checkpoint, None if there is none.

        Raises: see `durable`.
        """
        at = self._at = _engine.here()
        if at is None:
            self._enter_alone()
            return None
        parent = at.parent
        if at.context.in_once:
            raise UsageError(
                f"the block {self.name!r} of {parent.path} is opened in a function of `futures.once`, "
                "which a replay does not run: open it around the `once`, or in a task"
            )
        if parent.durable.is_open(self.name):
            raise UsageError(
                f"the block {self.name!r} of {parent.path} is already open: give each "
                f"durable() and restore() of one parent its own name, or leave the first one"
            )
        self._code = _code_digest()
        with at.session.turn():
            self._machine = parent.enter_block(self.name)
        entered = False
        try:
            state = self._restore(at, self._machine)
            entered = True
        finally:
            if not entered:
                self.leave()
        if kept:
            at.context.blocks[self.name] = self
        book = at.context.rngs
        self._asked = at.session.checkpoint_asked
        self._young = 0 if book is None else book.count
        return state

    def _enter_alone(self) -> None:
        if self.name in _alone:
            raise UsageError(f"the block {self.name!r} is already open: give each its own name")
        _alone[self.name] = self

    def leave(self) -> None:
        """Close the block."""
        if self._at is None:
            _alone.pop(self.name, None)
        elif self._machine is not None:
            self._at.parent.durable.leave(self._machine)
        self._machine = None

    def _restore(self, at: Here, block: OpenBlock) -> Any:
        """Continue from the newest checkpoint that can be used."""
        parent, durable = at.parent, at.parent.durable
        if parent.history.replaying:
            _store(at).remove_unfinished()
        _engine.block(at, lambda: parent.has_generations(block))
        found = durable.candidates(block)
        failures: list[CheckpointUnusableError] = []
        for record in found:
            what = f"checkpoint {record.gen} of {self._title()}"
            loading = Loading(at)
            try:
                state = loading.loads(self._content(at, record.payload, what), what)
            except CheckpointUnusableError as error:
                failures.append(error)
                continue
            self._report_fallen(failures, f"falling back to checkpoint {record.gen}")
            self._continue_from(at, block, record, loading)
            return state
        if failures or durable.known.get(block.key):
            self._begin_anew(at, block, failures)
        return None

    def _begin_anew(
        self, at: Here, block: OpenBlock, failures: list[CheckpointUnusableError]
    ) -> None:
        """Begin without a checkpoint: replay everything, if all of it is in the journal."""
        if at.parent.durable.can_begin(block):
            self._report_fallen(failures, "all of the block is replayed")
            return
        why = (
            "; ".join(f"{each.what} {each.reason}" for each in failures) or "the journal lacks them"
        )
        advice = next((each.advice for each in failures if each.advice), "")
        error = CheckpointsLostError(self._title(), why, advice)
        if at.context.work is None:
            raise error
        # An outcome would be final, and would remove the item's checkpoints.
        with at.session.turn():
            halted = Halted(at.parent.path, at.parent.attempt, str(error))
            at.session.send(encode(halted))
        _engine.block(at, lambda: False)
        raise GreenletExit

    def _report_fallen(self, failures: list[CheckpointUnusableError], so: str) -> None:
        for error in failures:
            Process.tell_user(f"{error}; {so}")

    def _continue_from(
        self, at: Here, block: OpenBlock, record: Checkpoint, loading: Loading
    ) -> None:
        parent = at.parent
        self._compare(block, record)
        with at.session.turn():
            parent.continue_from(block, record)
            loading.apply()
            parent.verify(block)
        if at.context.work is None:
            sys.stdout.flush()
            for stream, position in zip(
                (at.session.output, at.session.input),
                (record.output_bytes, record.input_bytes),
                strict=True,
            ):
                if stream is not None:
                    stream.skip_to(position)

    def _compare(self, block: OpenBlock, record: Checkpoint) -> None:
        """Report if the code has changed since the checkpoint was made."""
        if (record.entry, record.entry_observation) != (block.entry, block.entry_observation):
            changed = f"was entered after call {record.entry}, and is entered after call {block.entry} now"
            if Process.policy.strict:
                raise ReplayDivergedError(
                    self._title(), "its checkpoint", f"a block that {changed}"
                )
        elif record.code != self._code:
            changed = "is surrounded by code that has changed since its checkpoint was made"
        else:
            return
        Process.tell_user(f"replay: {self._title()} {changed}; its state is used as it was saved")

    def _title(self) -> str:
        path = "" if self._at is None else f" of {self._at.parent.path}"
        return f"block {self.name!r}{path}"

    def _content(self, at: Here, stored: bytes, what: str) -> bytes | memoryview:
        if stored[:1] != FILE:
            return stored
        store = _store(at)
        size_bytes = int.from_bytes(stored[-8:], "big")
        try:
            return at.session.room.patiently(lambda: store.get(stored[1:]), size_bytes, what)
        except BlobError as error:
            advice = "restore the file, or give it up with `rscoop journal repair`"
            raise CheckpointUnusableError(what, str(error), advice) from error

    def commit(self, state: Any, every_s: float | Literal["auto"] | None) -> None:
        """Save the state, unless it is not due. See `State.commit`."""
        now = time.monotonic()
        at = _engine.here()
        if at is None:
            self._pace.is_due(every_s, now)
            return
        block = self._check(at)
        self._check_streams(at)
        asked = at.session.checkpoint_asked
        if not self._pace.is_due(every_s, now) and asked <= self._asked:
            return
        try:
            self._save(at, block, state)
        except (PicklingFailedError, CheckpointUnusableError) as error:
            if not self._warns:
                raise
            if str(error) not in self._reported:
                self._reported.add(str(error))
                Process.tell_user(f"{error}; the run continues without this checkpoint")
        self._asked = asked
        self._pace.wrote(now, time.monotonic())

    def _check(self, at: Here) -> OpenBlock:
        block = self._machine
        if block is None or self._at is None:
            raise UsageError(f"the block {self.name!r} is not open: commit inside of the `with`")
        parent = at.parent
        if parent is not self._at.parent:
            raise UsageError(
                f"{self._title()} was committed in {parent.path}: only the script or task that opened a "
                "block may commit it"
            )
        if parent.durable.open[-1] is not block:
            inner = parent.durable.open[-1].key[0]
            raise UsageError(
                f"{self._title()} was committed while block {inner!r} inside of it is open: "
                f"leave the inner block first, or keep its values in the state of the outer one"
            )
        if at.context.work is not None and not (
            parent.calls.next or parent.history.next_observation
        ):
            raise UsageError(
                f"{parent.path} has made no calls, and a checkpoint is for tasks that make calls: in a "
                f"task without calls use futures.progress(done, total, resume=…); in others, commit after "
                f"the first call"
            )
        return block

    def _check_streams(self, at: Here) -> None:
        """Refuse what a restart could not restore: streams without a name, obtained inside the block."""
        book = at.context.rngs
        if book is None or book.count == self._young:
            return
        young = {mark: rng.state_of(stream) for mark, stream in book.younger(self._young)}
        for mark, position in young.items():
            if self._drawn.get(mark, position) != position and mark not in self._held:
                raise UsageError(
                    f"a stream of futures.rng() that was obtained in {self._title()} is used in "
                    f"more than one round: obtain it before the block, or give it a name, or "
                    f"keep it in the state"
                )
        self._drawn = young

    def _save(self, at: Here, block: OpenBlock, state: Any) -> None:
        parent, durable = at.parent, at.parent.durable
        what = f"checkpoint of {self._title()}"
        if not at.session.saves:
            saving = Saving(at)
            saving.dumps(state, what)
            self._held = saving.streams
            return
        _engine.block(at, lambda: not parent.history.replaying)
        if at.context.work is None:
            sys.stdout.flush()
        saving = Saving(at)
        dumped = saving.dumps(state, what)

        def load_back(content: bytes | memoryview) -> None:
            dumped.parts.clear()  # avoids holding both in memory
            saving.load_back(state, content, what)

        stored = self._stored(at, dumped, load_back)
        at.session.sync_files(parent.path, saving.pending)
        self._held = saving.streams
        streams = (at.session.output, at.session.input) if at.context.work is None else ()
        positions = [0 if each is None else each.position() for each in streams]
        with at.session.turn():
            parent.save(
                block, stored, sorted(saving.pending),
                (positions[0], positions[1]) if positions else (0, 0), self._code,
            )  # fmt: skip
            at.session.pump()
        _engine.block(at, lambda: durable.is_saved(block))
        with at.session.turn():
            parent.verify(block)

    def _stored(self, at: Here, dumped: Dumped, check: Callable[[Any], None]) -> bytes:
        """Return the checked content of the record: the state, or the name of its file."""
        if dumped.size_bytes <= INLINE_BYTES_MAX:
            check(whole := b"".join(dumped.parts))
            return whole
        store = _store(at)
        try:
            return FILE + at.session.room.patiently(
                lambda: store.put(dumped.parts, check),
                dumped.size_bytes,
                f"a checkpoint of {self._title()}",
            )
        except BlobError as error:
            what = f"the checkpoint of {self._title()}"
            raise CheckpointUnusableError(what, str(error), "look at the disk") from error
        except OSError as error:
            reason = error.strerror or str(error)
            what = f"saving {self._title()}"
            raise JournalError(str(store.directory), what, reason) from error


def current_block(name: str) -> Block | None:
    """Return the block that `restore` has opened; None in a process without a run.

    Raises:
        UsageError: there is none.
    """
    at = _engine.here()
    found = _alone.get(name) if at is None else at.context.blocks.get(name)
    if found is None:
        raise UsageError(
            f"checkpoint.save(…, name={name!r}) without checkpoint.restore: nothing would read it "
            f"back; begin with state = checkpoint.restore(default, name={name!r})"
        )
    return found


def _store(at: Here) -> StateStore:
    return StateStore(Path(at.session.settings.run_dir), at.session.mirror)


def _code_digest() -> bytes:
    """Return a digest of the code that contains the block."""
    frame = sys._getframe(2)  # noqa: SLF001 - the only way
    own = __name__.rpartition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(own):
        frame = frame.f_back
    code = frame.f_code
    text = source.normalized(code) or source.bytecode(code)
    return blake2b(text.encode(), digest_size=ids.DIGEST_BYTES).digest()
