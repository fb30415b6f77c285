"""The shells of the processes of a run: one folder per process, and the files that they share."""

from typing import Final

REFUSAL_REPORTED: Final = "RSCOOP_REFUSAL_REPORTED"
"""Environment variable of a process whose first start reached a limit and reported it on the terminal."""
BLOCK_BYTES: Final = 8192
"""Size of the buffer in which Python collects standard output for a file or pipe."""
UNWRITTEN: Final = 120
"""Exit status of Python if standard output could not be flushed at the end."""
