"""Programs drawn at random print under `rscoop` what they print under `python`."""

from __future__ import annotations

import pytest

from tests.integration.programs import differences
from tests.integration.runs import Place

pytestmark = pytest.mark.real


@pytest.mark.parametrize("seed", range(6))
def test_programs_print_what_python_prints(place: Place, seed: int) -> None:
    assert differences(place, seed) == []  # ten programs each
