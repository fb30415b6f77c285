"""Ctrl-C while the command line is being imported ends it without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "resilient_scoop.cli.base":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
if sys.argv.pop(1) == "rscoop":
    from resilient_scoop.cli.console_script import main
    main()
runpy.run_module("resilient_scoop", run_name="__main__")
"""


@pytest.mark.parametrize("command", ["rscoop", "python -m resilient_scoop"])
def test_an_interrupt_during_the_imports_ends_the_command_silently(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, command, "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_after_the_imports_is_the_command_s() -> None:
    code = (
        "import signal\nfrom resilient_scoop.cli.console_script import ended_by_interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with ended_by_interrupts(): pass\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with ended_by_interrupts(): print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")
