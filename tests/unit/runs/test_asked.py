"""Requests of users reach the broker of a live run, and its answers reach them."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest

from resilient_scoop.errors import RunBusyError, UsageError
from resilient_scoop.runs import asked
from resilient_scoop.runs.asked import Answer, Drain, Rekey, Request, Requests, Revoke, ask


def serve(run: Path, answers: dict[type, Answer], ends: threading.Event) -> list[Request]:
    found: list[Request] = []

    def answer(request: Request) -> Answer:
        found.append(request)
        return answers[type(request)]

    broker = Requests(run)
    while not ends.wait(0.01):
        broker.answer_all(answer)
    return found


@pytest.fixture
def ends() -> threading.Event:
    return threading.Event()


def test_a_request_is_answered_once(tmp_path: Path, ends: threading.Event) -> None:
    answers: dict[type, Answer] = {
        Drain: Answer("it leaves"), Revoke: Answer(refused="there is no such host"),
    }  # fmt: skip
    found: list[Request] = []
    broker = threading.Thread(
        target=lambda: found.extend(serve(tmp_path, answers, ends)), daemon=True
    )
    broker.start()
    assert ask(tmp_path, Drain("alice", 5.0), "r") == "it leaves"
    with pytest.raises(UsageError, match="run r: there is no such host"):
        ask(tmp_path, Revoke("bob"), "r")
    ends.set()
    broker.join()
    assert found == [Drain("alice", 5.0), Revoke("bob")]
    assert list((tmp_path / asked.FOLDER).iterdir()) == []


def test_a_request_outlives_the_start_of_a_broker(
    tmp_path: Path, ends: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "ANSWER_S", 5.0)
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ask(tmp_path, Rekey(), "r")))
    asking.start()
    while not list(tmp_path.glob(f"{asked.FOLDER}/*.json")):
        pass
    broker = threading.Thread(target=serve, args=(tmp_path, {Rekey: Answer("done")}, ends))
    broker.start()  # it removes files of an earlier broker
    asking.join(10.0)
    ends.set()
    broker.join()
    assert answers == ["done"]


def test_a_request_outlives_a_folder_that_a_broker_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "ANSWER_S", 5.0)
    brokers = [Requests(tmp_path)]
    rename = Path.rename

    def slow(draft: Path, path: Path) -> Path:
        if len(brokers) == 1:
            brokers.append(Requests(tmp_path))  # it removes files of an earlier broker
        return rename(draft, path)

    def pause(_: float) -> None:
        brokers[-1].answer_all(lambda _: Answer("done"))

    monkeypatch.setattr(Path, "rename", slow)
    monkeypatch.setattr(time, "sleep", pause)
    assert ask(tmp_path, Rekey(), "r") == "done"


def test_a_broker_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "ANSWER_S", 0.2)
    with pytest.raises(RunBusyError):
        ask(tmp_path, Rekey(), "r")
    assert list((tmp_path / asked.FOLDER).glob("*.json")) == []


def test_a_request_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    broker = Requests(tmp_path)
    folder = tmp_path / asked.FOLDER
    folder.mkdir()
    (folder / "1.json").write_text("{")
    broker.answer_all(lambda _: Answer("no"))
    assert b"cannot be read" in (folder / "1.answer").read_bytes()


def test_a_request_that_arrives_at_the_moment_of_a_look_is_seen(tmp_path: Path) -> None:
    broker = Requests(tmp_path)
    folder = tmp_path / asked.FOLDER
    folder.mkdir()
    broker.answer_all(lambda _: Answer("done"))
    looked_ns = folder.stat().st_mtime_ns
    (folder / "1.json").write_bytes(msgspec.json.encode(Rekey()))
    os.utime(folder, ns=(looked_ns, looked_ns))  # clocks of file systems tick 250 times a second
    broker.answer_all(lambda _: Answer("done"))
    assert b"done" in (folder / "1.answer").read_bytes()


def test_a_full_disk_delays_an_answer_and_repeats_no_action(tmp_path: Path) -> None:
    broker = Requests(tmp_path)
    folder = tmp_path / asked.FOLDER
    folder.mkdir()
    (folder / "1.json").write_bytes(msgspec.json.encode(Rekey()))
    (folder / "1.tmp").symlink_to("/dev/full")
    found: list[Request] = []

    def answer(request: Request) -> Answer:
        found.append(request)
        return Answer("done")

    for _ in range(3):
        broker.answer_all(answer)
    (folder / "1.tmp").unlink()
    broker.answer_all(answer)
    assert b"done" in (folder / "1.answer").read_bytes()
    assert found == [Rekey()]


def test_a_request_that_the_system_refuses_is_answered(tmp_path: Path) -> None:
    broker = Requests(tmp_path)
    folder = tmp_path / asked.FOLDER
    folder.mkdir()
    (folder / "1.json").write_bytes(msgspec.json.encode(Rekey()))

    def answer(_: Request) -> Answer:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    broker.answer_all(answer)
    assert b"No space left" in (folder / "1.answer").read_bytes()
