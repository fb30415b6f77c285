"""The recorded streams of the script and decisions of the user."""

from __future__ import annotations

import io
import itertools
import os
import selectors
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.core.events import INPUT_KEY, Table
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.processes.launcher.stdin_feeder import Feeder
from resilient_scoop.processes.origin.stdin import ScriptInput, script_stdin
from resilient_scoop.processes.stdin_messages import InputPiece
from resilient_scoop.runs import decisions
from resilient_scoop.runs.decisions import Decision
from resilient_scoop.wire import messages as wire
from tests.unit.bench import ORIGIN, W1, Bench


def inputs(bench: Bench) -> list[bytes]:
    return [
        read.data
        for (table, key), raw in sorted(bench.journal.items())
        if table is Table.META and key.startswith(INPUT_KEY)
        if isinstance(read := wire.decode_up(raw), wire.Input)
    ]


def test_input_of_the_script_is_recorded_once_and_in_order() -> None:
    bench = Bench()
    root = bench.begin(W1)
    first, second = (wire.Input(root, no, b"source..", b"line %d" % no) for no in (0, 1))
    bench.tell(ORIGIN, first)
    bench.tell(ORIGIN, first, second)  # sent again to a broker that had it
    assert inputs(bench) == [b"line 0", b"line 1"]


def test_input_of_a_fenced_script_is_not_recorded() -> None:
    bench = Bench()
    bench.begin(W1)
    bench.tell(ORIGIN, wire.Input(wire.Attempt(1, 999), 0, b"source..", b"line"))
    assert inputs(bench) == []


def test_output_that_is_partly_known_loses_its_mark_with_its_beginning() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, wire.Output(root, 0, b"one\ntwo\n"))
    bench.tell(ORIGIN, wire.Output(root, 8, b"TWO\n", 4))
    bench.tell(ORIGIN, wire.Output(root, 8, b"TWO\nthree\n", 4))
    kept = [
        (int.from_bytes(key, "big"), read.data, read.at)
        for (table, key), raw in sorted(bench.journal.items())
        if table is Table.OUTPUT
        if isinstance(read := wire.decode_up(raw), wire.Output)
    ]
    assert kept == [(0, b"one\ntwo\n", None), (8, b"TWO\n", 4), (12, b"three\n", None)]


def reading(*pieces: bytes) -> tuple[ScriptInput, io.TextIOWrapper]:
    messages = itertools.chain(
        (InputPiece(each, 0) for each in pieces), itertools.repeat(InputPiece(b"", 0))
    )
    return script_stdin(messages.__next__)


def test_lines_are_read_whole_whatever_the_pieces_are() -> None:
    whole = "one\ntwo ü\r\n\nthree".encode()
    for size in range(1, len(whole) + 1):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        source, text = reading(*pieces)
        text.reconfigure(encoding="utf-8")
        assert list(text) == ["one\n", "two ü\n", "\n", "three"]
        assert source.position() == len(whole)
        source, _ = reading(*pieces)
        assert list(source) == [b"one\n", b"two \xc3\xbc\r\n", b"\n", b"three"]


def test_no_more_input_is_read_than_the_script_requested() -> None:
    source, text = reading(b"one\ntwo\nth", b"ree\n")
    assert text.readline() == "one\n"
    assert source.position() == 4
    assert source.peek() == b"two\nth"
    assert source.readline(2) == b"tw"
    assert source.read(5) == b"o\nthr"
    assert source.position() == 11
    assert source.read1() == b"ee\n"
    assert source.read() == b""


def test_a_buffer_is_filled_and_the_end_of_file_is_reported() -> None:
    source, text = reading(b"abc", b"defg")
    buffer = bytearray(5)
    assert source.readinto(buffer) == 5
    assert bytes(buffer) == b"abcde"
    assert text.read() == "fg"
    assert (text.readline(), source.readline()) == ("", b"")


def test_input_continues_at_the_recorded_position() -> None:
    source, text = reading(b"1\n2\n", b"3\n4\n")
    assert text.readline() == "1\n"
    source.skip_to(6)
    assert text.readline() == "4\n"
    source.skip_to(3)  # never back
    assert source.position() == 8


def test_a_failed_read_is_repeated_with_the_same_error() -> None:
    source, _ = script_stdin(iter([InputPiece(b"a", 0), InputPiece(b"", 5)]).__next__)
    assert source.read1() == b"a"
    with pytest.raises(OSError, match="Input/output error"):
        source.read1()


@pytest.mark.parametrize(
    ("reuse", "recompute", "name", "reused"),
    [
        ((), (), "f", False),
        (("f",), (), "f", True),
        (("*",), (), "f", True),
        (("*",), ("f",), "f", False),
        (("f",), ("*",), "f", True),
        (("f",), ("*",), "g", False),
    ],
)
def test_a_decision_for_a_name_overrides_one_for_all(
    reuse: tuple[str, ...], recompute: tuple[str, ...], name: str, *, reused: bool
) -> None:
    assert Policy(reuse=reuse, recompute=recompute).reuses(b"then", b"now", name) is reused


def test_a_pair_kept_by_name_is_reported_once_and_stays_kept() -> None:
    kept: list[tuple[bytes, bytes, str]] = []
    policy = Policy(reuse=("f",), keep=lambda *pair: kept.append(pair))
    assert policy.reuses(b"then", b"now", "f")
    assert policy.reuses(b"then", b"now", "f")
    assert kept == [(b"then", b"now", "f")]
    assert Policy(kept=policy.kept).reuses(b"then", b"now", "f")
    assert not Policy(kept=policy.kept).reuses(b"then", b"later", "f")


def decision(then: bytes, *, keep: bool) -> Decision:
    return Decision(name="m:f", then=then, now=b"\xff\x00", keep=keep)


def test_the_last_decision_on_a_pair_counts(tmp_path: Path) -> None:
    assert decisions.load(tmp_path) == {}
    decisions.save(tmp_path, [decision(b"\x00a", keep=True), decision(b"\x00b", keep=True)])
    decisions.save(tmp_path, [decision(b"\x00b", keep=False)])
    assert decisions.kept(tmp_path) == {(b"\x00a", b"\xff\x00")}
    assert len(decisions.load(tmp_path)) == 2


def test_an_incomplete_line_does_not_damage_others(tmp_path: Path) -> None:
    decisions.save(tmp_path, [decision(b"a", keep=True), decision(b"b", keep=True)])
    path = tmp_path / decisions.FILE
    path.write_bytes(path.read_bytes()[:-9])
    decisions.save(tmp_path, [decision(b"c", keep=True)])
    assert {then for then, _ in decisions.kept(tmp_path)} == {b"a", b"c"}


class Desk:
    """A feeder on a pipe, and the origin's end of it."""

    def __init__(self) -> None:
        self.ours, self.typed = os.pipe()
        self.selector = selectors.DefaultSelector()
        self.feeder = Feeder(self.selector, self.ours)
        self.origin = socket.socket(fileno=os.dup(self.feeder.child_fd))
        self.origin.setblocking(False)

    def ask(self, piece: int, unsaved: int = 0) -> None:
        self.origin.send(struct.pack("!QQ", piece, unsaved))
        self.turn()

    def turn(self) -> None:
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def message(self) -> tuple[int, int, bytes] | None:
        try:
            reply = self.origin.recv(1 << 17)
        except BlockingIOError:
            return None
        number, error = struct.unpack_from("!QI", reply)
        return number, error, reply[12:]

    def close(self) -> None:
        self.feeder.close()
        self.selector.close()
        self.origin.close()
        for fd in (self.ours, self.typed):
            os.close(fd)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_nothing_is_read_without_a_request(desk: Desk) -> None:
    os.write(desk.typed, b"one\n")
    desk.turn()
    assert desk.message() is None
    desk.ask(0)
    assert desk.message() == (0, 0, b"one\n")
    os.write(desk.typed, b"two\n")
    desk.turn()
    assert os.read(desk.ours, 100) == b"two\n"


def test_a_piece_is_sent_again_until_it_is_in_the_journal(desk: Desk) -> None:
    os.write(desk.typed, b"one\n")
    desk.ask(0)
    assert desk.message() == (0, 0, b"one\n")
    desk.ask(0)  # the successor of an origin that died
    assert desk.message() == (0, 0, b"one\n")
    os.write(desk.typed, b"two\n")
    desk.ask(1, 0)
    assert desk.message() == (1, 0, b"two\n")
    desk.ask(0)
    assert desk.message() == (0, 0, b"one\n")
    desk.ask(1, 1)
    assert desk.message() == (1, 0, b"two\n")


def test_an_origin_that_repeats_its_request_gets_one_answer(desk: Desk) -> None:
    for _ in range(3):
        desk.ask(0)
    assert desk.message() is None
    os.write(desk.typed, b"at last\n")
    desk.turn()
    assert desk.message() == (0, 0, b"at last\n")
    assert desk.message() is None


def test_the_end_of_file_is_sent_like_a_piece(desk: Desk) -> None:
    os.close(desk.typed)
    desk.ask(0)
    assert desk.message() == (0, 0, b"")
    desk.typed = os.open(os.devnull, os.O_RDONLY)


def test_a_read_that_fails_reports_its_error(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    made = Desk()
    made.feeder._fd = folder
    made.ask(0)
    assert made.message() == (0, 21, b"")  # EISDIR
    made.close()
    os.close(folder)


def test_the_flags_of_the_descriptor_of_the_shell_are_not_changed(desk: Desk) -> None:
    desk.ask(0)
    assert os.get_blocking(desk.ours)
