"""Tables for notebooks."""

from __future__ import annotations

from resilient_scoop.runs.html_text import table


def test_a_table_escapes_names_and_values_and_leaves_out_empty_ones() -> None:
    found = table([("<name>", "a & <b>"), ("none", None), ("zero", 0)])
    assert "&lt;name&gt;" in found
    assert "a &amp; &lt;b&gt;" in found
    assert "none" not in found
    assert found.count("<tr>") == 2
    assert found.startswith("<table>")
    assert found.endswith("</table>")
