"""A stand-in for the `ssh` program: it runs commands on this machine, and fails as OpenSSH does on demand.

`write_ssh` writes the executable. A file `complaint` beside it makes it write that text and end
with 255; files `more` and `bad` change the configuration that it prints, and `tries` gets a letter
for each run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


def write_ssh(folder: Path) -> Path:
    path = folder / "ssh"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -I -S '{__file__}' '{folder}' \"$@\"\n")
    path.chmod(0o755)
    return path


def complain(folder: Path, text: str) -> None:
    (folder / "complaint").write_text(text)


def cut(folder: Path) -> None:
    """Cut all connections: each `ssh` ends, and processes that it started on the host continue."""
    for file in folder.glob("*.ssh"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.stem), signal.SIGTERM)
        file.unlink()


def main(folder: Path, words: list[str]) -> int:
    if words[0] == "-G":
        bad, more = folder / "bad", folder / "more"
        if bad.exists():
            sys.stderr.write(bad.read_text())
            return 255
        user = words[words.index("-l") + 1]
        sys.stdout.write(more.read_text() if more.exists() else "")
        sys.stdout.write(f"host ws1\nuser {user}\nhostname 127.0.0.1\nport 22\nproxyjump none\n")
        return 0
    complaint, tries = folder / "complaint", folder / "tries"
    with tries.open("a") as file:
        file.write("x")
    if complaint.exists():
        sys.stderr.write(complaint.read_text())
        return 255
    assert "BatchMode=yes" in words
    [_, command] = words[words.index("--") + 1 :]
    (folder / f"{os.getpid()}.ssh").touch()
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, start_new_session=True
    )
    signal.signal(signal.SIGTERM, lambda *_: _lose())
    assert process.stdin is not None
    threading.Thread(target=_feed, args=(process.stdin,), daemon=True).start()
    status = process.wait()
    return 255 if status < 0 else status


def _lose() -> None:
    os.write(2, b"client_loop: send disconnect: Broken pipe\r\n")
    os._exit(255)


def _feed(stdin: object) -> None:
    with contextlib.suppress(OSError), stdin:  # type: ignore[attr-defined]
        while data := os.read(0, 4096):
            stdin.write(data)  # type: ignore[attr-defined]
            stdin.flush()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
