"""Addresses of names, looked up with a deadline: the system's resolver has none of its own."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any


def addresses_of(
    name: str, port: int | None, family: int = socket.AF_UNSPEC, *, within_s: float
) -> list[tuple[Any, ...]]:
    """Return the result of `socket.getaddrinfo` for TCP; a look-up is given up after some time.

    Raises:
        TimeoutError: no answer came in time.
        OSError, UnicodeError: as `socket.getaddrinfo` does.
    """
    answers: queue.SimpleQueue[list[tuple[Any, ...]] | OSError | UnicodeError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put([*socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=within_s)
    except queue.Empty:
        raise TimeoutError(f"{name!r} was not looked up within {within_s:g} s") from None
    if isinstance(answer, list):
        return answer
    raise answer
