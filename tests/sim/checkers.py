"""The checks of every history; each has the name of its guarantee.

The checks are outside the system: they see what was committed, what was started and what parents
received, and compare it with the results of an undisturbed run (`programs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resilient_scoop import ids
from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.wire import messages as wire
from tests.sim import programs, truths
from tests.sim.callables import Callables
from tests.sim.cancels import Broken, Cancels, Key
from tests.sim.durable_part import durable_part
from tests.sim.kept_once import KeptOnce
from tests.sim.leftovers import Leftovers
from tests.sim.permissions import Permissions
from tests.sim.saves import Saves

RUN = b"run of the simul"

if TYPE_CHECKING:
    from resilient_scoop.core.worker.worker import Work
    from tests.sim.programs import Fn
    from tests.sim.shells import BrokerShell
    from tests.sim.worker import WorkerShell
    from tests.sim.world import World


class Checks:
    """Checks the guarantees."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.durable: dict[Key, bytes] = {}  # outcomes that were committed
        self.delivered: dict[Key, bytes] = {}  # outcomes that a parent received
        self.starts: Counter[Key] = Counter()
        self.deaths: Counter[str] = Counter()  # deaths with the item on the CPU
        self.blamed: Counter[Key] = Counter()  # the same, as in the journal
        self.deaths_late: Counter[str] = Counter()  # kills because the item exceeded its time limit
        self.late: Counter[Key] = Counter()  # the same, as in the journal
        self.cancels = Cancels(world, self.durable, self.starts)
        self.urgent = any("urgent" in step[:2] for step in world.steps)
        self.fns: dict[str, Fn] = {}
        self.progress: dict[bytes, list[wire.Progress | None]] = {}  # as committed; None: erased
        self.floors: dict[
            tuple[wire.Attempt, str], int
        ] = {}  # number of these at the time of a grant
        self.resumes = 0
        self.output = b""
        self.commits = 0
        self.granted_no = 0
        self.compared = 0
        self.trimmed: dict[Key, bytes] = {}  # outcomes that may be computed again
        # By block: the generation that was confirmed to a parent, and the attempt that received it.
        self.saved: dict[tuple[str, str, int], tuple[int, wire.Attempt]] = {}
        self.restored = 0  # checkpoints continued from
        # calls whose records, and therefore files, are trimmed
        self.gone: set[tuple[str, int]] = set()
        self.leftovers = Leftovers(world)
        self.saves = Saves(world)
        self.callables = Callables(world)
        self.permissions = Permissions(world)
        self.kept_once = KeptOnce(world)

    def may_die(self, path: str) -> bool:
        return self.deaths[path] < 2 or self._fn_at(path).poison

    def died_running(self, path: str, reason: str) -> None:
        self.deaths[path] += reason == "crash"
        self.deaths_late[path] += reason == "timeout"

    def too_late(self, fn: Fn, path: str, arg: Any) -> None:
        """Check a cancellation that was answered as too late."""
        self.cancels.too_late((path, fn.id + programs.digest(programs.encode_arg(arg))))

    def _fn_at(self, path: str) -> Fn:
        return self.fns.get(path, programs.SCRIPT)

    def started(self, fn: Fn, path: str, raw: bytes, work: Work) -> None:
        """Check an item that begins on a CPU."""
        self.fns[path] = fn
        key = (path, fn.id + programs.digest(raw))
        if self.world.grid is not None:
            self.world.grid.handed.started(key)
        self.starts[key] += 1
        if not fn.idempotent:
            self.permissions.started(key, self.starts[key])
        self.cancels.started(key, work)

    def chosen(self, worker: WorkerShell, work: Work) -> None:
        """Check that no waiting slice on the worker is more urgent than the chosen one."""
        for other in (*worker.machine.queue, *worker.open):
            if _priority(other) > _priority(work) and other.next < other.stop:
                raise Broken(f"PRIORITY: {work.task.parent}.{work.task.call} goes before "
                             f"{other.task.parent}.{other.task.call}")  # fmt: skip
        if worker.runnable:
            raise Broken(f"WC1: a slice goes before {[each.path for each, _ in worker.runnable]}")
        if worker.careful and worker.frames and work.task.parent == ids.ROOT:
            raise Broken(f"WC3: {work.task.call} is begun beside {list(worker.frames)}")
        if worker.machine.stopping is not None:
            raise Broken("WC4: a slice is begun after the stop")

    def resumes_next(self, path: str, others: Sequence[str]) -> None:
        """Check which of several waiting tasks continues."""
        if any(ids.depth(other) > ids.depth(path) for other in others):
            raise Broken(f"WC1: {path} continues before {others}")

    def resumed(self, fn: Fn, path: str, raw: bytes, work: Work, given: bytes) -> None:
        """Check the state with which a long leaf begins.

        It is a state that the item itself saved, and no older than the state that was durable when
        this attempt was granted. There is none only if none was durable, or it has been erased
        since.
        """
        recorded = self.progress.get(self._progress_key(path), [])
        floor = self.floors.get((work.attempt, path), 0)
        mine = [self._payload(each, fn, raw) for each in recorded]
        allowed = [*(mine[floor - 1 :] if floor else [b"", *mine])]
        if given not in allowed:
            raise Broken(f"NO-LOST: {path} continues from {given!r}, durable was {allowed}")
        if given:
            self.resumes += 1
            if programs.decode_arg(given)[:2] != [path, programs.decode_arg(raw)]:
                raise Broken(f"NO-WRONG: {path} continues from {given!r}, which another call kept")

    def acknowledged(self, message: wire.Progress) -> None:
        """Check that an acknowledged progress report is durable, or can never be needed."""
        path = ids.item_path(message.parent, message.call, message.index)
        mine = (message.attempt.epoch, message.attempt.no)
        for each in self.progress.get(self._progress_key(path), ()):
            if each is not None and (each.attempt.epoch, each.attempt.no) > mine:
                return
            if each is not None and each.payload == message.payload:
                return
        if (
            not self.world.edited
            and (path, message.fingerprint + message.digest) not in self.durable
        ):
            raise Broken(
                f"NO-LOST: what {path} said at {message.done} is acknowledged, not durable"
            )

    def _payload(self, message: wire.Progress | None, fn: Fn, raw: bytes) -> bytes:
        mark = fn.id + programs.digest(raw)
        return (
            b""
            if message is None or message.fingerprint + message.digest != mark
            else message.payload
        )

    def _progress_key(self, path: str) -> bytes:
        place = ids.parse_item(path)
        assert place is not None
        number = place[1].to_bytes(8, "big") + place[2].to_bytes(8, "big")
        return ids.log_prefix(RUN, place[0]) + number

    def opened(self, shell: BrokerShell) -> None:
        """Begin again after a broker has recovered."""
        self.granted_no = 0
        self.cancels.held = []
        self.callables.opened(shell)

    def turned(self, shell: BrokerShell, changes: list[Change]) -> None:
        """Check the new leases after a broker's turn."""
        leases = shell.broker.scheduler.leases
        self.cancels.turned(shell, changes)
        self.callables.turned(shell, changes)
        if self.urgent:
            self._check_urgent(shell)
        newest, granted = self.granted_no, list[str]()
        for attempt, lease in leases.items():
            if attempt.epoch != shell.epoch or attempt.no <= self.granted_no:
                continue
            newest = max(newest, attempt.no)
            batch = lease.batch
            for start, stop in lease.left:
                for index in range(start, stop):
                    path = ids.item_path(batch.parent.path, batch.call, index)
                    granted.append(path)
                    self.floors[attempt, path] = len(
                        self.progress.get(self._progress_key(path), ())
                    )
                    if self.world.edited and ids.depth(path) > 1:
                        continue  # below an item that another one has replaced
                    if (path, _key_of(shell.broker.state, batch.facts, index)) in self.durable:
                        raise Broken(f"NO-LOST: {path} is granted again, its outcome is durable")
        self.granted_no = newest
        self.saves.turned(shell, granted)

    def _check_urgent(self, shell: BrokerShell) -> None:
        """Check that the most urgent item does not wait while a worker has only less urgent ones."""
        broker, now = shell.broker, self.world.now
        scheduler, membership = broker.scheduler, broker.membership
        if broker.busy_disk or membership.stopping or membership._awaited is not None:
            return
        for batch in scheduler.batches.values():
            held = not batch.ready or batch.held_back_except is not None
            if held or scheduler.options(batch.facts.pieces[0].fn).priority <= 0:
                continue
            for peer in scheduler.workers.values():
                busy = [lease for lease in peer.leases.values() if lease.busy()]
                getting_on = not peer.stuck and now - peer.moved_at < 1.0
                if getting_on and not any(lease.urgency < 0 for lease in busy):
                    path = batch.parent.path
                    raise Broken(f"PRIORITY: {path}.{batch.call} waits for {peer.name}")

    def committed(self, shell: BrokerShell, changes: list[Change]) -> None:
        """Check changes that have become durable."""
        self.commits += 1
        self.callables.committed(shell, changes)
        for change in changes:
            if isinstance(change, Put) and change.table is Table.LOG:
                record = wire.decode_logged(change.value)
                if isinstance(record, wire.Outcomes):
                    self._outcomes(record)
                elif isinstance(record, wire.Intent):
                    self.permissions.committed(record)
                elif isinstance(record, wire.Checkpoint):
                    self.saves.committed(record)
                elif isinstance(record, wire.Trimmed):
                    spans = [range(*span) for span in record.calls]
                    self.gone |= {(record.parent, call) for span in spans for call in span}
                    if self.world.climate.edits:
                        self._trimmed(record)
                elif isinstance(record, wire.Crashed):
                    path = ids.item_path(record.parent, record.call, record.index)
                    blame = self.late if record.reason == "timeout" else self.blamed
                    blame[path, record.digest] += 1
            elif isinstance(change, Put) and change.table is Table.OUTPUT:
                self._output(change)
            elif isinstance(change, Put) and change.table is Table.PROGRESS:
                message = wire.decode_up(change.value)
                assert isinstance(message, wire.Progress)
                self.progress.setdefault(change.key, []).append(message)
            elif isinstance(change, Erase) and change.table is Table.PROGRESS:
                self.progress[change.prefix].append(None)
            elif isinstance(change, Put) and change.key == b"ended":
                self.world.ended = True
            elif isinstance(change, Erase):
                assert change.prefix, "an erasure of everything"
                self._erased(change.prefix)
        if not shell.queue and self.commits % 7 == 0:
            self._compare(shell)

    def _erased(self, prefix: bytes) -> None:
        """Forget the items of a future that is done or was replaced: the same items may be made again."""
        if self.world.climate.edits:
            for key in [k for k in self.durable if self._prefix(k) == prefix]:
                self.trimmed[key] = self.durable.pop(key)
                self.delivered.pop(key, None)

    def _trimmed(self, record: wire.Trimmed) -> None:
        """Forget trimmed calls: a script that was changed may make them again."""
        for key in list(self.durable):
            place = ids.parse_item(key[0])
            if place is None or place[0] != record.parent:
                continue
            if any(low <= place[1] < high for low, high in record.calls):
                self.trimmed[key] = self.durable.pop(key)
                self.delivered.pop(key, None)

    def _prefix(self, key: Key) -> bytes:
        place = ids.parse_item(key[0])
        return b"" if place is None else ids.log_prefix(RUN, place[0])

    def _outcomes(self, record: wire.Outcomes) -> None:
        width = ids.DIGEST_BYTES
        for outcome in record.items:
            for at, value in enumerate(outcome.values):
                path = ids.item_path(record.parent, outcome.call, outcome.start + at)
                digest = outcome.digests[at * width : (at + 1) * width]
                key = (path, outcome.fingerprint + digest)
                if key in self.durable:
                    raise Broken(f"ONE-COMMIT: a second outcome of {path} was recorded")
                self.durable[key] = value

    def _output(self, change: Put) -> None:
        record = wire.decode_up(change.value)
        assert isinstance(record, wire.Output)
        if int.from_bytes(change.key, "big") != len(self.output):
            raise Broken(f"SAME-ANSWER: output at {change.key!r} after {len(self.output)} bytes")
        self.output += record.data

    def seen(self, fn: Fn, path: str, arg: Any, payload: bytes, *, failed: bool) -> None:
        """Check an outcome that a parent receives."""
        key = (path, fn.id + programs.digest(programs.encode_arg(arg)))
        place = ids.parse_item(path)
        if fn.large and place is not None and place[:2] in self.gone and not self.world.edited:
            raise Broken(f"NO-LOST: {path} is read, and its file went with its record")
        durable = self.durable.get(key, self.trimmed.get(key))
        if durable is None:
            if self.world.edited:
                return  # the parent will be dropped: another call has replaced it
            raise Broken(f"NO-LOST: a parent is told the outcome of {path}, which is not durable")
        if durable != payload:
            raise Broken(f"ONE-COMMIT: a parent is told another outcome of {path} than is recorded")
        if self.delivered.setdefault(key, payload) != payload:
            raise Broken(f"ONE-COMMIT: the outcome of {path} has changed under its parent")
        value = programs.read_outcome(payload, failed=failed)
        try:
            truths.check_value(fn, path, arg, value)
        except truths.Untrue as error:
            raise Broken(f"NO-WRONG: {error}") from None
        if value == programs.Failed("lost"):
            self.permissions.lost(key)
        if value == programs.Failed("crashed") and self.blamed[path, key[1][16:]] < 3:
            raise Broken(
                f"BLAST-RADIUS: {path} failed after {self.blamed[path, key[1][16:]]} deaths"
            )

        if value == programs.Failed("timeout") and self.late[path, key[1][16:]] != _tries(fn):
            raise Broken(f"BLAST-RADIUS: {path} failed after {self.late[path, key[1][16:]]} "
                         f"times out of {_tries(fn)}")  # fmt: skip

    def entered(self, path: str, key: tuple[str, int], newest: int, attempt: wire.Attempt) -> None:
        """Check the generation with which a block is entered; it is the newest in the journal.

        A late grant can begin an attempt that another attempt has replaced: this attempt may know
        older data, and its messages do not count (LE1).
        """
        saved, saved_by = self.saved.get((path, *key), (0, attempt))
        if newest < saved and not self.world.edited:
            if self.is_done(path) or (attempt.epoch, attempt.no) < (saved_by.epoch, saved_by.no):
                return
            raise Broken(
                f"NO-LOST: {path} was told that {key} {saved} is durable; {newest} is there"
            )

    def is_done(self, path: str) -> bool:
        """Return whether an attempt was granted before its item was done, and will be dropped."""
        return any(known[0] == path for known in self.durable)

    def diverged(self, text: str) -> None:
        """Fail because a replay differed, unless the script was edited: our scripts are deterministic."""
        if not self.world.edited:
            raise Broken(f"SAME-ANSWER: {text}")

    def _compare(self, shell: BrokerShell) -> None:
        """Check that a recovery now would give the state of the broker."""
        from tests.sim.shells import load

        self.compared += 1
        recovered, _ = load(shell.journal)
        mine, theirs = durable_part(shell.broker.state), durable_part(recovered)
        if self.world.edited:
            self._compare_args(mine["parents"], theirs["parents"])
        if mine != theirs:
            raise Broken(f"ALWAYS-OPENS: recovery gives {theirs}\nand not {mine}")

    def _compare_args(self, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
        """Compare the counts of items whose arguments are needed.

        A changed script may have more after recovery.

        A call that another call has replaced may have been done before. If the record of its
        outcome was erased with the calls that a checkpoint covers, its arguments stay until the
        parent ends.
        """
        for path, parent in mine.items():
            live, recovered = parent.pop("args_left"), theirs.get(path, {}).pop("args_left", {})
            if any(recovered.get(record, 0) < left for record, left in live.items()):
                raise Broken(f"ALWAYS-OPENS: {path} needs arguments {live}, recovery {recovered}")

    def at_end(self) -> None:
        """Check the end of the run."""
        world = self.world
        if not world.ended:
            raise Broken(f"PROGRESS: not ended at {world.now:.0f} s; {self._where()}")
        if not world.edited:
            self._check_output()
        self._check_blame()
        if world.broker is not None and world.broker.alive and world.broker.open:
            if not world.broker.queue:
                self._compare(world.broker)
            self.leftovers.check(world.broker)

    def _check_output(self) -> None:
        world = self.world
        try:
            truths.check_output(world.steps, self.output)
        except truths.Untrue as error:
            raise Broken(f"SAME-ANSWER: {error}") from None

    def _where(self) -> str:
        broker = self.world.broker
        if broker is None or not broker.open:
            return "no broker"
        members = broker.broker.members
        waits = {
            f"{batch.parent.path}.{batch.call}": (list(batch.facts.undone), list(batch.ready))
            for batch in broker.broker.scheduler.batches.values()
        }
        leases = [(x.peer.name, x.batch.parent.path, list(x.left)) for x in
                  broker.broker.scheduler.leases.values()]  # fmt: skip
        peers = [peer.name for peer in members.peers.values()]
        return f"undone {waits}, leases {leases}, peers {peers}, root {members.root}"

    def _check_blame(self) -> None:
        calm = not any(kind not in ("slow", "full") for kind in self.world.faults)
        for key, payload in self.durable.items():
            value = programs.read_outcome(payload, failed=payload[:1] != b"V")
            if value == programs.Failed("timeout"):
                died = self.deaths_late[key[0]]
                if calm and died != _tries(self._fn_at(key[0])):
                    raise Broken(f"BLAST-RADIUS: {key[0]} ran out of its time {died} times")
            if value != programs.Failed("crashed"):
                continue
            blamed, deaths = self.blamed[key[0], key[1][16:]], self.deaths[key[0]]
            if blamed != 3 or (calm and deaths != 3):
                raise Broken(f"BLAST-RADIUS: {key[0]} blamed {blamed} times, died {deaths} times")


def _tries(fn: Fn) -> int:
    """Return how often an item is killed at its time limit before it fails."""
    return fn.retries + 1 if fn.idempotent else 1


def _priority(work: Work) -> int:
    return programs.BY_ID[work.task.fn].priority


def _key_of(state: DurableState, batch: Batch, index: int) -> bytes:
    piece = batch.piece_at(index)
    assert piece is not None
    return state.fingerprint(piece.fn) + batch.digests_of(index, index + 1)
