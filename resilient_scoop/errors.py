"""Every error raised on purpose, in one tree.

RscoopError                 exit 1
  UsageError                a command or call cannot be executed as given         exit 2
    RunNotFoundError        no run has this name                                  exit 2
    NoRunsError             the newest run is asked for, and there is none        exit 2
    JournalPlaceError       the run folder is not a safe place for a journal      exit 2
  ReplayDivergedError       a replayed parent differs from its history            exit 70
    DiscardError            a resume would discard much computing                  exit 75
    BegunBeforeError        another call in place of one that must not run twice  exit 70
    StrangeFutureError      a state waits for a call that was not made            exit 70
  InvariantError            a bug of ours; never caught                           exit 70
  RunBusyError              the journal is in use by a live run                   exit 73
    SessionOpenError        the same process has the session open already           exit 73
  JournalError              the journal cannot be used: disk error                exit 74
    JournalDamagedError     what is stored is not what was written                exit 74
    JournalLostError        no record of it can be read                           exit 74
    JournalFullError        no space; the journal stays usable                    exit 74
    JournalGoneError        it was deleted while its run lived                     exit 74
    RunNotMadeError         no room for a new run                                 exit 74
    JournalFormatError      no journal, or one of an unknown format               exit 74
  RunStoppedError           the run was stopped and can be resumed                exit 75
  SessionClosedError        a call of a session that is closed                    exit 1
  PlaceError                a place cannot start or reach an agent                exit 75
    PlaceRefusedError       until the user changes something                      exit 75
      BrokerUnreachableError  a host reaches no address of the broker             exit 75
    PlaceBusyError          for a time                                            exit 75
      SilentServerError     a server closes connections without a word            exit 75
  CheckpointUnusableError   one generation of a checkpoint cannot be used         exit 70
    CheckpointsLostError    no generation can, and their history is dropped       exit 70
  ConstExistsError          `shared.setConst` of a name that is set (TypeError)   exit 1
  TaskError                 one call cannot deliver its value; raised in user code
    WorkerCrashedError      the item killed its worker too often
    WorkerLostError         the worker of an `idempotent=False` item was lost
    TaskTimeoutError        the item ran longer than its `timeout=` (TimeoutError)
    PicklingFailedError     a value cannot be pickled (pickle.PicklingError)
    UnpicklingFailedError   a value cannot be loaded here
    UnpicklableExceptionError   replaces an error that cannot be pickled
    ProgressRefusedError    a value given to `futures.progress` cannot be saved
    ScriptGuardError        the script makes calls while it is being imported
    MeaningError            a function refers to something that differs in a worker

A canceled future raises `concurrent.futures.CancelledError`, as everywhere in Python. Each text is
made from fields, and says what happened, to what, and what to do next. `args` mirrors the signature
of `__init__`, so that all errors can be pickled.
"""

from __future__ import annotations

import os
import pickle
import signal
from typing import ClassVar


class RscoopError(Exception):
    """Base of the tree; `except RscoopError` catches all of it and nothing else."""

    exit_code: ClassVar[int] = 1


class InvariantError(RscoopError):
    """A bug of ours; never caught."""

    exit_code = 70


class UsageError(RscoopError):
    """A command or call cannot be executed as given."""

    exit_code = 2


class RunNotFoundError(UsageError):
    """No run has this name; `nearest` are similar names."""

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(name, nearest)
        self.name = name
        self.nearest = nearest

    def __str__(self) -> str:
        text = f"there is no run {self.name!r}"
        if self.nearest:
            return f"{text}; did you mean {' or '.join(self.nearest)}?"
        return f"{text}; `rscoop runs` lists all"


class NoRunsError(RunNotFoundError):
    """The newest run is asked for, and there is none."""

    def __init__(self, folder: str) -> None:
        super().__init__("last")
        self.args = (folder,)
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"there are no runs in {self.folder}; `rscoop run SCRIPT` starts one, --state-dir and "
            "RSCOOP_STATE_DIR name another folder"
        )


class JournalPlaceError(UsageError):
    """The folder is not a safe place for a journal; nothing in it was touched."""

    def __init__(self, folder: str, why: str, advice: str) -> None:
        super().__init__(folder, why, advice)
        self.folder = folder
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.folder} cannot hold a journal: {self.why}; {self.advice}"


class ReplayDivergedError(RscoopError):
    """A replayed parent differs from its history (raised under `--strict`)."""

    exit_code = 70

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path = path
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"replay of {self.path} diverged: the journal has {self.expected}, the code now has "
            f"{self.found}; read values that vary (time, files, network) through `futures.once`, or "
            f"resume without --strict to compute it again"
        )


class StrangeFutureError(ReplayDivergedError):
    """A future in a checkpoint's state waits for a call that the changed code has not made."""

    def __str__(self) -> str:
        return (
            f"the checkpoint's state waits for {self.path}, which was made before the block; the code now "
            f"makes {self.found} there, so this outcome cannot be computed; undo the change before the "
            f"block and resume, or start a new run"
        )


class DiscardError(ReplayDivergedError):
    """A resume would discard much computing, and the user has not allowed that."""

    exit_code = 75

    def __init__(self, path: str, what: str, seconds: int) -> None:
        super().__init__(path, what, str(seconds))
        self.args = (path, what, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"the resume stopped at {self.path}: {self.expected} from what is journaled, so results that "
            f"took {self.seconds} s to compute would have to be computed again; no result is lost. "
            f"Resume with --recompute-changed to compute them again, or undo the change and resume"
        )


class BegunBeforeError(ReplayDivergedError):
    """The replay makes another call in place of one that must not be started twice."""

    def __str__(self) -> str:
        return (
            f"{self.path}: the journal has {self.expected} there, and the code now makes {self.found}. "
            "The call in the journal is idempotent=False and was started, so no call may replace it: undo "
            "the change before it and resume, or start a new run. If an argument of such a call varies "
            "(time, files, network), get it through `futures.once`"
        )


class RunBusyError(RscoopError):
    """The journal is in use by a live run."""

    exit_code = 73

    def __init__(self, directory: str, pid: int, host: str, started: str = "") -> None:
        super().__init__(directory, pid, host, started)
        self.directory = directory
        self.pid = pid
        self.host = host
        self.started = started

    def __str__(self) -> str:
        since = f" since {self.started}" if self.started else ""
        return (
            f"the journal {self.directory} is in use by process {self.pid} on {self.host}{since}; "
            f"watch it with `rscoop status`, or end it with `rscoop cancel` first"
        )


class SessionOpenError(RunBusyError):
    """This process has a session of that name open already."""

    def __init__(self, name: str) -> None:
        super().__init__("", os.getpid(), "this host")
        self.name = name

    def __str__(self) -> str:
        return (
            f"this process has session {self.name} open already: use it, or close it first (`.close()`, or "
            "`.shutdown()` of its Executor)"
        )

    def __reduce__(self) -> tuple[type[SessionOpenError], tuple[str]]:
        return type(self), (self.name,)


class JournalError(RscoopError):
    """The journal cannot be used: the disk or the system refused `what`, for `reason`."""

    exit_code = 74

    def __init__(self, directory: str, what: str, reason: str) -> None:
        super().__init__(directory, what, reason)
        self.directory = directory
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"journal {self.directory}: {self.what} failed: {self.reason}; everything acknowledged "
            f"before is kept: repair the disk, then `rscoop resume`"
        )


class RunNotMadeError(JournalError):
    """There was no space for a new run: nothing of it is left, and there is nothing to resume."""

    def __str__(self) -> str:
        return (
            f"no run was made in {self.directory}: {self.reason}; no file of it is left: free some space, "
            "then start it again"
        )


class JournalDamagedError(JournalError):
    """What is stored is not what was written; `table` and `key` name the record if one is known."""

    def __init__(
        self, directory: str, reason: str, table: str | None = None, key: bytes | None = None
    ) -> None:
        super().__init__(directory, "reading", reason)
        self.args = (directory, reason, table, key)
        self.table = table
        self.key = key

    def __str__(self) -> str:
        where = f", table {self.table}" if self.table is not None else ""
        if self.key is not None:
            where += f", key {self.key.hex()}"
        return (
            f"journal {self.directory} is damaged{where}: {self.reason}; `rscoop journal verify` "
            f"lists the damage, `rscoop journal repair` keeps every undamaged record"
        )


class JournalLostError(JournalError):
    """A journal is so damaged that no record of it can be read."""

    def __init__(self, directory: str, reason: str, run_id: str) -> None:
        super().__init__(directory, "repairing", reason)
        self.args = (directory, reason, run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"journal {self.directory} cannot be repaired, because no record of it can be read: "
            f"{self.reason}. Restore a backup (`rscoop journal restore`), or remove the run "
            f"(`rscoop rm {self.run_id}`)"
        )


class JournalFullError(JournalError):
    """There is no space; nothing of the commit was written and the journal stays usable."""

    def __str__(self) -> str:
        return (
            f"journal {self.directory}: no room for {self.what}: {self.reason}; nothing is lost: "
            f"make room (`rscoop gc`, `ulimit -f`); then the run continues, or `rscoop resume` "
            f"continues it"
        )


class JournalGoneError(JournalError):
    """The journal was removed during its run; the run is ended."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory, "a look at it", "it is gone")
        self.args = (directory,)

    def __str__(self) -> str:
        return (
            f"{self.directory} was deleted or moved during its run, so the run was ended. "
            f"If it was moved, resume the run by the folder's new name; if it was deleted, its results are "
            f"lost: start a new run"
        )


class JournalFormatError(JournalError):
    """There is no journal here, or one of an unknown format, which may be a `newer` one."""

    def __init__(self, directory: str, reason: str, newer: int = 0) -> None:
        super().__init__(directory, "opening", reason)
        self.args, self.newer = (directory, reason, newer), newer

    def __str__(self) -> str:
        return f"{self.directory} cannot be opened as a journal: {self.reason}"


class RunStoppedError(RscoopError):
    """The run was stopped before its end; no finished result is lost."""

    exit_code = 75

    def __init__(self, run: str, reason: str) -> None:
        super().__init__(run, reason)
        self.run = run
        self.reason = reason

    def __str__(self) -> str:
        return f"run {self.run} stopped: {self.reason}; to continue: rscoop resume {self.run}"


class SessionClosedError(RscoopError, RuntimeError):
    """A call or a wait of a session that is closed; no finished result is lost."""

    def __init__(self, run: str, reason: str) -> None:
        super().__init__(run, reason)
        self.run = run
        self.reason = reason

    def __str__(self) -> str:
        return f"the session {self.run} is closed: {self.reason}"


class PlaceError(RscoopError):
    """A place cannot start or reach an agent; the text names the cause and the cure."""

    exit_code = 75


class PlaceRefusedError(PlaceError):
    """A place refuses: another try can only succeed when the user has changed something."""


class BrokerUnreachableError(PlaceRefusedError):
    """A host can connect to no address of the broker: a firewall, or a wrong address."""


class PlaceBusyError(PlaceError):
    """A place refuses for a time; `retry_after_s` is when to try again, if it is known."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text, retry_after_s)
        self.text = text
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.text


class SilentServerError(PlaceBusyError):
    """A server closes connections without a word: it may be a full sshd, or no SSH server."""


class CheckpointUnusableError(RscoopError):
    """A stored checkpoint cannot be used, or its state would be wrong.

    `what` names it, `reason` says what is wrong, `advice` what would help.
    """

    exit_code = 70

    def __init__(self, what: str, reason: str, advice: str = "") -> None:
        super().__init__(what, reason, advice)
        self.what = what
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        text = f"{self.what} cannot be used: {self.reason}"
        return f"{text}; {self.advice}" if self.advice else text


class CheckpointsLostError(CheckpointUnusableError):
    """No checkpoint of a block can be used, and the results that they cover are dropped."""

    def __str__(self) -> str:
        advice = self.advice or "make it loadable again"
        return (
            f"{self.what} cannot continue: {self.reason}. The results before its checkpoints were removed, "
            f"so it cannot start from the beginning; nothing was changed: {advice}, then `rscoop resume`"
        )


class ConstExistsError(RscoopError, TypeError):
    """`shared.setConst` of a name that is set; a constant is set once per run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"the constant {self.name!r} already has another value and cannot change; read it with "
            f"`getConst({self.name!r})` or choose another name; use `futures.once` for values that vary; "
            f"if its code was edited, undo the edit, resume with --reuse-changed, or start a new run"
        )


class TaskError(RscoopError):
    """One call cannot deliver its value; other calls are not affected."""


def exit_text(code: int) -> str:
    """Return the text for the end of a process: an exit status, or minus the signal."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class WorkerCrashedError(TaskError):
    """The item was being executed each time when several workers died; it fails alone.

    `exits` holds one pair (exit, reason) per death: exit status or minus the signal, and
    "crash", "oom" or "timeout".
    """

    def __init__(self, path: str, name: str, exits: tuple[tuple[int, str], ...]) -> None:
        super().__init__(path, name, exits)
        self.path = path
        self.name = name
        self.exits = exits

    def __str__(self) -> str:
        ends = ", ".join(
            exit_text(code) + ("" if reason == "crash" else f" ({reason})")
            for code, reason in self.exits
        )
        hint = (
            "it needs more memory than its worker may use"
            if any(reason == "oom" for _, reason in self.exits)
            else "look for native code that crashes on its arguments"
        )
        return (
            f"item {self.path} ({self.name}) killed its worker {len(self.exits)} "
            f"time{'s' * (len(self.exits) > 1)}: {ends}; {hint}; to try again: "
            "`rscoop resume --retry-failed`, or Session(run=…, retry_failed=True)"
        )


class WorkerLostError(TaskError):
    """The worker of an `idempotent=False` item was lost; it may or may not have had its effect."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name)
        self.path = path
        self.name = name

    def __str__(self) -> str:
        return (
            f"item {self.path} ({self.name}) was started and its worker was lost; it is idempotent=False, "
            f"so it was not started again: check whether it had its effect"
        )


class TaskTimeoutError(TaskError, TimeoutError):
    """The item ran longer than its `timeout=` and was ended."""

    def __init__(self, path: str, timeout_s: float) -> None:
        # Not OSError's own __init__, which would take these two for errno and strerror.
        Exception.__init__(self, path, timeout_s)
        self.path = path
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return (
            f"item {self.path} ran longer than its timeout of {self.timeout_s:g} s and was ended; "
            f"raise `timeout=`, or allow `retries=`"
        )


class PicklingFailedError(TaskError, pickle.PicklingError):
    """A value cannot be pickled.

    `what` was to be sent ("argument", "function", "value", "checkpoint"), `path` is the path to the
    part that failed (`args[0].pop[3].cache.lock`), `kind` is the type of that part.
    """

    def __init__(self, what: str, path: str, kind: str, hint: str = "") -> None:
        super().__init__(what, path, kind, hint)
        self.what = what
        self.path = path
        self.kind = kind
        self.hint = hint

    def __str__(self) -> str:
        advice = self.hint or "make it where it is used, or leave it out with __getstate__"
        return f"the {self.what} cannot be pickled: {self.path} is a {self.kind}; {advice}"


class UnpicklableExceptionError(TaskError):
    """Replaces an exception that cannot be pickled; `traceback_text` is its traceback."""

    def __init__(self, type_name: str, text: str, traceback_text: str) -> None:
        super().__init__(type_name, text, traceback_text)
        self.type_name = type_name
        self.text = text
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return (
            f"{self.type_name}: {self.text} (this exception cannot be pickled, so this error "
            f"replaces it; keep locks and files out of it)\n{self.traceback_text}"
        )


class UnpicklingFailedError(TaskError, pickle.UnpicklingError):
    """A complete value cannot be loaded here; `names` are the types that it needs.

    `at_fault`: the value could not be loaded anywhere, because code that rebuilds it raised.
    """

    def __init__(self, what: str, names: str, reason: str, at_fault: bool = False) -> None:  # noqa: FBT001, FBT002 - pickled by position
        super().__init__(what, names, reason, at_fault)
        self.what = what
        self.names = names
        self.reason = reason
        self.at_fault = at_fault

    def __str__(self) -> str:
        if self.at_fault:
            of = f" (it has {self.names})" if self.names else ""
            return (
                f"the {self.what} cannot be loaded: {self.reason}{of}; pickle.loads(pickle.dumps(value)) "
                f"must work, so change __reduce__, __getstate__ or __setstate__ of its class"
            )
        needs = f" (it needs {self.names})" if self.names else ""
        return (
            f"the {self.what} cannot be loaded here: {self.reason}{needs}; define its types at the "
            f"top level of the script or in a module that every host can import"
        )


class ProgressRefusedError(TaskError):
    """A value given to `futures.progress` cannot be saved; the value saved before stays."""

    def __init__(self, path: str, why: str, advice: str) -> None:
        super().__init__(path, why, advice)
        self.path = path
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        return f"the progress of {self.path} cannot be kept: {self.why}; {self.advice}"


class ScriptGuardError(TaskError):
    """The script makes calls while a worker imports it: they would start again endlessly."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.script = script

    def __str__(self) -> str:
        return (
            f"{self.script} calls futures while it is being imported by a worker; "
            f'put these calls under `if __name__ == "__main__":` at the top level of the script (in a '
            "function, or with another name than `__name__`, workers do not see this guard)"
        )


_NAMED_MAX = 4


class MeaningError(TaskError):
    """A function refers to values that differ in a worker, and cannot be sent.

    `reasons` are clauses that say, for each of the `labels`, why it cannot be sent and what to do.
    """

    def __init__(self, function: str, labels: list[str], reasons: list[str]) -> None:
        super().__init__(function, labels, reasons)
        self.function = function
        self.labels = labels
        self.reasons = reasons

    def __str__(self) -> str:
        first = ", ".join(self.labels[:_NAMED_MAX])
        more = len(self.labels) - _NAMED_MAX
        what = f"{first} and {more} more" if more > 0 else first
        return (
            f"{self.function} was not run, because a worker does not have the script's value of {what}: "
            f"{'; '.join(self.reasons[:_NAMED_MAX])}"
        )
