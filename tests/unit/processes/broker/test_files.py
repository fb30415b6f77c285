"""What agents of other hosts can and cannot do with files of the run folder."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.processes.broker.files import FileService
from resilient_scoop.wire import files as wire

RESULT = "payloads/res-" + "a" * 32
ARGUMENT = "payloads/arg-" + "b" * 32


class Client:
    """Sends requests to the service, and waits for its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.awake = threading.Event()
        (folder / "payloads").mkdir()
        (folder / "logs").mkdir()
        (folder / "code").mkdir()
        self.service = FileService(folder, self.awake.set, adopt=False)

    def ask(self, message: wire.Up) -> wire.Down:
        self.awake.clear()
        self.service.ask(b"routing", "alice", wire.encode(message))
        assert self.awake.wait(5.0)
        (answer,) = self.service.answers()
        assert answer.routing == b"routing"
        return wire.decode_down(answer.frame)

    def refused(self, message: wire.Up) -> str:
        self.awake.clear()
        self.service.ask(b"routing", "alice", wire.encode(message))
        assert self.awake.wait(5.0)
        assert self.service.answers() == []
        host, what = self.service.refused.popleft()
        assert host == "alice"
        return what

    def store(self, content: bytes, offset: int, data: bytes, *, name: str = RESULT) -> wire.Stored:
        digest = hashlib.sha256(content).digest()
        stored = self.ask(wire.Store(name, offset, len(content), data, digest, sync=True))
        assert isinstance(stored, wire.Stored)
        return stored


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path)
    yield made
    made.service.close(remove=True)
    assert not (tmp_path / "incoming").exists()


def test_a_file_is_sent_in_chunks_with_the_digest_of_the_whole(client: Client) -> None:
    content = bytes(wire.CHUNK_BYTES) + b"end"
    (client.folder / ARGUMENT).write_bytes(content)
    first = client.ask(wire.Fetch(ARGUMENT, 0))
    second = client.ask(wire.Fetch(ARGUMENT, wire.CHUNK_BYTES))
    assert isinstance(first, wire.Chunk)
    assert isinstance(second, wire.Chunk)
    assert first.data + second.data == content
    assert first.digest == second.digest == hashlib.sha256(content).digest()
    assert first.total == len(content)


def test_a_missing_file_is_reported(client: Client) -> None:
    chunk = client.ask(wire.Fetch(ARGUMENT, 0))
    assert isinstance(chunk, wire.Chunk)
    assert "No such file" in chunk.error


@pytest.mark.parametrize(
    "name",
    ["run.json", "keys/server", "../other/run.json", "/etc/passwd", "payloads/../keys/server",
     "code/../keys/server", "journal/data.mdb", "payloads/res-" + "A" * 32, ""],
)  # fmt: skip
def test_nothing_else_of_the_run_folder_can_be_read_or_written(client: Client, name: str) -> None:
    (client.folder / "run.json").write_text("{}")
    assert client.refused(wire.Fetch(name, 0))
    assert client.refused(wire.Store(name, 0, 1, b"x", bytes(32), sync=False))
    assert client.refused(wire.Remove(name))
    assert client.refused(wire.Sync([name]))


def test_a_file_that_arrives_in_parts_gets_its_name_when_it_is_complete(client: Client) -> None:
    content = b"hello world"
    assert client.store(content, 0, b"hello") == wire.Stored(RESULT, 5)
    assert not (client.folder / RESULT).exists()
    assert client.store(content, 0, b"hello") == wire.Stored(RESULT, 5), "a repetition"
    assert client.store(content, 8, b"rld") == wire.Stored(RESULT, 5), "a gap"
    assert client.store(content, 5, b" world") == wire.Stored(RESULT, 11, done=True)
    assert (client.folder / RESULT).read_bytes() == content
    assert client.store(content, 0, content) == wire.Stored(RESULT, 11, done=True), "again"


def test_a_file_that_differs_from_what_was_sent_begins_again(client: Client) -> None:
    content = b"hello world"
    assert client.store(content, 0, b"jello world") == wire.Stored(RESULT, 0)
    assert not (client.folder / RESULT).exists()
    assert client.store(content, 0, content).done


def test_an_empty_file_arrives(client: Client) -> None:
    assert client.store(b"", 0, b"") == wire.Stored(RESULT, 0, done=True)
    assert (client.folder / RESULT).read_bytes() == b""


def test_a_full_disk_keeps_the_parts_that_have_arrived(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"hello world"
    client.store(content, 0, b"hello")
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(client.service, "_append", full)
        assert client.store(content, 5, b" world") == wire.Stored(RESULT, 5, full=True)
    assert client.store(content, 5, b" world").done


def test_files_can_be_made_durable_later_and_removed(client: Client) -> None:
    (client.folder / ARGUMENT).write_bytes(b"x")
    assert client.ask(wire.Sync([ARGUMENT])) == wire.Stored(ARGUMENT, 1, done=True)
    client.service.ask(b"routing", "alice", wire.encode(wire.Remove(ARGUMENT)))
    missing = client.ask(wire.Sync([ARGUMENT]))
    assert isinstance(missing, wire.Stored)
    assert missing.error


def test_a_log_grows_by_the_text_that_follows_it(client: Client) -> None:
    assert client.ask(wire.Log("alice:w1.log", 0, b"one\n")) == wire.Logged("alice:w1.log", 4)
    assert client.ask(wire.Log("alice:w1.log", 0, b"one\n")) == wire.Logged("alice:w1.log", 4)
    assert client.ask(wire.Log("alice:w1.log", 4, b"two\n")) == wire.Logged("alice:w1.log", 8)
    assert (client.folder / "logs" / "alice:w1.log").read_text() == "one\ntwo\n"


def test_a_log_that_cannot_grow_reports_its_present_size(client: Client) -> None:
    log = client.folder / "logs" / "alice:w1.log"
    log.symlink_to("/dev/full")
    assert client.ask(wire.Log(log.name, 0, b"one\n")) == wire.Logged(log.name, 0)
    log.unlink()
    log.mkdir()
    size = log.stat().st_size
    assert client.ask(wire.Log(log.name, 0, b"")) == wire.Logged(log.name, size)


@pytest.mark.parametrize("request_", [wire.Fetch(RESULT, 1 << 63), wire.Remove(ARGUMENT)])
def test_a_failed_request_does_not_affect_other_requests(client: Client, request_: wire.Up) -> None:
    (client.folder / RESULT).write_bytes(b"content")
    (client.folder / ARGUMENT).mkdir()  # no file to remove
    client.service.ask(b"routing", "bob", wire.encode(request_))
    deadline = time.monotonic() + 5.0
    client.service.ask(b"routing", "alice", wire.encode(wire.Fetch(RESULT, 0)))
    found: list[wire.Down] = []
    while not any(isinstance(each, wire.Chunk) and each.data for each in found):
        assert time.monotonic() < deadline
        client.awake.wait(0.1)
        found += [wire.decode_down(each.frame) for each in client.service.answers()]


@pytest.mark.parametrize("name", ["bob:w1.log", "broker.log", "alice:../x.log", "alice:w1.txt"])
def test_a_log_of_another_kind_is_refused(client: Client, name: str) -> None:
    assert client.refused(wire.Log(name, 0, b"x"))


def test_the_code_of_the_run_is_listed(client: Client) -> None:
    (client.folder / "code" / "began").touch()
    (client.folder / "code" / "0a1b").write_text("import this")
    (client.folder / "code" / "x.tmp").write_text("unfinished")
    code = client.ask(wire.CodeWanted())
    assert isinstance(code, wire.Code)
    assert {name: size for name, size, _ in code.files} == {"code/began": 0, "code/0a1b": 11}


def test_a_note_is_one_line_of_limited_length(client: Client) -> None:
    client.awake.clear()
    client.service.ask(b"r", "alice", wire.encode(wire.Note("a\x1b[31m\nb" + "c" * 5000)))
    assert client.awake.wait(5.0)
    host, text = client.service.notes.popleft()
    assert host == "alice"
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) <= 1000


def test_incomplete_files_are_kept_for_a_new_broker_of_the_same_launch(
    tmp_path: Path,
) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "alice-x").write_bytes(b"half")
    service = FileService(tmp_path, lambda: None, adopt=True)
    assert (tmp_path / "incoming" / "alice-x").exists()
    service.close(remove=False)
    service = FileService(tmp_path, lambda: None, adopt=False)
    assert not (tmp_path / "incoming" / "alice-x").exists()
    service.close(remove=True)
