"""The loops that hold a machine and its adapters together."""

from typing import Final

CTRL_C: Final = "ctrl-c"
"""The reason of a stop that the script hears as KeyboardInterrupt (`processes.origin.interrupt`)."""
LAUNCHER_GONE: Final = "launcher gone"
"""The reason of a stop that broker and local agent find by themselves, each in its own time."""
REFUSAL_SAID: Final = "RSCOOP_REFUSAL_SAID"
"""In the environment of a process whose first start met a limit and said so on the terminal."""
BLOCK_BYTES: Final = 8192
"""What Python keeps of standard output before it writes to a file or pipe."""
UNWRITTEN: Final = 120
"""Python's exit status where standard output could not be flushed at the end."""
STOPPED: Final = 75
"""Exit status of a run that stopped before its end and can be resumed."""
