"""The state of open files, and what a worker is sent instead of them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resilient_scoop.values import open_files
from resilient_scoop.values.hidden_state import may_have_state, state_of


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "r+b"])
def test_a_file_that_can_be_read_is_known_by_its_position(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data"
    path.write_text("one\ntwo\nthree\n")
    with path.open(mode) as file, path.open(mode) as same:
        assert may_have_state(file)
        assert state_of(file) == b""
        file.readline()
        assert state_of(file) != state_of(same) == b""
        position = open_files.position_of(file)
        assert position == 4
        assert open_files.move(
            same, pickle.loads(pickle.dumps(open_files.FilePosition(4))).position
        )
        assert state_of(file) == state_of(same)
        assert same.readline() == file.readline()
    assert state_of(file) == b"closed"
    assert open_files.position_of(file) is None
    assert not open_files.move(file, 0)


def test_a_loop_over_a_text_file_has_a_state_and_no_position_to_send(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        next(file)
        assert state_of(file).startswith(b"at a line before")
        assert open_files.position_of(file) is None


def test_a_file_that_is_only_written_has_no_state_until_it_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        file.write("text")
        assert state_of(file) == b""
        assert open_files.position_of(file) is None
    assert state_of(file) == b"closed"


def test_a_temporary_file_cannot_be_sent_once_it_has_been_written() -> None:
    for make in (tempfile.TemporaryFile, tempfile.SpooledTemporaryFile):
        with make() as file:
            assert state_of(file) == b""
            file.write(b"text")
            file.seek(0)
            assert state_of(file) != b""
            assert open_files.position_of(file) is None


def test_standard_streams_and_files_in_memory_are_no_files() -> None:
    values: list[Any] = [sys.stdin, sys.__stdout__, io.StringIO(), io.BytesIO(), "text"]
    assert not any(map(open_files.is_file, values))


def test_a_process_appends_to_a_file_that_it_shares(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        file.write("first\n")
        open_files.append_to(file)
        with path.open("a") as other:
            other.write("other\n")
        file.write("second\n")
    assert path.read_text() == "first\nother\nsecond\n"


@pytest.mark.parametrize("mode", ["r+", "r+b", "w+b"])
def test_a_process_writes_at_positions_to_a_file_that_is_updated(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data"
    path.write_text("12345678")
    with path.open(mode) as file:
        open_files.append_to(file)
        file.write("12345678" if mode == "r+" else b"12345678")
        file.seek(0)
        file.write("ab" if mode == "r+" else b"ab")
    assert path.read_text() == "ab345678"


def test_nothing_is_appended_to_what_is_no_file_on_disk() -> None:
    read, write = os.pipe()
    with open(write, "w") as pipe, open(read) as reader:  # noqa: PTH123 - a descriptor has no path
        for each in (pipe, reader, io.StringIO(), None):
            open_files.append_to(each)
        print("text", file=pipe, flush=True)
        assert reader.readline() == "text\n"


def test_an_archive_that_is_written_is_named_by_its_type(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "o.zip", "w") as written,
        gzip.open(tmp_path / "o.gz", "wt") as text,
        (tmp_path / "plain").open("w") as plain,
    ):
        assert open_files.unshared_writer(written) == "zipfile.ZipFile"
        assert open_files.unshared_writer(text) == "gzip.GzipFile"
        assert open_files.unshared_writer(plain) == ""
    assert open_files.unshared_writer(text) == ""
    with zipfile.ZipFile(tmp_path / "o.zip") as read, gzip.open(tmp_path / "o.gz") as lines:
        assert open_files.unshared_writer(read) == open_files.unshared_writer(lines) == ""


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_writes_to_its_file_is_sent_as_the_file(tmp_path: Path, order: Any) -> None:
    array = np.memmap(
        tmp_path / "data", dtype="f8", mode="w+", offset=16, shape=(2, 3), order=order
    )
    assert open_files.is_mapped(array)
    other = pickle.loads(pickle.dumps(open_files.MappedFile(array)))
    other[1, 2] = 5.0
    assert array[1, 2] == 5.0
    assert open_files.mapping_of(other) == open_files.mapping_of(array)
    for no_mapping in (array[1:], np.array(array), array.copy()):
        assert not open_files.is_mapped(no_mapping)
    assert not open_files.is_mapped(np.memmap(tmp_path / "data", dtype="f8", mode="r"))
