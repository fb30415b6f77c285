"""What blocks a run: all its hosts were drained or revoked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from resilient_scoop.runs.executing import ExecutingProcess
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.hosts import (
    LIVE_FILE,
    HostReport,
    HostsFile,
    LiveHost,
    LiveHostsFile,
    write_hosts,
)
from resilient_scoop.runs.troubles import troubles

ORIGIN = ExecutingProcess("origin", 1, "", 0.0)
WORKER = ExecutingProcess("w0", 1, "", 0.0)


def told(run: Path, state: str, everybody: list[ExecutingProcess], live: str = "") -> list[str]:
    write_hosts(run, HostsFile(0.0, [HostReport(name="a", state=state)]))
    hosts = {"a": LiveHost(state=live)} if live else {}
    (run / LIVE_FILE).write_bytes(msgspec.json.encode(LiveHostsFile(0.0, hosts)))
    return troubles(RunDir(run), everybody)


@pytest.mark.parametrize("state", ["drained", "revoked"])
def test_a_run_waits_for_a_host_when_all_were_drained_or_revoked(
    tmp_path: Path, state: str
) -> None:
    (text,) = told(tmp_path, state, [ORIGIN])
    assert text.startswith(f"no host is left that may compute: a was {state}.")


def test_a_run_with_a_worker_here_does_not_wait_for_hosts(tmp_path: Path) -> None:
    assert not told(tmp_path, "drained", [ORIGIN, WORKER])


def test_a_host_that_is_being_drained_still_computes(tmp_path: Path) -> None:
    assert not told(tmp_path, "drained", [ORIGIN], live="draining")


def test_a_host_that_is_starting_may_still_arrive(tmp_path: Path) -> None:
    assert not told(tmp_path, "starting", [ORIGIN])
