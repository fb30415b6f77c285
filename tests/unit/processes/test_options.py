"""The options of the user reach each process of a run unchanged."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from resilient_scoop.processes import starting
from resilient_scoop.processes.options import DISCARD_S_MAX, Limit, RunOptions
from tests.unit.cli_runs import new

EVERYTHING = RunOptions(
    workers=3, resume=True, reuse_changed=("f",), recompute_changed=("*",), retry_failed=True,
    end_of_input=True, strict=True, quiet=True, detach=True, always_replay=True, audit=True,
    task_output=True, limit=Limit(5.0, 2.0), total=9, grid=True, hosts=2, listen=("127.0.0.1",),
    in_process=True,
)  # fmt: skip


def test_every_option_has_a_case_in_this_test() -> None:
    plain = RunOptions(workers=1)
    assert [
        name
        for name in RunOptions.__struct_fields__
        if getattr(EVERYTHING, name) == getattr(plain, name)
    ] == []


def test_a_process_reads_the_options_with_which_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new(tmp_path)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: started.append(env))
    settings = starting.settings_for(run, run.load(), EVERYTHING, adopt=True)

    starting.start("worker", settings)
    for name, value in started[0].items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)

    assert starting.take_settings() == settings
    assert settings.options == EVERYTHING


def test_only_a_resume_limits_discarded_results() -> None:
    assert RunOptions(workers=1).discard_s_max == 0.0
    assert RunOptions(workers=1, resume=True).discard_s_max == DISCARD_S_MAX


@pytest.mark.parametrize("always_replay", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_always_replay_also_stops_at_differences(*, strict: bool, always_replay: bool) -> None:
    options = RunOptions(workers=1, strict=strict, always_replay=always_replay)
    assert options.stops_at_differences is (strict or always_replay)
