"""Figures, lines of JSON and copies of a journal."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.errors import JournalFormatError
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.export import backup, export, stats
from resilient_scoop.journal.journal import Journal
from resilient_scoop.wire import messages

pytestmark = pytest.mark.real

LARGE = b"l" * (BLOB_BYTES_MIN + 1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "journal", b"r" * 16)
    crashed = messages.Crashed("0", 3, 17, -9, "oom", b"digest")
    journal.commit(
        [
            Put(Table.LOG, b"key", messages.encode(crashed)),
            Put(Table.CONST, b"large", messages.encode(messages.Const("large", b"d", LARGE))),
            Put(Table.EVENT, b"\0", b"\xc1 is no msgpack"),
        ]
    )
    yield journal
    journal.close(clean=True)


def test_each_record_is_a_line_with_its_fields_by_name(journal: Journal) -> None:
    lines = [json.loads(line) for line in export(journal)]
    by_table = {line["table"]: line for line in lines if line["table"] != "meta"}
    assert by_table["log"] == {
        "table": "log",
        "key": b"key".hex(),
        "type": "Crashed",
        "value": {
            "parent": "0",
            "call": 3,
            "index": 17,
            "exit": -9,
            "reason": "oom",
            "digest": base64.b64encode(b"digest").decode(),
            "incarnation": "",
            "at": 0.0,
            "tries": 0,
        },
    }
    assert base64.b64decode(by_table["const"]["value"]["payload"]) == LARGE
    assert by_table["event"]["type"] == "bytes"


def test_the_figures_add_up(journal: Journal) -> None:
    with Journal.view(journal.directory) as view:
        found = stats(view)
    assert found.run == (b"r" * 16).hex()
    assert {table.table: table.records for table in found.tables}["log"] == 1
    assert found.size_bytes > len(LARGE)
    assert 0 <= found.free_pages < found.pages


def test_a_copy_of_a_live_journal_can_be_opened(journal: Journal, tmp_path: Path) -> None:
    journal.commit([Put(Table.ARGS, b"%d" % i, bytes(3000)) for i in range(500)])
    journal.commit([Erase(Table.ARGS, b"")])
    with Journal.view(journal.directory) as view:
        backup(view, tmp_path / "copy")
        with pytest.raises(JournalFormatError, match="not empty"):
            backup(view, tmp_path / "copy")
    size_bytes = (tmp_path / "copy" / "data.mdb").stat().st_size
    assert size_bytes < (journal.directory / "data.mdb").stat().st_size / 4
    assert check(tmp_path / "copy", Depth.CONTENTS).sound

    copy = Journal.open(tmp_path / "copy", run=b"r" * 16)
    for table in (Table.LOG, Table.CONST, Table.EVENT):
        assert copy.read(table) == journal.read(table)
    copy.close(clean=True)
