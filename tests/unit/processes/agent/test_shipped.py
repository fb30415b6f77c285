"""The script's folder on another host: files that a crash has damaged are fetched again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.hosts import shipping
from resilient_scoop.processes.agent import shipped
from resilient_scoop.processes.starting import ScriptSpec

TEXT = "print('the script')\n"


class Hosts:
    """The run's host with a packed folder, and another one."""

    def __init__(self, folder: Path) -> None:
        self.project, self.run, self.host = (folder / name for name in ("project", "run", "host"))
        for each in (self.project, self.run, self.host / shipping.FOLDER):
            each.mkdir(parents=True)
        self.cache = folder / "cache" / "rscoop" / "shipped"
        (self.project / "script.py").write_text(TEXT)
        (self.shipped,) = shipping.pack(self.project, self.run).files
        self.fetched: list[str] = []

    def fetch(self, name: str, _until: float) -> bool:
        self.fetched.append(name)
        shutil.copyfile(self.run / name, self.host / name)
        return True

    def receive(self) -> str:
        """Return the content of the script on the other host."""
        uplink: Any = self
        spec = ScriptSpec(script=str(self.project / "script.py"), cwd=str(self.project))
        here = shipped.receive(self.host, uplink, spec)
        assert here.script is not None
        return Path(here.script).read_text()

    @property
    def contents_fetched(self) -> int:
        return sum(not name.endswith(shipping.MANIFEST) for name in self.fetched)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hosts(tmp_path)


def test_files_in_the_cache_are_not_fetched(hosts: Hosts) -> None:
    assert hosts.receive() == TEXT
    shutil.rmtree(hosts.host / shipping.FOLDER)
    (hosts.host / shipping.FOLDER).mkdir()
    assert hosts.receive() == TEXT
    assert hosts.contents_fetched == 1


def test_a_file_that_a_power_cut_left_damaged_in_the_cache_is_replaced(hosts: Hosts) -> None:
    hosts.cache.mkdir(parents=True)
    kept = hosts.cache / hosts.shipped.digest
    kept.write_text("")
    assert hosts.receive() == TEXT
    assert kept.read_text() == TEXT


def test_a_file_that_a_killed_agent_copied_partly_is_fetched(hosts: Hosts) -> None:
    (hosts.host / shipping.FOLDER / hosts.shipped.digest).write_text(TEXT[:5])
    assert hosts.receive() == TEXT
    assert hosts.contents_fetched == 1
