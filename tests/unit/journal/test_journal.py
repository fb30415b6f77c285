"""A journal whose creation was interrupted by a kill is made again; one with records never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.core.events import Put, Table
from resilient_scoop.errors import JournalFormatError
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import GENERATION_FILE

RUN = bytes(range(16))


def test_a_journal_that_was_killed_before_it_was_complete_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    Journal.create(folder, RUN).close(clean=False)
    (folder / GENERATION_FILE).unlink()

    journal = Journal.create(folder, RUN)

    journal.commit([Put(Table.META, b"epoch", b"\x01")])
    journal.close(clean=True)
    Journal.open(folder, run=RUN).close(clean=True)


@pytest.mark.parametrize("table", [Table.META, Table.LOG, Table.OUTPUT])
def test_a_journal_with_records_is_not_made_again(tmp_path: Path, table: Table) -> None:
    folder = tmp_path / "journal"
    journal = Journal.create(folder, RUN)
    journal.commit([Put(table, b"epoch" * 5, b"\x01")])
    journal.close(clean=True)
    (folder / GENERATION_FILE).unlink()

    with pytest.raises(JournalFormatError, match="restore that file"):
        Journal.create(folder, RUN)
