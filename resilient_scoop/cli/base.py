"""The common parts of the commands: the state folder, parameters, options, output of JSON and notes.

Only the command line reads the environment. Every option can be set by RSCOOP_<OPTION>, whatever
its command (`RSCOOP_WORKERS=8`); options on the command line take precedence.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from resilient_scoop.counts import sized
from resilient_scoop.errors import RscoopError, UsageError
from resilient_scoop.runs import catalog, json_text
from resilient_scoop.runs.folder import RunDir

SETTINGS: Final[dict[str, Any]] = {
    "auto_envvar_prefix": "RSCOOP",
    "help_option_names": ["-h", "--help"],
    "max_content_width": 96,
}
"""Context settings of every command."""
SCHEMA: Final = 1
"""Version of the `--json` output; it rises when a field changes its meaning or is removed."""

EXIT_CODES: Final = """\b
Exit codes:
    the script's own   the script ended (1: an uncaught exception, 120: no process reads its output)
    2    the command cannot be executed as given
    70   a process of the run failed repeatedly, or the replay differs (--strict)
    73   the run is live
    74   the journal is damaged, or the disk has an error
    75   the run stopped and can be resumed: submit the job again
    129, 130, 143   stopped by SIGHUP, SIGINT, SIGTERM; the run can be resumed
"""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FUTURE: Final = re.compile(r"\s*0\s*([.\[]|$)")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def state_folder(ctx: click.Context | None = None) -> Path:
    """Return the folder of the runs; looked up only if needed."""
    root = (ctx or click.get_current_context()).find_root()
    return catalog.state_dir(root.params.get("state_dir"))


class RunParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in some
    """A run on the command line: `last`, an id, the beginning of one, a name, or a folder."""

    name = "run"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,
    ) -> RunDir:
        """Return the run; raises RunNotFoundError for a wrong name."""
        if isinstance(value, RunDir):
            return value
        return catalog.select(state_folder(ctx), value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[Any]:
        """Offer ids, newest first, with their titles, and names."""
        from click.shell_completion import CompletionItem

        try:
            entries = catalog.list_runs(state_folder(ctx))
        except RscoopError:
            entries = []
        if os.sep in incomplete or incomplete == ".":
            return [CompletionItem(incomplete, type="file")]
        offers = {"last": "the newest run"}
        for entry in reversed(entries):
            info = entry.info
            offers[entry.run.id] = info.title if info else "damaged"
            if info and info.name:
                offers.setdefault(info.name, info.title)
        return [
            CompletionItem(word, help=title)
            for word, title in offers.items()
            if word.startswith(incomplete)
        ]


class DurationParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer versions of click
    """A duration in seconds, typed as 90s, 5m, 1h30m, 30d or HH:MM:SS."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        seconds = parse_duration(str(value))
        if seconds is None:
            self.fail(
                f"{value!r} is not a duration; write 90s, 5m, 1h30m, 30d or HH:MM:SS", param, ctx
            )
        return seconds


class RunOrPathParam(RunParam):
    """A run, or the path of an item if the run was left out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the run, or the typed path."""
        if isinstance(value, str) and _FUTURE.match(value):
            return value
        return super().convert(value, param, ctx)


RUN = RunParam()
DURATION = DurationParam()


def run_argument(command: _Command) -> _Command:
    """Give a command its RUN argument; left out, it is the newest run."""
    return click.argument("run", type=RUN, metavar="[RUN]", default=catalog.LAST)(command)


def run_and_path_arguments(command: _Command) -> _Command:
    """Give a command RUN and ID, each of which may be left out; see `run_and_path`."""
    path = click.argument("path", metavar="[ID]", required=False)
    run = click.argument("run", type=RunOrPathParam(), metavar="[RUN]", default=catalog.LAST)
    return run(path(command))


def run_and_path(run: RunDir | str, path: str | None) -> tuple[RunDir, str | None]:
    """Return the selected run and path: a path alone belongs to the newest run."""
    if isinstance(run, RunDir):
        return run, path
    if path is not None:
        raise UsageError(f"{run!r} is the ID of an item, not a run; write RUN first, then ID")
    return catalog.select(state_folder(), catalog.LAST), run


def run_and_host_arguments(command: _Command) -> _Command:
    """Give a command RUN and HOST; RUN may be left out."""
    host = click.argument("host", metavar="HOST", required=False)
    run = click.argument(
        "run", type=click.UNPROCESSED, metavar="[RUN]", shell_complete=RUN.shell_complete
    )
    return run(host(command))


def run_and_host(run: str, host: str | None) -> tuple[RunDir, str]:
    """Return the selected run and the host's name: a single word is a host of the newest run."""
    if host is None:
        return catalog.select(state_folder(), catalog.LAST), run
    return catalog.select(state_folder(), run), host


def file_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG001 - click's signature
    """Make the shell complete names of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def determinism_options(command: _Command) -> _Command:
    """Give a command the flags that find what would differ in a replay."""
    audit = click.option(
        "--audit", is_flag=True,
        help="Report code of the script, and of tasks that make calls, that may differ in a replay: "
        "clocks, UUIDs, random bytes, file writes, sockets and child processes outside of futures.once.",
    )  # fmt: skip
    always = click.option(
        "--always-replay", is_flag=True,
        help="For tests: replay the script, and every task that makes calls, whenever it has waited, "
        "and stop (70) at the first difference, which would otherwise appear only after a crash. Slow.",
    )  # fmt: skip
    return audit(always(command))


def task_output_option(command: _Command) -> _Command:
    """Give a command its --task-output flag."""
    text = "Show the output of tasks live, on standard error; `rscoop logs` shows it afterwards."
    return click.option("--task-output", is_flag=True, help=text)(command)


def json_option(command: _Command) -> _Command:
    """Give a command its --json flag."""
    text = "Print one JSON value on standard output."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def print_json(value: Any) -> None:
    """Print one JSON value, a struct or a list of them."""
    sys.stdout.write(json_text.pretty(value).decode() + "\n")


def note(text: str) -> None:
    """Write a message to standard error; standard output is for the result of the command."""
    click.echo(f"rscoop: {text}", err=True)


def parse_duration(text: str) -> float | None:
    """Return the seconds of `90s`, `1h30m` or `HH:MM:SS`, or None."""
    if re.fullmatch(r"\d+:\d\d:\d\d", text):
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600.0 + int(minutes) * 60 + int(seconds)
    if not text or _DURATION.sub("", text):
        return None
    return sum(float(count) * _UNITS_S[unit] for count, unit in _DURATION.findall(text))


def utc(at: float) -> str:
    """Return an instant (seconds since 1970) as RFC 3339."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


size = sized
