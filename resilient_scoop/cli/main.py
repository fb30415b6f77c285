"""`rscoop`: the group of commands, each in a module that is imported when it is called.

`rscoop run` must not wait for imports of other commands. An `RscoopError` ends a command with one
line on standard error and the exit code of its class; a bug ends it with a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from resilient_scoop._version import __version__
from resilient_scoop.adapters import collector
from resilient_scoop.cli.base import EXIT_CODES, SETTINGS
from resilient_scoop.errors import InvariantError, RscoopError
from resilient_scoop.processes.failures import limit_met

COMMANDS: Final = {
    "run": "run",
    "resume": "resume",
    "runs": "runs",
    "status": "status",
    "hosts": "hosts",
    "failures": "failures",
    "why": "why",
    "resolve": "resolve",
    "replay": "replay",
    "fork": "fork",
    "attach": "attach",
    "checkpoint": "checkpoint",
    "cancel": "cancel",
    "logs": "logs",
    "invite": "invite",
    "join": "join",
    "drain": "drain",
    "revoke": "revoke",
    "rekey": "rekey",
    "rm": "rm",
    "gc": "gc",
    "journal": "journal",
    "doctor": "doctor",
    "completion": "completion",
    "version": "version",
}
"""Commands in the order of `--help`, each with its module in `resilient_scoop.cli`."""
ALIASES: Final = {
    "list": "runs",
    "ls": "runs",
    "ps": "runs",
    "stop": "cancel",
    "prune": "gc",
    "remove": "rm",
}
_SIGINT_EXIT: Final = 130
_STDERR: Final = 2
_DISK_EXIT: Final = 74


class Rscoop(click.Group):
    """The group; loads a command on use and maps errors to exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names for `--help`; aliases are known but not listed."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return a command."""
        name = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if name is None:
            return None
        with collector.paused():
            module = importlib.import_module(f"resilient_scoop.cli.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest `run` for a script given without it."""
        word = args[0] if args else ""
        if word.endswith(".py") and self.get_command(ctx, word) is None:
            ctx.fail(f"No such command {word!r}. To run a script: rscoop run {word}")
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        windows_expand_args: bool = True,  # noqa: ARG002, FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:
        """Run one command and exit with its code."""
        try:
            code = super().main(
                args, prog_name or "rscoop", complete_var, standalone_mode=False, **extra
            )
        except InvariantError:
            raise  # the traceback is the message
        except RscoopError as error:
            click.echo(f"rscoop: {error}", err=True)
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except OSError as error:
            limit = limit_met(error)
            if limit is None:
                raise  # a bug of ours: the traceback is the message
            click.echo(f"rscoop: {limit}", err=True)
            code = _DISK_EXIT
        except click.Abort:
            code = _SIGINT_EXIT
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


@click.command(
    "rscoop",
    cls=Rscoop,
    context_settings=SETTINGS,
    epilog=f"""\b
Examples:
    rscoop run -n 8 evolve.py --generations 100
    rscoop runs
    rscoop resume
    rscoop status --json
{EXIT_CODES}
Every option can be set in the environment: RSCOOP_WORKERS=8 is `run -n 8`.""",
)
@click.option(
    "--state-dir",
    metavar="FOLDER",
    type=click.Path(readable=False),  # a wrong value is reported where it is used
    help="The folder of the runs, on a local disk.  [default: ~/.local/state/rscoop]",
)
@click.version_option(__version__, prog_name="rscoop", message="%(prog)s %(version)s")
def cli(state_dir: str | None) -> None:  # noqa: ARG001 - read by `state_folder`
    """Run Python scripts that use futures on many cores and hosts, and finish them after any crash.

    If a run ends early (a crash, a reboot, the end of a batch job), `rscoop resume` continues it:
    finished results are not computed again.

    RUN in the commands below is an id, the beginning of an id, a name, a folder, or `last` (the
    newest run). The default is `last`.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


def hold_standard_streams() -> None:
    """Reopen closed standard streams: else the next opened file would become one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)  # noqa: FBT003 - the system call takes it so
    os.close(fd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open as long as the process


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; the entry point of the `rscoop` script."""
    hold_standard_streams()
    try:
        cli.main(args, prog_name="rscoop")
    except SystemExit as end:
        if not sys.flags.inspect:
            raise
        # With -i or PYTHONINSPECT the interpreter would print a traceback, and prompt.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
    raise SystemExit(0)  # not reached: `cli.main` exits
