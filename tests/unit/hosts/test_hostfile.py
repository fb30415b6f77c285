"""Hosts in the notations of users."""

from __future__ import annotations

import os

import pytest

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.hostfile import Host, duplicates, read_hosts, split_total


def one(text: str) -> Host:
    [host] = read_hosts(text=text)
    return host


@pytest.mark.parametrize(
    ("text", "name", "workers"),
    [
        ("alice", "alice", None),
        ("alice 4", "alice", 4),
        ("alice:4", "alice", 4),
        ("alice slots=4", "alice", 4),
        ("  alice\tslots=4   # the fast one", "alice", 4),
        ("alice.example.org:12", "alice.example.org", 12),
        ("10.0.0.7 2", "10.0.0.7", 2),
        ("[fe80::1]:4", "fe80--1", 4),
        ("[::1]", "::1", None),
        ("[fe80::1%eth0]:4", "fe80--1-eth0", 4),
        ("my_host-1 workers=3", "my_host-1", 3),
    ],
)
def test_a_line_gives_name_and_number(text: str, name: str, workers: int | None) -> None:
    assert (one(text).name, one(text).workers) == (name, workers)


@pytest.mark.parametrize("text", ["ann@alice:4", "alice 4 user=ann", "ann@alice slots=4"])
def test_a_line_gives_the_user(text: str) -> None:
    assert (one(text).name, one(text).user, one(text).workers) == ("alice", "ann", 4)


def test_a_line_gives_all_options() -> None:
    host = one(
        'bob slots=4 max_slots=8 address=10.0.0.7 port=2222 python="/opt/my py/bin/python" '
        "prolog='module load python # 3.12' tunnel=yes"
    )
    assert host == Host(
        name="bob", address="10.0.0.7", port=2222, workers=4, max_workers=8, tunnel=True,
        python="/opt/my py/bin/python", prolog="module load python # 3.12", where="hostfile, line 1",
    )  # fmt: skip
    assert host.target == "10.0.0.7"
    assert one("bob max-slots=9 tunnel=no").max_workers == 9
    assert one("bob tunnel=no").tunnel is False


@pytest.mark.parametrize(
    ("text", "is_local"),
    [("localhost:4", True), ("127.0.0.1", True), ("[::1]:2", True), (os.uname().nodename, True),
     ("me address=127.0.0.1", False),
     ("ann@localhost", False), ("localhost port=2222", False), ("localhost.lab", False)],
)  # fmt: skip
def test_a_host_is_local_by_its_name(text: str, is_local: bool) -> None:  # noqa: FBT001
    assert one(text).is_local is is_local


def test_comments_and_blank_lines_are_ignored() -> None:
    assert read_hosts(text="# hosts\n\n   \n  # alice\n") == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("node[08-11]", ["node08", "node09", "node10", "node11"]),
        ("node[1-3,7]", ["node1", "node2", "node3", "node7"]),
        ("rack[2].lab", ["rack2.lab"]),
    ],
)
def test_a_range_names_each_host(pattern: str, names: list[str]) -> None:
    hosts = read_hosts(text=f"ann@{pattern}:3")
    assert [host.name for host in hosts] == names
    assert {(host.user, host.workers) for host in hosts} == {("ann", 3)}


def test_words_are_split_at_commas_outside_brackets() -> None:
    hosts = read_hosts(["alice:2,node[1-2,5]", "bob"])
    assert [host.name for host in hosts] == ["alice", "node1", "node2", "node5", "bob"]


def test_repeated_lines_add_up() -> None:
    assert one("alice 2\nalice:3\nalice slots=1 max_slots=4").workers == 6
    assert one("alice 2\nalice 2 max_slots=4").max_workers == 4
    assert one("alice\n" * 8).workers == 8  # as in the node file of a batch system
    assert one("alice:2\nalice").workers == 3
    assert one("alice\nalice python=/p").python == "/p"


def test_words_and_lines_add_up() -> None:
    [host] = read_hosts(["alice:2"], "alice 3")
    assert host.workers == 5


def test_one_address_under_two_names_is_one_host_with_the_first_name() -> None:
    [host] = read_hosts(text="alice address=10.0.0.7 slots=2\nbob address=10.0.0.7 slots=3")
    assert (host.name, host.workers) == ("alice", 5)


def test_one_address_with_two_users_is_two_hosts() -> None:
    assert len(read_hosts(text="a address=10.0.0.7 user=ann\nb address=10.0.0.7 user=bob")) == 2


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("alice frobnicate", "'frobnicate' is not understood"),
        ("alice slotz=4", "there is no 'slotz=4'"),
        ("alice:many", "workers is 'many'"),
        ("alice:", "workers is ''"),
        ("alice 0", "workers is '0'"),
        ("alice -4", "'-4' is not understood"),
        ("alice 99999", "from 1 to 4096"),
        ("alice \uff14", "not a number from 1"),
        ("alice:4 8", "both give a number"),
        ("alice:4 slots=4", "given twice"),
        ("alice slots=2 slots=4", "given twice"),
        ("alice slots=8 max_slots=4", "less than the number of workers"),
        ("alice port=70000", "port is '70000'"),
        ("alice tunnel=maybe", "neither yes nor no"),
        ("alice python=", "has no value"),
        ("alice address=-oProxyCommand=x", "is not an address"),
        ("-oProxyCommand=touch", "is not the name of a host"),
        ("-o@alice", "is not a user's name"),
        ("alice user=-lroot", "is not a user's name"),
        ("a b@alice", "'b@alice' is not understood"),
        ("ali;ce", "is not the name of a host"),
        ("node[3-1]", "is not a range"),
        ("node[1-99999]", "is not a range"),
        ("node[1-2][1-2]", "more than one range"),
        ("node[1-2", "is not the name of a host"),
        ("node[1-2] address=10.0.0.7", "cannot share one address"),
        ("fe80::1", "in brackets: [fe80::1]"),
        ("[fe80::xyz]:4", "is not an IPv6 address"),
        ('alice prolog="module load', "a quote is not closed"),
        ("\x00\x01\x7fELF", "is not the name of a host"),
    ],
)
def test_an_invalid_line_is_named_with_file_and_line_number(row: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_hosts(text="\n".join(["# hosts"] * 6 + [row]), file="hosts.txt")
    assert str(caught.value).startswith("hosts.txt, line 7: ")
    assert complaint in str(caught.value)


def test_an_invalid_word_is_named() -> None:
    with pytest.raises(UsageError, match="--host bob:x: workers is 'x'"):
        read_hosts(["alice,bob:x"])


@pytest.mark.parametrize("second", ["bob@alice", "alice port=2222", "alice address=10.0.0.9"])
def test_one_name_for_two_hosts_is_refused(second: str) -> None:
    with pytest.raises(UsageError, match=r"line 2: alice is listed with another .* line 1"):
        read_hosts(text=f"ann@alice\n{second}")


def test_lines_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(
        UsageError, match="line 3: alice has python=/b, and python=/a in hostfile, line 1"
    ):
        read_hosts(text="alice python=/a\nalice\nalice python=/b")


def test_too_many_hosts_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 4096"):
        read_hosts(["a[1-4096]", "b"])


def test_two_names_of_one_host_give_a_warning() -> None:
    hosts = read_hosts(text="alice\nbob\nws1")

    def resolve(host: Host) -> tuple[str, int, str]:
        return ("ws1.lab" if host.name != "bob" else "bob", 22, "ann")

    [warning] = duplicates(hosts, resolve)
    assert "alice and ws1 are the same host" in warning
    assert "ann@ws1.lab port 22" in warning


def test_each_host_gets_its_own_number_without_a_total() -> None:
    shares = split_total(None, read_hosts(["a:4", "b"]))
    assert (shares.workers, shares.limits, shares.missing) == ({"a": 4, "b": None}, {}, 0)
    assert split_total(None, read_hosts(["a:4", "b"]), {"b": 8}).workers == {"a": 4, "b": 8}


def test_a_total_is_distributed_in_order_up_to_the_numbers_of_the_hosts() -> None:
    assert split_total(6, read_hosts(["a:4", "b:4", "c:4"])).workers == {"a": 4, "b": 2, "c": 0}


def test_hosts_with_numbers_are_filled_before_hosts_with_unknown_cores() -> None:
    shares = split_total(6, read_hosts(["b", "a:4"]))
    assert (shares.workers, shares.limits) == ({"b": None, "a": 4}, {"b": 2})


@pytest.mark.parametrize(
    ("address", "name"), [("fd00::7", "fd00--7"), ("::7", "0--7"), ("fd00::", "fd00--0")]
)
def test_a_host_given_by_an_ipv6_address_has_a_name_that_a_run_takes(
    address: str, name: str
) -> None:
    host = one(f"[{address}]:2")
    assert (host.name, host.address, host.alias) == (name, address, address)
    assert one("alice address=fd00::7").alias == "alice"
    assert one("[::1]").is_local


def test_the_name_that_the_run_has_for_its_own_host_is_refused() -> None:
    with pytest.raises(UsageError, match="'local' is the run's name of its own host"):
        one("local:2")


def test_a_name_that_is_too_long_for_a_run_is_refused_with_a_cure() -> None:
    assert one("a" * 63).name == "a" * 63
    name = "node.a-long-department." + "x" * 50
    with pytest.raises(UsageError, match=f"more than 63 characters.*address={name}"):
        one(f"{name}:4")
    assert one(f"node:4 address={name}").target == name


def test_colons_that_are_no_ipv6_address_are_named_as_such() -> None:
    with pytest.raises(UsageError, match=r"in brackets: \[fd00::7\]"):
        one("fd00::7")
    with pytest.raises(UsageError, match="'alice:4:5' is not a host; write HOST:N"):
        one("alice:4:5")


@pytest.mark.parametrize(
    ("total", "text", "limits"),
    [
        (1, "a\nb", {"a": 1, "b": 0}),
        (5, "a\nb\nc", {"a": 2, "b": 2, "c": 1}),
        (9, "a max_slots=1\nb\nc", {"a": 1, "b": 4, "c": 4}),
        (9, "a\nb max_slots=2\nc:3", {"a": 4, "b": 2}),
        (9, "a max_slots=2\nb max_slots=3", {"a": 2, "b": 3}),
    ],
)
def test_hosts_with_unknown_cores_never_get_more_than_the_total_together(
    total: int, text: str, limits: dict[str, int]
) -> None:
    assert split_total(total, read_hosts(text=text)).limits == limits


def test_the_largest_number_of_a_host_limits_its_cores() -> None:
    hosts = read_hosts(text="a max_slots=3\nb")
    assert split_total(None, hosts).limits == {"a": 3}
    assert split_total(None, hosts, {"a": 8, "b": 8}).workers == {"a": 3, "b": 8}


def test_known_cores_limit_a_host_without_a_number() -> None:
    shares = split_total(20, read_hosts(["b", "a:4"]), {"b": 8, "a": 64})
    assert (shares.workers, shares.missing) == ({"b": 8, "a": 4}, 8)


def test_a_total_beyond_the_numbers_is_distributed_up_to_the_maxima() -> None:
    shares = split_total(9, read_hosts(text="a slots=2 max_slots=4\nb slots=2\nc 2 max_slots=3"))
    assert (shares.workers, shares.missing) == ({"a": 4, "b": 2, "c": 3}, 0)
