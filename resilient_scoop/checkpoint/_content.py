"""What a checkpoint holds besides the user's state, and how its futures and streams are restored.

Pickles name the functions `state`, `future` and `stream` of this module: they are part of the
format. Loading a state changes nothing outside of it; `Loading.apply` changes the parent after
everything was loaded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_scoop.checkpoint._state import State
from resilient_scoop.errors import CheckpointUnusableError
from resilient_scoop.futures._future import BatchPlace, Future, Kept
from resilient_scoop.payload import payload, unpicklable_path
from resilient_scoop.states import codec
from resilient_scoop.task_state import rng

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.futures._engine import Here

Mark = str | int


@dataclass(slots=True)
class Saving:
    """One state that is being pickled."""

    at: Here
    pending: set[int] = field(default_factory=set)  # calls
    streams: set[Mark] = field(default_factory=set)  # streams that the state itself holds

    def dumps(self, value: Any, what: str) -> codec.Dumped:
        """Return the bytes of a state and of all streams.

        Raises:
            PicklingFailedError: something in the state cannot be saved.
        """
        book = self.at.context.rngs
        more = (tuple(rng.save()), None if book is None else book.save())
        return codec.dumps(value, more, self._own(), what, "state")

    def _own(self) -> dict[type, Callable[[Any], Any]]:
        return {
            State: lambda each: (state, (), vars(each)),
            Future: self._future,
            random.Random: self._random,
            **({rng.numpy_class(): self._random} if rng.numpy_is_used() else {}),
        }

    def load_back(self, value: Any, content: bytes | memoryview, what: str) -> None:
        """Check that the result of `dumps` can be loaded.

        Raises:
            CheckpointUnusableError: it cannot; the text names the part of the state.
        """
        loading = Loading(None)
        try:
            loading.loads(content, what)
        except CheckpointUnusableError as error:
            culprit = loading.find_unloadable(value, self._own())
            reason = f"{error.reason}, when {culprit.path}, a {culprit.kind}, was loaded back"
            advice = error.advice or "correct how it is pickled, or leave it out with __getstate__"
            raise CheckpointUnusableError(what, reason, advice) from error

    def _future(self, each: Future[Any]) -> Any:
        kept = each.keep(self.at)
        if kept.place is not None and kept.payload is None:
            self.pending.add(kept.place.call)
        if kept.error is not None:
            packed = payload.dumps_exception(kept.error, f"future {kept.path}")
            return future, tuple(kept._replace(error=None, payload=packed, failed=True))
        fields = kept._replace(callbacks=list(kept.callbacks))
        if kept.place is None:
            return future, tuple(fields)
        return future, tuple(tuple(each) if each is kept.place else each for each in fields)

    def _random(self, obj: Any) -> Any:
        book = self.at.context.rngs
        mark = None if book is None else book.mark_of(obj)
        if mark is None:
            return NotImplemented
        self.streams.add(mark)
        return stream, (mark, rng.state_of(obj))


@dataclass(slots=True)
class Loading:
    """One state that is being loaded: to continue from it, or, without `at`, only to check it."""

    at: Here | None
    futures: list[tuple[Future[Any], Kept]] = field(default_factory=list)
    streams: dict[Mark, tuple[Any, Any]] = field(default_factory=dict)
    learned: int = 0  # position of the last future that its parent knew
    more: Any = None

    def loads(self, content: bytes | memoryview, what: str) -> Any:
        """Return the state.

        Raises:
            CheckpointUnusableError: it cannot be loaded, or would be wrong.
        """
        _loading.append(self)
        try:
            value, self.more = codec.loads(content, what)
        finally:
            _loading.pop()
        return value

    def find_unloadable(
        self, value: Any, own: dict[type, Callable[[Any], Any]]
    ) -> unpicklable_path.Culprit:
        """Return the part of a state that can be saved but not loaded."""
        _loading.append(self)
        try:
            return codec.find_unloadable(value, own, "state")
        finally:
            _loading.pop()

    def apply(self) -> None:
        """Restore the streams, and make the futures wait again."""
        assert self.at is not None, "only loaded to see that it can be"
        at, (streams, book) = self.at, self.more
        if book is not None and at.context.rngs is None:
            at.context.rngs = rng.StreamBook()
        if at.context.rngs is not None and book is not None:
            at.context.rngs.restore(book)
            for mark, (obj, position) in self.streams.items():
                rng.put_state(obj, position)
                at.context.rngs.adopt(mark, obj)
        at.context.learned = max(at.context.learned, self.learned)
        for each, kept in self.futures:
            each.revive(at, kept)
        rng.bring_back(rng.Streams(*streams))

    def stream(self, mark: Mark, position: Any) -> Any:
        """Return the stream of a mark: the same object, if the parent has obtained it already."""
        if mark not in self.streams:
            book = None if self.at is None else self.at.context.rngs
            found = None if book is None else book.find(mark)
            made = rng.empty_stream(position) if found is None else found
            self.streams[mark] = (made, position)
        return self.streams[mark][0]


_loading: list[Loading] = []


def state() -> State:
    """Return an empty state, to be filled."""
    return State()


def stream(mark: Mark, position: Any) -> Any:
    """Return the stream that was obtained under a mark."""
    return _loading[-1].stream(mark, position)


def future(*fields: Any) -> Future[Any]:
    """Return a saved future."""
    kept = Kept(*fields)
    if kept.place is not None:
        kept = kept._replace(place=BatchPlace(*kept.place))
    elif kept.payload is not None:
        kept = kept._replace(error=payload.loads(kept.payload), payload=None)
    made = Future.kept(kept)
    _loading[-1].learned = max(_loading[-1].learned, kept.turn)
    if kept.place is not None:
        _loading[-1].futures.append((made, kept))
    return made
