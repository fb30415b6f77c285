"""The settings of a process of a run, and its start.

The settings travel in one environment variable, which the child takes out of its environment before
user code runs; nothing secret is in them. The command line names role and run, for `ps`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.processes import REFUSAL_REPORTED, ignored_signals, leftovers
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.runs import json_text

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from resilient_scoop.runs.folder import RunDir, RunInfo

LOCAL: Final = "local"
"""Name of the run's own host."""
_VARIABLE: Final = "RSCOOP_CHILD"
_PYTHONPATH_GIVEN: Final = "RSCOOP_PYTHONPATH_GIVEN"
_HASH_SEED: Final = "PYTHONHASHSEED"
_PDEATHSIG: Final = 1
_AGENTS: Final = ("agent", "remote-agent")
_FLAGS: Final = {
    "debug": "d", "dont_write_bytecode": "B", "optimize": "O", "no_site": "S", "verbose": "v",
    "bytes_warning": "b", "quiet": "q", "isolated": "I",
}  # fmt: skip
_ISOLATION: Final = {"no_user_site": "s", "ignore_environment": "E", "safe_path": "P"}


class ScriptSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The program of a run."""

    script: str | None = None
    module: str | None = None
    argv: list[str] = []
    cwd: str = "."
    argv0: str = ""  # as it was typed
    kept: str | None = None  # the copy of a script that can be read only once
    first: str | None = None  # first on `sys.path`, if the script's path does not determine it
    flags: list[str] = []  # of the interpreter


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a broker, agent, origin or worker."""

    run_dir: str
    run_id: str
    run_key: str  # `RunDir.key`: identifies the run
    run: bytes  # 16 bytes
    seed: int
    hash_seed: str = ""  # PYTHONHASHSEED, if the user has set it to a number
    streams: int = 1  # how random streams are made (`task_state.rng.RULES`)
    script: ScriptSpec
    options: RunOptions
    name: str = ""
    incarnation: bytes = b""
    mark: str = ""  # mark that its children inherit (`processes.leftovers`)
    record_fd: int = -1
    stdin_fd: int = -1  # the origin's end of the script's standard input (`processes.origin.stdin`)
    stdin_source: bytes = b""
    resumed: bool = False
    errors_fd: int = -1  # an agent's: the launcher's end of its standard error, held and not read
    screen_fd: int = -1  # the same of its standard output, if that is a terminal
    control_fd: int = -1  # an agent's: end of file means that the launcher is gone
    node: str = LOCAL  # the host's name in the run
    node_number: int = 0  # and its number; 0: the host of the launcher
    ticket_fd: int = -1  # an agent's on another host: its ticket (`transport.tickets`)
    orphan_timeout_s: float | None = None  # how long such an agent lives without a broker
    adopt: bool = False
    keep_history: bool = False
    crashes_max: int = 3
    lease_s: float = 10.0
    stop_grace_s: float = 3.0
    tty: bool = False
    ignored: list[int] = []  # signals that the launcher was started to ignore
    careful: bool = False  # a worker starts none of the script's calls while one of them waits
    may_be_freed: bool = True  # a careful worker may end again because C code waits

    @property
    def is_remote(self) -> bool:
        """Whether this process is on another host than the run."""
        return self.node != LOCAL


def settings_for(run: RunDir, info: RunInfo, options: RunOptions, *, adopt: bool) -> ChildSettings:
    """Return the settings for the processes of a run."""
    return ChildSettings(
        run_dir=str(run.path),
        run_id=run.id,
        run_key=run.key(info),
        run=bytes.fromhex(info.uuid),
        seed=info.seed,
        hash_seed=given_hash_seed(info, os.environ),
        streams=info.streams,
        script=script_spec(run, info),
        options=options,
        adopt=adopt,
        keep_history=info.keep_history,
        resumed=options.resume and info.around is not None,  # older runs did not record it
        tty=sys.stdout.isatty(),
        ignored=ignored_signals.ignored_here(),
    )


def script_spec(run: RunDir, info: RunInfo) -> ScriptSpec:
    """Return the program of a run."""
    return ScriptSpec(
        script=info.script, module=info.module, argv=info.argv, cwd=info.cwd, argv0=info.argv0,
        kept=str(run.kept_script) if info.script_kept else None, first=info.first,
        flags=info.flags,
    )  # fmt: skip


def take_settings() -> ChildSettings:
    """Return the settings of this process and remove them from the environment."""
    text = os.environ.pop(_VARIABLE)
    given = os.environ.pop(_PYTHONPATH_GIVEN, None)
    if given is not None:
        os.environ["PYTHONPATH"] = given
    return json_text.decode(text, ChildSettings)


def interpreter_flags() -> list[str]:
    """Return the options of this interpreter that affect user code."""
    flags = sys.flags
    found = [
        f"-{letter * int(getattr(flags, name))}"
        for name, letter in _FLAGS.items()
        if getattr(flags, name)
    ]
    if not flags.isolated:
        found += [f"-{letter}" for name, letter in _ISOLATION.items() if getattr(flags, name)]
    found += [word for option in sys.warnoptions for word in ("-W", option)]
    for name, value in sys._xoptions.items():  # noqa: SLF001 - documented, for CPython
        found += ["-X", name if value is True else f"{name}={value}"]
    return found


def absolute_path(text: str, cwd: str) -> str:
    """Return a PYTHONPATH whose entries mean the same in any folder; an empty one is `cwd` itself."""
    return os.pathsep.join(os.path.join(cwd, entry) for entry in text.split(os.pathsep))  # noqa: PTH118 - strings, as the import system has them


def hash_seed(seed: int) -> str:
    """Return the PYTHONHASHSEED of a run's user processes: sets come in the same order everywhere."""
    return str(seed % 4294967295 + 1)


def given_hash_seed(info: RunInfo, environ: Mapping[str, str]) -> str:
    """Return the hash seed that the user has set to a number; empty: the run has one of its own."""
    given = environ.get(_HASH_SEED, "")
    # Processes of version 0.1 ignored it.
    return given if info.around is not None and given != "random" else ""


def _begin(parent: int, at_its_end: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent thread ends; ignore signals until then."""
    import ctypes  # already loaded: `start` has imported it

    ignored_signals.ignore()
    ctypes.CDLL(None).prctl(_PDEATHSIG, at_its_end)
    if os.getppid() != parent:
        os._exit(1)


def start(  # noqa: PLR0913 - the streams are three, as everywhere
    role: str,
    settings: ChildSettings,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    user_code: bool = False,
    refusal_reported: bool = False,
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of the run, in its own session, so that it does not get the terminal's Ctrl-C.

    It dies with this process; only an agent ends by itself, after ending processes of tasks, and is
    continued for that if it was stopped. Raises OSError if the system refuses another process.
    """
    import ctypes  # noqa: F401 - not in the new process, between fork and exec
    import subprocess  # only the launcher and agents start processes; each import takes 2 ms

    environ = _environ(settings, user_code=user_code)
    if refusal_reported:
        environ[REFUSAL_REPORTED] = "1"
    parent = os.getpid()
    at_its_end = signal.SIGCONT if role in _AGENTS else signal.SIGKILL
    return subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
        _command(role, settings, user_code=user_code),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environ,
        cwd=cwd,
        start_new_session=True,
        pass_fds=_descriptors(settings),
        preexec_fn=lambda: _begin(parent, at_its_end),  # noqa: PLW1509 - no threads run yet here
    )


def _environ(settings: ChildSettings, *, user_code: bool) -> dict[str, str]:
    """Return the environment of a new process, which holds its settings."""
    environ = dict(os.environ)
    environ[_VARIABLE] = json_text.encode(settings).decode()
    path = environ.get("PYTHONPATH")
    if path:
        # Our processes start in another folder, so that we import nothing from the user's folder.
        environ["PYTHONPATH"] = absolute_path(path, settings.script.cwd)
        environ[_PYTHONPATH_GIVEN] = path
    environ["RSCOOP_RUN_ID"] = settings.run_id
    environ.pop("PYTHONINSPECT", None)  # no process of a run can become an interactive interpreter
    if user_code:
        environ[leftovers.VARIABLE] = settings.mark
        environ[_HASH_SEED] = settings.hash_seed or hash_seed(settings.seed)
        for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB", "NUMBA", "BLIS"):
            environ.setdefault(f"{library}_NUM_THREADS", "1")
    return environ


def _command(role: str, settings: ChildSettings, *, user_code: bool) -> list[str]:
    """Return the command of a new process."""
    flags = settings.script.flags if user_code else ["-W", "ignore"]  # no warning can end them
    entry = ["-m", "resilient_scoop.processes.entry", role, settings.run_key]
    return [sys.executable, *flags, *entry, *([settings.name] if settings.name else [])]


def _descriptors(settings: ChildSettings) -> list[int]:
    """Return the descriptors that a new process gets, besides its standard streams."""
    named = (
        settings.record_fd, settings.control_fd, settings.ticket_fd, settings.stdin_fd,
        settings.errors_fd, settings.screen_fd,
    )  # fmt: skip
    return [fd for fd in named if fd >= 0]
