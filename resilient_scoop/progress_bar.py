"""A progress bar for the calls of a session: in notebooks and on terminals.

It is drawn by tqdm if that is installed, which knows notebooks best, else by rich; in a notebook without
widgets, which rich needs, it is a line of text. A thread draws it, so that it moves while the program waits
for something else.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S: Final = 0.2
_END_S: Final = 5.0


class Drawing(Protocol):
    """A bar on some screen."""

    def show(self, done: int, made: int) -> None:
        """Draw the bar again."""

    def end(self) -> None:
        """Draw the last state; the bar stays on the screen."""


class ProgressBar:
    """Shows how many calls are done, of those that were made, until it is closed."""

    def __init__(
        self,
        title: str,
        count: Callable[[], tuple[int, int]],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """`count` returns how many calls are done, and how many were made; called in a thread.

        `is_over` says whether no more calls are made: the program may drop its session unclosed.
        """
        self._title = title
        self._is_over = is_over
        self._count = count
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rscoop-progress", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        shown: tuple[int, int] = 0, 0
        drawing: Drawing | None = None
        is_over = False
        while not is_over:
            is_over = self._ends.wait(_EVERY_S) or self._is_over()
            counts = self._count()
            if counts != shown:
                shown = counts
                drawing = drawing or drawn(self._title)
                drawing.show(*shown)
        if drawing is not None:
            drawing.end()

    def close(self) -> None:
        """Draw the bar for the last time."""
        self._ends.set()
        self._thread.join(_END_S)


def drawn(title: str) -> Drawing:
    """Return a bar for this screen."""
    try:
        return _OfTqdm(title)
    except ModuleNotFoundError:
        is_text = "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is None
        return _OfText(title) if is_text else _OfRich(title)


class _OfTqdm:
    def __init__(self, title: str) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a notebook without widgets it draws text
            from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]  # it has no types in some versions
        self._bar: Any = tqdm(desc=title, total=0, unit="call", file=sys.stderr)

    def show(self, done: int, made: int) -> None:
        bar = self._bar
        bar.total, bar.n = made, done
        if hasattr(bar, "container"):  # in a notebook, the widget has a maximum of its own
            bar.container.children[-2].max = made
        bar.refresh()

    def end(self) -> None:
        self._bar.close()


class _OfText:
    def __init__(self, title: str) -> None:
        self._title = title

    def show(self, done: int, made: int) -> None:
        sys.stderr.write(f"\r{self._title}: {done}/{made} calls")
        sys.stderr.flush()

    def end(self) -> None:
        sys.stderr.write("\n")


class _OfRich:
    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._progress = Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task = self._progress.add_task(title)
        self._progress.start()

    def show(self, done: int, made: int) -> None:
        self._progress.update(self._task, completed=done, total=made)

    def end(self) -> None:
        self._progress.stop()
