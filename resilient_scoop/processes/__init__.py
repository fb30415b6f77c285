"""The loops that hold a machine and its adapters together."""

from typing import Final

REFUSAL_SAID: Final = "RSCOOP_REFUSAL_SAID"
"""In the environment of a process whose first start met a limit and said so on the terminal."""
BLOCK_BYTES: Final = 8192
"""What Python keeps of standard output before it writes to a file or pipe."""
UNWRITTEN: Final = 120
"""Python's exit status where standard output could not be flushed at the end."""
