"""Entry point of the `rscoop` script: Ctrl-C during the imports ends it without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """Let Ctrl-C inside end the process at once; if SIGINT is ignored, it stays ignored."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def main() -> NoReturn:
    """Run the command line."""
    with ended_by_interrupts():
        from resilient_scoop.cli.main import main as run
    run()
