"""`python -m resilient_scoop`: see `resilient_scoop.cli.compat`."""

from __future__ import annotations

import sys

from resilient_scoop.cli.compat import entry

if __name__ == "__main__":
    entry(sys.argv[1:])
