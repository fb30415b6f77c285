"""Keys and tickets are private files, and are valid only for their time."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from resilient_scoop.errors import PlaceBusyError
from resilient_scoop.transport import tickets
from resilient_scoop.transport.remote import make_keys
from resilient_scoop.transport.tickets import KEYS, TICKETS, KeyRing, issue, read_ticket


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    made = KeyRing(tmp_path)
    made.open_door(4711)
    return made


def test_a_ticket_contains_what_its_holder_needs(ring: KeyRing, tmp_path: Path) -> None:
    line = issue(
        tmp_path, "alice", run_key="run1-1", valid_s=60, addresses=["10.0.0.1", "::1", "[::1]:9", "desk:7"],
        extra={"workers": 3},
    )  # fmt: skip
    assert b"\n" not in line
    ticket = read_ticket(line)
    assert ticket.host == "alice"
    assert ticket.server == ring.server.public.decode()
    assert ticket.addresses == ["10.0.0.1:4711", "[::1]:4711", "[::1]:9", "desk:7"]
    assert ticket.extra == {"workers": 3}


def test_the_broker_stores_no_secret_of_a_ticket(ring: KeyRing, tmp_path: Path) -> None:
    ticket = read_ticket(issue(tmp_path, "alice", run_key="run1-1", valid_s=60))
    for path in (tmp_path / TICKETS).iterdir():
        content = path.read_text()
        assert ticket.secret not in content
        assert ticket.public not in content
    assert ring.ticket_of(ticket.public) is not None


def test_files_of_keys_and_tickets_are_private(ring: KeyRing, tmp_path: Path) -> None:
    issue(tmp_path, "alice", run_key="run1-1", valid_s=60)
    ring.enroll(make_keys().public.decode(), "alice")
    for folder in (tmp_path / KEYS, tmp_path / TICKETS):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_ticket_is_valid_until_it_is_used(ring: KeyRing, tmp_path: Path) -> None:
    key = read_ticket(issue(tmp_path, "alice", run_key="run1-1", valid_s=60, uses=2)).public
    for _ in range(2):
        stub = ring.ticket_of(key)
        assert stub is not None
        ring.use(stub)
    assert ring.ticket_of(key) is None
    assert "used before" in ring.why_no_ticket(key)


def test_a_ticket_expires(ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = read_ticket(issue(tmp_path, "alice", run_key="run1-1", valid_s=60)).public
    now = tickets._since_boot()
    monkeypatch.setattr(tickets, "_since_boot", lambda: now + 59)
    assert ring.ticket_of(key) is not None
    monkeypatch.setattr(tickets, "_since_boot", lambda: now + 61)
    assert ring.ticket_of(key) is None
    assert "expired" in ring.why_no_ticket(key)


def test_a_ticket_of_another_boot_has_expired(
    ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = read_ticket(issue(tmp_path, "alice", run_key="run1-1", valid_s=60)).public
    monkeypatch.setattr(tickets, "_boot", lambda: "another")
    assert ring.ticket_of(key) is None


def test_the_server_key_and_enrolled_keys_survive_the_broker(ring: KeyRing, tmp_path: Path) -> None:
    alice, bob = make_keys().public.decode(), make_keys().public.decode()
    ring.enroll(alice, "alice")
    ring.enroll(bob, "bob")
    ring.shut_out("bob", "it was revoked")
    again = KeyRing(tmp_path)
    assert again.server == ring.server
    assert again.hosts == {alice: "alice"}
    assert again.gone == {bob: "it was revoked"}
    assert again.last_port == 4711


def test_a_newer_key_of_a_host_replaces_the_older_one(ring: KeyRing) -> None:
    old, new = make_keys().public.decode(), make_keys().public.decode()
    assert ring.enroll(old, "alice") == []
    assert ring.enroll(new, "alice") == [old]
    assert ring.hosts == {new: "alice"}


def test_an_incomplete_line_is_ignored(ring: KeyRing, tmp_path: Path) -> None:
    key, later = make_keys().public.decode(), make_keys().public.decode()
    ring.enroll(key, "alice")
    with (tmp_path / KEYS / "enrolled").open("ab") as file:
        file.write(b'\n{"key":"abc","ho')
    again = KeyRing(tmp_path)
    assert again.hosts == {key: "alice"}
    again.enroll(later, "bob")
    assert KeyRing(tmp_path).hosts == {key: "alice", later: "bob"}


def test_new_keys_invalidate_enrolled_keys_and_open_tickets(ring: KeyRing, tmp_path: Path) -> None:
    before = ring.server
    key = read_ticket(issue(tmp_path, "alice", run_key="run1-1", valid_s=60)).public
    ring.renew()
    assert ring.server.public != before.public
    assert ring.ticket_of(key) is None


def test_the_last_port_is_known_after_the_door_is_closed(ring: KeyRing, tmp_path: Path) -> None:
    tickets.shut_door(tmp_path)
    assert tickets.read_door(tmp_path) is None
    assert ring.last_port == 4711
    with pytest.raises(PlaceBusyError):
        tickets.door_of(tmp_path, wait_s=0.05)


def test_no_ticket_is_issued_before_the_broker_listens(tmp_path: Path) -> None:
    with pytest.raises(PlaceBusyError, match="does not listen"):
        issue(tmp_path, "alice", run_key="run1-1", valid_s=60)
