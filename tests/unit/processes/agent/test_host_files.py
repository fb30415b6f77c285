"""Files of an agent: workers request them through a socket, the run's host answers with messages."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.config import BrokerConfig
from resilient_scoop.core.transfers import WINDOW_MIN
from resilient_scoop.processes.agent import host_files
from resilient_scoop.processes.agent.host_files import AgentFiles
from resilient_scoop.processes.broker.files import FileService
from resilient_scoop.transport.mirror import HostFiles
from resilient_scoop.wire import files as wire

RESULT = "payloads/res-" + "a" * 32
OTHER = "payloads/arg-" + "b" * 32
LOG = "alice:w1.log"


class Both:
    """An agent's files and those of the run's host, joined by a connection that can be cut."""

    def __init__(self, tmp_path: Path) -> None:
        self.host, self.run = tmp_path / "host", tmp_path / "run"
        for folder in (self.host, self.run):
            for name in ("sock", "logs", "payloads", "code"):
                (folder / name).mkdir(parents=True)
        self.service = FileService(self.run, lambda: None, adopt=False)
        self.watched: set[int] = set()
        self.is_cut = False
        self.sent: list[wire.Up] = []
        self.files = AgentFiles(self.host, self.send, self.watched.add, self.watched.discard)
        self.worker = HostFiles(str(self.host / "sock"))
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    def send(self, frame: bytes) -> None:
        self.sent.append(wire.decode_up(frame))
        if not self.is_cut:
            self.service.ask(b"", "alice", frame)

    def turn(self) -> None:
        now = time.monotonic()
        self.files.ready(set(self.watched), now)
        for answer in self.service.answers():
            if not self.is_cut:
                self.files.hear(answer.frame, now)
        self.files.tick(now)

    def serve(self) -> None:
        while not self.ends.wait(0.002):
            self.turn()

    def close(self) -> None:
        self.ends.set()
        if self.thread.is_alive():
            self.thread.join()
        for connection in (self.worker._calls, self.worker._notes):
            if connection is not None:
                connection.close()
        self.files.close()
        self.service.close(remove=True)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def test_a_worker_gets_a_file_of_the_run(both: Both) -> None:
    content = os.urandom(3 * wire.CHUNK_BYTES + 7)
    (both.run / RESULT).write_bytes(content)
    both.thread.start()
    both.worker.fetch(RESULT)
    assert (both.host / RESULT).read_bytes() == content


def test_a_file_is_sent_once_for_all_workers_of_a_host(both: Both) -> None:
    (both.run / RESULT).write_bytes(bytes(3 * wire.CHUNK_BYTES))
    both.thread.start()
    workers = [HostFiles(str(both.host / "sock")) for _ in range(4)]
    threads = [threading.Thread(target=each.fetch, args=(RESULT,)) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5.0)
    both.worker.fetch(RESULT)
    assert sum(isinstance(each, wire.Fetch) for each in both.sent) == 3
    for each in workers:
        assert each._calls is not None
        each._calls.close()


def test_the_answer_to_an_interrupted_request_is_not_given_to_another(both: Both) -> None:
    """A signal handler of a task may raise."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    (both.run / RESULT).write_bytes(b"content")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            both.worker.fetch(RESULT)  # nothing answers yet
    finally:
        signal.signal(signal.SIGALRM, before)
    both.thread.start()
    with pytest.raises(FileNotFoundError):
        both.worker.fetch(OTHER)


def sent(both: Both, kind: type[wire.Fetch | wire.Store], name: str) -> int:
    return sum(isinstance(each, kind) and each.name == name for each in both.sent)


def test_a_file_that_exists_under_another_name_is_not_fetched_again(both: Both) -> None:
    content = os.urandom(5 * wire.CHUNK_BYTES)
    for name in (RESULT, OTHER):
        (both.run / name).write_bytes(content)
    both.thread.start()
    both.worker.fetch(RESULT)
    both.worker.fetch(OTHER)
    assert (both.host / OTHER).read_bytes() == content
    assert (sent(both, wire.Fetch, RESULT), sent(both, wire.Fetch, OTHER)) == (5, 1)


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_file_that_had_existed_under_another_name_is_fetched(both: Both, how: str) -> None:
    content = os.urandom(5 * wire.CHUNK_BYTES)
    for name in (RESULT, OTHER):
        (both.run / name).write_bytes(content)
    both.thread.start()
    both.worker.fetch(RESULT)
    if how == "removed":
        (both.host / RESULT).unlink()
    else:
        (both.host / RESULT).write_bytes(bytes(len(content)))
    both.worker.fetch(OTHER)
    assert (both.host / OTHER).read_bytes() == content
    assert list(both.host.glob("payloads/*.part")) == []


@pytest.mark.parametrize("first", ["fetched", "pushed"])
def test_a_file_that_the_run_has_under_another_name_is_not_sent_again(
    both: Both, first: str
) -> None:
    content = os.urandom(9 * wire.CHUNK_BYTES)
    (both.host / OTHER).write_bytes(content)
    both.thread.start()
    if first == "fetched":
        (both.run / RESULT).write_bytes(content)
        both.worker.fetch(RESULT)
    else:
        (both.host / RESULT).write_bytes(content)
        both.worker.push(RESULT, durable=False)
    both.worker.push(OTHER, durable=True)
    assert (both.run / OTHER).read_bytes() == content
    assert sent(both, wire.Store, OTHER) <= WINDOW_MIN
    assert list((both.run / "incoming").iterdir()) == []


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_file_that_the_run_had_under_another_name_is_sent(both: Both, how: str) -> None:
    content = os.urandom(9 * wire.CHUNK_BYTES)
    for name in (RESULT, OTHER):
        (both.host / name).write_bytes(content)
    both.thread.start()
    both.worker.push(RESULT, durable=False)
    if how == "removed":
        (both.run / RESULT).unlink()
    else:
        (both.run / RESULT).write_bytes(bytes(len(content)))
    both.worker.push(OTHER, durable=True)
    assert (both.run / OTHER).read_bytes() == content


def test_code_of_the_same_content_keeps_its_own_times(both: Both) -> None:
    """A hard link would share them."""
    content = os.urandom(2 * wire.CHUNK_BYTES)
    for name, at in (("code/1", 1_000_000_000), ("code/2", 2_000_000_000)):
        (both.run / name).write_bytes(content)
        os.utime(both.run / name, ns=(at, at))
    assert both.files.fetch_code(both.turn, time.monotonic, time.monotonic() + 5.0)
    assert [(both.host / name).stat().st_mtime_ns for name in ("code/1", "code/2")] == [
        1_000_000_000, 2_000_000_000,
    ]  # fmt: skip


def test_a_file_that_the_run_does_not_have_is_an_error(both: Both) -> None:
    both.thread.start()
    with pytest.raises(FileNotFoundError):
        both.worker.fetch(RESULT)


def test_a_worker_is_told_after_its_file_is_in_the_run(both: Both) -> None:
    content = os.urandom(2 * wire.CHUNK_BYTES + 1)
    (both.host / RESULT).write_bytes(content)
    (both.host / OTHER).write_bytes(b"")
    both.thread.start()
    both.worker.push(RESULT, durable=True)
    assert (both.run / RESULT).read_bytes() == content
    both.worker.push(OTHER, durable=False)
    assert (both.run / OTHER).read_bytes() == b""
    both.worker.sync([OTHER])
    both.worker.remove(OTHER)
    end = time.monotonic() + 5.0
    while (both.run / OTHER).exists():
        assert time.monotonic() < end
    assert not (both.host / OTHER).exists()


def test_a_full_disk_of_the_run_is_reported_to_the_worker(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(both.service, "_append", full)
    (both.host / RESULT).write_bytes(b"x")
    both.thread.start()
    with pytest.raises(OSError, match="No space") as caught:
        both.worker.push(RESULT, durable=True)
    assert caught.value.errno == errno.ENOSPC


def test_a_transfer_waits_for_the_connection_and_continues(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient_scoop.core.transfers.PATIENCE_S", 0.1)
    content = os.urandom(5 * wire.CHUNK_BYTES)
    (both.host / RESULT).write_bytes(content)
    both.is_cut = True
    both.thread.start()
    pushing = threading.Thread(target=both.worker.push, args=(RESULT,), kwargs={"durable": True})
    pushing.start()
    time.sleep(0.2)
    assert pushing.is_alive()
    both.is_cut = False
    pushing.join(5.0)
    assert (both.run / RESULT).read_bytes() == content


def test_a_worker_that_ends_while_it_waits_is_forgotten(both: Both) -> None:
    both.is_cut = True
    both.thread.start()
    ends: list[type[BaseException]] = []

    def fetch() -> None:
        try:
            both.worker.fetch(RESULT)
        except ConnectionError as error:
            ends.append(type(error))

    waiting = threading.Thread(target=fetch, daemon=True)
    waiting.start()
    end = time.monotonic() + 5.0
    while not both.files._waiting.get(RESULT):
        assert time.monotonic() < end
    assert both.worker._calls is not None
    both.worker._calls.shutdown(2)
    while both.files._waiting[RESULT]:
        assert time.monotonic() < end
    waiting.join(5.0)
    assert ends == [ConnectionResetError]


def test_code_is_fetched_with_its_modification_times(both: Both) -> None:
    (both.run / "code" / "began").touch()
    (both.run / "code" / "0a1b").write_text("x = 1")
    os.utime(both.run / "code" / "0a1b", ns=(10**18, 10**18))
    assert both.files.fetch_code(both.turn, time.monotonic, time.monotonic() + 5)
    copy = both.host / "code" / "0a1b"
    assert copy.read_text() == "x = 1"
    assert copy.stat().st_mtime_ns == 10**18
    (both.run / "code" / "files").write_bytes(b"a\0")
    assert both.files.fetch_code(both.turn, time.monotonic, time.monotonic() + 5)
    assert (both.host / "code" / "files").read_bytes() == b"a\0"


def test_code_that_does_not_arrive_in_time_is_reported(both: Both) -> None:
    both.is_cut = True
    assert not both.files.fetch_code(both.turn, time.monotonic, time.monotonic() + 0.1)


def test_an_agent_without_a_broker_waits_for_code_shorter_than_a_lease(both: Both) -> None:
    clock = [0.0]

    def turn() -> None:
        clock[0] += 0.1

    assert not both.files.fetch_code(turn, lambda: clock[0], 20.0)
    assert clock[0] < BrokerConfig().lease_s


def send_all_logs(both: Both) -> None:
    end = time.monotonic() + 10.0
    while both.files.logs_missing():
        assert time.monotonic() < end
        both.files.send_logs(time.monotonic())
        both.turn()


def test_logs_arrive_completely(both: Both) -> None:
    log = both.host / "logs" / LOG
    log.write_bytes(b"line\n" * 100_000)
    send_all_logs(both)
    with log.open("ab") as file:
        file.write(b"the last line\n")
    send_all_logs(both)
    assert (both.run / "logs" / LOG).read_bytes() == log.read_bytes()


def test_the_log_of_an_agent_is_appended_to_that_of_the_agent_before_it(both: Both) -> None:
    (both.run / "logs" / LOG).write_bytes(b"of the agent before, and longer\n")
    (both.host / "logs" / LOG).write_bytes(b"of this one\n")
    send_all_logs(both)
    text = (both.run / "logs" / LOG).read_text()
    assert text == "of the agent before, and longer\nof this one\n"


def test_a_log_that_was_removed_from_the_run_is_sent_again(both: Both) -> None:
    log = both.host / "logs" / LOG
    log.write_bytes(b"one\n")
    send_all_logs(both)
    (both.run / "logs" / LOG).unlink()
    with log.open("ab") as file:
        file.write(b"two\n")
    send_all_logs(both)
    assert (both.run / "logs" / LOG).read_text() == "one\ntwo\n"


def test_findings_of_an_audit_are_not_sent_again_to_a_new_launch(both: Both) -> None:
    here, there = (folder / "logs" / "alice:audit.jsonl" for folder in (both.host, both.run))
    here.write_text("of the code before\n")
    send_all_logs(both)
    assert there.read_text() == "of the code before\n"
    there.unlink()
    with here.open("a") as file:
        file.write("of the code now\n")
    send_all_logs(both)
    with here.open("a") as file:
        file.write("and more\n")
    send_all_logs(both)
    assert there.read_text().endswith("and more\n")
    assert "before" not in there.read_text()


def test_the_least_recently_used_files_are_removed_first(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_files, "CACHE_BYTES_MAX", 10)
    monkeypatch.setattr(host_files, "free_bytes", lambda _: 1 << 40)
    names = [f"res-{number:032x}" for number in range(5)]
    for age, name in enumerate(names):
        path = both.host / "payloads" / name
        path.write_bytes(b"1234")
        os.utime(path, (1000 + 100 * age, 1000 + 100 * age))
    both.files.evict()
    assert sorted(path.name for path in (both.host / "payloads").iterdir()) == names[3:]


def test_files_that_were_just_fetched_are_kept_on_a_full_disk(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_files, "_EVICT_EVERY_BYTES", 0)
    monkeypatch.setattr(host_files, "free_bytes", lambda _: 0)
    old, written = (
        both.host / "payloads" / f"res-{1:032x}",
        both.host / "payloads" / f"arg-{2:032x}",
    )
    for path in (old, written):  # a process that writes a file has not requested anything yet
        path.write_bytes(b"1234")
    os.utime(old, (1000, 1000))
    (both.run / RESULT).write_bytes(b"content")
    both.thread.start()
    both.worker.fetch(RESULT)
    both.ends.set()
    both.thread.join()
    assert (both.host / RESULT).read_bytes() == b"content"
    assert written.exists()
    assert not old.exists()


def test_files_are_removed_from_a_full_disk_before_the_next_try(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = both.host / "payloads" / f"res-{1:032x}"
    for path, at in ((old, 1000), (both.host / "payloads" / f"res-{2:032x}", 2000)):
        path.write_bytes(b"1234")
        os.utime(path, (at, at))
    (both.run / RESULT).write_bytes(b"content")
    monkeypatch.setattr(host_files, "free_bytes", lambda _: 0)
    monkeypatch.setattr(os, "pwrite", refuse)
    both.thread.start()
    with pytest.raises(OSError, match="space") as caught:
        both.worker.fetch(RESULT)
    assert caught.value.errno == errno.ENOSPC
    assert not old.exists()


def test_an_agent_continues_if_a_process_removes_its_file_meanwhile(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_files, "_EVICT_EVERY_BYTES", 0)
    gone = both.host / "payloads" / f"res-{1:032x}"
    gone.symlink_to("nowhere")  # listed in the folder, but removed
    (both.run / RESULT).write_bytes(b"content")
    both.thread.start()
    both.worker.fetch(RESULT)
    both.worker.fetch(RESULT)
    assert both.thread.is_alive()


@pytest.mark.parametrize("name", ["../x", "code/files", "payloads/x", "keys/server"])
def test_a_name_outside_payloads_and_checkpoints_is_refused(both: Both, name: str) -> None:
    both.thread.start()
    for ask in (both.worker.fetch, lambda name: both.worker.sync([name])):
        with pytest.raises(OSError, match="no file of a run") as caught:
            ask(name)
        assert caught.value.errno == errno.EINVAL
    assert both.sent == []
