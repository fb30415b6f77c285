"""The environment, umask and limits with which a run began, and how a resume restores them.

| what | at a resume |
| --- | --- |
| environment | the run's, except the two kinds below; `--env NAME=VALUE` changes it |
| of it: a terminal's, a login's, a batch job's (`TERM`, `SSH_*`, `SLURM_*`, `TMPDIR`, …) | this shell's |
| of it: secrets by their names (`*TOKEN*`, `*SECRET*`, `*KEY*`, …) | this shell's: they are not stored |
| umask | the run's |
| soft resource limits | the run's, as far as this shell's hard limits allow |

Limits are those of this shell with `--new-limits`, and if the run stopped because it had reached
one. Differences are reported. The working directory and the interpreter's options are in `RunInfo`.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from resilient_scoop.errors import UsageError
from resilient_scoop.identity.secret_names import SECRET
from resilient_scoop.runs.json_text import printable

_HERE: Final = re.compile(
    r"""
    _ | SHLVL | OLDPWD | PS[0-9] | PROMPT_COMMAND | MAIL | HOSTNAME | HISTFILE
    | TERM | TERMCAP | TERMINFO | TERM_.* | COLORTERM | COLUMNS | LINES | LS_COLORS | LESS.* | PAGER
    | NO_COLOR | FORCE_COLOR | CLICOLOR.* | DISPLAY | WAYLAND_.* | XAUTHORITY | WINDOWID | WINDOW
    | TMUX.* | STY | VTE_.* | KONSOLE_.* | KITTY_.* | ITERM_.* | VSCODE_.*
    | SSH_.* | GPG_.* | DBUS_.* | KRB5CCNAME | XDG_RUNTIME_DIR | XDG_SESSION_.* | XDG_SEAT.* | XDG_VTNR
    | INVOCATION_ID | JOURNAL_STREAM | LISTEN_.* | NOTIFY_SOCKET | SYSTEMD_.*
    | TMPDIR | TMP | TEMP
    | SLURM_.* | SLURMD_.* | PBS_.* | SGE_.* | JOB_ID | LSB_.* | LSF_.* | OMPI_.* | PMI_.* | PMIX_.*
    | (CUDA|NVIDIA|ROCR|HIP)_VISIBLE_DEVICES | GPU_DEVICE_ORDINAL
    | RSCOOP_(?!AS_SCOOP$).* | PYTEST_.*
    """,
    re.VERBOSE,
)
_LOGIN_IN_URL: Final = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
_LIMITS: Final = {
    name.removeprefix("RLIMIT_").lower(): int(getattr(resource, name))
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
_HASH_SEED_MAX: Final = 2**32 - 1
_NAMED_MAX, _SHOWN_MAX = 6, 40


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """The surroundings of a run at its start."""

    environ: dict[str, str] = {}
    withheld: list[str] = []  # names of variables that look like secrets
    umask: int = 0o022
    limits: dict[str, int] = {}  # soft ones, by name in small letters; -1: none


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable must not be written to a disk."""
    return bool(SECRET.search(name) or _LOGIN_IN_URL.search(value))


def is_of_shell(name: str) -> bool:
    """Return whether a variable belongs to a terminal, a login or a job, and not to a run."""
    return _HERE.fullmatch(name) is not None


def look(environ: Mapping[str, str]) -> Surroundings:
    """Return the surroundings of this process."""
    mine = {name: value for name, value in environ.items() if not is_of_shell(name)}
    withheld = {name for name, value in mine.items() if is_secret(name, value)}
    umask = os.umask(0o077)
    os.umask(umask)
    return Surroundings(
        environ={name: value for name, value in sorted(mine.items()) if name not in withheld},
        withheld=sorted(withheld),
        umask=umask,
        limits={name: resource.getrlimit(number)[0] for name, number in _LIMITS.items()},
    )


def parse(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `--env` sets: `NAME=VALUE`, or `NAME` for the value in this shell.

    Raises:
        UsageError: it has no name, or the variable is not set here.
    """
    found = {}
    for word in words:
        name, given, value = word.partition("=")
        if not name:
            raise UsageError(f"--env {word}: write NAME=VALUE, or NAME for its value in this shell")
        if not given and name not in environ:
            raise UsageError(f"--env {name}: it is not set in this shell; write {name}=VALUE")
        if name == "PYTHONHASHSEED" and not _is_hash_seed(value if given else environ[name]):
            raise UsageError(
                f"--env {word}: Python takes a number from 0 to {_HASH_SEED_MAX}, or random"
            )
        found[name] = value if given else environ[name]
    return found


def _is_hash_seed(value: str) -> bool:
    is_number = value.isascii() and value.isdecimal()
    return value in ("", "random") or (is_number and int(value) <= _HASH_SEED_MAX)


def restored(
    then: Surroundings, here: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a resume, from that of its run, of this shell, and of `--env`."""
    kept = {
        name: value
        for name, value in here.items()
        if is_of_shell(name) or is_secret(name, value) or name in then.withheld
    }
    return {**kept, **then.environ, **given}


def differences(then: Surroundings, here: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """Return, for display, the differences between the environment of a resume and of this shell."""
    now = restored(then, here, given)
    found = [
        f"{name}={_short(now.get(name))} (here {_short(here.get(name))})"
        for name in sorted({*now, *here} - {"PWD", *given})  # the folder is always that of the run
        if now.get(name) != here.get(name)
    ]
    notes = []
    if found:
        more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
        notes.append(
            f"the run's environment is used, not this shell's: {', '.join(found[:_NAMED_MAX])}{more}; "
            "--env NAME=VALUE changes it"
        )
    gone = [name for name in then.withheld if name not in now]
    if gone:
        notes.append(
            f"{', '.join(gone)} {'was' if len(gone) == 1 else 'were'} set when the run began; secrets "
            "are not stored: set what the script needs in this shell"
        )
    return notes


def restore(
    then: Surroundings, given: Mapping[str, str], *, limits: bool, met: bool = False
) -> list[str]:
    """Give this process, and its children, the surroundings of a run; return messages.

    Without `limits`, resource limits stay those of this shell; `met`: because the run reached one.
    """
    here = dict(os.environ)
    notes = differences(then, here, given)
    now = restored(then, here, given)
    for name in here.keys() - now.keys():
        del os.environ[name]
    os.environ.update(now)
    before = os.umask(then.umask)
    if before != then.umask:
        notes.append(f"the run's umask is used: {then.umask:03o} (here {before:03o})")
    return notes + (_restore_limits(then) if limits else _new_limits(then, met=met))


def _new_limits(then: Surroundings, *, met: bool) -> list[str]:
    """Return, for display, the differences between the limits of this shell and of the run."""
    pairs = {
        name: (resource.getrlimit(_LIMITS[name])[0], soft)
        for name, soft in then.limits.items()
        if name in _LIMITS
    }
    found = [
        f"{name} {_amount(now)} (the run's {_amount(soft)})"
        for name, (now, soft) in pairs.items()
        if now != soft
    ]
    why = ", because the run reached one of its own" if met else ""
    if found:
        return [f"this shell's resource limits are used{why}: {', '.join(found)}"]
    if met:
        return [
            "the run reached a resource limit, and this shell has the same limits: `ulimit` raises them"
        ]
    return []


def _restore_limits(then: Surroundings) -> list[str]:
    used, refused = [], []
    for name, soft in then.limits.items():
        number = _LIMITS.get(name)
        if number is None:
            continue  # of another system
        now, hard = resource.getrlimit(number)
        if now == soft:
            continue
        text = f"{name} {_amount(soft)} (here {_amount(now)})"
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):
            refused.append(text)
        else:
            used.append(text)
    notes = []
    if used:
        notes.append(
            f"the run's resource limits are used: {', '.join(used)}; --new-limits takes this shell's"
        )
    if refused:
        notes.append(
            f"these resource limits were higher when the run began, and this shell's hard limits forbid "
            f"that: {', '.join(refused)}"
        )
    return notes


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    text = value if len(value) <= _SHOWN_MAX else f"{value[:_SHOWN_MAX]}…"
    return repr(printable(text))


def _amount(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
