"""Tags on disk: the last line of a host counts, an incomplete line does not, a full disk is reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resilient_scoop.core.places import WrittenTag
from resilient_scoop.processes.places import units_file
from resilient_scoop.processes.places.units_file import NAME, UnitsFile


def found(folder: Path) -> dict[str, str]:
    units = UnitsFile(folder)
    units.close()
    return {each.host: each.tag for each in units.found}


def test_the_last_tag_of_a_host_is_found_again(tmp_path: Path) -> None:
    units = UnitsFile(tmp_path)
    for host, tag in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")):
        units.write(host, tag)
    units.drop("c", "4")
    units.drop("b", "an older one")
    units.close()

    assert found(tmp_path) == {"a": "3", "b": "2"}


def test_an_incomplete_line_is_dropped_and_not_joined_with_another(tmp_path: Path) -> None:
    units = UnitsFile(tmp_path)
    units.write("a", "1")
    units.close()
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"host":"a","ta')

    units = UnitsFile(tmp_path)
    units.write("b", "2")
    units.close()
    assert found(tmp_path) == {"a": "1", "b": "2"}


def test_the_file_is_compacted_at_the_start_and_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units_file, "LINES_MAX", 10)
    units = UnitsFile(tmp_path)
    for number in range(40):
        units.write("a", str(number))
    assert len((tmp_path / NAME).read_text().splitlines()) <= 13
    units.close()

    UnitsFile(tmp_path).close()
    assert len((tmp_path / NAME).read_text().splitlines()) == 1


def test_a_tag_that_cannot_be_synced_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = UnitsFile(tmp_path)
    units.write("a", "1")

    def refuse(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space"):
            units.write("a", "2")
    units.write("b", "3")
    units.close()
    assert found(tmp_path) == {"a": "1", "b": "3"}


def test_a_tag_is_synced_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = UnitsFile(tmp_path)
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _fd: synced.append((tmp_path / NAME).read_bytes()))
    units.write("a", "1")
    assert synced == [b'{"host":"a","tag":"1"}\n']
    units.close()


def test_unused_units_are_no_error(tmp_path: Path) -> None:
    assert found(tmp_path) == {}
    assert found(tmp_path) == {}


def test_no_tag_is_read_twice(tmp_path: Path) -> None:
    units = UnitsFile(tmp_path)
    units.write("a", "1")
    units.drop("a", "1")
    units.write("a", "2")
    units.close()
    again = UnitsFile(tmp_path)
    again.close()
    assert again.found == (WrittenTag("a", "2"),)


def test_a_tag_that_cannot_be_synced_after_a_compaction_leaves_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units_file, "LINES_MAX", 10)
    units = UnitsFile(tmp_path)
    for number in range(12):
        units.write("a", str(number))
    sync, synced = os.fsync, []

    def refuse_the_line(fd: int) -> None:
        synced.append(fd)
        if fd == units._fd and len(synced) > 1:  # the compaction was synced before
            raise OSError(28, "No space left on device")
        sync(fd)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse_the_line)
        with pytest.raises(OSError, match="No space"):
            units.write("b", "1")
    units.write("c", "1")
    units.close()

    assert b"\0" not in (tmp_path / NAME).read_bytes()
    assert found(tmp_path) == {"a": "11", "c": "1"}
