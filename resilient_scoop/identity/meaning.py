"""The meaning of a callable: all user code and data that its result can depend on (SAME-MEANING).

A survey starts at a callable and follows what it names: globals, attributes of the user's modules,
closure cells, defaults, function attributes, classes with all their attributes, values that hold
functions, and modules that are imported inside functions. Each found object is one `Reference`:

- `home` says where another process finds its own (`helper:FACTOR`, `model:Net.rate`). What travels
  with the callable has none.
- `here` is compared between processes of one run. For a function it rests on its bytecode.
- `digest` is compared between runs. For a function it rests on its normalized source, so that harmless
  edits do not show; for a value that differs between processes by its nature (a start time, a process
  id), on the source that makes it. What cannot be compared has a digest that never comes again.

The fingerprint is the digest of all `digest`s in order of first visit; names of homes are no part of it,
so that a renamed function keeps its results.
"""

from __future__ import annotations

import builtins
import enum
import functools
import os
import reprlib
import sys
from collections.abc import Callable, Iterable
from types import (
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, Final

import msgspec

from resilient_scoop.adapters.stand_ins import original_of
from resilient_scoop.errors import MeaningError
from resilient_scoop.hashing import blake2b
from resilient_scoop.identity import (
    imported_values,
    library_patches,
    module_source,
    process_settings,
    script_changes,
)
from resilient_scoop.identity.change_guard import Guard
from resilient_scoop.identity.secret_names import SECRET
from resilient_scoop.values import source, source_text
from resilient_scoop.values.containers import is_container
from resilient_scoop.values.user_code import (
    describe,
    is_made_by_code,
    is_user_code,
    is_user_module,
    version,
)
from resilient_scoop.values.user_modules import file_of, scope_of
from resilient_scoop.values.values import (
    ABSENT,
    CACHED,
    GENERATED,
    MISSING,
    SCALARS,
    Describer,
    attributes_of,
    carried,
    digest_of,
    is_immutable,
    is_of_library,
    is_opaque,
    own_home,
    own_names,
    text_of,
    unique,
)
from resilient_scoop.wire.callables import AS_IMPORTED, VOLATILE, Reference, Setting

FINGERPRINT_BYTES: Final = 16
_ALL_NAMES: Final = source_text.DYNAMIC | {"globals"}
_SHOWN_MAX: Final = 60
_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN_MAX
_CARRYING: Final = (MethodType, functools.partial, FunctionType, type, CACHED)
_ENVIRONMENT: Final = frozenset({"environ", "environb", "getenv", "getenvb", "expandvars"})
_NOTES: Final = frozenset({
    "__doc__", "getdoc", "__annotations__", "get_annotations", "get_type_hints", "signature",
    "getfullargspec",
})  # fmt: skip
"""Who names one of these may read docstrings and annotations, which otherwise do not count."""
_IMPORTERS: Final = frozenset({"import_module", "modules"})
_BY_NAME: Final = source_text.DYNAMIC | {"getattr", "attrgetter", "methodcaller", "__dict__"}
"""Who names one of these may use any attribute of a module that it has imported."""
_OURS: Final = __name__.partition(".")[0]
_OF_EACH_PROCESS: Final = frozenset({"stdin", "stdout", "stderr", "modules"})
"""Attributes of `sys` that are each task's or each process's own."""
ABSENT_DIGEST: Final = digest_of(b"absent")
_PLAIN: Final = SCALARS | {list, tuple, dict, set, frozenset}


class Meaning:
    """The result of a survey; `settings` returns what the script has changed in its process.

    Of a module, it has only what the script has changed. With `by_position`, the callable gets no
    argument by name: names of its parameters do not count, unless code that it refers to may call it,
    too.

    Raises:
        MeaningError: the script has made a module itself that the callable uses.
    """

    def __init__(
        self,
        root: Callable[..., Any] | ModuleType,
        settings: Callable[[], Setting | None] = script_changes.changes,
        *,
        by_position: bool = False,
    ) -> None:
        survey = _Survey(root, settings)
        if survey.lacking:
            survey.end()
            raise _refusal(root, list(survey.lacking))
        if by_position and isinstance(root, FunctionType) and not survey.is_root_named:
            first = survey.references[0]
            digest = digest_of(text_of(root, by_position=True))
            survey.references[0] = msgspec.structs.replace(
                first, digest=digest, here=first.value if first.home else b""
            )
        self.references = survey.references
        self.guard = survey.guard
        self.objects = survey.objects
        """The present values, by home."""
        survey.end()

    @property
    def fingerprint(self) -> bytes:
        """The digest (16 bytes) stored with results."""
        return fingerprint_of(self.references)


def _refusal(root: Any, names: list[str]) -> MeaningError:
    reason = (
        "the script has made it after its import: make it at the top level of the script, so that each "
        "worker makes it, too"
    )
    return MeaningError(describe(root), [f"the module {', '.join(names)}"], [reason])


def fingerprint_of(references: list[Reference]) -> bytes:
    """Return the fingerprint of a callable with these references."""
    hasher = blake2b(digest_size=FINGERPRINT_BYTES)
    for each in references:
        hasher.update(len(each.digest).to_bytes(1, "little") + each.digest)
    return hasher.digest()


def here_of(home: str, value: Any, *, states: bool = True) -> bytes:
    """Return the digest of the value at a home in this process, to be compared with a `Reference`.

    What the script has not changed since its import is compared without `states` of events and queues:
    tasks may have changed these in this process.
    """
    return _here(Describer(_ignore, states=states), home, value)


def _ignore(_home: str, _value: Any) -> None:
    pass


def _here(describer: Describer, home: str, value: Any) -> bytes:
    value = original_of(value)
    if isinstance(value, ModuleType):
        return digest_of(b"module", value.__name__.encode())
    own = own_home(value) if isinstance(value, FunctionType | type) else None
    if own is not None and own != home:
        return digest_of(b"alias", own.encode())
    if isinstance(value, FunctionType | type) and not is_user_code(value):
        key = describer.class_key(value) if isinstance(value, type) else None
        return digest_of(b"named", describe(value).encode(), key or b"")
    if isinstance(value, FunctionType):
        parts = [source.bytecode(value.__code__).encode("utf-8", "surrogatepass")]
        for name, held in (*carried(value), *own_names(value)):
            parts += [name.encode(), describer.here(held)]
        return digest_of(b"function", *parts)
    if isinstance(value, type):
        names = ",".join(name for name, _ in attributes_of(value))
        return digest_of(b"class", describer.class_header(value), names.encode())
    is_attribute = type(value) is CACHED or "." in home.partition(":")[2]
    return describer.here(value, attribute=is_attribute)


class _Survey:
    """Everything that a callable's meaning depends on, in order of first visit."""

    def __init__(self, root: Any, settings: Callable[[], Setting | None]) -> None:
        self._given = settings
        self.references: list[Reference] = []
        self.objects: dict[str, Any] = {}
        self.guard = Guard()
        self._queue: list[tuple[str, Any]] = []
        self._seen: set[str] = set()
        self._modules: set[tuple[str, str]] = set()
        self._imports: set[tuple[str, str]] = set()
        self._named: set[int] = set()
        self.is_root_named = not is_user_code(root) or _is_method(root)
        self._root_home = ""
        self.lacking: dict[str, None] = {}  # names of modules that workers do not have
        self._root_id = id(root)
        self._whole: set[str] = set()
        self._tops: set[str] = set()  # top packages of the libraries that it uses
        self._all_behind: set[str] = set()
        self.reads_environment = self.reads_arguments = self.reads_notes = False
        self._having_notes: list[tuple[str, Any]] = []
        self._is_sent = False  # the described object is sent with the callable
        self._carrier = 0  # AS_IMPORTED, if the described object belongs to an unchanged one
        self._behind: list[tuple[str, Any]] = []  # what imports inside functions have reached
        self._only_changes = False
        self._describer = Describer(self._reach)
        self._describer.names_of = self._names_of  # type: ignore[method-assign]  # the describer asks this object
        self._describer.holds_module = self._holds  # type: ignore[method-assign]  # the describer asks this object
        self._root(root)
        for home, value in self._queue:  # grows during the survey
            self._describe(home, value)
        self._changes_behind()
        self._patches()
        self._notes()
        self._environment()

    def end(self) -> None:
        """Break the cycle of survey and describer: else the callable stays alive until a collection."""
        self._describer.end()
        del self._describer

    def _root(self, root: Any) -> None:
        if isinstance(root, ModuleType):
            self.guard.names(vars(root))
            self._holds(root)
            return
        home = own_home(root) if isinstance(root, FunctionType | type | CACHED) else None
        if home is not None and is_user_code(root):
            self._reach(home, root)
            self._root_home = home
        elif isinstance(root, FunctionType) and is_user_code(root):
            self._is_sent = True
            self._function("", _short(describe(root)), root)
            self._is_sent = False
        elif (
            isinstance(root, _CARRYING)
            or not hasattr(root, "__qualname__")
            or is_user_code(type(root))  # with the name of the function that it wraps
            or _is_bound(root)
        ):
            self._describer.met_initialized = False
            found = self._describer.part(root)
            self._add("", _short(describe(root)), self._with_streams(root, found), b"")
            self.guard.value(root)
        else:
            name = describe(root)
            made = version(name.partition(":")[0].partition(".")[0])
            self._add("", name, digest_of(b"named", name.encode(), made.encode()), b"")

    def _changes_behind(self) -> None:
        """Describe what the script has changed in what imports inside functions have reached.

        The rest of it is in the source of these imports already (`module_source.imported_inside`).
        """
        self._only_changes = True
        done = len(self._queue)
        for behind in self._behind:  # grows, too
            self._reach(*behind)
            while done < len(self._queue):
                self._describe(*self._queue[done])
                done += 1
        self._only_changes = False

    def _patches(self) -> None:
        """Describe what the script has set inside of the libraries that the callable uses."""
        self.guard.names(library_patches.by_statement)
        done, watched = len(self._queue), set[str]()
        patches = library_patches.patches()
        while True:  # what is described may use further libraries
            for patch in patches:
                top = patch.home.partition(":")[0].partition(".")[0]
                if top in self._tops and patch.home not in watched:
                    watched.add(patch.home)
                    self._patch(patch)
            if done == len(self._queue):
                break
            while done < len(self._queue):
                self._describe(*self._queue[done])
                done += 1

    def _patch(self, patch: library_patches.Patch) -> None:
        value = patch.value
        self.guard.name(vars(patch.owner), patch.name, None if value is MISSING else value)
        if is_container(value):
            self.guard.content(value)
        if library_patches.is_changed(patch):
            self._reach(patch.home, ABSENT if value is MISSING else value)

    def _notes(self) -> None:
        """Count docstrings and annotations, if something may read them."""
        self._carrier = AS_IMPORTED
        for label, each in self._having_notes if self.reads_notes else ():
            for name in ("__doc__", "__annotations__"):
                is_class = isinstance(each, type)
                value = vars(each).get(name) if is_class else getattr(each, name)
                self._add(
                    "", f"{label}.{name}", self._describer.part(value), b"", text=_preview(value)
                )
        self._having_notes.clear()

    def _environment(self) -> None:
        """Count the settings of the script, such as environment variables, that something may read."""
        found = self._given()
        self._carrier = 0  # set by the script
        if found is not None and self.reads_arguments and found.arguments:
            digest = self._describer.part(found.arguments)
            self._add("", "sys.argv", digest, b"", text=_preview(found.arguments))
        if found is not None and found.more:
            for label, each in process_settings.about_results(found.more).items():
                self._add("", label, self._describer.part(each), b"", text=_preview(each))
            for home, each in process_settings.context_variables(found.more).items():
                if home in self._seen:
                    label = f"{_short(home)}.get()"
                    self._add("", label, self._describer.part(each), b"", text=_preview(each))
        if not self.reads_environment or found is None:
            return
        for name, value in found.environ.items():
            digest = digest_of(name, b"" if value is None else value)
            self._add("", f"os.environ[{os.fsdecode(name)!r}]", digest, b"")

    def _look_for_lacking(self, name: str, entry: Any) -> None:
        """Notice a module that the script has made itself, so that workers lack it."""
        # Code that is perhaps reached fails by itself, and names the module.
        if not self._only_changes and imported_values.is_lacking(name, entry):
            self.lacking.setdefault(name)

    def _reach(self, home: str, value: Any) -> None:
        module, _, qualname = home.partition(":")
        self._look_for_lacking(module, sys.modules.get(module))
        if "." in qualname and own_home(value) == home:
            # A method or a nested class: its whole class.
            top = getattr(sys.modules.get(module), qualname.partition(".")[0], None)
            if isinstance(top, type):
                home, value = f"{module}:{qualname.partition('.')[0]}", top
        if home == self._root_home:
            self.is_root_named = True
        if home not in self._seen:
            self._seen.add(home)
            self._queue.append((home, value))

    def _describe(self, home: str, value: Any) -> None:
        label = _short(home)
        self.objects[home] = value
        self._uses(value)
        if isinstance(value, FunctionType | type):
            own = own_home(value)
            if own is not None and own != home:
                self._add(home, label, self._alias(own, value), b"")
                return
            if not is_user_code(value):
                here = _here(self._describer, home, value)
                self._add(home, label, here, here)
            elif isinstance(value, type):
                self._class(home, label, value)
            else:
                self._function(home, label, value)
            return
        self._data(home, label, value)

    def _uses(self, value: Any) -> None:
        """Note the library of a module, of a function or class, or of an object's class."""
        name = value.__name__ if isinstance(value, ModuleType) else None
        name = name or getattr(value, "__module__", None) or type(value).__module__
        if isinstance(name, str):
            self._tops.add(name.partition(".")[0])

    def _alias(self, own: str, value: Any) -> bytes:
        if is_user_code(value):
            self._reach(own, value)
        return digest_of(b"alias", own.encode())

    def _add(self, home: str, label: str, digest: bytes, here: bytes, **details: Any) -> None:
        flags = details.pop("flags", 0)
        if not home:
            flags |= self._carrier
        elif imported_values.is_unchanged(home, self.objects.get(home), here or digest):
            flags |= AS_IMPORTED
            if self._describer.met_state:
                here = here_of(home, self.objects.get(home), states=False)
        self._describer.met_state = False
        if self._only_changes and flags & AS_IMPORTED:
            self._carrier = AS_IMPORTED
            return
        if SECRET.search(label):
            details.pop("text", None)  # it would appear in the journal and on screens
        if home:
            self._carrier = flags & AS_IMPORTED
        found = Reference(
            home, label, digest, b"" if here == digest else here, **details, flags=flags
        )
        self.references.append(found)

    def _function(self, home: str, label: str, function: Any) -> None:
        """Describe a function and, one by one, what it holds; then what it names."""
        code: CodeType = function.__code__
        here = _here(self._describer, home, function) if home else b""
        at = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"  # noqa: PTH119 - a string, of any platform
        self._add(home, label, digest_of(text_of(function)), here, at=at)
        self.guard.function(function)
        self._describer.met_initialized = False
        for name, value in carried(function):
            at = f"{label}({name})" if not name.startswith(".") else label + name
            self._held(at, value, function)
        module, _, name = home.partition(":")
        is_made = code.co_name != name or "<locals>" in function.__qualname__
        if self._describer.met_initialized and home and is_made:
            binding = module_source.bindings(file_of(module) or "").get(name)
            if binding is not None:  # what it holds is made here
                digest = digest_of(binding.text.encode("utf-8", "surrogatepass"))
                self._add("", label, digest, b"")
        self._names_of(function)

    def _held(self, label: str, value: Any, holder: Any) -> None:
        if value is holder:
            self._add("", label, digest_of(b"again"), b"")
            self.is_root_named = True
            return
        found = self._describer.part(value)
        self.guard.value(value, found)
        if self._is_sent:
            found = self._with_streams(value, found)
        self._add("", label, found, b"", text=_preview(value))

    def _with_streams(self, value: Any, found: bytes) -> bytes:
        """Return the digest of a value that is sent with the states of its random generators."""
        if not self._describer.met_initialized:
            return found
        self._describer.with_streams = True
        try:
            return self._describer.part(value)
        finally:
            self._describer.with_streams = False

    def _names_of(self, function: Any) -> None:
        if id(function) in self._named and id(function) == self._root_id:
            self.is_root_named = True
        if id(function) in self._named or not is_user_code(function):
            return
        self._named.add(id(function))
        self.guard.keep(function)
        code, scope = function.__code__, function.__globals__
        names = set(source_text.global_loads(code))
        if names & _ALL_NAMES:
            names |= self._all_names(scope, code)
        attributes = sorted({name for part in source.nested(code) for name in part.co_names})
        self.reads_arguments = self.reads_arguments or "argv" in attributes
        self._having_notes.append((_short(describe(function)), function))
        if not _NOTES.isdisjoint(attributes) or {"fields", "type"}.issubset(attributes):
            self.reads_notes = True
        if not self.reads_environment and not _ENVIRONMENT.isdisjoint(attributes):
            self.reads_environment = True
        self._globals(code, scope, names, attributes)
        self._class_of(function, scope)
        self._imported_inside(code, scope.get("__package__") or "", attributes)
        if not _IMPORTERS.isdisjoint(attributes) or "__import__" in names:
            texts = {text for part in source.nested(code) for text in part.co_consts}
            for each, module in list(sys.modules.items()):
                self._any_of(module)
                if each in texts:
                    self._look_for_lacking(each, module)

    def _globals(
        self, code: CodeType, scope: dict[str, Any], names: set[str], attributes: list[str]
    ) -> None:
        """Describe what a function refers to by global names."""
        module = str(scope.get("__name__", ""))
        is_module = scope_of(module) is scope
        passed_on = module_source.passed_on(code)
        for name in sorted(names):
            value = scope.get(name, MISSING)
            if name == "__doc__" and is_module:
                self._module_doc(module, scope)
            if value is MISSING or (name.startswith("__") and name.endswith("__")):
                self._deleted(f"{module}:{name}" if is_module else "")
                self.guard.names(scope)
                self._builtin(name)
                continue
            self.guard.name(scope, name, value)
            if isinstance(value, ModuleType):
                self._look_for_lacking(value.__name__, value)
                self._module(value, attributes)
                if is_module and imported_values.is_new(f"{module}:{name}", value):
                    self._reach(f"{module}:{name}", value)
                if name in passed_on:
                    self._any_of(value)
            elif is_module:
                self._reach(f"{module}:{name}", value)
                if isinstance(value, type):
                    self._library_class(value)
            else:  # made by `exec` in its own namespace, which is sent with the function
                self._held(name, value, None)

    def _builtin(self, name: str) -> None:
        value = vars(builtins).get(name, MISSING)
        if value is not MISSING and imported_values.is_patched(builtins, name, value, new=True):
            self.guard.name(vars(builtins), name, value)
            self._reach(f"builtins:{name}", value)

    def _deleted(self, home: str) -> None:
        """Describe a global that the import had set and the script has deleted since."""
        if imported_values.had(home) and home not in self._seen:
            self._seen.add(home)
            self.objects[home] = ABSENT
            self.guard.never()
            self._add(home, _short(home), ABSENT_DIGEST, b"", text="deleted")

    def _class_of(self, function: Any, scope: dict[str, Any]) -> None:
        """Describe the class of a method, which may use all of it: `self.step()` does not name it."""
        top, dot, _ = function.__qualname__.partition(".")
        found = scope.get(top) if dot and "<" not in top else None
        if isinstance(found, type) and is_user_code(found):
            home = own_home(found)
            if home is not None:
                self._reach(home, found)

    def _all_names(self, scope: dict[str, Any], code: CodeType) -> set[str]:
        """Return the names of a module for a function that may look up any of them."""
        known = module_source.bindings(code.co_filename)
        return {
            name
            for name, value in scope.items()
            if not name.startswith("__")
            if name in known or isinstance(value, FunctionType | type)
            if not isinstance(value, ModuleType)
        }

    def _imported_inside(self, code: CodeType, package: str, attributes: list[str]) -> None:
        """Describe what a function imports itself: its source, and the script's changes to it."""
        inside = module_source.imported_inside(code, package)
        for label, text in inside.texts:
            if (label, text) not in self._imports:
                self._imports.add((label, text))
                digest = digest_of(text.encode("utf-8", "surrogatepass"))
                self._add("", label, digest, b"", flags=AS_IMPORTED)
        for name, names in module_source.imports_of(code, package):
            module = sys.modules.get(name)
            self.guard.name(sys.modules, name, module)
            self._look_for_lacking(name, module)
            self._tops.add(name.partition(".")[0])
            if not isinstance(module, ModuleType) or not is_user_module(name):
                continue
            if not names or "*" in names:
                is_any = names or not _BY_NAME.isdisjoint(attributes)
                self._any_of(module, None if is_any else attributes)
                continue
            changed = imported_values.changed_in(module)
            for each in sorted(names):
                self._watched(module, each, is_changed=each in changed)
            self._look_behind(module, names)
        self._behind += [
            (f"{name}:{each}", scope_of(name)[each])
            for name, each in inside.names
            if each in scope_of(name) and not isinstance(scope_of(name)[each], ModuleType)
        ]

    def _look_behind(self, module: ModuleType, names: Iterable[str]) -> None:
        """Keep code that is reached through a module, but not by a global, for `_changes_behind`."""
        space = vars(module)
        for name in names:
            value = space.get(name, space.get("__getattr__"))
            is_code = isinstance(value, FunctionType | type | CACHED)
            code: Any = value if is_code else type(value)
            home = f"{module.__name__}:{name}" if is_code else None
            if is_user_code(code) and (home := own_home(code) or home) is not None:
                self._behind.append((home, code))

    def _any_of(self, module: Any, used: Iterable[str] | None = None) -> None:
        """Describe the script's changes in a user's module of which any part (code: `used`) may be used."""
        if not isinstance(module, ModuleType) or not is_user_module(module.__name__):
            return
        if used is not None:
            self._look_behind(module, used)
        elif module.__name__ not in self._all_behind:
            self._all_behind.add(module.__name__)
            self._look_behind(module, list(vars(module)))
        if module.__name__ in self._whole:
            return
        self._whole.add(module.__name__)
        changed = imported_values.changed_in(module)
        for name in sorted(vars(module)):
            if not name.startswith("__"):
                is_changed = name in changed and not self._is_bound_here(module, name)
                self._watched(module, name, is_changed=is_changed)
        for name in imported_values.deleted_from(module):
            self._deleted(f"{module.__name__}:{name}")

    def _holds(self, module: ModuleType) -> None:
        """Handle a value that holds a module."""
        if sys.modules.get(module.__name__) is module:
            self._look_for_lacking(module.__name__, module)
        self._any_of(module)

    def _is_bound_here(self, module: ModuleType, name: str) -> bool:
        """Return whether a name is new, and its value can only be used in this process (a future).

        A function that may use any name of the module is not refused for it: workers lack the name.
        """
        value = vars(module).get(name)
        if isinstance(value, FunctionType | type | CACHED):
            return False
        return (
            not imported_values.had(f"{module.__name__}:{name}")
            and self._describer.value(value) is None
        )

    def _watched(self, module: ModuleType, name: str, *, is_changed: bool) -> None:
        value = vars(module).get(name, MISSING)
        self.guard.name(vars(module), name, None if value is MISSING else value)
        if value is MISSING:
            self._deleted(f"{module.__name__}:{name}")
        if value is MISSING or isinstance(value, ModuleType):
            return
        if is_changed:
            self._reach(f"{module.__name__}:{name}", value)
        elif not isinstance(value, FunctionType | type | CACHED):
            self.guard.value(value)

    def _module(self, module: ModuleType, attributes: list[str], *, is_named: bool = True) -> None:
        name = module.__name__
        self._uses(module)
        if name.partition(".")[0] == _OURS:
            return  # its values about the process differ by design
        of_user = is_user_module(name)
        for attribute in attributes:
            if (name, attribute) in self._modules:
                continue
            self._modules.add((name, attribute))
            value = vars(module).get(attribute, MISSING)
            if self._is_special(module, attribute):
                continue
            if value is MISSING:
                self._add_missing(module, attribute, of_user=of_user)
                continue
            self.guard.name(vars(module), attribute, value)
            if isinstance(value, ModuleType):
                self._module(value, attributes, is_named=of_user)
            elif of_user or _counts(module, attribute, value, is_named=is_named):
                self._reach(f"{name}:{attribute}", value)
            elif is_container(value):
                self.guard.content(value)
            elif isinstance(value, type):
                self._library_class(value)

    def _is_special(self, module: ModuleType, attribute: str) -> bool:
        """Return whether an attribute of a module does not count; of these, docstrings may do."""
        name = module.__name__
        if attribute == "__doc__" and is_user_module(name):
            self._module_doc(name, vars(module))
        return attribute.startswith("__") or (name == "sys" and attribute in _OF_EACH_PROCESS)

    def _module_doc(self, name: str, scope: dict[str, Any]) -> None:
        value = scope.get("__doc__")
        self.guard.name(scope, "__doc__", value)
        digest, label = self._describer.part(value), f"{name}.__doc__"
        self._add("", label, digest, b"", text=_preview(value), flags=AS_IMPORTED)

    def _library_class(self, cls: type) -> None:
        """Describe the user's functions that the script has put into a class of a library."""
        if id(cls) in self._named or is_user_code(cls) or not is_made_by_code(cls):
            return
        self._named.add(id(cls))
        home = own_home(cls)
        if home is None:
            return
        self.guard.keep(cls)
        self.guard.cls(cls)
        for name, held in list(vars(cls).items()):
            function = held.__func__ if isinstance(held, staticmethod | classmethod) else held
            if isinstance(function, FunctionType) and is_user_code(function):
                self._reach(f"{home}.{name}", held)

    def _add_missing(self, module: ModuleType, attribute: str, *, of_user: bool) -> None:
        """Describe the replacement of an attribute that a module does not hold itself."""
        home = f"{module.__name__}:{attribute}"
        finder = vars(module).get("__getattr__")
        if of_user and isinstance(finder, FunctionType):
            self._reach(f"{module.__name__}:__getattr__", finder)
        elif of_user:
            self._deleted(home)

    def _class(self, home: str, label: str, cls: type) -> None:
        self._having_notes.append((label, cls))
        here = _here(self._describer, home, cls)
        self._add(home, label, digest_of(self._describer.class_header(cls)), here)
        self.guard.cls(cls)
        held = dict(attributes_of(cls))
        for name, value in held.items():
            self._attribute(f"{home}.{name}", f"{label}.{name}", value)
        for name in sorted(imported_values.attributes_had(home) - held.keys()):
            self._seen.add(f"{home}.{name}")
            self.objects[f"{home}.{name}"] = ABSENT
            self._add(f"{home}.{name}", f"{label}.{name}", ABSENT_DIGEST, b"", text="deleted")

    def _attribute(self, home: str, label: str, value: Any) -> None:
        self._seen.add(home)
        self.objects[home] = value
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if isinstance(function, FunctionType) and is_user_code(function):
            if function.__code__.co_filename == GENERATED:
                return
            here = _here(self._describer, home, value)
            code = function.__code__
            at = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"  # noqa: PTH119 - a string, of any platform
            kind = type(value).__qualname__.encode()
            self._add(home, label, digest_of(kind, text_of(function)), here, at=at)
            self.guard.function(function)
            for name, held in carried(function):
                at = f"{label}({name})" if not name.startswith(".") else label + name
                self._held(at, held, function)
            self._names_of(function)
        elif isinstance(value, type) and own_home(value) == home and is_user_code(value):
            self._class(home, label, value)
        else:
            self._any_of(value)
            self._describer.met_incomparable = self._describer.met_initialized = False
            here = _here(self._describer, home, value)
            is_unique = self._describer.met_incomparable and not is_of_library(value)
            digest = unique() if is_unique else here
            if self._describer.met_initialized:
                module, _, qualname = home.partition(":")
                file, (cls, _, name) = file_of(module) or "", qualname.rpartition(".")
                text = module_source.attribute_text(file, cls, name)
                digest = digest_of(digest, text.encode("utf-8", "surrogatepass"))
            self.guard.value(value)
            self._add(home, label, digest, here, text=_preview(value))

    def _data(self, home: str, label: str, value: Any) -> None:
        module, _, name = home.partition(":")
        file = file_of(module) or ""
        binding = module_source.bindings(file).get(name) if is_user_module(module) else None
        patch = library_patches.known(home)
        if patch is not None:  # the statement counts, since the value may be a new one each time
            binding = module_source.Binding(patch.place.text, patch.place.line, volatile=True)
        at = "" if binding is None else f"{os.path.basename(file)}:{binding.line}"  # noqa: PTH119 - a string, of any platform
        self._describer.met_initialized = False
        found = (self._describer.inline if type(value) is CACHED else self._describer.value)(value)
        self.guard.value(value, found)
        here = self._describer.here(value) if found is None else found
        digest, flags = here, 0
        if found is None or is_opaque(value) or (binding is not None and binding.volatile):
            if binding is not None:
                flags = VOLATILE
                digest = digest_of(b"source", binding.text.encode("utf-8", "surrogatepass"))
            elif found is None:
                digest = unique()
        elif binding is not None and self._describer.met_initialized:
            digest = digest_of(digest, binding.text.encode("utf-8", "surrogatepass"))
        if type(value) is CACHED:
            self.guard.function(value.__wrapped__)
        self._add(home, label, digest, here, text=_preview(value), at=at, flags=flags)


def _counts(module: ModuleType, name: str, value: Any, *, is_named: bool) -> bool:
    """Return whether a value in a library's module can be from the user, or is a setting.

    Numbers and strings count in a module that the user's code names itself (`is_named`).
    """
    if imported_values.is_patched(module, name, value):
        return True
    if isinstance(value, FunctionType | type):
        return is_user_code(value) or type(value).__name__ == "MetaCreator"
    return (is_named and type(value) in SCALARS) or is_user_code(type(value))


def _is_bound(function: Any) -> bool:
    """Return whether a built-in function is a method of an object: `"{:.2f}".format`, `table.get`."""
    if not isinstance(function, BuiltinMethodType | MethodWrapperType):
        return False
    owner = function.__self__
    if isinstance(owner, type):
        return is_user_code(owner)
    return owner is not None and not isinstance(owner, ModuleType)


def _is_method(function: Any) -> bool:
    """Return whether a function is in a class: anything in its class may call it."""
    return "." in getattr(function, "__qualname__", ".").rpartition("<locals>.")[2]


def _short(name: str) -> str:
    module, _, qualname = name.partition(":")
    return qualname if module in ("__main__", "") else f"{module}.{qualname}"


def _preview(value: Any) -> str:
    """Return a value for display, if showing it runs no user code."""
    if isinstance(value, enum.Enum) and type(value._value_) in SCALARS:
        return _REPR.repr(value._value_)[:_SHOWN_MAX]
    if type(value) in SCALARS or (type(value) in _PLAIN and is_immutable_deep(value)):
        return _REPR.repr(value)[:_SHOWN_MAX]
    return ""


def is_immutable_deep(value: Any) -> bool:
    """Return whether a plain container holds only constants, as far as is shown."""
    parts = list(value)[:8] + (list(value.values())[:8] if type(value) is dict else [])
    return all(map(is_immutable, parts))
