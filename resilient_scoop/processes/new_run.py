"""The description of a new run: what this interpreter and this host are, and what the caller adds."""

from __future__ import annotations

import os
import sys
from typing import Any

from resilient_scoop.processes.starting import interpreter_flags
from resilient_scoop.runs.folder import RunInfo, user_name
from resilient_scoop.runs.surroundings import look
from resilient_scoop.runs.versions import installed_versions
from resilient_scoop.task_state.rng import RULES


def describe_run(run_id: str, created_at: float, **more: Any) -> RunInfo:
    """Return the description of a new run that this process starts.

    `created_at` is in seconds since 1970; `more` are the other fields of `RunInfo`.
    """
    return RunInfo(
        id=run_id,
        uuid=os.urandom(16).hex(),
        flags=interpreter_flags(),
        around=look(os.environ),
        python=sys.executable,
        python_version=sys.version.split()[0],
        versions=installed_versions(),
        streams=RULES,
        created_at=created_at,
        host=os.uname().nodename,
        user=user_name(os.geteuid()),
        **more,
    )
