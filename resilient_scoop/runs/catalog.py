"""All runs of a user: create, find by name or id, list, remove.

`<state dir>/runs/` holds one folder per run, named by the id of the run: the moment of its creation,
so that ids sort by age, can be read aloud, and a short prefix is usually
enough. A folder whose name begins with a dot is not a run: it is a draft (`.new-`, `.restore-`) or
being removed (`.gone-`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resilient_scoop.adapters.synced_files import sync_folder, write_synced
from resilient_scoop.errors import (
    JournalError,
    NoRunsError,
    RscoopError,
    RunNotFoundError,
    RunNotMadeError,
    UsageError,
)
from resilient_scoop.runs import json_text
from resilient_scoop.runs.folder import (
    RunDir,
    RunInfo,
    check_owner,
    user_name,
)
from resilient_scoop.runs.status import state_of_error

EPOCH_S: Final = 1_704_067_200
"""2024-01-01 UTC: ids count 1/1024 s from here; eight characters last 34 years."""
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no i, l, o, u, so that an id can be read aloud and typed."""
ID_LENGTH: Final = 8
_NAME: Final = re.compile(r"\w[\w.+-]{0,99}")
LAST: Final = "last"
"""Selects the newest run; no run may have this name."""
_MISTYPED: Final = str.maketrans("ilo", "110")
_DRAFT, _GONE, _RESTORE = ".new-", ".gone-", ".restore-"
_RESTORE_S: Final = 86_400.0
"""How long a restore on another host may take."""
_STEPS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One folder in the list of runs; if `info` is None, `problem` says why."""

    run: RunDir
    info: RunInfo | None
    problem: RscoopError | None = None


def state_dir(override: str | None = None) -> Path:
    """Return where runs are kept: `override` if given, else the user's state folder (XDG).

    Raises:
        UsageError: the user has no home folder, or the working directory is gone.
    """
    from platformdirs import user_state_path

    try:
        found = Path(override).expanduser() if override else user_state_path("rscoop")
        if override or found.is_absolute():
            return found.absolute()
    except (RuntimeError, FileNotFoundError):
        pass
    raise UsageError(
        "there is no folder to keep runs in: this user has no home folder (HOME is not set); choose one "
        "with --state-dir or RSCOOP_STATE_DIR"
    )


def new_id(now: float, step: int = 0) -> str:
    """Return an id for a run that begins at `now` (seconds since 1970); ids of later runs are greater.

    `step` skips ids of the same 1/1024 s.
    """
    number = max(0, int((now - EPOCH_S) * 1024)) + step
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(5 * ID_LENGTH - 5, -1, -5))


def create(
    state: Path,
    describe: Callable[[str], RunInfo],
    now: float,
    files: Mapping[str, bytes] | None = None,
) -> RunDir:
    """Create the folder of a new run; `describe` gets its id and returns its description.

    `files` are written into it.

    Raises:
        UsageError: the state folder can't be used: permissions, a file in its way; name another.
        JournalError: the disk is full or broken.
    """
    runs = state / "runs"
    draft: Path | None = None
    try:
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_keeper(state, runs)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=runs))
        for folder in ("journal", "logs"):
            (draft / folder).mkdir(mode=0o700)
        for name, data in (files or {}).items():
            write_synced(draft / name, data)
        return _publish(draft, runs, describe, now)
    except OSError as error:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        raise _translated(state, error) from error


def _check_keeper(state: Path, runs: Path) -> None:
    """Raise UsageError if the folder of runs belongs to another user, who could replace its content.

    A folder of root may be shared (sticky, like /tmp); root itself may use any folder.
    """
    found, me = runs.stat(), os.geteuid()
    if found.st_uid not in (me, 0) and me != 0:
        why = f"{runs} belongs to user {user_name(found.st_uid)}: ask its owner"
    elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        mode = f"mode {stat.S_IMODE(found.st_mode):o}"
        why = f"others may replace what is in {runs} ({mode}): chmod go-w {runs}"
    else:
        return
    raise UsageError(
        f"runs can't be kept in {state}: {why}, or choose a folder of your own with --state-dir "
        "or RSCOOP_STATE_DIR"
    )


def _is_shared(runs: Path) -> bool:
    """Return whether several users keep their runs in a folder."""
    found = runs.stat()
    return found.st_uid != os.geteuid() or bool(found.st_mode & stat.S_ISVTX)


def restore(state: Path, run_id: str, fill: Callable[[Path], None]) -> RunDir:
    """Restore a run under its id; `fill` gets an empty folder and writes the files into it.

    Raises:
        UsageError: there is a run of this id, or the state folder can't be used.
        JournalError: the disk is full or broken.
    """
    runs = state / "runs"
    final = runs / run_id
    draft: Path | None = None
    try:
        if final.exists():
            raise UsageError(
                f"run {run_id} exists ({final}); remove it first (rscoop rm {run_id}), or restore "
                f"into another folder with --state-dir"
            )
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        maker = f"{os.getpid()}@{os.uname().nodename}"
        draft = Path(tempfile.mkdtemp(prefix=f"{_RESTORE}{maker}-", dir=runs))
        fill(draft)
        (draft / "logs").mkdir(mode=0o700, exist_ok=True)
        sync_folder(draft)
        draft.rename(final)
        sync_folder(runs)
    except OSError as error:
        raise _translated(state, error) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return RunDir(final)


def list_runs(state: Path) -> list[RunEntry]:
    """Return all runs, oldest first; one whose description cannot be read is listed with the reason."""
    entries = []
    for run in _folders(state):
        try:
            entries.append(RunEntry(run, run.load()))
        except RscoopError as error:
            entries.append(RunEntry(run, None, error))
    return entries


def select(state: Path, selector: str) -> RunDir:
    """Return the selected run: `last`, an id, a unique prefix of one, a name, or a folder.

    Of several runs with the same name, the newest is selected.

    Raises:
        RunNotFoundError: nothing fits; the error names similar ones. NoRunsError: the newest run is
        asked for, and there is none. UsageError: a prefix fits several runs, which are named.
    """
    if os.sep in selector:
        return _by_folder(selector)
    typed = selector.lower().translate(_MISTYPED)
    if len(typed) == ID_LENGTH and typed.isalnum() and (state / "runs" / typed).is_dir():
        return RunDir(state / "runs" / typed)
    runs = _folders(state)
    if selector == LAST and runs:
        return runs[-1]
    if selector == LAST:
        raise NoRunsError(str(state))
    named = _names(runs)
    if selector in named:
        return named[selector]
    fits = [run for run in runs if run.id.startswith(typed)] if typed else []
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(_ambiguous(selector, fits))
    raise RunNotFoundError(selector, _nearest(selector, [run.id for run in runs], list(named)))


def remove(run: RunDir) -> None:
    """Delete a run with all its files. It stops being a run as soon as this starts.

    Raises:
        RunBusyError: it is live.
    """
    with run.hold():
        run.remove_socket_dir()
        # A run of this id may have been removed before, and restored since.
        gone = run.path.with_name(f"{_GONE}{run.id}-{secrets.token_hex(4)}")
        run.path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def check_name(name: str | None) -> None:
    """Raise UsageError for a name that could be confused with other ways to select a run."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"the name of a run is a string, not {name!r}")
    if not _NAME.fullmatch(name) or name == LAST:
        raise UsageError(
            f"{name!r} can't name a run: take letters, digits, '.', '-' and '_', "
            f"beginning with a letter or digit, and not {LAST!r}"
        )


@contextlib.contextmanager
def naming(state: Path) -> Iterator[None]:
    """Lock a name, so that it is searched and its run is created without another process in between.

    Raises:
        UsageError: the state folder can't be used.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(state / ".naming", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _translated(state, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_rests(state: Path) -> int:
    """Delete leftovers of killed starts and removals; return how many there were.

    A draft lives for milliseconds; those of this minute are left alone.
    """
    runs = state / "runs"
    if not runs.is_dir():
        return 0
    now = runs.stat().st_mtime
    fresh = now - 60
    rests = [
        path
        for path in runs.iterdir()
        if path.name.startswith(_GONE)
        or (path.name.startswith(_DRAFT) and _is_older(path, fresh))
        or (path.name.startswith(_RESTORE) and not _maker_lives(path, now))
    ]
    for path in rests:
        shutil.rmtree(path, ignore_errors=True)
    return len(rests)


def _is_older(path: Path, than: float) -> bool:
    """Return whether a folder was not changed since a time; False for one that has become a run."""
    try:
        return path.lstat().st_mtime < than
    except FileNotFoundError:
        return False


def _maker_lives(draft: Path, now: float) -> bool:
    """Return whether the process that restores a run may be alive; a restore may take long.

    Several hosts may share the folder of runs: those of others are known by their age only.
    """
    number, _, host = draft.name.removeprefix(_RESTORE).rpartition("-")[0].partition("@")
    if host and host != os.uname().nodename:
        return not _is_older(draft, now - _RESTORE_S)
    return Path("/proc", number).is_dir()


def _folders(state: Path) -> list[RunDir]:
    try:
        names = sorted(path.name for path in (state / "runs").iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(
            f"the runs in {state} can't be listed: {error.strerror}; "
            f"choose another folder with --state-dir or RSCOOP_STATE_DIR"
        ) from error
    runs = [RunDir(state / "runs" / name) for name in names if not name.startswith(".")]
    if runs and _is_shared(state / "runs"):
        return [run for run in runs if _is_mine(run.path)]  # runs of other users are skipped
    return runs


def _is_mine(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False  # it is being removed


def _by_folder(selector: str) -> RunDir:
    run = RunDir(Path(selector).expanduser().absolute())
    if not run.path.is_dir():
        raise RunNotFoundError(selector)
    check_owner(run.path)
    return run


def _names(runs: list[RunDir]) -> dict[str, RunDir]:
    found = {}
    for run in runs:
        try:
            info = run.load()
        except RscoopError:
            continue  # it can still be selected by its id
        if info.name:
            found[info.name] = run
    return found


def _ambiguous(selector: str, fits: list[RunDir]) -> str:
    lines = []
    for run in fits:
        try:
            lines.append(f"  {run.id}  {run.load().title}")
        except RscoopError as error:
            lines.append(f"  {run.id}  ({state_of_error(error)})")
    candidates = "\n".join(lines)
    return f"{selector!r} is the beginning of {len(fits)} runs; type more of it:\n{candidates}"


def _nearest(selector: str, ids: list[str], names: list[str]) -> tuple[str, ...]:
    from difflib import get_close_matches

    return tuple(
        get_close_matches(selector, [*names, *ids, *([LAST] if ids else [])], n=3, cutoff=0.5)
    )


def _publish(draft: Path, runs: Path, describe: Callable[[str], RunInfo], now: float) -> RunDir:
    for step in range(_STEPS_MAX):
        identity = new_id(now, step)
        final = runs / identity
        if final.exists():
            continue
        text = json_text.pretty(describe(identity))
        write_synced(draft / "run.json", text)
        try:
            draft.rename(final)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                continue  # another run was created first at this moment
            raise
        sync_folder(runs)
        return RunDir(final)
    shutil.rmtree(draft, ignore_errors=True)
    raise UsageError(f"{runs}: too many runs were started within one second; try again")


def _translated(state: Path, error: OSError) -> UsageError | JournalError:
    where = error.filename or state
    elsewhere = "choose another folder with --state-dir or RSCOOP_STATE_DIR"
    reason = error.strerror or str(error)
    if error.errno == errno.EFBIG:
        return RunNotMadeError(str(state), "creating a run", f"{reason} (`ulimit -f` raises it)")
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        hint = f"{reason} (`rscoop gc` removes old runs)"
        return RunNotMadeError(str(state), "creating a run", hint)
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        reason = "not a folder"
    return UsageError(f"runs can't be kept in {state}: {where}: {reason}; {elsewhere}")
