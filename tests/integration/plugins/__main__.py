"""Run every script in every way, and write the table of `docs/plugins.md`."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tempfile
from pathlib import Path

from tests.integration.plugins.cases import ALL, Case, Script
from tests.integration.runs import Place

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"
HEAD = (
    "| script | library | version | calls | answer | killed worker | killed, resumed | again |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)
_DISTRIBUTIONS = {"leap_ec": "leap-ec", "platypus": "platypus-opt"}


def row_of(script: Script) -> str:
    """Return the row of a script."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def case(name: str) -> Case:
            place = Path(folder) / name
            place.mkdir()
            return Case(script, Place(place, place / "state"))

        expected = case("plain").plain()
        whole = case("run")
        answer, pids = whole.run()
        killed = case("killed").kill_worker()
        ended = case("resumed")
        resumed, _ = ended.kill_everything()
        calls, again = len(whole.calls), len(ended.calls)
        assert pids, f"{script.name}: no call has left the process of the script"
    same = ["same" if each == expected else "DIFFERS" for each in (answer, killed, resumed)]
    library, _ = script.title
    cells = [script.name, library, version_of(library), calls, *same, max(0, again - calls)]
    return "| " + " | ".join(map(str, cells)) + " |"


def version_of(library: str) -> str:
    """Return the version of a library; for a module of Python, the version of Python."""
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(library, library))
    except importlib.metadata.PackageNotFoundError:
        return f"Python {sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """Run the scripts whose libraries are installed; keep the rows of the others."""
    names = sys.argv[1:]
    text = PAGE.read_text()
    begin, _, rest = text.partition("<!-- table -->\n")
    old, _, end = rest.partition("<!-- end of table -->")
    rows = dict(re.findall(r"^(?=\| (\w+) \|)(.*)$", old, re.MULTILINE))
    rows.pop("script", None)
    known = {script.name for script in ALL}
    for script in ALL:
        if script.is_installed and (not names or script.name in names):
            rows[script.name] = row_of(script)
            print(rows[script.name], flush=True)  # noqa: T201
    table = "\n".join([HEAD, *(rows[name] for name in sorted(rows) if name in known)])
    PAGE.write_text(f"{begin}<!-- table -->\n{table}\n<!-- end of table -->{end}")
    return int("DIFFERS" in table)


if __name__ == "__main__":
    sys.exit(main())
