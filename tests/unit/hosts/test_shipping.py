"""Which files of a folder are shipped, and how they are described."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts import shipping
from resilient_scoop.hosts.shipping import files_of, pack, read
from resilient_scoop.processes.agent.shipped import moved
from resilient_scoop.processes.starting import ScriptSpec


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {
        "script.py": "import helper", "helper/__init__.py": "", "data/seed.txt": "1",
        ".venv/bin/python": "no", "__pycache__/x.pyc": "no", "notes.log": "ignored by git",
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def names(root: Path) -> list[str]:
    return [str(each) for each in files_of(root)]


def test_files_that_are_never_part_of_a_program_are_not_shipped(project: Path) -> None:
    assert names(project) == [
        "data/seed.txt", "helper/__init__.py", "notes.log", "run.sh", "script.py",
    ]  # fmt: skip


def test_files_that_git_ignores_are_not_shipped(project: Path) -> None:
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".gitignore").write_text("*.log\n")
    assert "notes.log" not in names(project)
    assert "script.py" in names(project), "files that are not committed are shipped"


def test_a_manifest_describes_each_file_by_its_content(project: Path, tmp_path: Path) -> None:
    manifest = pack(project, tmp_path)
    assert read(tmp_path / shipping.FOLDER) == manifest
    by_path = {each.path: each for each in manifest.files}
    script = by_path[b"script.py"]
    assert script.digest == hashlib.sha256(b"import helper").hexdigest()
    assert (tmp_path / shipping.FOLDER / script.digest).read_text() == "import helper"
    assert by_path[b"run.sh"].executable
    assert not script.executable
    assert manifest.size_bytes == sum(each.size_bytes for each in manifest.files)


def test_a_name_that_is_not_utf_8_is_shipped(project: Path, tmp_path: Path) -> None:
    (project / os.fsdecode(b"b\xff.bin")).write_text("x")
    assert b"b\xff.bin" in {each.path for each in pack(project, tmp_path).files}
    assert b"b\xff.bin" in {each.path for each in read(tmp_path / shipping.FOLDER).files}


def test_files_are_shipped_as_they_were_at_the_start_of_the_run(
    project: Path, tmp_path: Path
) -> None:
    manifest = pack(project, tmp_path)
    digest = next(each.digest for each in manifest.files if each.path == b"script.py")
    (project / "script.py").write_text("edited")
    assert (tmp_path / shipping.FOLDER / digest).read_text() == "import helper"


def test_a_folder_that_is_too_large_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "BYTES_MAX", 10)
    with pytest.raises(UsageError, match="more than"):
        pack(project, tmp_path)
    monkeypatch.setattr(shipping, "FILES_MAX", 2)
    with pytest.raises(UsageError, match="more than 2 files"):
        files_of(project)


def test_paths_of_the_script_are_adapted_to_its_shipped_folder(tmp_path: Path) -> None:
    spec = ScriptSpec(script="/home/ann/p/ea.py", cwd="/home/ann/p/sub", argv0="ea.py")
    (tmp_path / "sub").mkdir()
    there = moved(spec, "/home/ann/p", str(tmp_path))
    assert there.script == f"{tmp_path}/ea.py"
    assert there.cwd == f"{tmp_path}/sub"
    assert there.argv0 == "ea.py"


def test_a_working_directory_that_does_not_exist_there_becomes_the_folder_itself(
    tmp_path: Path,
) -> None:
    spec = ScriptSpec(script="/home/ann/p/ea.py", cwd="/nowhere/at/all")
    assert moved(spec, "/home/ann/p", str(tmp_path)).cwd == str(tmp_path)


def test_the_path_of_a_folder_with_a_similar_name_is_not_adapted(tmp_path: Path) -> None:
    spec = ScriptSpec(script="/home/ann/project2/ea.py", cwd=str(tmp_path))
    assert moved(spec, "/home/ann/project", str(tmp_path)).script == spec.script
