"""Pickles of earlier versions name modules and classes that have moved since."""

from __future__ import annotations

import importlib
import pickle

import pytest

from resilient_scoop import errors
from resilient_scoop.adapters import former_names


@pytest.mark.parametrize("module", sorted(former_names._NOW))
def test_each_former_module_has_a_present_one(module: str) -> None:
    importlib.import_module(former_names.current(module, "something"))


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("adapters.payload_errors", errors.UnpicklingFailedError("result", "", "gone")),
        ("adapters.payload_errors", errors.UnpicklableExceptionError("E", "text", "trace")),
        ("core.divergence", errors.DiscardError("0.1", "its code differs", 61)),
        ("core.divergence", errors.StrangeFutureError("0.1", "a future", "another call")),
    ],
)
def test_an_error_that_was_pickled_under_its_former_name_is_read(
    module: str, error: errors.RscoopError
) -> None:
    now = b"cresilient_scoop.errors\n"
    then = f"cresilient_scoop.{module}\n".encode()
    pickled = pickle.dumps(error, 0)
    assert now in pickled

    back = former_names.load(pickled.replace(now, then))

    assert type(back) is type(error)
    assert str(back) == str(error)
