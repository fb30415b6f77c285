"""The launcher of a session: of a run whose calls are made by the program that started this process.

Standard input is the program's end of a pipe: one line with the options and the description of the
run, then nothing; its end means that the session is closed, or that the program has died. To standard
output it writes `HELD`, once no other launcher can hold the run, and what ends the run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from resilient_scoop.errors import RscoopError
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.runs import catalog, json_text
from resilient_scoop.runs.folder import RunDir, RunInfo

HELD: Final = b"\n"


def main() -> int:
    """Launch the run, and end it with its program."""
    owner_fd = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    verdict = os.dup(1)
    os.dup2(null, 1)
    os.close(null)
    with os.fdopen(os.dup(owner_fd), "rb", buffering=0) as pipe:
        text = bytearray()
        while not text.endswith(b"\n"):
            byte = pipe.read(1)
            if not byte:
                return 0  # the program ended before it sent the line
            text += byte
    path, options, described = text.decode().rstrip("\n").split("\0", 2)
    run, info = RunDir(Path(path)), json_text.decode(described, RunInfo)

    def begin() -> None:
        run.describe_again(info)
        run.make_socket_dir()  # the program may need it to name the sockets
        _write(verdict, HELD)

    from resilient_scoop.processes.launcher.supervisor import launch

    try:
        code = launch(run, json_text.decode(options, RunOptions), (), owner_fd, begin)
    except RscoopError as error:
        _write(verdict, str(error).encode("utf-8", "replace"))
        sys.stderr.flush()
        return error.exit_code
    if info.name is None:  # its program may have been killed
        catalog.remove(run)
    return code


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the program has died: the other pipe ends, too
        os.write(fd, data)
