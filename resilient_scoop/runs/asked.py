"""Requests of users to the broker of a live run: files in `<run>/asked/`, which it checks often.

Every process that may write to the run folder may ask. A request appears under its name when it is whole;
the broker replaces it by its answer, which the asker removes. A request that no broker has taken is
removed by the asker; the next broker removes what is left.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.errors import RunBusyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER: Final = "asked"
ANSWER_S: Final = 10.0
"""How long a broker may take: it may be writing to a slow disk."""
_POLL_S: Final = 0.05
_REQUEST, _ANSWER = ".json", ".answer"


class Listen(msgspec.Struct, frozen=True, tag=True):
    """Let other hosts in, from now on."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Let a host finish what it has begun, and end it."""

    host: str
    deadline_s: float | None = None


class Revoke(msgspec.Struct, frozen=True, tag=True):
    """Cut a host off at once."""

    host: str


class Rekey(msgspec.Struct, frozen=True, tag=True):
    """Make new keys: every host needs a ticket again."""


Request = Listen | Drain | Revoke | Rekey


class Answer(msgspec.Struct, frozen=True):
    """The result of a request; `refused`: nothing was done, and the reason."""

    text: str = ""
    refused: str = ""


def ask(run_dir: Path, request: Request, run_id: str) -> str:
    """Ask the broker, and return its answer.

    Raises:
        UsageError: it refuses. RunBusyError: it does not answer.
    """
    folder = run_dir / FOLDER
    name = f"{time.monotonic_ns():020d}-{os.getpid()}"
    draft, path = folder / f"{name}.tmp", folder / f"{name}{_REQUEST}"
    answer, until = folder / f"{name}{_ANSWER}", time.monotonic() + ANSWER_S
    while not answer.exists():
        if not path.exists() and not answer.exists():  # a broker that has just started removed it
            with suppress(FileNotFoundError):  # or the folder, at this moment
                folder.mkdir(mode=0o700, exist_ok=True)
                draft.write_bytes(msgspec.json.encode(request))
                draft.rename(path)
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise RunBusyError(str(run_dir), 0, os.uname().nodename)
        time.sleep(_POLL_S)
    found = msgspec.json.decode(answer.read_bytes(), type=Answer)
    answer.unlink()
    if found.refused:
        raise UsageError(f"run {run_id}: {found.refused}")
    return found.text


class Requests:
    """The broker's view."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)
        # answers that could not be written because the disk was full
        self._unsent: dict[str, Answer] = {}

    def answer_all(self, answer: Callable[[Request], Answer]) -> None:
        """Answer all present requests."""
        try:
            names = sorted(each.name for each in os.scandir(self._folder))
        except OSError:
            return  # there are no requests
        names = [name for name in names if name.endswith(_REQUEST)]
        self._unsent = {name: self._unsent[name] for name in names if name in self._unsent}
        for name in names:
            path = self._folder / name
            found = self._unsent.get(name) or _answered(path, answer)
            if found is None:
                continue
            try:
                self._put(path, found)
            except OSError:
                self._unsent[name] = found

    def _put(self, path: Path, answer: Answer) -> None:
        draft = path.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.encode(answer))
        draft.rename(path.with_suffix(_ANSWER))
        path.unlink(missing_ok=True)


def _answered(path: Path, answer: Callable[[Request], Answer]) -> Answer | None:
    """Return the answer to a request; None if its asker has given up."""
    try:
        return answer(msgspec.json.decode(path.read_bytes(), type=Request))
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        return Answer(refused=f"the request cannot be read: {error}")
    except OSError as error:
        return Answer(
            refused=f"the system refused it ({error.strerror or error}); correct that, and ask again"
        )
