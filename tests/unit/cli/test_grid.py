"""Options for other hosts: who computes, and what a resume keeps of an earlier launch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resilient_scoop.cli.grid import Crew, GridWish, crew
from resilient_scoop.errors import UsageError

NOTHING = GridWish((), None, None, None, None, None, None, False, None, False, False, None, None)
CORES = len(os.sched_getaffinity(0))


def wish(**given: object) -> GridWish:
    return NOTHING._replace(**given)  # type: ignore[arg-type]


def test_without_hosts_this_host_computes() -> None:
    assert crew(NOTHING, None) == Crew(CORES, CORES, None)
    assert crew(NOTHING, 3) == Crew(3, 3, None)
    assert crew(NOTHING, None, None, 7) == Crew(7, 7, None)


def test_with_hosts_this_host_computes_only_if_it_is_named() -> None:
    resources = crew(wish(host=("alice:4", "bob:2")), None)
    assert (resources.here, resources.total) == (0, 6)
    resources = crew(wish(host=("alice:4", "localhost:3")), None)
    assert (resources.here, resources.total) == (3, 7)
    assert resources.spec is not None
    assert [each.name for each in resources.spec.others] == ["alice"]


def test_a_total_number_of_workers_is_split_over_all_hosts() -> None:
    resources = crew(wish(host=("localhost:2", "alice:4")), 4)
    assert (resources.here, resources.total) == (2, 4)
    assert resources.spec is not None
    assert resources.spec.for_others == 2


def test_a_hostfile_with_only_this_host_makes_a_local_run() -> None:
    assert crew(wish(host=("localhost:3", "127.0.0.1:1")), None) == Crew(4, 4, None)


def test_a_host_with_an_address_is_reached_by_ssh_even_if_it_is_this_one(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("here address=127.0.0.1 port=2222 slots=2\n")
    resources = crew(wish(hostfile=str(file)), None)
    assert resources.here == 0
    assert resources.spec is not None
    assert resources.spec.others[0].port == 2222


def test_a_run_without_workers_here_needs_one_host() -> None:
    resources = crew(wish(host=("alice:4",)), None)
    assert resources.spec is not None
    assert resources.spec.min_hosts == 1
    resources = crew(wish(host=("alice:4", "localhost:1")), None)
    assert resources.spec is not None
    assert resources.spec.min_hosts == 0


def test_a_resume_keeps_the_hosts_and_uses_new_options() -> None:
    first = crew(wish(host=("alice:4", "localhost:1"), tunnel=True, python="/p"), None)
    again = crew(wish(python="/q"), None, first.spec, 1)
    assert again.spec is not None
    assert [each.name for each in again.spec.hosts] == ["alice", "localhost"]
    assert again.spec.tunnel
    assert again.spec.python == "/q"
    assert again.here == 1
    other = crew(wish(host=("bob:1",)), None, first.spec, 1)
    assert other.spec is not None
    assert [each.name for each in other.spec.others] == ["bob"]
    assert other.here == 0


def test_options_for_hosts_without_hosts_are_refused() -> None:
    with pytest.raises(UsageError, match="no other host is named"):
        crew(wish(tunnel=True), None)


def test_a_hostfile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        crew(wish(hostfile=str(tmp_path / "none")), None)
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        crew(wish(hostfile=str(bad)), None)
    bad.write_text("alice\n\n\n\n\n\n%%%\n")
    with pytest.raises(UsageError, match="line 7"):
        crew(wish(hostfile=str(bad)), None)


def test_a_hostfile_without_hosts_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none\n")
    with pytest.raises(UsageError, match="empty names no host"):
        crew(wish(hostfile=str(empty)), None)


def test_a_hostfile_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"\xef\xbb\xbfalice:2\n")
    assert crew(wish(hostfile=str(file)), None).total == 2


def test_more_hosts_cannot_be_required_than_there_are() -> None:
    with pytest.raises(UsageError, match="--min-hosts 3: the run has only 2 other hosts"):
        crew(wish(host=("alice:1", "bob:1", "localhost:1"), min_hosts=3), None)


def test_hosts_without_numbers_share_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    resources = crew(wish(host=("alice", "bob")), 1)
    assert resources.spec is not None
    assert [each.name for each in resources.spec.others] == ["alice"]
    assert "host bob gets no worker" in capsys.readouterr().err


def test_a_total_smaller_than_the_number_of_hosts_leaves_hosts_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    resources = crew(wish(host=("alice:2", "bob:2")), 1)
    assert (resources.here, resources.total, resources.hosts) == (0, 1, 1)
    assert resources.spec is not None
    assert [each.name for each in resources.spec.others] == ["alice"]
    assert "host bob gets no worker" in capsys.readouterr().err


def test_a_total_larger_than_the_cores_of_the_hosts_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    resources = crew(wish(host=("alice:2", "localhost:1")), 9)
    assert (resources.here, resources.total) == (1, 3)
    assert "-n 9: the hosts take only 3 workers" in capsys.readouterr().err


def test_hosts_with_unknown_cores_make_the_total_unknown() -> None:
    assert crew(wish(host=("alice", "bob:2")), None).total == 0
