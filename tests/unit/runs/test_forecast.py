"""The forecast of a resume from the records of the journal."""

from __future__ import annotations

import pytest

from resilient_scoop import ids
from resilient_scoop.core.facts.recovery import recover
from resilient_scoop.runs.forecast import Forecast, ForecastReport, FunctionForecast
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, ONCE, PLAIN, RISKY, digests, part

RUN = b"r" * 16
NOW = wire.Attempt(1, 1)


def done(  # noqa: PLR0913
    call: int, start: int, stop: int, *, fn: bytes = FN, each_s: float = 2.0, failed: tuple[int, ...] = (),
    parent: str = "0", salt: int = 0,
) -> wire.Outcomes:  # fmt: skip
    values = [b"v"] * (stop - start)
    marks = digests(*range(start, stop), salt=salt)
    spent_s = each_s * len(values) if each_s >= 0 else -1.0
    return wire.Outcomes(
        parent, [wire.Outcome(call, start, fn, marks, values, list(failed), spent_s, NOW)]
    )


def asked(*parts: wire.Part, parent: str = "0") -> wire.Calls:
    return wire.Calls(parent, NOW, list(parts))


def foretold(
    *records: wire.Logged, changed: tuple[bytes, ...] = (), retry: bool = False
) -> ForecastReport:
    keyed = [
        (ids.log_prefix(RUN, record.parent) + seq.to_bytes(8, "big"), record)
        for seq, record in enumerate(records, 1)
    ]
    state = recover(RUN, [PLAIN, RISKY], keyed, 0)
    defines = {each.fn: each for each in (PLAIN, RISKY)}
    forecast = Forecast(state, defines, changed, retry_failed=retry)
    for record in records:
        forecast.take(record)
    return forecast.result()


def only(found: ForecastReport) -> FunctionForecast:
    (function,) = found.functions
    return function


def test_results_are_reused_and_the_time_of_running_items_is_estimated_from_them() -> None:
    found = only(foretold(asked(part(0, 0, 10)), done(0, 0, 4), done(0, 6, 8, each_s=5.0)))
    assert (found.name, found.reused, found.in_flight) == ("plain", 6, 4)
    assert found.saved_s == pytest.approx(18.0)
    assert found.needed_s == pytest.approx(4 * 3.0)
    assert found.unmeasured == 0


def test_an_unmeasured_duration_is_shown_as_unknown() -> None:
    found = only(foretold(asked(part(0, 0, 3)), done(0, 0, 1, each_s=-1.0)))
    assert (found.unmeasured, found.needed_s, found.saved_s) == (2, 0.0, 0.0)


def test_results_of_changed_code_are_computed_again() -> None:
    found = only(foretold(asked(part(0, 0, 4)), done(0, 0, 3), changed=(FN,)))
    assert (found.reused, found.changed, found.in_flight) == (0, 3, 1)
    assert found.needed_s == pytest.approx(8.0)


@pytest.mark.parametrize(("retry", "reused", "needed_s"), [(False, 4, 0.0), (True, 2, 4.0)])
def test_failed_items_are_computed_again_only_on_request(
    retry: bool,  # noqa: FBT001 - a case of the table
    reused: int,
    needed_s: float,
) -> None:
    found = only(foretold(asked(part(0, 0, 4)), done(0, 0, 4, failed=(1, 3)), retry=retry))
    assert (found.failed, found.reused) == (2, reused)
    assert found.needed_s == pytest.approx(needed_s)


def test_results_that_were_replaced_count_once() -> None:
    again = part(0, 1, 3, salt=7, fresh=True, last=False)
    found = only(foretold(asked(part(0, 0, 4)), done(0, 0, 4), asked(again), done(0, 1, 2, salt=7)))
    assert (found.reused, found.in_flight, found.renewed) == (3, 1, 1)


def test_items_in_doubt_and_items_in_flight_are_distinguished() -> None:
    digest = digests(0)
    found = only(foretold(asked(part(0, 0, 2, fn=ONCE)), wire.Intent("0", 0, 0, 1, digest)))
    assert (found.name, found.in_doubt, found.in_flight) == ("risky", 1, 1)


def test_records_below_a_finished_parent_are_dropped() -> None:
    inner = "0.0[0]"
    found = foretold(
        asked(part(0, 0, 1)), asked(part(0, 0, 5), parent=inner),
        done(0, 0, 5, parent=inner), done(0, 0, 1),
    )  # fmt: skip
    assert found.total("reused") == 1
