"""How the processes of a run end: exit statuses and reasons of a stop, as they tell them to each other."""

from typing import Final

HOPELESS: Final = 70
"""Exit status of a run that is given up: something of it dies again and again."""
REFUSED: Final = 71
"""Exit status of a process of ours to which the system refused what it needs (EX_OSERR)."""
STOPPED: Final = 75
"""Exit status of a run that stopped before its end and can be resumed."""
START_AGAIN: Final = 79
"""Exit status of an origin that, under `always_replay`, wants to be started anew at once; and of a worker
that only its end frees of a lock."""
CANNOT_IMPORT: Final = 80
"""Exit status of a worker that could not import the script; its log's last line says why."""

CTRL_C: Final = "ctrl-c"
"""The reason of a stop that the script hears as KeyboardInterrupt (`processes.origin.interrupt`)."""
ENDED: Final = "ended"
"""The reason of the stop after the script's end."""
LAUNCHER_GONE: Final = "launcher gone"
"""The reason of a stop that broker and local agent find by themselves, each in its own time."""
NOW: Final = "now"
"""The reason of a stop that leaves no process any time."""
