"""Edits of modules that show in no function's fingerprint: which are reported, and which do not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.processes import edited_modules, kept_code
from resilient_scoop.wire.callables import Define, Options, Reference

MODEL = """
import logging, random, threading
log = logging.getLogger("model")
logging.basicConfig(level=10)
LOCAL = threading.local()
def setup(rate):
    LOCAL.rate = rate
    inner()
def inner(): return 1
def mutate(x): return x
setup(2)
toolbox.register("mutate", mutate)
class Limits:
    low = 1
class Model(Base):
    'A model.'
    rate = 3
    rng = random.Random(1)
    held: int
    def run(self): return self.rate
    class Inner:
        shape = make(1)
        def run(self): return 1
def f(x): return Model().run() * LOCAL.rate
def main(): return 0
if __name__ == "__main__":
    main()
"""


def reference(home: str, *, text: str = "", at: str = "") -> Reference:
    return Reference(home, home, b"", b"", text, at)


def edited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, *, module: str, folder: str = ""
) -> list[str]:
    """Return the names that were edited in MODEL, a module with a function that has results."""
    path, copy = tmp_path / folder / "model.py", tmp_path / "copy"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    copy.write_text(MODEL)
    monkeypatch.setattr(kept_code, "files", lambda _: {str(path): copy})
    methods = ("f", "Model.run", "Model.Inner.run")
    references = [
        *(reference(f"{module}:{each}", at="model.py:7") for each in methods),
        reference(f"{module}:Model"),
        reference(f"{module}:Model.rate", text="3"),
        reference(f"{module}:Model.rng"),
        reference(f"{module}:Limits.low", text="1"),
        reference(f"{module}:LOCAL", at="model.py:3"),
    ]
    define = Define(b"", b"", f"{module}:f", b"", Options(), False, 0, references)
    script = str(path) if module == "__main__" else None
    return [each.name for each in edited_modules.edits(tmp_path, script, [define]).of_results]


@pytest.mark.parametrize("module", ["__main__", "model"])
@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("Random(1)", "Random(2)", ["Model.rng"]),
        ("make(1)", "make(2)", ["Model.Inner.shape"]),
        ("    held: int\n", "    held: int\n    more: int\n", ["Model.more"]),
        ("class Model(Base)", "@final\nclass Model(Base)", ["Model"]),
        ("class Model(Base)", "class Model(Base, kind=1)", ["Model"]),
        ("= rate\n", "= 2 * rate\n", ["setup"]),
        ("inner(): return 1", "inner(): return 2", ["inner"]),
        ("setup(2)", "setup(3)", ["a statement"]),
        ("    low = 1\n", "    low = 1\n    high = make(2)\n", ["Limits.high"]),
    ],
)
def test_an_edit_that_fingerprints_may_not_show_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    module: str,
    old: str,
    new: str,
    names: list[str],
) -> None:
    text = MODEL.replace(old, new)
    assert text != MODEL
    assert edited(monkeypatch, tmp_path, text, module=module) == names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate = 3", "rate = 4"),  # fingerprints show these
        ("return self.rate", "return 1"),
        ("def run(self): return 1", "def run(self): return 2"),
        ("* LOCAL.rate", "+ LOCAL.rate"),
        ("'A model.'", "'The model.'"),
        ("held: int", "held: float"),
        ("    low = 1\n", "    low: int\n    low = 1\n    high: int\n"),
        ("level=10)", "level=20)\nlog.setLevel(30)\nlogging.getLogger('a').addHandler(setup(1))"),
        ("def f(x)", "def new(x, y=2): return x\ndef f(x)"),
        ("Random(1)", "Random( 1 )  # the seed"),
        ("def mutate(x): return x", "def mutate(x): return -x"),  # runs in the script's process
        ("def main(): return 0", "def main(): return 1"),
    ],
)
def test_an_edit_that_fingerprints_show_or_that_has_no_effect_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str
) -> None:
    text = MODEL.replace(old, new)
    assert text != MODEL
    assert edited(monkeypatch, tmp_path, text, module="__main__") == []


def test_a_new_function_is_reported_if_code_may_find_its_name_or_its_definition_runs_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = MODEL + "def new(x): return x\n"
    assert edited(monkeypatch, tmp_path, text, module="model") == []
    for old, new in (("def new(x)", "@setup\ndef new(x)"), ("new(x)", "new(x=setup(3))")):
        is_run = text.replace(old, new)
        assert edited(monkeypatch, tmp_path, is_run, module="model") == ["new"]
    text = text.replace("return x\nsetup", "return getattr(random, x)\nsetup")
    assert edited(monkeypatch, tmp_path, text, module="model") == ["mutate", "new"]


def test_a_function_of_another_module_whose_file_has_the_same_name_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = MODEL.replace("* LOCAL.rate", "+ LOCAL.rate")
    assert edited(monkeypatch, tmp_path, text, module="one.model", folder="one") == []
    assert edited(monkeypatch, tmp_path, text, module="one.model", folder="two") == ["f"]
