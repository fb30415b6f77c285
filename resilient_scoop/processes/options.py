"""How a run is to be started or resumed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_scoop.processes import ignored_signals
from resilient_scoop.processes.starting import ChildSettings, ScriptSpec

if TYPE_CHECKING:
    from resilient_scoop.processes.launcher.stopping import Limit
    from resilient_scoop.runs.decisions import Decision
    from resilient_scoop.runs.folder import RunDir, RunInfo


DISCARD_S_MAX = 60.0
"""What a resume may throw away unasked: results that took so many seconds to compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How a run is to be started or resumed."""

    workers: int
    resume: bool = False
    reuse_changed: tuple[str, ...] = ()
    recompute_changed: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    retry_failed: bool = False
    end_of_input: bool = False
    strict: bool = False
    quiet: bool = False
    display: bool = True
    always_replay: bool = False
    audit: bool = False
    task_output: bool = False  # what tasks print is shown as it comes
    limit: Limit | None = None


def child_settings(
    run: RunDir, info: RunInfo, options: LaunchOptions, *, adopt: bool
) -> ChildSettings:
    """Return what the processes of a run are told."""
    return ChildSettings(
        run_dir=str(run.path),
        run_id=run.id,
        run=bytes.fromhex(info.uuid),
        seed=info.seed,
        streams=info.streams,
        script=script_spec(run, info),
        workers=options.workers,
        adopt=adopt,
        strict=options.strict or info.strict or options.always_replay,
        discard_s_max=DISCARD_S_MAX if options.resume else 0.0,
        reuse_changed=list(options.reuse_changed),
        recompute_changed=list(options.recompute_changed),
        retry_failed=options.retry_failed,
        keep_history=info.keep_history,
        resumed=options.resume and info.around is not None,  # older runs noted nothing of it
        end_of_input=options.end_of_input,
        tty=sys.stdout.isatty(),
        always_replay=options.always_replay,
        audit=options.audit,
        ignored=ignored_signals.ignored_here(),
    )


def script_spec(run: RunDir, info: RunInfo) -> ScriptSpec:
    """Return which program a run runs."""
    return ScriptSpec(
        script=info.script, module=info.module, argv=info.argv, cwd=info.cwd, argv0=info.argv0,
        kept=str(run.kept_script) if info.script_kept else None, first=info.first,
        flags=info.flags,
    )  # fmt: skip
