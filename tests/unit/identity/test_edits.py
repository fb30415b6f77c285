"""Random edits: each edit that changes a result changes a fingerprint, no harmless one does."""

from __future__ import annotations

from tests.unit.edits import rates


def test_edits_change_fingerprints_if_and_only_if_they_may_change_a_result() -> None:
    found = rates(seed=7, count=60)

    assert found.missed == []
    assert found.refused == []
    assert found.changing > 30
    assert found.harmless > 30
