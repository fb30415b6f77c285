"""The broker's end of all links, without a socket: messages in, turns, messages out.

A turn contains everything that arrived since the last one. Its `Offer`s are sent at once; its
records go to the writer; when they are durable, `committed` returns the messages that depend on
them: sends, pages of history, and acknowledgements of the handled messages (disk before wire).

  X1  An acknowledgement never covers a message whose records are not durable.
  X2  Per peer, messages leave in the order in which their turns were committed.
  X3  A message that cannot be read changes nothing but `refused` (NOBODY-IN).
  X4  A message of another host, whose name the shell gives with it, is judged (`core.broker.guests`) when
      everything before it was handled, and before anything of it is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.broker.admission import check
from resilient_scoop.core.broker.host_life import HostState
from resilient_scoop.core.events import (
    Change,
    CutHost,
    Discard,
    Erase,
    Event,
    GrantStored,
    Heard,
    Lied,
    Offer,
    Put,
    Send,
    SendHistory,
    StoredArgs,
    StoredResume,
    Sweep,
    Swept,
    Table,
    Tick,
)
from resilient_scoop.core.link import Link
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.broker.broker import Broker
    from resilient_scoop.core.broker.callable_cache import CallableCache
    from resilient_scoop.core.ports import Reader

ACK_S = 0.1
REFUSALS_REPORTED_MAX = 10
ACK_MESSAGES = 16
_HISTORY = wire.Outcomes | wire.Observed | wire.Checkpoint


class Mail(NamedTuple):
    """A message for a peer."""

    to: PeerId
    frames: list[bytes]


class _UncommittedTurn(msgspec.Struct):
    number: int
    sends: list[Send | SendHistory | GrantStored | Sweep | Discard] = []
    acks: dict[PeerId, tuple[Link, int]] = {}


class Exchange:
    """Feeds a broker machine and carries out its actions; a shell receives, commits and sends."""

    def __init__(
        self,
        broker: Broker,
        run: bytes,
        tell_user: Callable[[str], None],
        callables: CallableCache | None = None,
    ) -> None:
        self.broker = broker
        self.callables = callables
        self.run = run
        self.tell_user = tell_user
        self.links: dict[PeerId, Link] = {}
        self.refused = 0
        self.garbage: list[bytes] = []  # files that no durable record names: removed by the shell
        self.cuts: list[CutHost] = []  # hosts whose connections are to be closed, by the shell
        self.hosts = broker.hosts
        self._turns: deque[_UncommittedTurn] = deque()
        self._number = 0
        self._events: list[Event] = []
        self._answers: list[Mail] = []
        self._acks: dict[PeerId, tuple[Link, int]] = {}
        self._beat_at = 0.0
        self._ack_at = 0.0
        self._tick_at = 0.0
        self._dead: dict[PeerId, float] = {}  # peers known to be dead -> since when

    def receive(
        self, peer: PeerId, frames: list[bytes], now: float, host: str | None = None
    ) -> None:
        """Handle one message of a process; `host`: the other host that its key belongs to."""
        try:
            header = wire.unpack_header(frames[0])
        except (ValueError, IndexError) as error:
            self._refuse(peer, str(error), host)
            return
        if header.run != self.run:
            self._refuse(peer, "it is another run's", host)
            return
        if host is not None:
            if not self._admit(peer, header, now, host):
                return
        elif self.hosts.by_name and peer in self.hosts.guests.of:
            self._unmask(peer)
        if header.epoch != self.broker.epoch:
            # From another epoch: our number makes it say Hello.
            self._answers.append(Mail(peer, Link(self.run, self.broker.epoch).beat()))
            return
        link = self.links.get(peer)
        if link is None:
            link = self.links[peer] = Link(self.run, self.broker.epoch)
        fresh, answers = link.take(header, now)
        self._answers += [Mail(peer, answer) for answer in answers]
        if fresh:
            self._acks[peer] = (link, link.received)
            self._decode(peer, frames[1:], host)

    def _admit(self, peer: PeerId, header: wire.Header, now: float, name: str) -> bool:
        """Return whether a message of another host may be handled (X4)."""
        host = self.hosts.get(name)
        if host.state is HostState.REVOKED or peer in self.hosts.guests.dropped:
            self.refused += 1
            return False
        if wrong := self.hosts.guests.bind(peer, host, self.links):
            self.refused += 1
            self._events.append(Lied(peer, name, wrong))
            return False
        host.heard_at = now
        if host.pings and header.epoch == self.broker.epoch:
            self.hosts.answers(peer, header.ack, now)
        return True

    def _unmask(self, peer: PeerId) -> None:
        """Handle a local process whose identity another host has used: that host has lied."""
        host = self.hosts.guests.of[peer].host.name
        self.hosts.guests.unbind(peer)
        self.hosts.guests.dropped.discard(peer)  # dropped for what the liar sent
        self.links.pop(peer, None)
        self._events.append(Lied(peer, host, "it uses the identity of a process of this host"))

    def _decode(self, peer: PeerId, raw: list[bytes], host: str | None) -> None:
        try:
            messages = [wire.decode_up(frame) for frame in raw]
            check(messages)
        except (msgspec.MsgspecError, ValueError) as error:
            self._refuse(peer, str(error), host)
            return
        if messages:
            self._events.append(Heard(peer, messages, raw, host))

    def _refuse(self, peer: PeerId, why: str, host: str | None) -> None:
        """Count a message that cannot be read, and change nothing else (X3)."""
        self.refused += 1
        if host is not None:
            self._events.append(Lied(peer, host, f"a message cannot be read: {why}"))
            return
        if self.refused <= REFUSALS_REPORTED_MAX:
            self.tell_user(f"refused a message of {peer.hex()}: {why}")

    def add(self, event: Event) -> None:
        """Add an event of the shell to the next turn."""
        self._events.append(event)

    @property
    def is_awaited(self) -> bool:
        """Whether a peer waits for a message of the last turn that depends on records."""
        sends = self._turns[-1].sends if self._turns else ()
        return any(isinstance(each, Send | SendHistory | GrantStored) for each in sends)

    @property
    def has_work(self) -> bool:
        """Whether something has arrived since the last turn."""
        return bool(self._events or self._answers or self._acks)

    def turn(self, now: float) -> tuple[int, list[Change], list[Mail]]:
        """Step the machine; return (turn's number, its records, messages to send at once)."""
        self._number += 1
        turn = _UncommittedTurn(self._number, acks=self._acks)
        events, self._events, self._acks = self._events, [], {}
        mails, self._answers = self._answers, []
        changes: list[Change] = []
        if not events or now >= self._tick_at:
            self._tick_at = now + self.broker.config.beat_s / 4
            events.append(Tick())
        last = events[-1]
        gone: set[PeerId] = set()
        for each in events:
            event = self._judged(each) if isinstance(each, Heard) else each
            for action in self.broker.step(event, now, more=each is not last):
                if isinstance(action, Put | Erase):
                    changes.append(action)
                elif isinstance(action, Offer):
                    mails.append(self._pack(action.to, action.frames))
                elif isinstance(action, CutHost):
                    self.cuts.append(action)
                    gone.update(action.peers)
                else:
                    turn.sends.append(action)
            if isinstance(event, Lied):
                gone |= self.hosts.guests.dropped
        self._turns.append(turn)
        if self.hosts.by_name:
            self._with_hosts(gone)
        if self.callables is not None:
            self.callables.end_turn(turn.number, changes)
        return turn.number, changes, mails

    def _judged(self, event: Heard) -> Heard | Lied:
        """Return a message if it may be handled (X4)."""
        if event.host is not None:
            guests = self.hosts.guests
            guest = guests.of.get(event.peer)
            if guest is None or event.peer in guests.dropped:
                return Lied(event.peer, event.host, "")  # an earlier message cut it off
            if wrong := guests.judge(event.peer, event.messages):
                return Lied(event.peer, event.host, wrong)
            for message in event.messages:
                if isinstance(message, wire.Outcomes):
                    guest.host.done += sum(len(outcome.values) for outcome in message.items)
        if self.callables is not None:
            self.callables.recall(event.messages)
        return event

    def _with_hosts(self, gone: set[PeerId]) -> None:
        """Report changes of hosts, and send nothing more to processes that were cut off."""
        notes, self.hosts.notes = self.hosts.notes, []
        for note in notes:
            self.tell_user(note)
        if gone:
            self._forget(gone)

    def _forget(self, gone: set[PeerId]) -> None:
        for turn in self._turns:
            turn.sends = [
                each
                for each in turn.sends
                if isinstance(each, Sweep | Discard) or each.to not in gone
            ]
        for peer in gone:
            self.links.pop(peer, None)
            self._dead.pop(peer, None)

    def _pack(self, to: PeerId, frames: list[bytes]) -> Mail:
        link = self.links.get(to)
        if link is None:
            link = self.links[to] = Link(self.run, self.broker.epoch)
        return Mail(to, link.pack(frames))

    def committed(self, number: int, journal: Reader) -> list[Mail]:
        """Return the messages to send now that all turns up to this one are durable (X1, X2)."""
        mails: list[Mail] = []
        acks: dict[PeerId, Link] = {}
        while self._turns and self._turns[0].number <= number:
            turn = self._turns.popleft()
            for peer, (link, received) in turn.acks.items():
                link.acked = received
                acks[peer] = link
            for send in turn.sends:
                if isinstance(send, Sweep):
                    self._events.append(_swept(send, journal, self.broker.config.sweep_bytes))
                elif isinstance(send, Discard):
                    self.garbage.append(send.name)
                else:
                    mails.append(self._carry_out(send, journal))
        if self.callables is not None:
            self.callables.release(number)
        # Most acknowledgements are sent with other messages or with the next sign of life.
        late = [
            (p, link) for p, link in acks.items() if link.acked - link.acked_sent >= ACK_MESSAGES
        ]
        return mails + [Mail(peer, link.beat()) for peer, link in late]

    def _carry_out(self, send: Send | SendHistory | GrantStored, journal: Reader) -> Mail:
        if isinstance(send, Send):
            return self._pack(send.to, send.frames)
        if isinstance(send, SendHistory):
            return self._pack(send.to, _page(send, journal, self.broker.config.page_bytes))
        tasks = []
        for task, where, resume in zip(send.tasks, send.args, send.resumes, strict=True):
            whole = task if where is None else _with_args(task, where, journal)
            if whole is None:
                continue  # a later turn of the same commit ended the parent and dropped the lease
            tasks.append(whole if resume is None else _with_resume(whole, resume, journal))
        return self._pack(send.to, [*send.before, wire.encode(wire.Grant(tasks))])

    def beats(self, now: float) -> list[Mail]:
        """Return the signs of life that are due."""
        if now - self._beat_at >= self.broker.config.beat_s:
            self._beat_at = self._ack_at = now
            self._forget_dead(now)
            if self.hosts.by_name:
                return [self._beat(peer, link, now) for peer, link in self.links.items()]
            return [Mail(peer, link.beat()) for peer, link in self.links.items()]
        if now - self._ack_at < ACK_S:
            return []
        self._ack_at = now
        late = [(peer, link) for peer, link in self.links.items() if link.acked_sent < link.acked]
        return [Mail(peer, link.beat()) for peer, link in late]

    def _beat(self, peer: PeerId, link: Link, now: float) -> Mail:
        """Return a sign of life; to another host's agent a ping, which it acknowledges at once."""
        host = self.hosts.pings(peer)
        if host is None:
            return Mail(peer, link.beat())
        frames = link.pack([])
        host.pings.append((link.sent, now))
        return Mail(peer, frames)

    def _forget_dead(self, now: float) -> None:
        """Drop dead peers after the time in which their last messages must have arrived.

        One that has said Hello since is not dropped: its death may be an invention of another host.
        """
        for peer in self.broker.take_dead():
            self._dead[peer] = now
        for peer in [p for p, at in self._dead.items() if now - at > self.broker.config.lease_s]:
            if peer in self.broker.members.peers:
                self._dead[peer] = now
                continue
            del self._dead[peer]
            self.links.pop(peer, None)
            if self.hosts.by_name:
                self.hosts.guests.forget(peer)

    def reconnected(self, peer: PeerId) -> list[Mail]:
        """Send again, over a new connection, what a process has not acknowledged."""
        link = self.links.get(peer)
        return [] if link is None else [Mail(peer, frames) for frames in link.again()]


def _with_args(task: wire.Task, where: StoredArgs, journal: Reader) -> wire.Task | None:
    raw = journal.get(Table.ARGS, where.key)
    if raw is None:
        return None
    args = wire.decode_up(raw)
    assert isinstance(args, wire.Args), "a foreign record in ARGS"
    part = args.args[where.offset : where.offset + where.count]
    return msgspec.structs.replace(task, args=part)


def _with_resume(task: wire.Task, where: StoredResume, journal: Reader) -> wire.Task:
    """Return the task with its item's payload, unless it was erased or belongs to another call (K1)."""
    raw = journal.get(Table.PROGRESS, where.key)
    if raw is None:
        return task
    progress = wire.decode_up(raw)
    assert isinstance(progress, wire.Progress), "a foreign record in PROGRESS"
    if progress.fingerprint + progress.digest != where.mark:
        return task
    return msgspec.structs.replace(task, resume=progress.payload)


def _page(send: SendHistory, journal: Reader, size_bytes: int) -> list[bytes]:
    """Return a page of a parent's log: outcomes, observations and checkpoints, without its calls."""
    after = ids.record_key(send.prefix, send.after)
    records = journal.read(Table.LOG, send.prefix, after, size_bytes)
    frames, upto = [], send.after
    for key, raw in records:
        seq = ids.seq_of(key)
        if seq > send.upto:
            break
        upto, after = seq, key
        if isinstance(wire.decode_logged(raw), _HISTORY):
            frames.append(raw)
    last = upto >= send.upto or not journal.read(Table.LOG, send.prefix, after, 1)
    head = wire.History(
        send.parent, send.attempt, upto, last, send.calls, send.output_bytes, send.checkpoints,
        send.dropped, send.trimmed_by, send.no,
    )  # fmt: skip
    return [wire.encode(head), *frames]


def _swept(sweep: Sweep, journal: Reader, size_bytes: int) -> Swept:
    """Return a page of records to check; each turn checks one page."""
    after = ids.record_key(sweep.prefix, sweep.after)
    found, upto, last = [], sweep.seq, True
    page = journal.read(Table.LOG, sweep.prefix, after, size_bytes)
    for key, raw in page:
        seq = ids.seq_of(key)
        if seq >= sweep.seq:
            break
        found.append((seq, wire.decode_logged(raw)))
    else:
        if page:
            upto, last = found[-1][0], False
    return Swept(sweep.parent, sweep.seq, found, upto, last)
