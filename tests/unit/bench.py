"""A broker in a test bench: the test sets the clock, and every invariant is checked after every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from resilient_scoop.config import BrokerConfig
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.events import Action, Erase, Heard, Offer, Put, Send, Table, Tick
from resilient_scoop.core.facts.recovery import recover
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.ids import ROOT, PeerId
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import read_broker_error
from resilient_scoop.wire.tally import TALLY_KEY, decode_tally

RUN = b"r" * 16
ORIGIN, W1, W2, W3, AGENT = (
    PeerId(b"Oorigin.."),
    PeerId(b"Wworker1."),
    PeerId(b"Wworker2."),
    PeerId(b"Wworker3."),
    PeerId(b"A"),
)
FN, ONCE = b"fn-plain........", b"fn-once........."
PLAIN = wire.Define(FN, FN, "m:plain", b"code", wire.Options())
RISKY = wire.Define(ONCE, ONCE, "m:risky", b"code", wire.Options(idempotent=False))


def digests(*args: int, salt: int = 0) -> bytes:
    """Return digests that differ if arguments or `salt` differ."""
    return b"".join((salt << 32 | arg).to_bytes(8, "big") for arg in args)


def part(call: int, start: int, stop: int, *, fn: bytes = FN, **more: Any) -> wire.Part:
    salt = more.pop("salt", 0)
    last = more.pop("last", True)
    marks = digests(*range(start, stop), salt=salt)
    return wire.Part(call, start, stop - start, fn, marks, last, **more)


def calls(*parts: wire.Part, parent: str = ROOT, attempt: wire.Attempt) -> list[wire.Up]:
    args = [b"arg%d" % i for p in parts for i in range(p.start, p.start + p.count)]
    return [wire.Calls(parent, attempt, list(parts)), wire.Args(args)]


def outcomes(call: int, start: int, stop: int, *, parent: str = ROOT, **more: Any) -> wire.Outcomes:
    salt, fn, task = more.get("salt", 0), more.get("fn", FN), more.get("task")
    values = [more.get("value") or b"Vvalue%d" % index for index in range(start, stop)]
    marks = digests(*range(start, stop), salt=salt)
    return wire.Outcomes(parent, [wire.Outcome(call, start, fn, marks, values, [], 0.01, task)])


class Bench:
    """Drives a broker without sleeping, and keeps its records in a journal."""

    def __init__(self, *, epoch: int = 1, state: DurableState | None = None, **config: Any) -> None:
        self.now = 100.0
        self.config = replace(BrokerConfig(), **config)
        self.journal: dict[tuple[Table, bytes], bytes] = {}
        self.broker = Broker(self.config, state or DurableState(RUN), epoch=epoch, seed=7)

    def feed(self, event: Any) -> list[Action]:
        actions = self.broker.step(event, self.now)
        self.broker.check()
        for action in actions:
            if isinstance(action, Put):
                self.journal[action.table, action.key] = action.value
            elif isinstance(action, Erase):
                for key in [k for k in self.journal if k[0] is action.table]:
                    if key[1].startswith(action.prefix):
                        del self.journal[key]
        return actions

    def tell(self, peer: PeerId, *messages: wire.Up, host: str | None = None) -> list[Action]:
        """Give the broker one bundle, of this host or another one."""
        return self.feed(Heard(peer, list(messages), [wire.encode(m) for m in messages], host))

    def wait(self, seconds: float, *, vouched: Sequence[PeerId] = ()) -> list[Action]:
        """Let time pass, a second at a time; the agent, if there is one, vouches for some."""
        found: list[Action] = []
        for _ in range(int(seconds)):
            self.now += 1.0
            if vouched:
                found += self.tell(AGENT, wire.Alive(list(vouched)))
            found += self.feed(Tick())
        return found

    def arrive(self, peer: PeerId, **more: Any) -> list[Action]:
        role = {b"O": "origin", b"W": "worker", b"A": "agent"}[peer[:1]]
        return self.tell(peer, wire.Hello(role, "n0", peer.decode(), 1, **more))

    def begin(self, *workers: PeerId) -> wire.Attempt:
        """Let origin and workers arrive; return the root's attempt."""
        self.arrive(AGENT)
        self.arrive(ORIGIN)
        for worker in workers:
            self.arrive(worker)
        assert self.broker.members.root is not None
        return self.broker.members.root[0]

    def again(self, *, adopt: bool = True) -> Bench:
        """Return a new broker that reads the journal of this one."""
        defines = [d for d in self._all(Table.DEFINE) if isinstance(d, wire.Define)]
        log = [
            (key, wire.decode_logged(raw))
            for (table, key), raw in sorted(self.journal.items())
            if table is Table.LOG
        ]
        messages = [
            (key, wire.decode_up(raw))
            for (table, key), raw in sorted(self.journal.items())
            if table is Table.PROGRESS
        ]
        progress = [(key, each) for key, each in messages if isinstance(each, wire.Progress)]
        raw = self.journal.get((Table.META, TALLY_KEY))
        tally = None if raw is None else decode_tally(raw)
        state = recover(RUN, defines, log, self.broker.state.output_bytes, progress, tally)
        other = Bench(epoch=self.broker.epoch + 1, state=state, adopt=adopt)
        other.journal, other.now = dict(self.journal), self.now
        return other

    def _all(self, wanted: Table) -> list[wire.Up]:
        return [wire.decode_up(raw) for (table, _), raw in self.journal.items() if table is wanted]

    def logged(self) -> list[Any]:
        """Return the records of the log, as they were written."""
        found = [(key[16:], raw) for (t, key), raw in self.journal.items() if t is Table.LOG]
        return [wire.decode_logged(raw) for _, raw in sorted(found)]


def sent(actions: Sequence[Action], to: PeerId, kind: type) -> list[Any]:
    """Return the messages of a kind that go to a peer, at once or after the commit."""
    return [
        message
        for action in actions
        if isinstance(action, Send | Offer) and action.to == to
        for message in map(wire.decode_down, action.frames)
        if isinstance(message, kind)
    ]


def granted(actions: Sequence[Action], to: PeerId) -> list[wire.Task]:
    return [task for grant in sent(actions, to, wire.Grant) for task in grant.tasks]


def reported_error(bench: Bench, index: int = 0) -> str:
    """Return the kind of the error that the broker recorded for an item of the root's call 0."""
    for record in bench.logged():
        if isinstance(record, wire.Outcomes):
            for outcome in record.items:
                if outcome.start == index and outcome.failed:
                    return read_broker_error(outcome.values[0])[0]
    return "none"


def grant_one(bench: Bench, *workers: PeerId, fn: wire.Define = PLAIN) -> wire.Attempt:
    """Let one item run on the first of the workers; return its attempt."""
    root = bench.begin(*workers)
    actions = bench.tell(ORIGIN, fn, *calls(part(0, 0, 1, fn=fn.fn), attempt=root))
    (task,) = granted(actions, workers[0])
    return wire.Attempt(bench.broker.epoch, task.no)


def lost(peer: bytes, attempt: wire.Attempt | None = None, index: int = 0) -> wire.ProcessLost:
    return wire.ProcessLost(peer, -11, "crash", attempt, index)


def record(attempt: wire.Attempt, gen: int, calls: int, **more: Any) -> wire.Checkpoint:
    base = more.pop("base", gen - 1)
    fields: dict[str, Any] = {
        "name": "main", "opening": 0, "entry": 0, "entry_observation": 0, "observations": 0,
        "payload": b"state", **more,
    }  # fmt: skip
    return wire.Checkpoint(ROOT, attempt, gen=gen, base=base, calls=calls, **fields)
