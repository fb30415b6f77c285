"""The loops that hold a machine and its adapters together."""

from typing import Final

CTRL_C: Final = "ctrl-c"
"""The reason of a stop that the script hears as KeyboardInterrupt (`runtime.interrupt`)."""
LAUNCHER_GONE: Final = "launcher gone"
"""The reason of a stop that broker and local agent find by themselves, each in its own time."""
REFUSAL_SAID: Final = "RSCOOP_REFUSAL_SAID"
"""In the environment of a process whose first start met a limit and said so on the terminal."""
