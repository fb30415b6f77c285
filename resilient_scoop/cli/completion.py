"""`rscoop completion`: print the shell's completion script; names of runs are completed too."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import SETTINGS

SHELLS = ("bash", "zsh", "fish")


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    eval "$(rscoop completion bash)"                           in ~/.bashrc
    eval "$(rscoop completion zsh)"                            in ~/.zshrc
    rscoop completion fish > ~/.config/fish/completions/rscoop.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(*, shell: str) -> None:
    """Print a script with which SHELL completes commands and runs."""
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows {shell}"
    completion = kind(root, {}, "rscoop", "_RSCOOP_COMPLETE")
    # `source()` would run bash to ask for its version; only the script is needed here.
    click.echo(completion.source_template % completion.source_vars())
