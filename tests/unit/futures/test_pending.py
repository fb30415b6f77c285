"""Futures that a parent waits for: noticed when outcomes arrive, recorded by call and item."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any, cast

from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.futures import _engine
from resilient_scoop.futures._future import Future
from resilient_scoop.futures._pending import Pending
from resilient_scoop.futures._waits import as_completed, wait
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests, outcomes

NOW = wire.Attempt(1, 1)


class Scene:
    """A parent in this process, whose outcomes the test provides."""

    def __init__(self) -> None:
        self.parent = Parent(ROOT, NOW, tell_user=lambda _: None)
        context = SimpleNamespace(
            path=ROOT, parent=self.parent, fenced=False, listeners=None, learned=0
        )
        session = SimpleNamespace(
            turn=threading.Lock, context=context, store=None, waiter=self, call_back=None
        )
        self.at = cast(
            "_engine.Here", SimpleNamespace(session=session, context=context, parent=self.parent)
        )
        self.looks = 0

    def wait(self, ready: Any, until: float | None) -> bool:
        self.looks += 1
        return bool(ready())

    def submit(self) -> Future[Any]:
        call = self.parent.begin(FN, FN)
        self.parent.add(call, digests(0), [b"arg"], last=True)
        return Future(self.at, call, "m:f")

    def settle(self, *futures: Future[Any]) -> None:
        for future in futures:
            self.parent.outcomes(outcomes(future.number, 0, 1, value=b"\x80\x05K\x07."))


def test_arrived_outcomes_are_recorded_in_order_of_arrival() -> None:
    scene = Scene()
    a, b, c = (scene.submit() for _ in range(3))
    scene.settle(c)
    pending = Pending(scene.at, [a, b, c])
    scene.settle(a)

    assert pending.look() == b"2:0 0:0"
    assert pending.take(b"2:0 0:0") == [c, a]
    assert (len(pending), pending.look()) == (1, b"")
    assert c.result() == 7


def test_a_journal_of_an_earlier_version_names_positions_in_the_list() -> None:
    scene = Scene()
    a, b, c = (scene.submit() for _ in range(3))
    scene.settle(a, b, c)
    pending = Pending(scene.at, [c, a, b])

    assert pending.take(b"2 0") == [b, c]
    assert pending.take(b"0 5") == [a]


def test_a_recorded_future_that_is_not_waited_for_is_none() -> None:
    scene = Scene()
    a, b = (scene.submit() for _ in range(2))
    pending = Pending(scene.at, [b])

    assert pending.named(b"1:0 0:0 9:0") == [b, None, None]
    assert pending.named(b"0 1") == [b, None]
    assert pending.named(b"") == []
    assert a.number == 0


def test_recorded_futures_that_a_changed_script_lacks_are_left_out() -> None:
    scene = Scene()
    a = scene.submit()
    scene.settle(a)
    assert Pending(scene.at, [a]).take(b"9:0 0:0 0:4") == [a]


def test_an_outcome_notifies_only_its_own_future() -> None:
    scene = Scene()
    futures = [scene.submit() for _ in range(50)]
    looks: list[Future[Any]] = []

    def watched(future: Future[Any], settled: Any) -> Any:
        def look() -> bool:
            looks.append(future)
            return bool(settled())

        return look

    for future in futures:
        future.settled = watched(future, future.settled)  # type: ignore[method-assign]
    pending = Pending(scene.at, futures)
    looks.clear()
    for future in futures:
        scene.settle(future)
        pending.hear()
    assert (pending.settled, len(looks)) == (50, 50)


def test_the_parent_does_not_keep_watches_without_a_reference() -> None:
    scene = Scene()
    for _ in range(20):
        Pending(scene.at, [scene.submit()])
    gc.collect()
    Pending(scene.at)
    assert len(scene.parent.calls.watches) == 1


def test_sets_iterate_in_the_order_of_calls_and_done_futures_in_the_recorded_order() -> None:
    scene = Scene()
    futures = [scene.submit() for _ in range(6)]
    behind = futures[::-1]
    assert [future.number for future in set(behind)] == list(range(6))
    ordered = [futures[place] for place in (4, 1, 5)]
    for future in ordered:
        scene.settle(future)
        future.result()

    assert list(as_completed(set(ordered))) == ordered
    done, rest = wait(set(futures), return_when="FIRST_COMPLETED")
    assert ([f.number for f in done], [f.number for f in rest]) == ([1, 4, 5], [0, 2, 3])


def test_a_notebook_shows_what_the_parent_knows_of_a_future() -> None:
    scene = Scene()
    value, error = scene.submit(), scene.submit()
    scene.settle(value)
    assert ">pending<" in value._repr_html_()  # it has arrived, but was not observed

    value.learn()
    error.settle(None, ValueError("a <b>"))

    assert ">done<" in value._repr_html_()
    assert "ValueError: a &lt;b&gt;" in error._repr_html_()
