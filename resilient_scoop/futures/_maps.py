"""Maps: a batch of many items, fed within limits, read in order or in the order of completion."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.history import Question
from resilient_scoop.futures import _engine
from resilient_scoop.futures._pending import run_callbacks
from resilient_scoop.payload import payload as codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resilient_scoop.core.parent.call import Call, OutcomeChunk
    from resilient_scoop.futures._engine import Here, Limit
    from resilient_scoop.wire.messages import Options

BUFFER = 1024
"""Number of items in progress for a map over an iterable without a length."""
_FIXED = frozenset({list, tuple, range, str, bytes, dict, set, frozenset, itertools.repeat})
"""Iterables that run no code of the user between two items."""
_CHUNK_MIN, _CHUNK_MAX = 16, 4096


class Mapping:
    """A map of the running parent: feeds its batch and returns settled items."""

    _ended = True  # there is no batch yet

    def __init__(
        self,
        at: Here,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        options: Options,
        buffersize: int | None,
    ) -> None:
        if not iterables:
            raise TypeError("map() must have at least one iterable")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or at least 1")
        self.at = at
        self.define = _engine.definition(
            function, _engine.ONE if len(iterables) == 1 else _engine.STAR, options
        )
        self._what = f"result of {self.define.name}"
        self._may_change = not _FIXED.issuperset(map(type, iterables))
        sized = any(hasattr(each, "__len__") for each in iterables)
        self._rows: Iterator[Any] = iter(
            iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)
        )
        with at.session.turn():
            self.call = _engine.open_call(at, self.define)
        self._ended = False
        self._window = buffersize or (None if sized else BUFFER)
        self._chunk = _CHUNK_MIN
        self._fed = 0
        self._exhausted = False
        self._late: Exception | None = None  # exception of the iterables after their last item
        try:
            self.feed(self._window)
        except BaseException:  # user code runs in the iterables, and during pickling
            self._end(abandoned=False)
            raise

    def feed(self, count: int | None) -> None:
        """Submit `count` more items, or all."""
        left = count
        while not self._exhausted and (left is None or left > 0):
            size = self._chunk if left is None else min(self._chunk, left)
            rows = self._read(size)
            if left is not None:
                left -= len(rows)
            _engine.add(self.at, self.call, self.define, rows, last=self._exhausted)
        if count is None or self._exhausted:
            self._rows = iter(())

    def _read(self, size: int) -> list[Any]:
        """Return the next rows, at most `size` of them."""
        if self._may_change:
            rows = self._read_one_by_one(size)
        else:
            rows = list(itertools.islice(self._rows, size))
            self._exhausted = len(rows) < size
        self._fed += len(rows)
        self._chunk = min(_CHUNK_MAX, self._chunk * 2)
        return rows

    def _read_one_by_one(self, size: int) -> list[Any]:
        """Return the next rows; each is pickled before code of the user makes the one after it.

        That code may use the same list or array again.
        """
        rows: list[Any] = []
        left = _engine.STEP_BYTES
        try:
            while len(rows) < size and left > 0:
                try:
                    row = next(self._rows)
                except StopIteration:
                    self._exhausted = True
                    break
                except Exception as error:  # user code: raised after the results before it
                    self._late, self._exhausted = error, True
                    break
                if not _engine.is_constant(row):
                    row = _engine.take(self.at, self.define, row)
                    left -= row.size
                rows.append(row)
        except BaseException:  # user code: the iterables, and pickling, run it
            _engine.discard(self.at, rows)
            raise
        return rows

    def _end(self, *, abandoned: bool) -> None:
        """End the batch, once; safe in a finalizer."""
        if not self._ended:
            self._ended = True
            self.at.parent.given_up.name(self.call, abandoned=abandoned)

    def __del__(self) -> None:
        # An iterator that was never read: its calls are computed, as in concurrent.futures.
        if not self._ended and not self.call.last:
            self._end(abandoned=False)

    def refill(self, consumed: int) -> None:
        """Keep the window full; when items are read depends only on `consumed`."""
        if self._window is not None and not self._exhausted:
            wanted = consumed + self._window - self._fed
            if wanted >= max(1, self._window // 2):
                self.feed(wanted)

    def is_over(self, index: int) -> bool:
        """Return whether there is no item `index`."""
        return self._exhausted and index >= self._fed

    def _finish(self) -> None:
        """After the last item: raise the exception of the iterables, if there was one."""
        self._ended = True
        if self._late is not None:
            late, self._late = self._late, None
            raise late

    def value(self, chunk: OutcomeChunk, index: int) -> Any:
        """Return an item's value, or raise its error."""
        payload = chunk.values[index - chunk.start]
        value = codec.loads(payload, self.at.session.store, self._what)
        if index in chunk.failed:
            raise value
        return value

    def in_order(self, timeout: float | None) -> Iterator[Any]:
        """Yield the values in the order of the arguments; an early stop gives up the rest."""
        limit = _engine.Limit.of(timeout)
        index, call = 0, self.call
        loads, store, what = codec.loads, self.at.session.store, self._what
        try:
            while True:
                self.refill(index)
                if self.is_over(index):
                    self._finish()
                    return
                chunk = self._await(index, limit, timeout)
                if chunk.failed:
                    while index < chunk.stop:
                        value = self.value(chunk, index)
                        index += 1
                        yield value
                else:  # most calls are of this kind: one step less for each item
                    values = (
                        chunk.values
                        if index == chunk.start
                        else chunk.part(index, chunk.stop).values
                    )
                    for payload in values:
                        value = loads(payload, store, what)
                        index += 1
                        yield value
                with self.at.session.turn():
                    call.chunks.remove(chunk)  # returned items are not kept
        finally:
            self._end(abandoned=True)

    def _await(self, index: int, limit: Limit | None, timeout: float | None) -> OutcomeChunk:
        at, call = self.at, self.call
        _engine.enter(at, "a map of", self.define.name)

        def settled() -> bool:
            return call.find(index) is not None

        if limit is not None:

            def live() -> bytes:
                return b"1" if _engine.block(at, settled, limit.until) else b"0"

            item = ids.item_path(at.parent.path, call.number, index)
            question = Question("map", item, rests_on=lambda _answer: ((call, index),))
            if _engine.observe(at, question, live, limit) == b"0":
                _engine.in_vain(at)
                raise TimeoutError(
                    f"item {index} of {self.define.name} has no result after {timeout} s"
                )
        if not settled():
            _engine.block(at, settled)
        run_callbacks(at)
        chunk = call.find(index)
        assert chunk is not None, "what was waited for is settled"
        return chunk

    def as_completed(self, timeout: float | None) -> Iterator[Any]:
        """Yield the values in order of completion, which is recorded; an early stop gives up the rest."""
        limit = _engine.Limit.of(timeout)
        consumed, at, call, taken = 0, self.at, self.call, Intervals()
        try:
            while True:
                self.refill(consumed)
                if self.is_over(consumed):
                    self._finish()
                    return
                _engine.enter(at, "a map of", self.define.name)
                answer = self._arrived(limit, taken)
                if not answer:
                    _engine.in_vain(at)
                    raise TimeoutError(f"{self.define.name} has results missing after {timeout} s")
                run_callbacks(at)
                for start, end in self._spans(answer):
                    taken.add(start, end)
                    stop = min(end, self._fed)  # a changed script may have fewer
                    _engine.block(at, functools.partial(self._are_settled, start, stop))
                    with at.session.turn():
                        chunks = call.take(start, stop)  # returned items are not kept
                    for chunk in chunks:
                        for index in range(chunk.start, chunk.stop):
                            consumed += 1
                            yield self.value(chunk, index)
        finally:
            self._end(abandoned=True)

    def _arrived(self, limit: Limit | None, taken: Intervals) -> bytes:
        """Return spans of items that have arrived and are not `taken`; none if it is too late."""
        at, call = self.at, self.call

        def live() -> bytes:
            _engine.block(at, lambda: bool(call.chunks), None if limit is None else limit.until)
            with at.session.turn():
                new = sorted(call.chunks, key=lambda chunk: chunk.arrival)
            return " ".join(f"{chunk.start}:{chunk.stop}" for chunk in new).encode()

        def fits(answer: bytes) -> bool:
            return bool(answer) or limit is not None  # a script may have had a time limit before

        def rests_on(answer: bytes) -> list[tuple[Call, int]]:
            if limit is None:
                return []
            spans = self._spans(answer) if answer else taken.gaps(0, self._fed)
            return [(call, index) for start, stop in spans for index in range(start, stop)]

        path = ids.batch_path(at.parent.path, call.number)
        return _engine.observe(at, Question("arrivals", path, fits, rests_on), live, limit)

    @staticmethod
    def _spans(answer: bytes) -> list[tuple[int, int]]:
        """Return the spans of items that an answer names."""
        pairs = (span.split(b":") for span in answer.split())
        return [(int(start), int(stop)) for start, stop in pairs]

    def _are_settled(self, start: int, stop: int) -> bool:
        """Return whether items are settled, starting at the first that was not."""
        while start < stop:
            chunk = self.call.find(start)
            if chunk is None:
                return False
            start = chunk.stop
        return True
