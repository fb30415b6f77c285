"""Exit statuses of the processes of a run, and reasons of a stop."""

from typing import Final

HOPELESS: Final = 70
"""Exit status of a run that is given up because a process of it fails repeatedly."""
REFUSED: Final = 71
"""Exit status of a process of ours to which the system refused what it needs (EX_OSERR)."""
STOPPED: Final = 75
"""Exit status of a run that stopped before its end and can be resumed."""
START_AGAIN: Final = 79
"""Exit status of an origin that, under `always_replay`, asks to be restarted at once; and of a
worker that must end to release a lock."""
CANNOT_IMPORT: Final = 80
"""Exit status of a worker that could not import the script; its log's last line says why."""

CTRL_C: Final = "ctrl-c"
"""Reason of a stop that the script receives as KeyboardInterrupt (`processes.origin.interrupt`)."""
ENDED: Final = "ended"
"""Reason of the stop after the script's end."""
LAUNCHER_GONE: Final = "launcher gone"
"""Reason of a stop that broker and local agent detect independently of each other."""
NOW: Final = "now"
"""Reason of a stop without grace time."""
DRAINED: Final = "drained"
"""Reason of a stop of one host, which leaves the run."""
ORPHANED: Final = "orphaned"
"""Reason of the stop of another host's agent that has heard no broker for long."""
SESSION_CLOSED: Final = "session closed"
"""Reason of a stop: the program that made the calls has closed its session, or has ended."""
