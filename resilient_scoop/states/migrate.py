"""Instances of classes that have changed since they were saved.

While a state is loaded, a class with a hook whose fields differ is replaced: its instances are made
from a subclass that only keeps their saved attributes. When all is loaded, each becomes an instance
of the class itself, with the attributes that the hook returns. So identity and cycles are kept, and
a hook sees complete objects. Hooks run in the order in which instances were completed: inner
objects come first, if possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilient_scoop.errors import CheckpointUnusableError
from resilient_scoop.states import shape
from resilient_scoop.states.shape import HOOK

Find = Callable[[str, str], Any]


class Migration:
    """The loading of one state; `fields` are the saved fields of its classes."""

    def __init__(self, fields: dict[str, list[str]], what: str) -> None:
        self.fields = fields
        self.what = what
        self._left: list[tuple[Any, type, Any]] = []  # instance, class, saved attributes
        self._added: dict[type, list[str]] = {}  # fields that get their defaults
        self._stand_ins: dict[type, type] = {}

    def find(self, module: str, name: str, found_by: Find) -> Any:
        """Return what a pickle names; for a changed class, its replacement."""
        try:
            found = found_by(module, name)
        except (AttributeError, ImportError) as error:
            reason = f"{module}:{name}, which it holds, is not there any more ({error})"
            advice = f"keep it, or set `{name.partition('.')[0]}` in {module} to what replaces it"
            raise CheckpointUnusableError(self.what, reason, advice) from error
        saved = self.fields.get(f"{module}:{name}")
        if not isinstance(found, type):
            if saved is None:
                return found
            reason = f"{module}:{name} was a class and is now a {type(found).__name__}"
            raise CheckpointUnusableError(self.what, reason, "make it the class again")
        now = shape.fields_of(found)
        if saved is None or (now is None and not hasattr(found, HOOK)) or saved == now:
            return found
        return self._differing(found, saved, now or [])

    def _differing(self, cls: type, saved: list[str], now: list[str]) -> type:
        if cls in self._stand_ins:
            return self._stand_ins[cls]
        added = [field for field in now if field not in saved]
        removed = [field for field in saved if field not in now]
        positional = shape.is_named_tuple(cls) or "__slots__" in vars(cls)
        if hasattr(cls, HOOK):
            made = self._stand_in(cls, saved)
        elif not added and not removed and not positional:
            return cls  # names in another order
        elif removed or positional or not all(map(_has_default(cls), added)):
            raise CheckpointUnusableError(self.what, _difference(cls, added, removed), _advice(cls))
        else:
            made = self._stand_in(cls, saved, added)
        self._stand_ins[cls] = made
        return made

    def _stand_in(self, cls: type, saved: list[str], added: list[str] | None = None) -> type:
        """Return a subclass whose instances keep their saved attributes until `finish`."""
        left = self._left

        def setstate(self: Any, state: Any) -> None:
            left.append((self, cls, _attributes(state, saved)))

        space: dict[str, Any] = {"__slots__": (), "__setstate__": setstate}
        if shape.is_named_tuple(cls):
            space["__new__"] = lambda _, *values: self._named_tuple(cls, saved, values)
        made = type(cls.__name__, (cls,), space)
        made.__module__, made.__qualname__ = cls.__module__, cls.__qualname__
        if added is not None:
            self._added[cls] = added
        return made

    def _named_tuple(self, cls: type, saved: list[str], values: tuple[Any, ...]) -> Any:
        old = dict(zip(saved, values, strict=False))
        new = self._hook(cls, old)
        return new if isinstance(new, cls) else cls(**new)

    def finish(self) -> None:
        """Make every instance an instance of its class, with its new attributes."""
        for obj, cls, old in self._left:
            added = self._added.get(cls)
            if added is not None:
                new = {**old, **{field: shape.default_of(cls, field) for field in added}}
            else:
                new = self._hook(cls, old)
            object.__setattr__(obj, "__class__", cls)  # frozen ones, too
            self._fill(obj, cls, new)

    def _hook(self, cls: type, old: Any) -> Any:
        try:
            return getattr(cls, HOOK)(old)
        except Exception as error:  # user code: the hook
            where = f"{shape.name_of(cls)}.{HOOK}"
            reason = f"{where} raised {type(error).__name__}: {error}"
            raise CheckpointUnusableError(self.what, reason, "correct this method") from error

    def _fill(self, obj: Any, cls: type, new: Any) -> None:
        if not isinstance(new, dict):
            where = f"{shape.name_of(cls)}.{HOOK}"
            reason = f"{where} returned {type(new).__name__}, not a dict of the new attributes"
            raise CheckpointUnusableError(self.what, reason, "return a dict")
        for name, value in new.items():
            object.__setattr__(obj, name, value)


def _attributes(state: Any, saved: list[str]) -> Any:
    """Return the attributes in a pickled state; the state itself if it is of another form."""
    if isinstance(state, list) and len(state) == len(saved):
        return dict(zip(saved, state, strict=True))  # a frozen dataclass with slots
    if isinstance(state, tuple) and len(state) == 2:  # noqa: PLR2004 - (dict, slots)
        return {**(state[0] or {}), **(state[1] or {})}
    return dict(state) if isinstance(state, dict) else state


def _has_default(cls: type) -> Callable[[str], bool]:
    def has(field: str) -> bool:
        try:
            shape.default_of(cls, field)
        except LookupError:
            return False
        return True

    return has


def _difference(cls: type, added: list[str], removed: list[str]) -> str:
    changes = [f"has no field {name!r} any more" for name in removed]
    changes += [f"has a new field {name!r}" for name in added]
    changes = changes or ["has its fields in another order"]
    return f"the class {shape.name_of(cls)} {' and '.join(changes)}"


def _advice(cls: type) -> str:
    return (
        f"undo that, or give {cls.__name__} a static method {HOOK}(old) that takes the saved "
        "attributes as a dict and returns the new ones"
    )
