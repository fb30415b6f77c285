"""The house rules that no linter checks, each with the reason it exists."""

from __future__ import annotations

import ast
import fnmatch
import functools
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_scoop import errors
from resilient_scoop.wire import messages

CHECKOUT = Path(__file__).parent.parent
PACKAGE = Path(errors.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

USER_CODE_FLOORS = {
    "adapters", "executor.py", "futures", "identity", "payload", "pool.py", "processes", "states",
    "task_state", "values",
}  # fmt: skip
"""Floors that call, pickle or unpickle user code: whatever it raises is an outcome, not a bug."""

HOMES = {
    "zmq": ["transport/*.py"],
    "lmdb": ["journal/*.py"],
    "dill": ["payload/*.py"],
    "deap": ["adapters/deap_classes.py", "contrib/deap.py"],
    "greenlet": ["adapters/greenlets.py"],
    "psutil": ["adapters/*.py"],
    "tenacity": ["adapters/retrying.py"],
    "tblib": ["payload/exceptions.py"],
    "platformdirs": ["cli/*.py", "runs/catalog.py", "runs/folder.py"],
    "click": ["cli/*.py"],
    "rich": ["cli/*.py", "progress_bar.py"],
}
"""Each library is met in one place: replacing it, or a bug in it, touches that place only."""

each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES]
)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@each_source
def test_no_to_do_is_left_in_the_code(path: Path) -> None:
    assert not {"TODO", "FIXME", "XXX"} & set(path.read_text().replace(":", " ").split())


@each_source
def test_no_comment_is_a_banner(path: Path) -> None:
    banner = re.compile(r"^\s*#+\s*[-=*#]{3,}", re.MULTILINE)
    assert banner.search(path.read_text()) is None


_WAIVER = re.compile(r"#\s*(noqa:\s*[A-Z0-9, ]+|type: ignore(\[[\w, -]*\])?|pragma: no cover)")


@each_source
def test_each_exception_from_a_rule_has_its_reason(path: Path) -> None:
    bare = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        waiver = _WAIVER.search(line)
        if waiver and not re.search(r"[A-Za-z]{2}", _WAIVER.sub("", line[waiver.start() :])):
            bare.append(number)
    assert bare == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {ast.unparse(kind) if kind else "BaseException" for kind in caught}
    return bool(names & {"Exception", "BaseException"})


@each_source
def test_a_broad_except_catches_only_errors_of_user_code(path: Path) -> None:
    lines, floor = path.read_text().splitlines(), path.relative_to(PACKAGE).parts[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            assert "user code" in lines[node.lineno - 1], f"line {node.lineno} does not say why"
            assert floor in USER_CODE_FLOORS


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@each_source
def test_a_library_is_imported_in_its_home_only(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    strangers = {
        name
        for name in imported(tree_of(path))
        if name in HOMES and not any(fnmatch.fnmatch(place, home) for home in HOMES[name])
    }
    assert strangers == set()


MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}


def imports_of(name: str, path: Path) -> set[str]:
    """Return the modules of the package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & MODULES.keys() or {node.module}
    return (found & MODULES.keys()) - {name}


def circular(graph: dict[str, set[str]]) -> set[str]:
    """Return the modules that import themselves, directly or through others."""

    def reached(name: str) -> set[str]:
        found, new = set[str](), set(graph[name])
        while new:
            found |= new
            new = {more for each in new for more in graph[each]} - found
        return found

    return {name for name in graph if name in reached(name)}


def test_a_circle_is_found_without_modules_that_only_lead_to_it() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str]()}
    assert circular(graph) == {"b", "c"}


def test_no_modules_import_each_other_in_a_circle_not_even_for_types() -> None:
    assert circular({name: imports_of(name, path) for name, path in MODULES.items()}) == set()


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    show = "import sys, resilient_scoop; print(*(m for m in sys.modules if 'resilient' in m))"
    done = subprocess.run(
        [sys.executable, "-c", show], check=True, capture_output=True, text=True, cwd=CHECKOUT
    )
    names = {"resilient_scoop", "resilient_scoop._version", "resilient_scoop.this_process"}
    assert {name for name in done.stdout.split() if not name.startswith("_")} == names


@functools.cache
def invariants() -> dict[str, list[str]]:
    """Return the modules that define each invariant: an id and two spaces at the head of a module."""
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        head = ast.get_docstring(tree_of(path), clean=False) or ""
        for match in re.finditer(r"^ {0,4}([A-Z]{1,2}\d{1,2}) {2}\S", head, re.MULTILINE):
            found.setdefault(match[1], []).append(str(path.relative_to(PACKAGE)))
    return found


def test_the_id_of_an_invariant_is_defined_once() -> None:
    assert invariants()
    assert {name: where for name, where in invariants().items() if len(where) > 1} == {}


def test_an_invariant_is_named_where_it_is_upheld_or_tested() -> None:
    texts = [path.read_text() for path in (*SOURCES, *(CHECKOUT / "tests").rglob("*.py"))]
    named = Counter(name for text in texts for name in re.findall(r"\b[A-Z]{1,2}\d{1,2}\b", text))
    assert [name for name in invariants() if named[name] < 2] == []


SLOW = {
    "asyncio", "click", "concurrent.futures", "ctypes", "dill", "hashlib", "lmdb", "logging",
    "multiprocessing", "numpy", "rich", "selectors", "shutil", "socket", "subprocess", "tempfile",
}  # fmt: skip
"""Each of these takes a process 1 to 15 ms to load; a run waits for the start of several processes."""
NEEDED = {
    "resilient_scoop.futures": set[str](),
    "resilient_scoop.processes.worker.main": set[str](),
    "resilient_scoop.processes.origin.main": set[str](),
    "resilient_scoop.processes.agent.main": {"selectors", "subprocess"},
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_process_loads_no_slow_library_that_it_can_do_without(module: str) -> None:
    program = f"import {module}, sys; print(*sorted({SLOW!r} & set(sys.modules)))"
    command = [
        sys.executable,
        "-I",
        "-X",
        "utf8",
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}; {program}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == NEEDED[module]


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if any("overload" in ast.unparse(d) for d in child.decorator_list):
                continue
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


_OWNS_THE_TURN = ("processes/connection.py", "processes/replay/stage.py")


@each_source
def test_only_a_session_queues_frames_and_holds_its_lock(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name.startswith("core/") or name in _OWNS_THE_TURN:
        return
    owners = ("session", "_session", "machine")
    bad = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in ("out", "lock", "_lock")
        if getattr(node.value, "attr", getattr(node.value, "id", "")) in owners
    ]
    assert bad == [], "use `session.send(frame)` in `with session.turn():`"


def _closes(case: ast.match_case) -> bool:
    return ast.unparse(case.body[-1]).startswith("assert_never(")


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.name
)
def test_a_match_in_core_ends_with_assert_never(path: Path) -> None:
    found = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Match)]
    assert [node.lineno for node in found if not _closes(node.cases[-1])] == []


@each_source
def test_public_names_have_docstrings(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree)
    assert [node.name for node in public(tree) if not ast.get_docstring(node)] == []


PLAIN: dict[Any, Any] = {int: 7, float: 1.5, bytes: b"\x00b", str: "s", bool: True, Any: "any"}


def value_of(kind: Any) -> Any:
    """Return some value of an annotated type, every part of it filled in."""
    kind = getattr(kind, "__supertype__", kind)  # a NewType
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return filled(kind)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return value_of(next(part for part in inner if part is not type(None)))
    if origin is tuple:
        return tuple(value_of(part) for part in inner if part is not ...)
    if origin is list:
        return [value_of(inner[0])]
    if origin is dict:
        return {value_of(inner[0]): value_of(inner[1])}
    raise AssertionError(f"teach `value_of` the type {kind}")


def filled(cls: type[msgspec.Struct]) -> msgspec.Struct:
    return cls(**{field.name: value_of(field.type) for field in msgspec.structs.fields(cls)})


def sparse(cls: type[msgspec.Struct]) -> msgspec.Struct:
    needed = [field for field in msgspec.structs.fields(cls) if field.required]
    return cls(**{field.name: value_of(field.type) for field in needed})


def frames() -> list[Any]:
    unions = {"up": messages.Up, "down": messages.Down, "logged": messages.Logged}
    return [
        pytest.param(getattr(messages, f"decode_{way}"), cls, id=f"{way}-{cls.__name__}")
        for way, union in unions.items()
        for cls in typing.get_args(union)
    ]


@pytest.mark.parametrize(("decode", "cls"), frames())
def test_a_message_survives_the_wire(decode: Any, cls: type[msgspec.Struct]) -> None:
    for message in (filled(cls), sparse(cls)):
        assert decode(messages.encode(message)) == message


@pytest.mark.parametrize(("decode", "cls"), frames())
def test_a_message_with_an_extra_field_is_refused(decode: Any, cls: type[msgspec.Struct]) -> None:
    fields = msgspec.msgpack.decode(messages.encode(filled(cls)))
    with pytest.raises(msgspec.ValidationError):
        decode(messages.encode([*fields, "more"]))


def errors_below(cls: type[errors.RscoopError]) -> Iterator[type[errors.RscoopError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from errors_below(child)


@pytest.mark.parametrize("cls", list(errors_below(errors.RscoopError)))
def test_an_error_crosses_a_process_boundary(cls: type[errors.RscoopError]) -> None:
    own_init = inspect.isfunction(cls.__init__)
    hints = typing.get_type_hints(cls.__init__) if own_init else {"text": str}
    error = cls(*(value_of(kind) for name, kind in hints.items() if name != "return"))

    twin = pickle.loads(pickle.dumps(error))

    assert type(twin) is cls
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@each_source
def test_an_error_is_defined_in_the_module_that_the_tree_names(path: Path) -> None:
    names = {cls.__name__ for cls in errors_below(errors.RscoopError)}
    strangers = [
        node.name
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        if names & {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
    ]
    assert path.name == "errors.py" or strangers == []


def test_each_error_is_drawn_in_the_tree() -> None:
    drawn = (errors.__doc__ or "").split()
    assert [
        cls.__name__ for cls in errors_below(errors.RscoopError) if cls.__name__ not in drawn
    ] == []


def test_extras_and_groups_of_the_same_name_are_equal() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    extras, groups = settings["project"]["optional-dependencies"], settings["dependency-groups"]
    both = extras.keys() & groups.keys()
    assert both >= {"test", "lint", "types"}
    assert {name: extras[name] for name in both} == {name: groups[name] for name in both}
