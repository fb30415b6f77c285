"""Values that the script has set in its modules, set in a worker's modules during its calls (SAME-MEANING).

A worker imports the same modules as the script. If values that a callable refers to differ from the
worker's (the script has set a global, patched a class, defined a name again), they are sent with
the definition, and are set in the worker's modules while items of this callable run. When items of
another callable run, they are removed again: so one worker can run calls from before and after a
change.

Invariants:
- M1: at most one overlay is active; the modules' own values are restored before the next.
- M2: while an item of a callable runs, each reference of its definition has the digest that the
  script's process sent, or had it until a task of this worker changed it, or the item was refused.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.counts import sized
from resilient_scoop.errors import MeaningError, PicklingFailedError
from resilient_scoop.identity.meaning import ABSENT_DIGEST, here_of
from resilient_scoop.payload import codec
from resilient_scoop.task_state.held_state import HeldState, parts
from resilient_scoop.values import open_files
from resilient_scoop.values.containers import copy_of, fill, is_container
from resilient_scoop.values.hidden_state import may_have_state
from resilient_scoop.values.user_code import is_user_code, is_user_module
from resilient_scoop.values.user_modules import is_users, scope_of
from resilient_scoop.values.values import ABSENT, CACHED, MISSING, SCALARS, carried
from resilient_scoop.wire import payload_tags as tags
from resilient_scoop.wire.callables import AS_IMPORTED, Define, Reference

_TINY: Final = frozenset({int, float, bool, type(None), complex})
SMALL_BYTES: Final = 64 << 10
"""Largest value computed by an import that is sent with a call: a start time, a table."""
LARGE_BYTES: Final = 8 << 20
"""Largest value set by the script that is sent; larger ones must be arguments or constants."""


_LOOKED_AT_MAX: Final = 10_000
"""Objects in which functions with a cache are searched."""


_DEFINITIONS_MAX: Final = 5_000
"""Functions and classes that are noted: a thousand take 10 ms."""


class Overlay:
    """Values that are set while items of one callable run."""

    __slots__ = ("caches", "states", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.caches: list[Any] = []
        """Caches of functions in containers: emptied before and after these items."""
        self.states: list[HeldState] = []
        """What functions held when they were imported, then what these items have made of it."""


class _Active:
    overlay: Overlay | None = None
    before: list[tuple[Any, str, Any]] = []  # noqa: RUF012 - one per process
    moved: list[tuple[Any, int]] = []  # noqa: RUF012 - one per process
    """Files, and their positions before."""
    held: list[HeldState] = []  # noqa: RUF012 - one per process
    """What the functions of the overlay held before."""


def active() -> Overlay | None:
    """Return the active overlay."""
    return _Active.overlay


def activate(overlay: Overlay | None) -> None:
    """Activate an overlay instead of the present one (M1); None for the values of the imports."""
    if overlay is _Active.overlay:
        return
    for cache in (
        *(() if _Active.overlay is None else _Active.overlay.caches),
        *(() if overlay is None else overlay.caches),
    ):
        cache.cache_clear()
    _restore()
    _Active.overlay = overlay
    for home, value in () if overlay is None else _users_first(overlay.values):
        owner, name = _owner(home)
        if owner is not None:
            held = vars(owner).get(name, MISSING)
            if isinstance(value, open_files.FilePosition):
                _move(held, value.position)
            elif is_container(held) and type(held) is type(value) and not is_users(owner):
                _Active.before.append((None, name, (held, copy_of(held))))
                fill(held, value)
            elif value is not ABSENT:
                _Active.before.append((owner, name, held))
                _put(owner, name, value)
            elif held is not MISSING:
                _Active.before.append((owner, name, held))
                _put(owner, name, MISSING)
    for state in () if overlay is None else overlay.states:
        _Active.held.append(HeldState(state.root))
        state.set_back()


def _restore() -> None:
    if _Active.overlay is not None and _Active.held:
        _Active.overlay.states = [HeldState(each.root) for each in _Active.held]
    while _Active.held:
        _Active.held.pop().set_back()
    while _Active.moved:
        open_files.move(*_Active.moved.pop())
    while _Active.before:
        owner, name, value = _Active.before.pop()
        if owner is None:
            fill(*value)
        else:
            _put(owner, name, value)


def _move(file: Any, position: int) -> None:
    before = open_files.position_of(file)
    if before is not None and open_files.move(file, position):
        _Active.moved.append((file, before))


def _users_first(values: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return the values of libraries last: a replaced builtin may need the user's functions at once."""
    return sorted(values.items(), key=lambda each: not is_user_module(each[0].partition(":")[0]))


def _put(owner: Any, name: str, value: Any) -> None:
    """Set an attribute of a module or class, or delete it; a metaclass is not asked (enums refuse)."""
    known = type if isinstance(owner, type) else object
    try:
        if value is MISSING:
            known.__delattr__(owner, name)
        else:
            known.__setattr__(owner, name, value)
    except TypeError:  # a class of a metaclass in C
        if value is MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)


def settle(define: Define) -> Overlay | None:
    """Activate and return the overlay for a callable; None if nothing differs.

    Raises:
        MeaningError: something differs, and the definition has no value for it (M2). ImportError:
        its module cannot be imported here.
    """
    activate(None)
    note_definitions()
    differing = _differing(define)
    _note_imported(define, differing)
    if not differing:
        return None
    values = _replaced_by_tasks(differing) | _values(define)
    sent = {home for home, value in values.items() if not isinstance(value, _Unsent)}
    by_script = any(not each.flags & AS_IMPORTED for each in differing)
    if all(_is_imported(each) and each.home not in sent for each in differing):
        return None  # only tasks have changed something, and the changes of tasks stay
    overlay: Overlay | None = None
    for _ in range(len(values) + 1):
        wanted = {each.home for each in differing} | set(overlay.values if overlay else ())
        overlay = _with(values, wanted)
        overlay.states = _states(define, overlay) if by_script else []
        activate(overlay)
        # The sent value counts: unpickling may give it another form (a masked array's fill value).
        differing = [
            each
            for each in _differing(define)
            if each.home not in overlay.values and (by_script or not _is_imported(each))
        ]
        if not differing or not {each.home for each in differing} & values.keys() - wanted:
            break
    if differing:
        activate(None)
        for each in differing:
            if each.home not in values:
                importlib.import_module(each.home.partition(":")[0])  # else this process lacks it
        reasons = [_reason(each, values) for each in differing]
        raise MeaningError(define.name, [each.label for each in differing], reasons)
    if overlay is not None:
        homes = {each.home for each in (*define.references, *define.brought) if each.home}
        _give_caches(overlay, [*sorted(homes), *(_holding() if by_script else ())])
    return overlay


class _Imported:
    """An object of a module, as it was before tasks could change it."""

    __slots__ = ("digest", "state")

    def __init__(self, state: HeldState, digest: bytes) -> None:
        self.state = state
        self.digest = digest


_imported: dict[str, _Imported] = {}
"""By home, what the script and this worker have imported alike and no definition brings by value."""
_definitions: dict[str, HeldState] = {}
"""By home, functions and classes of the user's modules: their digests are made when they are needed."""
_modules_seen: set[str] = set()
_noted: set[int] = set()
"""Ids of what `_definitions` holds. A module that a task imports may name what tasks have changed."""


def note_definitions() -> None:
    """Note what functions and classes of new modules hold, before tasks change it."""
    new = [name for name in list(sys.modules) if name not in _modules_seen]
    _modules_seen.update(new)
    modules = [(name, scope_of(name).copy()) for name in new if is_user_module(name)]
    for own in (True, False):  # what other modules only name comes last
        for module, values in modules:
            for name, value in values.items():
                if isinstance(value, FunctionType | CACHED | type):
                    is_own = getattr(value, "__module__", None) == module
                    if is_own is own and (is_own or not isinstance(value, type)):
                        _note(f"{module}:{name}", value)


def _note(home: str, value: Any) -> None:
    if id(value) in _noted or len(_definitions) > _DEFINITIONS_MAX:
        return
    _noted.add(id(value))
    _definitions[home] = HeldState(value)
    if isinstance(value, type):
        for name, held in list(vars(value).items()):
            if isinstance(held, FunctionType | CACHED | staticmethod | classmethod):
                _note(f"{home}.{name}", held)


def _known(home: str) -> _Imported | None:
    """Return what this worker has imported at a home, if it was noted."""
    if home not in _imported and home in _definitions:
        state = _definitions[home]
        now = HeldState(state.root)
        state.set_back()
        _imported[home] = _Imported(state, here_of(home, state.root, states=False))
        now.set_back()
    return _imported.get(home)


def _note_imported(define: Define, differing: list[Reference]) -> None:
    """Note what else is here as in the script, before tasks of this callable change it."""
    known = _imported.keys() | {each.home for each in differing}
    for each in (*define.references, *define.brought):
        if each.home and each.flags & AS_IMPORTED and each.home not in known:
            value = _held(each.home)
            if value is not MISSING and type(value) not in SCALARS:
                _imported[each.home] = _Imported(HeldState(value), each.value)


def _is_imported(reference: Reference) -> bool:
    """Return whether an object is the one that was imported; tasks may have changed what it holds."""
    known = _known(reference.home)
    return (
        known is not None
        and bool(reference.flags & AS_IMPORTED)
        and known.digest == reference.value
        and known.state.root is _held(reference.home)
    )


def _replaced_by_tasks(differing: list[Reference]) -> dict[str, Any]:
    """Return by home the imported objects in whose place tasks have put another one."""
    found = {}
    for each in differing:
        known = _known(each.home)
        if known is not None and each.flags & AS_IMPORTED and known.digest == each.value:
            held = _held(each.home)
            if held is not MISSING and held is not known.state.root:
                found[each.home] = known.state.root
    return found


def _states(define: Define, overlay: Overlay) -> list[HeldState]:
    """Return what is set back during items of a callable: else they would see results of others.

    A cache that was filled with another value of a global would give wrong results.
    """
    every = {each.home: each for each in (*define.references, *define.brought)}
    found = {home: _imported[home].state for home, each in every.items() if _is_imported(each)}
    found |= {
        home: _definitions[home]
        for home in _holding()
        if home not in every and _held(home) is _definitions[home].root
    }
    return [
        state for home, state in found.items() if state.is_complete and home not in overlay.values
    ]


def _holding() -> list[str]:
    """Return the homes of all functions that may hold a cache.

    Of what classes of arguments and imports inside functions use, only the script's changes are listed.
    """
    return [home for home, state in _definitions.items() if not state.is_plain]


def _held(home: str) -> Any:
    owner, name = _owner(home)
    return MISSING if owner is None else vars(owner).get(name, MISSING)


def _give_caches(overlay: Overlay, homes: Iterable[str]) -> None:
    """Empty the caches of functions: they were filled without the overlay."""
    seen: set[int] = set()
    for home in homes:
        if home in overlay.values:
            continue
        found = _held(home)
        if type(found) is CACHED:
            known: Any = found
            made = functools.lru_cache(**known.cache_parameters())(known.__wrapped__)
            overlay.values[home] = functools.update_wrapper(made, known.__wrapped__)
        elif found is not MISSING and not (home in _definitions and _definitions[home].is_plain):
            overlay.caches += _caches_in(found, seen)
    activate(None)
    activate(overlay)


def _caches_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the functions with a cache in containers, and in what a function or an object holds."""
    left = [value]
    while left and len(seen) < _LOOKED_AT_MAX:
        value = left.pop()
        if id(value) in seen or type(value) in SCALARS:
            continue
        seen.add(id(value))
        if type(value) is CACHED:
            if is_user_code(value):
                yield value
            left.append(value.__wrapped__)
        elif isinstance(value, FunctionType):
            left += [each for _, each in carried(value)] if is_user_code(value) else []
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | set):
            left += value
        elif wrapped := parts(value):
            left += wrapped
        elif not isinstance(value, type) and is_user_code(type(value)):
            left += getattr(value, "__dict__", {}).values()


def of(define: Define, homes: set[str]) -> Overlay:
    """Return an overlay of those of a definition's values that belong to `homes`."""
    return _with(_values(define), homes)


def _with(values: dict[str, Any], homes: set[str]) -> Overlay:
    sent = {home: each for home, each in values.items() if not isinstance(each, _Unsent)}
    return Overlay({home: value for home, value in sent.items() if home in homes})


def _values(define: Define) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in (define.values, define.brought_values):
        if each:
            found.update(codec.loads(each))
    return found


class _Module:
    """Replaces a module in a pickle: unpickling imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self._name,)


class _SetEvent:
    """Replaces an event that is set: the worker makes another one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_event, ()


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class _Replaced:
    """Replaces a function in C that the script has kept before it replaced it in its module."""

    def __init__(self, module: str, name: str) -> None:
        self._of = module, name

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_imported, self._of


def _as_imported(module: str, name: str) -> Any:
    owner = importlib.import_module(module)
    for known, each, held in _Active.before:
        if known is owner and each == name:
            return held
    return vars(owner)[name]


class _Unsent:
    """Replaces a value that could not be sent; holds the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _reason(reference: Reference, values: dict[str, Any]) -> str:
    label, module = reference.label, _named(reference.home)
    if _is_imported(reference):
        return (
            f"a task in this worker has changed what {label} holds, and the script has set values that "
            f"the function uses: keep what changes in a small dict or list of {module}, or pass it as an "
            f"argument"
        )
    unsent = values.get(reference.home)
    if isinstance(unsent, _Unsent):
        return unsent.reason
    return (
        f"{label} is something else where a worker imports {module}: let it be the same in each "
        f"process, or pass it as an argument"
    )


def _named(home: str) -> str:
    """Return, for display, the module of a home."""
    name = home.partition(":")[0]
    return "the script" if name == "__main__" else name


def _too_large(label: str, home: str, length: int, *, is_imported: bool) -> str:
    if is_imported:
        return (
            f"{label} is too large to be sent with each function ({sized(length)}), and differs each time "
            f"that {_named(home)} is imported: let it be the same in each process, pass it as an argument, "
            f"or share it with shared.setConst"
        )
    return (
        f"{label} is too large to be sent with the function ({sized(length)}, at most "
        f"{sized(LARGE_BYTES)}): pass it as an argument, or share it with shared.setConst"
    )


def _unpicklable(label: str, home: str, value: Any, error: Exception) -> str:
    """Return why a value cannot be sent, and what to do instead."""
    if isinstance(error, PicklingFailedError) and error.hint == codec.TOO_DEEP:
        return f"{label} {codec.TOO_DEEP.removeprefix('it ')}"
    culprit = codec.culprit_in(value, label)
    hint = culprit.hint or str(error)
    if may_have_state(value) or culprit.path != label:
        return f"{culprit.path} is a {culprit.kind} and cannot be sent: {hint}"
    where = _named(home if is_user_module(home.partition(":")[0]) else "__main__")
    return (
        f"{label} is a {culprit.kind} and cannot be sent: {hint}, or set it at the top level of {where}, "
        f"so that each worker has its own"
    )


def _differing(define: Define) -> list[Reference]:
    every = (*define.references, *define.brought)
    return [each for each in every if each.home and not _is_same(each)]


def _is_same(reference: Reference) -> bool:
    found = _held(reference.home)
    if found is MISSING:
        return reference.value == ABSENT_DIGEST
    states = not reference.flags & AS_IMPORTED
    return here_of(reference.home, found, states=states) == reference.value


def _owner(home: str) -> tuple[Any, str]:
    """Return the module or class of a home, and the name in it; None if it does not exist here."""
    module, _, qualname = home.partition(":")
    *owners, name = qualname.split(".")
    found: Any = sys.modules.get(module)
    if found is None:
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None, name
    for part in owners:
        found = vars(found).get(part)
        if not isinstance(found, type):
            return None, name
    return found, name


def values_of(references: Iterable[Reference], objects: dict[str, Any]) -> bytes:
    """Return the payload of values that workers may lack or have differently; empty if there are none.

    `objects` holds the referenced objects by home.
    """
    sent: dict[str, Any] = {}
    events: dict[int, _SetEvent] = {}
    for each in references:
        home, is_imported = each.home, bool(each.flags & AS_IMPORTED)
        if not home or (is_imported and _is_definition(objects[home])):
            continue
        value = objects[home]
        found = _replaced(value, events)
        if found is not None or type(value) in _TINY:
            sent[home] = value if found is None else found
            continue
        limit = SMALL_BYTES if is_imported else LARGE_BYTES
        known = shallow_bytes(value)
        if known > limit:  # too large: not even pickled
            sent[home] = _Unsent(_too_large(each.label, home, known, is_imported=is_imported))
            continue
        try:
            length = len(_dumped({home: value}))
        except Exception as error:  # noqa: BLE001 - pickling runs user code
            sent[home] = _Unsent(_unpicklable(each.label, home, value, error))
            continue
        if length <= limit:
            sent[home] = value
        else:
            sent[home] = _Unsent(_too_large(each.label, home, length, is_imported=is_imported))
    return _dumped(sent) if sent else b""


def _replaced(value: Any, events: dict[int, _SetEvent]) -> Any:
    """Return what is sent for a value that is not pickled itself, else None."""
    if isinstance(value, ModuleType):
        return _Module(value.__name__)
    if isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType):
        return _Replaced(value.__self__.__name__, value.__name__)
    if type(value) is threading.Event and value.is_set():
        return events.setdefault(id(value), _SetEvent())
    if open_files.is_mapped(value):
        return open_files.MappedFile(value)
    position = open_files.position_of(value) if open_files.is_file(value) else None
    return None if position is None else open_files.FilePosition(position)


def _dumped(values: dict[str, Any]) -> bytes:
    """Return the payload of values; with dill, which is slow to import, only for code by value."""
    if any(map(_is_definition, values.values())):
        from resilient_scoop.payload import by_value

        return tags.DILL + by_value.dumps_values(values)
    return codec.dumps(values)


def shallow_bytes(value: Any) -> int:
    """Return the least size of a value, as far as known without looking into it."""
    found = getattr(value, "nbytes", None)
    return found if isinstance(found, int) else sys.getsizeof(value, 0)


def _is_definition(value: Any) -> bool:
    """Return whether a value is code defined by a module, which every process gets by importing it."""
    if isinstance(value, type | FunctionType | staticmethod | classmethod | property):
        return True
    return callable(value) and not is_user_code(type(value))  # else an object with a state
