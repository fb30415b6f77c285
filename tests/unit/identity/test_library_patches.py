"""What the user's code may set inside of libraries, by the statements of its modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.identity import library_patches


@pytest.mark.parametrize(
    ("line", "path", "attribute"),
    [
        ("tempfile.tempdir = x", "tempfile", "tempdir"),
        ("json.JSONEncoder.default = x", "json.JSONEncoder", "default"),
        ("Encoder.default: object = x", "Encoder", "default"),
        ("a.b += 1", "a", "b"),
        ("a.b, [c.d, *e.f] = x", "e", "f"),
        ("a.STATES['ja'] = True", "a", "STATES"),
        ("a.STATES['ja']['nein'] = True", "a", "STATES"),
        ("a.STATES.update(ja=True)", "a", "STATES"),
        ("del a.b", "a", "b"),
        ("setattr(a.B, 'c', x)", "a.B", "c"),
        ("delattr(a, 'c')", "a", "c"),
        ("type.__setattr__(a.B, 'c', x)", "a.B", "c"),
        ("B = a.B\n        B.c = x", "a.B", "c"),
        ("for B in (a.A, a.B):\n            B.c = x", "a.B", "c"),
        ("if (B := a.B):\n            B.c = x", "a.B", "c"),
        ("with patch.object(a.B, 'c', x): pass", "a.B", "c"),
        ("with mock.patch('a.B.c', x): pass", "a.B", "c"),
        ("monkeypatch.setattr('a.B.c', x)", "a.B", "c"),
        ("mock.patch.multiple(a.B, c=x).start()", "a.B", "c"),
        ("mock.patch.dict(a.STATES, ja=True).start()", "a", "STATES"),
    ],
)
def test_statements_that_set_attributes_are_found(
    tmp_path: Path, line: str, path: str, attribute: str
) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"def main(x):\n    if x:\n        {line}\n")
    found = library_patches.places(str(file))
    assert (tuple(path.split(".")), attribute) in [(each.path, each.attribute) for each in found]


@pytest.mark.parametrize(
    "line",
    [
        "self.x = 1",
        "x = a.b",
        "x[0] = 1",
        "f().x = 1",
        "setattr(a, name, 1)",
        "x == a.b",
        "getattr(a, 'b')",
    ],
)
def test_other_statements_are_not_watched(tmp_path: Path, line: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"{line}\n")
    assert library_patches.places(str(file)) == ()


def test_a_file_that_does_not_exist_or_compile_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    assert library_patches.places(str(file)) == ()
    file.write_text("a.b = (\n")
    assert library_patches.places(str(file)) == ()
