"""Scripts of SCOOP, unchanged: `from scoop import futures, shared, logger` gives resilient_scoop.

Under `rscoop run script.py` and `python -m resilient_scoop script.py` this happens by itself where
SCOOP is not installed. An installed SCOOP is used, with a note, unless the script (before it
imports `scoop`) or a sitecustomize asks for ours:

    from resilient_scoop.compat import install_as_scoop

    install_as_scoop()

The modules that get SCOOP's names: `scoop`, `scoop.futures`, `scoop.shared`; and, for the names
that scripts import from them, `scoop._types`, `scoop.fallbacks` and `scoop._comm`.
"""

from __future__ import annotations

from resilient_scoop.errors import UsageError
from resilient_scoop.processes import scoop_names

__all__ = ["install_as_scoop"]


def install_as_scoop() -> None:
    """Make `import scoop` give resilient_scoop in this process, even if SCOOP is installed.

    In a script it is called at the top level, before `scoop` is imported: workers import the script,
    and get the same names.

    Raises:
        UsageError: SCOOP itself has been imported already.
    """
    if scoop_names.is_foreign():
        raise UsageError(
            "SCOOP itself has been imported already: call install_as_scoop() before the first "
            "`import scoop`, at the top of the script"
        )
    scoop_names.install(shadow=True)
