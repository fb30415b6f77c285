"""Settings of the whole process that a script may change under its guard, and that calls carry.

Working directory, umask, locale, time zone, limits of the interpreter, warning filters, decimal
context, context variables of the user's modules, numpy's handling of errors and its printing,
scikit-learn's configuration. A worker has the values after the import of the script; values that
differ in the script's process at a call are sent with it.

Checking must be cheap, because it is done at every call: functions that change a setting count
their calls, and settings that change without such a call are compared by identity or by a few
numbers. The decimal context is compared only after code has obtained it: it cannot change before
that.
"""

from __future__ import annotations

import contextvars
import decimal
import importlib
import locale
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.identity.process_aspects import (
    InterpreterLimits,
    SklearnConfig,
    SocketTimeout,
    Umask,
    Warnings,
)
from resilient_scoop.payload import codec

_UNSET: Final = object()
_set_locale: Any = importlib.import_module("_locale").setlocale
_get_context: Final = decimal.getcontext  # the functions of the same names are replaced
_set_context: Final = decimal.setcontext


class Kind(NamedTuple):
    """How one setting is read in a process, and set in another one."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    default: Callable[[], Any] | None = None  # its value if nothing has changed it


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a string travels
    except FileNotFoundError:
        return None


def _change_directory(path: str) -> None:
    os.chdir(path)  # set by the present function, which counts its calls


def _set_umask(mask: int) -> None:
    os.umask(mask)


def _decimal() -> tuple[Any, ...]:
    context = _get_context()
    trapped = sorted(signal.__name__ for signal, is_trap in context.traps.items() if is_trap)
    return (
        context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp,
        trapped,
    )  # fmt: skip


def _set_decimal(value: tuple[Any, ...]) -> None:
    prec, rounding, least, most, capitals, clamp, trapped = value
    traps: Any = [getattr(decimal, name) for name in trapped]
    SettingsState.watches_decimal = True
    _set_context(decimal.Context(prec, rounding, least, most, capitals, clamp, [], traps))


def _library(module: str, reads: str, writes: str) -> Kind:
    """Return a setting of a library in a context variable; None while the library is not loaded."""

    def read() -> Any:
        found = sys.modules.get(module)
        return None if found is None else getattr(found, reads, dict)()

    def write(value: Any) -> None:
        if value:
            getattr(importlib.import_module(module), writes)(**value)

    return Kind(read, write, lambda: contextvars.Context().run(read))


def _set_filters(value: list[Any]) -> None:
    filters: Any = warnings.filters
    _warnings.write((filters, value))


_limits, _timeout, _warnings, _umask = InterpreterLimits(), SocketTimeout(), Warnings(), Umask()
_sklearn = SklearnConfig()
KINDS: Final[dict[str, Kind]] = {
    "working directory": Kind(_directory, _change_directory),
    "umask": Kind(_umask.read, _set_umask),
    "locale": Kind(
        lambda: _set_locale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)
    ),
    "time zone": Kind(lambda: time.tzname, lambda _: time.tzset()),
    "limits of the interpreter": Kind(_limits.read, _limits.write),
    "socket timeout": Kind(_timeout.read, _timeout.write),
    "warning filters": Kind(lambda: list(warnings.filters), _set_filters),
    "decimal context": Kind(_decimal, _set_decimal),
    "numpy.geterr()": _library("numpy", "geterr", "seterr"),
    "numpy.get_printoptions()": _library("numpy", "get_printoptions", "set_printoptions"),
    "sklearn.get_config()": Kind(_sklearn.read, _sklearn.write, _sklearn.default),
}
_BEYOND_NUMBERS: Final = frozenset(
    [
        "working directory",
        "umask",
        "time zone",
        "socket timeout",
        "decimal context",
        "sklearn.get_config()",
    ]
)
"""Functions proven pure do not depend on these."""
_ABOUT_RESULTS: Final = frozenset({"decimal context"})
"""Any result can depend on these."""


class CountingFunction:
    """A function of the standard library that changes a setting, and counts that it was called."""

    def __init__(self, module: Any, name: str) -> None:
        self._function = getattr(module, name)
        self.__name__ = self.__qualname__ = name
        self.__module__ = module.__name__
        self.__doc__ = self._function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        SettingsState.version += 1
        return self._function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.__name__

    def __eq__(self, other: object) -> bool:
        return self is other or self._function is other

    def __hash__(self) -> int:
        return hash(self._function)


_COUNTED: Final = (
    (os, "putenv"), (os, "unsetenv"),  # names under which `os.environ` calls them
    (os, "chdir"), (os, "fchdir"), (os, "umask"), (locale, "setlocale"), (time, "tzset"),
    (sys, "setrecursionlimit"), (sys, "set_int_max_str_digits"),
)  # fmt: skip


class SettingsState:
    """The settings of this process after the import of the script, and the last observed ones."""

    version = 0  # rises with each change
    base: dict[str, Any] = {}  # noqa: RUF012 - one per process
    contexts: dict[str, contextvars.ContextVar[Any]] = {}  # noqa: RUF012 - one set for the process
    filters: list[Any] = []  # noqa: RUF012 - what follows is as it was when the version rose last
    decimal: tuple[Any, ...] = ()
    watches_decimal = False
    read: list[tuple[Any, Any]] = []  # noqa: RUF012 - how to read context variables, and their values
    sklearn: SklearnConfig | None = None
    sklearn_seen: Any = None
    loaded = 0


class _HandsOut(CountingFunction):
    """A function that returns the decimal context, which can be changed from then on."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        SettingsState.watches_decimal = True
        return super().__call__(*args, **kwargs)


def install() -> None:
    """Observe changes from now on, before the script can import the functions."""
    for module, name in _COUNTED:
        if not isinstance(getattr(module, name), CountingFunction):
            setattr(module, name, CountingFunction(module, name))
    for name in ("getcontext", "setcontext", "localcontext"):
        if not isinstance(getattr(decimal, name), CountingFunction):
            setattr(decimal, name, _HandsOut(decimal, name))
    # `socket` takes its functions from here; importing it takes a millisecond in each process.
    sockets: Any = importlib.import_module("_socket")
    if not isinstance(sockets.setdefaulttimeout, CountingFunction):
        counted = CountingFunction(sockets, "setdefaulttimeout")
        counted.__module__ = "socket"
        sockets.setdefaulttimeout = counted
        if "socket" in sys.modules:
            sys.modules["socket"].setdefaulttimeout = counted  # type: ignore[attr-defined]  # a module has no such type


def note(variables: dict[str, contextvars.ContextVar[Any]]) -> None:
    """Record the present settings as those of workers.

    `variables` are the context variables of the user's modules, by home.
    """
    install()
    SettingsState.contexts = dict(variables)
    SettingsState.base = {name: kind.read() for name, kind in KINDS.items()}
    SettingsState.base["context"] = {home: each.get(_UNSET) for home, each in variables.items()}
    _see()


def version() -> int:
    """Return a number that differs after each change of a setting."""
    state = SettingsState
    if (
        warnings.filters != state.filters
        or len(sys.modules) != state.loaded
        or (state.watches_decimal and _decimal() != state.decimal)
    ):
        _see()
    for read, value in state.read:
        if read(None) is not value:
            _see()
    if state.sklearn is not None and state.sklearn.read() != state.sklearn_seen:
        _see()
    return state.version


def _see() -> None:
    state = SettingsState
    state.filters, state.decimal = list(warnings.filters), _decimal()
    names = (
        ("numpy._core._multiarray_umath", "_extobj_contextvar"),
        ("numpy._core.printoptions", "format_options"),
    )
    found = [getattr(sys.modules.get(module), name, None) for module, name in names]
    found += state.contexts.values()
    state.read = [(each.get, each.get(None)) for each in found if each is not None]
    state.sklearn = _sklearn if "sklearn._config" in sys.modules else None
    state.sklearn_seen = _sklearn.read()
    state.loaded = len(sys.modules)
    state.version += 1


def changed() -> dict[str, Any]:
    """Return the settings that have changed since the import of the script."""
    found = {}
    for name, kind in KINDS.items():
        now, then = kind.read(), SettingsState.base.get(name)
        if then is None and kind.default is not None:
            then = kind.default()
        if now is not None and now != then:
            found[name] = now
    then = SettingsState.base.get("context", {})
    contexts = {home: each.get(_UNSET) for home, each in SettingsState.contexts.items()}
    contexts = {home: value for home, value in contexts.items() if value is not then.get(home)}
    if contexts:
        found["context"] = {home: value for home, value in contexts.items() if value is not _UNSET}
    return found


def about_results(payload: bytes) -> dict[str, Any]:
    """Return the changed settings on which results can depend."""
    return {name: value for name, value in _loaded(payload).items() if name in _ABOUT_RESULTS}


def context_variables(payload: bytes) -> dict[str, Any]:
    """Return the changed context variables by home; results of functions that use them depend on them."""
    found: dict[str, Any] = _loaded(payload).get("context", {})
    return found


def leaves_pure(payload: bytes) -> bool:
    """Return whether functions proven pure give the same results with and without these settings."""
    found = _loaded(payload)
    actions = {each[0] for name in ("warning filters",) for each in found.get(name, ())}
    actions.update(each[0] for each in SettingsState.base.get("warning filters", ()))
    return found.keys() - _BEYOND_NUMBERS <= {"warning filters"} and "error" not in actions


def pickled() -> bytes:
    """Return the changed settings for other processes; empty if there are none."""
    found = changed()
    if not found:
        return b""
    try:
        return codec.dumps(found)
    except PicklingFailedError:
        found.pop("warning filters", None)  # a warning category that exists only in this process
        contexts = found.pop("context", {})
        found["context"] = {home: each for home, each in contexts.items() if _travels(each)}
        return codec.dumps(found)


def _travels(value: Any) -> bool:
    try:
        codec.dumps(value)
    except PicklingFailedError:
        return False
    return True


@lru_cache(maxsize=64)
def _loaded(payload: bytes) -> dict[str, Any]:
    found: dict[str, Any] = codec.loads(payload)
    return found


def apply(payload: bytes) -> None:
    """Apply the changed settings of another process to this one."""
    for name, value in _loaded(payload).items():
        if name != "context":
            KINDS[name].write(value)
            continue
        for home, each in value.items():
            module, _, variable = home.partition(":")
            found = getattr(sys.modules.get(module), variable, None)
            if isinstance(found, contextvars.ContextVar):
                found.set(each)
