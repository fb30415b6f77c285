"""Fingerprints: an edit that changes behavior changes the fingerprint, any other does not."""

from __future__ import annotations

import collections
import functools
import importlib.util
import itertools
import linecache
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from resilient_scoop.identity.meaning import Meaning
from resilient_scoop.values import source
from resilient_scoop.values.user_code import describe, find, is_user_code
from resilient_scoop.values.values import is_opaque, opaque

ROOT = Path(__file__).parents[3]


def fingerprint(function: Any) -> bytes:
    return Meaning(function).fingerprint


Load = Callable[[str], ModuleType]
BASE = '''
import functools, math
SCALE = 3
LIMITS = (1, 2.0, "a")
STATE = []
def helper(x):
    return x + 1
def even(n):
    return True if n == 0 else odd(n - 1)
def odd(n):
    return False if n == 0 else even(n - 1)
class Model:
    """A model."""
    rate = 0.5
    def run(self, x):
        return helper(x)
class Caller:
    def __init__(self, n):
        self.n = n
    def __call__(self, x):
        return x * self.n
def wrap(f):
    @functools.wraps(f)
    def inner(*args):
        return f(*args)
    return inner
@wrap
def decorated(x):
    return helper(x)
@functools.lru_cache
def cached(x):
    return helper(x)
def evaluate(x, scale=2, *, base=1):
    """Say what it does."""
    # and how
    y = helper(x) * SCALE + base
    return y * scale + Model().run(math.sin(x)) + LIMITS[0]
def make(n):
    return lambda x: x + n
pair = (lambda x: x + 1, lambda x: x + 2)
part = functools.partial(evaluate, scale=5)
def uses_part(x):
    return part(x) + pair[0](x)
'''


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Import source text as the module `usermodule`, each time another file."""
    numbers = itertools.count()

    def load(text: str) -> ModuleType:
        file = tmp_path / f"m{next(numbers)}.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("usermodule", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["usermodule"] = module
        spec.loader.exec_module(module)
        return module

    return load


def of(module: ModuleType, name: str) -> bytes:
    return fingerprint(getattr(module, name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """Say what it does."""\n', ""),
        ("    # and how\n", "\n\n"),
        ("y = helper(x) * SCALE + base", "y = ((helper( x )) * SCALE) + base  # so"),
        ('    """A model."""\n', ""),
        ("SCALE = 3", "SCALE = 3\nUNUSED = 5\ndef unused(): pass"),
        ("STATE = []", "STATE = [1]"),
    ],
)
def test_comments_docstrings_layout_and_unused_code_do_not_change_a_fingerprint(
    load: Load, old: str, new: str
) -> None:
    changed = BASE.replace(old, new)
    assert changed != BASE
    assert of(load(BASE), "evaluate") == of(load(changed), "evaluate")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y * scale", "y / scale"),
        ("scale=2", "scale=3"),
        ("base=1", "base=2"),
        ("SCALE = 3", "SCALE = 4"),
        ("SCALE = 3", "SCALE = 3.0"),
        ('2.0, "a")', '2.0, "b")'),
        ("return x + 1\n", "return x + 2\n"),
        ("return helper(x)\nclass", "return helper(x) + 1\nclass"),
        ("rate = 0.5", "rate = 0.6"),
        ("math.sin", "math.cos"),
    ],
)
def test_a_change_in_a_called_function_changes_the_fingerprint(
    load: Load, old: str, new: str
) -> None:
    changed = BASE.replace(old, new, 1)
    assert changed != BASE
    assert of(load(BASE), "evaluate") != of(load(changed), "evaluate")


@pytest.mark.parametrize("name", ["decorated", "cached", "part", "uses_part", "Model", "evaluate"])
def test_a_change_in_a_callee_changes_fingerprints_through_decorators_partials_and_classes(
    load: Load, name: str
) -> None:
    changed = BASE.replace("return x + 1\n", "return x + 2\n")
    assert of(load(BASE), name) == of(load(BASE), name)
    assert of(load(BASE), name) != of(load(changed), name)


RENAMED: Final = """
SCALE = 2
def plain(x, step=3): return x * SCALE + step
def keyword(x, *, step=3): return x + step
def dynamic(x): return locals()["x"]
def again(x): return x if x < 1 else again(x=x - 1)
def called(x): return x
def caller(y): return called(x=y)
def kept(x): return KNOWN["kept"](x=1) if x else 0
KNOWN = {"kept": kept}
def closed():
    def inner(x): return x * SCALE
    return inner
inner = closed()
class Model:
    def run(self, x): return x
"""


def test_a_renamed_parameter_is_no_change_if_its_name_cannot_be_used(load: Load) -> None:
    def mark(text: str, name: str, *, by_position: bool = True) -> bytes:
        function = load(text)
        for part in name.split("."):
            function = getattr(function, part)
        return Meaning(function, by_position=by_position).fingerprint

    def is_same(name: str, old: str, new: str, *, by_position: bool = True) -> bool:
        assert RENAMED.replace(old, new) != RENAMED
        before = mark(RENAMED, name, by_position=by_position)
        return before == mark(RENAMED.replace(old, new), name, by_position=by_position)

    plain = "plain(x, step=3): return x * SCALE + step"
    assert is_same("plain", plain, "plain(size, by=3): return size * SCALE + by")
    assert not is_same("plain", plain, "plain(step, x=3): return x * SCALE + step")
    assert not is_same(
        "plain", plain, "plain(size, by=3): return size * SCALE + by", by_position=False
    )
    assert is_same("inner", "inner(x): return x *", "inner(size): return size *")
    assert not is_same("keyword", "*, step=3): return x + step", "*, by=3): return x + by")
    assert not is_same("dynamic", "dynamic(x)", "dynamic(y)")
    assert not is_same("again", "again(x): return x if x < 1", "again(y): return y if y < 1")
    assert not is_same("caller", "called(x): return x", "called(y): return y")
    assert not is_same("kept", "kept(x): return KNOWN", "kept(y): return KNOWN")
    assert not is_same("Model.run", "run(self, x): return x", "run(self, y): return y")


WRAPPED: Final = """
import contextlib, functools
def deco(f):
    @functools.wraps(f)
    def inner(*args): return f(*args)
    return inner
@deco
def root(x): return x + 1
@contextlib.contextmanager
def opened(x): yield x + 2
def uses(x):
    with opened(x) as found: return found
class Model:
    @deco
    def run(self, x): return x + 3
def model(x): return Model().run(x)
def chained(x): return twice(x)
twice = deco(deco(lambda x: x + 4))
def outer(a):
    def ping(n): return pong(n - 1) + a if n else 5
    def pong(n): return ping(n - 1) if n else 6
    return ping
ping = outer(1)
def both(x): return ping(x)
"""


@pytest.mark.parametrize(
    ("name", "old"),
    [("root", "x + 1"), ("uses", "x + 2"), ("model", "x + 3"), ("chained", "x + 4"),
     ("ping", "else 5"), ("ping", "else 6"), ("both", "else 6"), ("ping", "outer(1)")],
)  # fmt: skip
def test_a_change_of_values_in_decorators_and_closures_changes_the_fingerprint(
    load: Load, name: str, old: str
) -> None:
    digit = old.strip(")")[-1]
    new = old.replace(digit, "9")
    before = fingerprint(getattr(load(WRAPPED), name))
    assert fingerprint(getattr(load(WRAPPED), name)) == before
    assert fingerprint(getattr(load(WRAPPED.replace(old, new)), name)) != before


def test_functions_that_call_each_other_have_fingerprints(load: Load) -> None:
    one, same = load(BASE), load(BASE)
    other = load(BASE.replace("return False if", "return True if"))
    assert of(one, "even") == of(same, "even") != of(other, "even")
    assert of(one, "even") != of(one, "odd")


def test_closures_differ_by_the_values_of_their_variables(load: Load) -> None:
    one, same = load(BASE), load(BASE)
    assert fingerprint(one.make(1)) == fingerprint(same.make(1)) != fingerprint(one.make(2))
    assert fingerprint(one.make({"a", "b"})) == fingerprint(same.make({"b", "a"}))
    assert fingerprint(one.make(one.helper)) != fingerprint(one.make(one.even))


def test_lambdas_on_one_line_have_different_fingerprints(load: Load) -> None:
    module = load(BASE)
    texts = [source.normalized(function.__code__) for function in module.pair]
    assert None not in texts
    assert texts[0] != texts[1]


def test_methods_and_callable_objects_differ_by_their_instance(load: Load) -> None:
    found = []
    for _ in range(2):
        one = load(BASE)
        made = (one.Caller(1), one.Caller(2), one.Model().run, one.Caller(3).__call__)
        found.append([fingerprint(each) for each in (*made, one.Caller(4).__call__)])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0])


def test_partials_with_different_arguments_differ(load: Load) -> None:
    f = load(BASE).evaluate
    made = [functools.partial(f, 1), functools.partial(f, 2), functools.partial(f, scale=1), f]
    assert len({fingerprint(function) for function in made}) == 4


def test_a_closure_that_holds_itself_has_a_fingerprint() -> None:
    def outer() -> Callable[[int], int]:
        def inner(n: int) -> int:
            return inner(n - 1)

        return inner

    assert fingerprint(outer()) == fingerprint(outer())


def test_functions_of_user_modules_are_followed(load: Load, tmp_path: Path) -> None:
    library = ModuleType("userlibrary")
    library.__dict__["helper"] = load(BASE).helper
    sys.modules["userlibrary"] = library
    text = "import userlibrary\ndef f(x):\n    return userlibrary.helper(x)\n"
    before = of(load(text), "f")
    library.__dict__["helper"] = load(BASE.replace("return x + 1", "return x + 9")).helper
    assert of(load(text), "f") != before


def test_the_compiled_code_is_compared_if_there_is_no_source() -> None:
    def made(text: str) -> Any:
        scope: dict[str, Any] = {"__name__": "usermodule"}
        exec(text, scope)
        return scope["f"]

    assert fingerprint(made("def f(x): return x + 1")) == fingerprint(
        made("\n\ndef f(x): return x + 1")
    )
    assert fingerprint(made("def f(x): return x + 1")) != fingerprint(
        made("def f(x): return x + 2")
    )


def test_source_edited_after_the_import_is_not_used(load: Load) -> None:
    # Given a loaded module, and another whose file was edited before its first fingerprint
    module, edited = load(BASE), load(BASE)
    file = Path(edited.__file__ or "")
    file.write_text(BASE.replace("return x + 1\n", "return x + 2\n"))
    linecache.checkcache()

    # Then the new text does not represent the old code
    assert source.normalized(module.helper.__code__) is not None
    assert source.normalized(edited.helper.__code__) is None


def test_builtins_and_libraries_are_compared_by_name() -> None:
    assert fingerprint(len) == fingerprint(len) != fingerprint(max)
    assert fingerprint(math.sin) != fingerprint(math.cos)
    assert not is_user_code(os.path.join)
    assert not is_user_code(Meaning)


def test_the_version_of_a_library_changes_fingerprints() -> None:
    np = pytest.importorskip("numpy")
    from resilient_scoop.values import user_code as module

    before = fingerprint(np.dot)
    module.version.cache_clear()
    version, np.__version__ = np.__version__, "0.0"
    try:
        assert fingerprint(np.dot) != before
    finally:
        np.__version__ = version
        module.version.cache_clear()


def test_another_process_computes_the_same_fingerprint(load: Load) -> None:
    module = load(BASE)
    code = (
        "import sys, runpy; from resilient_scoop.identity.meaning import Meaning;"
        "import importlib.util as u; s = u.spec_from_file_location('usermodule', sys.argv[1]);"
        "m = sys.modules['usermodule'] = u.module_from_spec(s); s.loader.exec_module(m);"
        "print(*(Meaning(f).fingerprint.hex() for f in (m.evaluate, m.make({'a', 'b', 'c'}), m.part)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(module.__file__)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    functions = (module.evaluate, module.make({"c", "b", "a"}), module.part)
    assert there.stdout.split() == [fingerprint(function).hex() for function in functions]


def test_a_guard_is_valid_until_something_changes(load: Load) -> None:
    module = load(BASE)
    for change in (
        lambda: setattr(module, "SCALE", 4),
        lambda: setattr(module, "helper", module.even),
        lambda: setattr(module.Model, "rate", 0.7),
        lambda: setattr(module.evaluate, "__defaults__", (3,)),
        lambda: module.evaluate.__kwdefaults__.update(base=2),
        lambda: setattr(module.evaluate, "note", 1),
        lambda: setattr(module.even, "__code__", module.odd.__code__),
    ):
        meaning = Meaning(module.evaluate)
        assert meaning.guard.holds()
        change()
        assert not meaning.guard.holds()
        assert Meaning(module.evaluate).fingerprint != meaning.fingerprint


def test_a_guard_detects_changes_inside_containers_and_closures(load: Load) -> None:
    for held, change in (
        ([1], lambda held: held.append(2)),
        ({"a": 1}, lambda held: held.update(a=2)),
        ([[1]], lambda held: held[0].append(2)),
        (load(BASE).Caller(1), lambda held: setattr(held, "n", 2)),
    ):
        function = load(BASE).make(held)
        meaning = Meaning(function)
        assert meaning.guard.holds()
        change(held)
        assert not meaning.guard.holds()


def test_functions_are_named_for_display_and_found_by_that_name(load: Load) -> None:
    module = load(BASE)
    assert describe(module.evaluate) == "usermodule:evaluate"
    assert describe(module.part) == "usermodule:evaluate"
    assert describe(module.Model().run) == "usermodule:Model.run"
    assert describe(module.Caller(1)) == "usermodule:Caller"
    assert describe(len) == "builtins:len"
    assert find("usermodule:Model.run", None) is module.Model.run
    assert find("usermodule:gone", None) is None
    assert find("no_such_module:f", None) is None
    assert find("usermodule:make.<locals>.<lambda>", None) is None


def test_the_script_is_named_main() -> None:
    script = ModuleType("__main__")
    exec("def f(): pass", script.__dict__)
    assert describe(script.f) == "__main__:f"
    assert find("__main__:f", script) is script.f
    assert find("__main__:f", None) is None


def test_values_with_the_names_of_secrets_are_not_shown(load: Load) -> None:
    module = load("API_TOKEN = 'hidden'\nRATE = 2\ndef f(x): return x, API_TOKEN, RATE\n")
    shown = {each.label: each.text for each in Meaning(module.f).references}
    assert (shown["usermodule.API_TOKEN"], shown["usermodule.RATE"]) == ("", "2")


def test_a_lock_of_filelock_is_compared_by_its_file_only() -> None:
    class FileLock:
        def __init__(self, lock_file: str) -> None:
            # because its state contains the process id
            self.lock_file, self.owner = lock_file, object()

    FileLock.__module__ = "filelock._core"
    first, same, other = (FileLock(name) for name in ("a.lock", "a.lock", "b.lock"))
    assert is_opaque(first)
    assert opaque(first) == opaque(same) != opaque(other)


@pytest.mark.parametrize(
    ("reads", "edits"),
    [
        ("return f.__doc__", ('"one"', '"two"')),
        ("return K.__annotations__", ("a: int", "a: float")),
        ("return inspect.get_annotations(g)", ("x: int", "x: float")),
        ("return [each.type for each in dataclasses.fields(K)]", ("a: int", "a: float")),
    ],
)
def test_docstrings_and_annotations_matter_only_for_functions_that_may_read_them(
    load: Load, reads: str, edits: tuple[str, str]
) -> None:
    text = (
        "import dataclasses, inspect\n"
        "class K:\n    a: int = 1\n"
        "def g(x: int): pass\n"
        f'def f(_):\n    "one"\n    g, K\n    {reads}\n'
        'def other(_):\n    "one"\n    g, K\n'
    )

    def both(text: str) -> tuple[bytes, bytes]:
        module = load(text)
        return of(module, "f"), of(module, "other")

    before, after = both(text), both(text.replace(*edits))
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_objects_of_libraries_that_cannot_be_compared_do_not_count_as_changed(load: Load) -> None:
    text = (
        "import sqlite3\n"
        "class K:\n    held = sqlite3.connect(':memory:')\n    number = NUMBER\n"
        "def f(x, held=sqlite3.connect(':memory:')): return x, K.held, K.number\n"
    )
    digests = []
    for number in ("1", "1", "2"):
        module = load(text.replace("NUMBER", number))
        digests.append(of(module, "f"))
        for held in (module.K.held, *module.f.__defaults__):
            held.close()
    assert digests[0] == digests[1] != digests[2]


def test_objects_that_libraries_make_for_each_process_do_not_matter(load: Load) -> None:
    def made(validator: object, **keywords: object) -> bytes:
        module = load("class K:\n    a = 1\ndef f(x): return x, K.a\n")
        module.K.__pydantic_validator__ = validator
        module.f.__kwdefaults__ = keywords
        return of(module, "f")

    assert made(open, __beartype_conf=int, __beartype_func=len) == made(
        sum, __beartype_conf=str, __beartype_func=len
    )
    assert made(sum, __beartype_func=len) != made(sum, __beartype_func=abs)


def test_a_function_that_numba_compiles_is_compared_by_its_python_code_and_options(
    load: Load,
) -> None:
    class Dispatcher:
        def __init__(self, py_func: Any, **options: Any) -> None:
            self.py_func, self.targetoptions, self.id = py_func, options, object()

    Dispatcher.__module__ = "numba.core.registry"

    def made(text: str, **options: Any) -> bytes:
        module = load(text + "def f(x): return g(x)\n")
        module.__dict__["g"] = Dispatcher(module.g, **options)
        return of(module, "f")

    text = "K = 2\ndef g(x): return x * K\n"
    assert made(text, nopython=True) == made(text, nopython=True)
    assert made(text, nopython=True) != made(text, nopython=False)
    assert made(text) != made(text.replace("x * K", "x + K"))
    assert made(text) != made(text.replace("K = 2", "K = 3"))


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("{:.2f}".format, "{:.2f}".format, "{:.3f}".format),
        ({1: 2}.get, {1: 2}.get, {1: 3}.get),
        ((5).__add__, (5).__add__, (6).__add__),
        (dict.fromkeys, dict.fromkeys, collections.OrderedDict.fromkeys),
    ],
)
def test_a_method_of_a_built_in_object_counts_with_its_object(
    one: Any, same: Any, other: Any
) -> None:
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)


_RECORD = """
import dataclasses, functools, operator
@dataclasses.dataclass
class Record:
    __rate__ = 2
    __call__ = staticmethod(operator.add)
    size: int = dataclasses.field(default=1, metadata={"scale": 2})
    def first(self): return self.size
def f(x): return Record(x).first()
"""
_PLACE = """
from typing import Protocol, runtime_checkable
class Place:
    __match_args__ = ("x", "y")
    def __hash__(self): return 1
@runtime_checkable
class Placed(Protocol):
    x: int
    def go(self): ...
def f(x): return Place(), isinstance(x, Placed)
"""


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (_RECORD, "@dataclasses.dataclass", "@dataclasses.dataclass(order=True)"),
        (_RECORD, "@dataclasses.dataclass", "@dataclasses.dataclass(eq=False)"),
        (_RECORD, "@dataclasses.dataclass", "@dataclasses.dataclass(frozen=True)"),
        (_RECORD, "@dataclasses.dataclass", "@dataclasses.dataclass(match_args=False)"),
        (_RECORD, "__rate__ = 2", "__rate__ = 3"),
        (_RECORD, "operator.add", "operator.sub"),
        (_RECORD, '"scale": 2', '"scale": 3'),
        (_RECORD, "    size", "    __match_args__ = ()\n    size"),
        (_PLACE, '("x", "y")', '("y", "x")'),
        (_PLACE, "return 1", "return 2"),
        (_PLACE, "def __hash__(self): return 1", "__hash__ = None"),
        (_PLACE, "    x: int", "    y: int"),
    ],
)
def test_what_python_often_generates_counts_if_a_class_defines_it(
    load: Load, text: str, old: str, new: str
) -> None:
    assert of(load(text), "f") == of(load(text), "f")
    assert of(load(text), "f") != of(load(text.replace(old, new)), "f")


_SEEDED = {
    "in a dict": "R = {'a': random.Random(1)}\ndef f(x): return R['a'].random()\n",
    "in a list": "R = [numpy.random.default_rng(1)]\ndef f(x): return R[0].random()\n",
    "in an object": (
        "class Model:\n"
        "    def __init__(self, seed): self.rng = random.Random(seed)\n"
        "R = Model((1))\ndef f(x): return R.rng.random()\n"
    ),
    "in a class": (
        "class Model:\n    rng = numpy.random.RandomState(1)\n"
        "    class Inner:\n        rng = random.Random(1)\n"
        "def f(x): return Model.rng.random()\n"
    ),
    "its method": "R = numpy.random.default_rng(1).random\ndef f(x): return R()\n",
    "in a closure": (
        "def make(rng):\n    def draw(x): return rng.random()\n    return draw\n"
        "draw = make(random.Random(1))\ndef f(x): return draw(x)\n"
    ),
    "in a closure that is mapped": (
        "def make(rng):\n    def draw(x): return rng.random()\n    return draw\n"
        "f = make(numpy.random.RandomState(1))\n"
    ),
    "in a partial function": (
        "def draw(rng, x): return rng.random()\nf = functools.partial(draw, random.Random(1))\n"
    ),
    "a context variable": (
        "class Model:\n    rate = contextvars.ContextVar('rate', default=(1))\n"
        "def f(x): return Model.rate.get()\n"
    ),
}


@pytest.mark.parametrize("name", _SEEDED)
def test_the_seed_of_a_generator_counts_wherever_a_function_finds_it(load: Load, name: str) -> None:
    text = "import contextvars, functools, random\nimport numpy\n" + _SEEDED[name]
    module = load(text)
    meaning = Meaning(module.f)
    before = meaning.fingerprint
    module.f(0)  # draws

    assert meaning.guard.holds()
    is_sent_with_its_state = name.endswith(("mapped", "function"))
    assert (of(module, "f") == before) != is_sent_with_its_state
    assert of(load(text.replace("(1)", "( 1 )")), "f") == before
    assert of(load(text.replace("(1)", "(2)")), "f") != before


@pytest.mark.parametrize("reads", ["__doc__", "me.__doc__"])
def test_the_docstring_of_a_module_counts_if_a_function_reads_it(load: Load, reads: str) -> None:
    text = (
        "import sys\nme = sys.modules['usermodule']\n"
        f"def f(x): return {reads}\ndef g(x): return x\n"
    )
    one, other = load("'One.'\n" + text), load("'Other.'\n" + text)
    sys.modules["usermodule"] = one
    before = of(one, "f"), of(one, "g")
    sys.modules["usermodule"] = other
    after = of(other, "f"), of(other, "g")
    assert before[0] != after[0]
    assert before[1] == after[1]
