"""`python -m resilient_scoop`: see `resilient_scoop.cli.compat`."""

from __future__ import annotations

import sys

from resilient_scoop.cli.console_script import ended_by_interrupts

if __name__ == "__main__":
    with ended_by_interrupts():
        from resilient_scoop.cli.compat import entry
    entry(sys.argv[1:])
