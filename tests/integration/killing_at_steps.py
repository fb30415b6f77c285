"""Kills a process of a run at a chosen step: one of its changes to the disk, before or after it.

`install` writes a `sitecustomize` that every process of the run imports. It counts, in the
processes of one role, from the moment when the script makes the file `armed`, each write, sync,
rename and removal of files, and each commit of the journal; at the chosen step it writes the file
`killed` and ends the process, or every process of the run, by SIGKILL. It does so once.

Three more roles are parts of a compaction; with these, journals of any size are compacted:
`compaction`, the broker's thread that commits; `remover`, its thread that removes the old file;
`copier`, the child that copies.
"""

from __future__ import annotations

from pathlib import Path

_TEXT = """
import functools, os, signal, sys, threading

_ROLE, _STEP, _WHO = os.environ["KILL_ROLE"], int(os.environ["KILL_STEP"]), os.environ["KILL_WHO"]
_FOLDER, _STATE = os.environ["KILL_FOLDER"], os.environ["RSCOOP_STATE_DIR"].encode()
_count = 0

def _all():
    for each in os.listdir("/proc"):
        if each.isdigit() and int(each) != os.getpid():
            try:
                with open(f"/proc/{each}/environ", "rb") as file: told = file.read()
                with open(f"/proc/{each}/cmdline", "rb") as file: words = file.read()
                if b"RSCOOP_STATE_DIR=" + _STATE in told.split(b"\\0") and b"resilient_scoop" in words:
                    os.kill(int(each), signal.SIGKILL)
            except OSError: pass

def _step(what):
    global _count
    if not os.path.exists(f"{_FOLDER}/armed") or os.path.exists(f"{_FOLDER}/killed"): return
    if what.split()[0] not in os.environ["KILL_SIDES"]: return
    _count += 1
    if _count == _STEP:
        with open(f"{_FOLDER}/killed", "w") as file: file.write(what)
        if _WHO == "all": _all()
        os.kill(os.getpid(), signal.SIGKILL)

def _wrap(owner, name, thread=None, most=1 << 62):
    inner = getattr(owner, name)
    left = [most]
    @functools.wraps(inner)
    def outer(*args, **more):
        other = thread not in (None, threading.current_thread().name)
        if other or not left[0]: return inner(*args, **more)
        left[0] -= 1
        _step(f"before {name}")
        done = inner(*args, **more)
        _step(f"after {name}")
        return done
    setattr(owner, name, outer)

if "resilient_scoop.processes.entry" in sys.orig_argv and _ROLE in sys.orig_argv:
    for name in ("writev", "fsync", "fdatasync", "rename", "unlink"): _wrap(os, name)
    from resilient_scoop.journal import journal
    _wrap(journal.Journal, "commit")

if _ROLE in ("compaction", "remover", "copier") and "broker" in sys.orig_argv:
    import subprocess
    from resilient_scoop.journal import compact, upkeep
    upkeep.COMPACT_BYTES_MIN, upkeep.LOOK_S = 1 << 18, 0.05
    compact.STEP_RECORDS = 4
    if _ROLE == "compaction":
        for name in ("mkdir", "fdopen", "fsync", "rename"): _wrap(os, name, "committer")
        _wrap(subprocess, "Popen", "committer")
        _wrap(compact, "open_store", "committer")
        _wrap(compact.Compaction, "_catch_up", "committer", 4)
    if _ROLE == "remover":
        for name in ("unlink", "rmdir"): _wrap(os, name, "remover")

if _ROLE == "copier" and any("resilient_scoop.journal.copy" in word for word in sys.orig_argv):
    from resilient_scoop.journal import copy
    for name in ("write", "fsync"): _wrap(os, name)
    for name in ("copy", "check_copy"): _wrap(copy, name)
"""


def install(
    folder: Path,
    environ: dict[str, str],
    role: str,
    step: int,
    who: str,
    sides: str = "before after",
) -> None:
    """Make the next run die at this step; `environ` is the environment of its commands."""
    (folder / "shim").mkdir(exist_ok=True)
    (folder / "shim" / "sitecustomize.py").write_text(_TEXT)
    for name in ("armed", "killed"):
        (folder / name).unlink(missing_ok=True)
    environ.update(
        KILL_ROLE=role, KILL_STEP=str(step), KILL_WHO=who, KILL_FOLDER=str(folder),
        KILL_SIDES=sides,
        PYTHONPATH=f"{folder / 'shim'}:{Path(__file__).parents[2]}",
    )  # fmt: skip


def killed_where(folder: Path) -> str:
    """Return the step at which the process was killed; empty if there were fewer steps."""
    file = folder / "killed"
    return file.read_text() if file.exists() else ""
