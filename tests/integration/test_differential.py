"""Random programs print the same under `rscoop` as under `python`."""

from __future__ import annotations

import pytest

from tests.integration.programs import differences
from tests.integration.runs import Place

pytestmark = pytest.mark.real


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_print_the_same_as_under_python(place: Place, seed: int) -> None:
    assert differences(place, seed) == []  # ten programs each
