"""Places made from the options of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.hosts.base import Unit, UnitState
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.make import SshOptions, make_place


@pytest.mark.parametrize("text", [None, "Port many"])
def test_an_unusable_configuration_refuses_the_host_and_not_the_run(
    tmp_path: Path, text: str | None
) -> None:
    if text:
        (tmp_path / "config").write_text(text)
    place = make_place(Host("alice"), SshOptions(config_file=str(tmp_path / "config")), "run1")
    with pytest.raises(PlaceRefusedError, match=r"^alice: .*SSH configuration"):
        place.start(1, b"{}", tag="t1")
    with pytest.raises(PlaceRefusedError):
        place.route()
    unit = Unit("t1", "t1/x", "alice")
    assert place.look([unit])[unit].state is UnitState.UNKNOWN
    place.close()
