"""State of the whole process that each task has as its own, one class for each kind.

`read` returns a snapshot, `write` restores one, and `is_at` checks cheaply whether the process is
in the state of a snapshot: it is called for every task. `task_state.process_state` has the list and
uses it.
"""

from __future__ import annotations

import functools
import importlib
import locale
import operator
import os
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilient_scoop.adapters.loaded import loaded

if TYPE_CHECKING:
    from collections.abc import Sequence


class Aspect(Protocol):
    """One kind of state of the process."""

    name: str

    def is_at(self, value: Any, /) -> bool:
        """Return whether the process is in the state of a snapshot."""

    def read(self) -> Any:
        """Return a snapshot."""

    def write(self, value: Any, /) -> None:
        """Restore a snapshot."""


_SIGNALS: Final = tuple(
    map(
        int,
        (
            signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1,
            signal.SIGUSR2, signal.SIGPIPE, signal.SIGCHLD, signal.SIGPROF, signal.SIGVTALRM,
        ),
    )
)  # fmt: skip
_get_handler: Any = importlib.import_module(
    "_signal"
).getsignal  # without the enums of `signal`, which cost 1 µs each


class Directory:
    """The working directory, by its path; a removed one by a descriptor."""

    name = "working directory"

    def __init__(self) -> None:
        self._base: str | None = None
        self._base_fd = -1

    def hold(self) -> None:
        """Keep the present one open, so that it can be restored even after it was removed."""
        if self._base_fd >= 0:
            os.close(self._base_fd)
        self._base_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = self._path()

    def is_at(self, value: str | int | None) -> bool:
        """Return whether the process is in the state of a snapshot."""
        try:
            return os.getcwd() == value  # noqa: PTH109 - for speed
        except FileNotFoundError:
            return False

    def read(self) -> str | int | None:
        """Return a snapshot."""
        path = self._path()
        if path is None and self._base_fd >= 0:
            return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return path

    def write(self, value: str | int | None) -> None:
        """Restore a snapshot."""
        if value is None or value == self._base:
            os.chdir(self._base_fd)
            return
        assert value is not None, "a snapshot names a directory"
        os.chdir(value)
        if isinstance(value, int):
            os.close(value)

    @staticmethod
    def _path() -> str | None:
        try:
            return os.getcwd()  # noqa: PTH109 - for speed
        except FileNotFoundError:
            return None


_umask: Final = os.umask  # `process_settings` replaces it


class Umask:
    """The umask."""

    name = "umask"

    def is_at(self, value: int) -> bool:
        """Return whether the process is in the state of a snapshot."""
        now = _umask(value)
        if now != value:
            _umask(now)
        return now == value

    def read(self) -> int:
        """Return a snapshot."""
        now = _umask(0o077)
        _umask(now)
        return now

    def write(self, value: int) -> None:
        """Restore a snapshot."""
        _umask(value)


class Environment:
    """`os.environ`; the variables that differ are written one by one."""

    name = "environment"

    def is_at(self, value: dict[Any, Any]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return bool(os.environ._data == value)  # type: ignore[attr-defined]  # noqa: SLF001 - what `environ` holds, as bytes

    def read(self) -> dict[Any, Any]:
        """Return a snapshot."""
        return dict(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001 - what `environ` holds, as bytes

    def write(self, value: dict[Any, Any]) -> None:
        """Restore a snapshot."""
        now = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 - what `environ` holds, as bytes
        for name in [each for each in now if each not in value]:
            os.unsetenv(name)
            del now[name]
        for name, text in value.items():
            if now.get(name) != text:
                os.putenv(name, text)
                now[name] = text

    def with_change(self, base: Any, before: Any, now: Any) -> Any:
        """Return a base with the changes of an import, if a task had changed other variables."""
        gone = before.keys() - now.keys()
        new = {name: text for name, text in now.items() if before.get(name) != text}
        return {name: text for name, text in base.items() if name not in gone} | new


class TimeZone:
    """The effect of `time.tzset` on the environment, which is restored before this."""

    name = "time zone"

    def is_at(self, value: object) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return time.tzname == value

    def read(self) -> object:
        """Return a snapshot."""
        return time.tzname

    def write(self, value: object) -> None:
        """Restore a snapshot."""
        del value
        time.tzset()


class Attributes:
    """Attributes of modules, restored as the same objects."""

    def __init__(self, name: str, module: Any, names: Sequence[str]) -> None:
        self.name, self._space = name, vars(module)
        self._names = tuple(each for each in names if each in self._space)
        self._get: Any = operator.itemgetter(*self._names)

    def is_at(self, value: tuple[object, ...]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        try:
            return self._get(self._space) == value  # type: ignore[no-any-return]  # the getter is given as `Any`
        except KeyError:  # it was deleted
            return False

    def read(self) -> tuple[object, ...]:
        """Return a snapshot."""
        return tuple(map(self._space.get, self._names))

    def write(self, value: tuple[object, ...]) -> None:
        """Restore a snapshot."""
        self._space.update(zip(self._names, value, strict=True))


class ListOf:
    """A list in a module: the object itself, and its content."""

    def __init__(self, name: str, module: Any, attribute: str) -> None:
        self.name, self._space, self._attribute = name, vars(module), attribute

    def is_at(self, value: tuple[list[Any], list[Any]]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        now = self._space[self._attribute]
        return now is value[0] and now == value[1]

    def read(self) -> tuple[list[Any], list[Any]]:
        """Return a snapshot."""
        now = self._space[self._attribute]
        return now, list(now)

    def write(self, value: tuple[list[Any], list[Any]]) -> None:
        """Restore a snapshot."""
        self._space[self._attribute] = value[0]
        value[0][:] = value[1]

    def with_change(self, base: Any, before: Any, now: Any) -> Any:
        """Return a base with the entries that an import added, if a task had changed others."""
        old = {id(each) for each in before[1]}
        new = [each for each in now[1] if id(each) not in old]
        return base[0], [*new, *(each for each in base[1] if each not in new)]


class Warnings(ListOf):
    """The filters of `warnings`, which has a cache of their results."""

    def __init__(self) -> None:
        super().__init__("warning filters", warnings, "filters")

    def write(self, value: tuple[list[Any], list[Any]]) -> None:
        """Restore a snapshot."""
        super().write(value)
        changed = getattr(warnings, "_filters_mutated", None) or getattr(
            warnings, "_filters_mutated_lock_held", None
        )
        if changed is not None:
            changed()


class Handlers:
    """Handlers of signals."""

    name = "signal handlers"

    def is_at(self, value: tuple[Any, ...]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return tuple(map(_get_handler, _SIGNALS)) == value

    def read(self) -> tuple[Any, ...]:
        """Return a snapshot."""
        return tuple(map(_get_handler, _SIGNALS))

    def write(self, value: tuple[Any, ...]) -> None:
        """Restore a snapshot."""
        for number, handler in zip(_SIGNALS, value, strict=True):
            if handler is not None and _get_handler(number) != handler:
                signal.signal(number, handler)


class Alarm:
    """`signal.alarm` and `setitimer(ITIMER_REAL)`: (due time, interval), or None."""

    name = "alarm"

    def is_at(self, value: tuple[float, float] | None) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return value is None and not signal.getitimer(signal.ITIMER_REAL)[0]

    def read(self) -> tuple[float, float] | None:
        """Return a snapshot."""
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        return (time.monotonic() + left, interval) if left else None

    def write(self, value: tuple[float, float] | None) -> None:
        """Restore a snapshot."""
        if value is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        due, interval = value
        left = due - time.monotonic()
        # A due alarm is delivered by `process_state.restore`, after everything else is restored.
        signal.setitimer(signal.ITIMER_REAL, left if left > 0 else interval, interval)


class InterpreterLimits:
    """Limits of the interpreter: recursion, digits of int."""

    name = "limits of the interpreter"

    def is_at(self, value: tuple[int, int]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return sys.getrecursionlimit() == value[0] and sys.get_int_max_str_digits() == value[1]

    def read(self) -> tuple[int, int]:
        """Return a snapshot."""
        return sys.getrecursionlimit(), sys.get_int_max_str_digits()

    def write(self, value: tuple[int, int]) -> None:
        """Restore a snapshot."""
        sys.setrecursionlimit(value[0])
        sys.set_int_max_str_digits(value[1])


class Locale:
    """The locale, all categories. Reading it takes long, so calls that may change it are observed."""

    name = "locale"

    def __init__(self) -> None:
        self._at: str | None = None  # None: to be read
        original = locale.setlocale

        @functools.wraps(original)
        def setlocale(category: int, new: Any = None) -> str:
            self._at = None
            return original(category, new)

        vars(locale)["setlocale"] = setlocale
        self._ask = original

    def is_at(self, value: str) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return (self._at or self.read()) == value

    def read(self) -> str:
        """Return a snapshot."""
        if self._at is None:
            self._at = self._ask(locale.LC_ALL)
        return self._at

    def write(self, value: str) -> None:
        """Restore a snapshot."""
        self._at = self._ask(locale.LC_ALL, value)


class SocketTimeout:
    """The default timeout of new sockets."""

    name = "socket timeout"

    def is_at(self, value: float | None) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return self.read() == value

    def read(self) -> float | None:
        """Return a snapshot."""
        module = loaded("_socket")
        return None if module is None else module.getdefaulttimeout()

    def write(self, value: float | None) -> None:
        """Restore a snapshot."""
        module = loaded("_socket")
        if module is not None:
            module.setdefaulttimeout(value)


class SklearnConfig:
    """The settings of `sklearn.set_config` in this thread; None while scikit-learn is not loaded."""

    name = "configuration of scikit-learn"

    def is_at(self, value: dict[str, Any] | None) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return loaded("sklearn._config") is None or self.read() == (value or self.default())

    def read(self) -> dict[str, Any] | None:
        """Return a snapshot."""
        module = loaded("sklearn._config")
        return None if module is None else module.get_config()

    def write(self, value: dict[str, Any] | None) -> None:
        """Restore a snapshot."""
        value = value or self.default()
        if value is not None:
            importlib.import_module("sklearn").set_config(**value)

    def default(self) -> dict[str, Any] | None:
        """Return the initial value in a thread."""
        return getattr(loaded("sklearn._config"), "_global_config", None)
