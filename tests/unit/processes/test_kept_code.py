"""Copies of the user's source: all processes of a launch run the code with which it began."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import linecache
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from resilient_scoop.identity import module_source
from resilient_scoop.identity.meaning import Meaning
from resilient_scoop.processes import kept_code
from resilient_scoop.processes.kept_code import KeptCode
from resilient_scoop.values import source

OLD, NEW = 'VERSION = "old"\n', '# a new line\nVERSION = "new"\n'


class Launch:
    """A launch of a script in a folder, as its processes see it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.src, self.run = folder / "src", folder / "run"
        self.src.mkdir()
        self.run.mkdir()
        self.patch = monkeypatch
        monkeypatch.syspath_prepend(str(self.src))

    def write(self, name: str, text: str) -> Path:
        path = self.src / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def begin(self, script: str | None = None) -> None:
        time.sleep(0.02)  # the kernel's clock for files advances in steps
        kept_code.begin(self.run, script and str(self.src / script))
        time.sleep(0.02)

    @contextmanager
    def process(self) -> Iterator[KeptCode]:
        """Act as a process that has just been started."""
        modules = set(sys.modules)
        with self.patch.context() as patch:
            patch.setattr(sys, "meta_path", [*sys.meta_path])
            patch.setattr(linecache, "updatecache", linecache.updatecache)
            patch.setattr(linecache, "cache", {})
            patch.setattr(sys, "dont_write_bytecode", False)
            kept_code.install(str(self.run))
            assert KeptCode.current is not None
            importlib.invalidate_caches()
            yield KeptCode.current
        KeptCode.current = None
        for name in set(sys.modules) - modules:
            del sys.modules[name]

    def load(self, name: str) -> ModuleType:
        """Return a module as a new process imports it."""
        with self.process():
            return importlib.import_module(name)

    @property
    def copies(self) -> list[str]:
        found = (path.name for path in (self.run / "code").iterdir())
        return sorted(name for name in found if name not in ("began", "files"))


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    return Launch(tmp_path, monkeypatch)


def test_an_edited_module_keeps_its_content_during_a_launch(launch: Launch) -> None:
    path = launch.write("edited_module.py", OLD)
    launch.write("edited_package/__init__.py", "from .part import VERSION\n")
    launch.write("edited_package/part.py", OLD)
    launch.begin()
    assert launch.load("edited_module").VERSION == launch.load("edited_package").VERSION == "old"

    path.write_text(NEW)
    launch.write("edited_package/part.py", NEW)
    again = launch.load("edited_module")
    assert (again.VERSION, again.__file__) == ("old", str(path))
    assert launch.load("edited_package").VERSION == "old"

    launch.begin()
    assert launch.load("edited_module").VERSION == launch.load("edited_package").VERSION == "new"


def test_a_removed_module_can_still_be_imported(launch: Launch) -> None:
    path = launch.write("removed_module.py", OLD)
    inner = launch.write("removed_package/__init__.py", OLD)
    launch.begin()
    for name in ("removed_module", "removed_package"):
        launch.load(name)
    path.unlink()
    inner.unlink()
    inner.parent.rename(launch.src / "elsewhere")
    assert launch.load("removed_module").VERSION == "old"
    found = launch.load("removed_package")
    assert (found.VERSION, found.__path__) == ("old", [str(inner.parent)])
    with pytest.raises(ModuleNotFoundError, match="never_there"):
        launch.load("never_there")


def test_the_script_is_kept_when_the_launch_begins(launch: Launch) -> None:
    path = launch.write("kept_script.py", OLD)
    launch.begin("kept_script.py")
    path.write_text(NEW)
    with launch.process() as code:
        assert code.read(str(path)) == OLD.encode()


def test_a_module_written_by_the_program_is_read_unchanged(launch: Launch) -> None:
    launch.begin()
    launch.write("generated_module.py", "VERSION = 1\n")
    assert launch.load("generated_module").VERSION == 1
    launch.write("generated_module.py", "VERSION = 'two'\n")
    assert launch.load("generated_module").VERSION == "two"
    assert launch.copies == []


def test_a_reload_reads_the_file(launch: Launch) -> None:
    launch.write("reloaded_module.py", OLD)
    launch.begin()
    with launch.process():
        module = importlib.import_module("reloaded_module")
        assert inspect.getsource(module) == OLD
        launch.write("reloaded_module.py", NEW)
        assert importlib.reload(module).VERSION == "new"
        assert inspect.getsource(module) == NEW
    assert launch.load("reloaded_module").VERSION == "old"


def test_compiled_code_beside_a_file_stays_valid(launch: Launch) -> None:
    path = launch.write("compiled_module.py", OLD)
    cached = Path(importlib.util.cache_from_source(str(path)))
    launch.begin()
    launch.load("compiled_module")
    first = cached.read_bytes()
    assert launch.load("compiled_module").VERSION == "old"

    path.write_text(NEW)
    assert launch.load("compiled_module").VERSION == "old"
    assert cached.read_bytes() == first
    cached.unlink()
    assert launch.load("compiled_module").VERSION == "old"
    assert not cached.exists()
    importlib.invalidate_caches()
    sys.modules.pop("compiled_module", None)
    assert importlib.import_module("compiled_module").VERSION == "new"
    del sys.modules["compiled_module"]
    assert launch.load("compiled_module").VERSION == "old"


def test_tracebacks_and_sources_show_the_copy(launch: Launch) -> None:
    text = "def fail():\n    raise ValueError('here')  # old"
    path = launch.write("failing_module.py", text)
    launch.begin()
    launch.load("failing_module")
    path.write_text("# new\n" * 5)
    with launch.process():
        module = importlib.import_module("failing_module")
        with pytest.raises(ValueError, match="here") as caught:
            module.fail()
        shown = "".join(traceback.format_exception(caught.value))
        assert inspect.getsource(module.fail) == f"{text}\n"
    assert "raise ValueError('here')  # old" in shown
    assert f'File "{path}", line 2' in shown


def test_files_of_later_imports_are_read_from_their_copies(launch: Launch) -> None:
    path = launch.write("lazy_module.py", "RATE = 1\n")
    launch.begin()

    def rates() -> int:
        from lazy_module import RATE  # type: ignore[import-not-found]

        return int(RATE)

    def meaning() -> bytes:
        source._parse.cache_clear()
        module_source.bindings.cache_clear()
        with launch.process():
            return Meaning(rates).fingerprint

    before = meaning()
    path.write_text("RATE = 2\n")
    assert meaning() == before
    path.unlink()
    assert meaning() == before
    launch.write("lazy_module.py", "RATE = 3\n")
    launch.begin()
    assert meaning() != before
    source._parse.cache_clear()
    module_source.bindings.cache_clear()


def test_installed_modules_and_our_own_are_not_kept(launch: Launch) -> None:
    launch.write("site-packages/installed_module.py", OLD)
    launch.patch.syspath_prepend(str(launch.src / "site-packages"))
    launch.begin()
    launch.load("installed_module")
    launch.load("this")
    assert launch.copies == []
    assert not kept_code.is_users(kept_code.__file__)


def test_the_first_process_makes_the_copy(launch: Launch) -> None:
    path = launch.write("raced_module.py", OLD)
    launch.begin()
    with launch.process() as code:
        first = code.keep(str(path))
        assert code.keep(str(path)) == first
    assert first is not None
    assert Path(first).read_text() == OLD
    assert launch.copies == [Path(first).name]


def test_a_forked_child_keeps_nothing(launch: Launch) -> None:
    path = launch.write("forked_module.py", OLD)
    launch.begin()
    with launch.process() as code:
        launch.patch.setattr(os, "getpid", lambda: 1)
        assert code.read(str(path)) == OLD.encode()
    assert launch.copies == []


def test_a_file_is_read_directly_if_there_is_no_space_for_a_copy(launch: Launch) -> None:
    path = launch.write("unkept_module.py", OLD)
    launch.begin()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with launch.patch.context() as patch:
        patch.setattr(os, "link", full)
        assert launch.load("unkept_module").VERSION == "old"
    assert launch.copies == []
    path.write_text(NEW)
    assert launch.load("unkept_module").VERSION == "new"


@pytest.mark.parametrize("counts", [False, True])
def test_a_launch_that_does_not_count_keeps_the_copies_of_the_last_launch(
    tmp_path: Path, *, counts: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text("old = 1\n")
    kept_code.begin(tmp_path, str(script))
    kept_code.end(tmp_path, counts=True)
    script.write_text("new = 2\n")
    kept_code.begin(tmp_path, str(script))
    kept_code.end(tmp_path, counts=counts)
    (copy,) = kept_code.files(tmp_path).values()
    assert copy.read_text() == ("new = 2\n" if counts else "old = 1\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "script.py"]
