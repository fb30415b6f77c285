"""The traffic between hosts cannot be read, and no secret is visible to other users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import command, rounds
from chaos.command import Place
from chaos.grid import Grid, GridResult
from chaos.lab import DESK, Lab
from resilient_scoop.transport.tickets import KEYS
from tests.integration.runs import wait_until

pytestmark = [pytest.mark.grid, pytest.mark.timeout(120)]

MARK = "a marker that no one may read"
SCRIPT = f"""
import sys, time
from resilient_scoop import futures

def work(number, text):
    time.sleep(0.2)
    return f"{{text}}: {{number}}" * (100_000 if number == 7 else 1)

if __name__ == "__main__":
    print("begin", flush=True)
    texts = list(futures.map(work, range(40), ["{MARK}"] * 40))
    print(sum(map(len, texts)), flush=True)
"""
SECRET_CHARS = 40


def has_workers(lab: Lab, name: str) -> bool:
    """Return whether a host has workers of a run."""
    return any(" worker " in words for words in lab.processes(name).values())


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Iterator[Place]:
    """A folder that all hosts see; its commands run on the desk."""
    with rounds.staged(GridResult(0, Path(), []), tmp_path, lab.shared) as made:
        yield Grid(lab, tmp_path).settle(made)


def test_no_argument_and_no_result_can_be_read_on_the_network(
    lab: Lab, place: Place, tmp_path: Path
) -> None:
    script = place.root / "script.py"
    script.write_text(SCRIPT)
    packets = tmp_path / "packets"
    capture = lab.capture(packets)
    process = command.start(place, Grid(lab, tmp_path).run_arguments(script))
    assert process.wait(60) == 0, place.err.read_text()
    capture.terminate()
    assert b"0 packets dropped by kernel" in capture.communicate()[1]
    seen = packets.read_bytes()
    assert b"SSH-2.0-" in seen  # both kinds of traffic were captured
    assert b"CURVE" in seen
    assert len(seen) > 3_000_000  # the large result, too
    for text in (MARK, "resilient_scoop", "futures", "script.py"):
        assert text.encode() not in seen, text


def test_no_secret_is_in_a_command_line_or_an_environment_of_any_host(
    lab: Lab, place: Place, tmp_path: Path
) -> None:
    script = place.root / "script.py"
    script.write_text(SCRIPT)
    process = command.start(place, Grid(lab, tmp_path).run_arguments(script))
    wait_until(lambda: all(has_workers(lab, name) for name in lab.hosts), 30.0, place.err.read_text)
    run = place.run()
    assert run is not None
    secrets = {(run / KEYS / "server").read_bytes()}
    assert all(len(secret) == SECRET_CHARS for secret in secrets)
    numbers = [number for name in (DESK, *lab.hosts) for number in lab.processes(name)]
    assert len(numbers) > 3 * 3
    for number in numbers:
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{number}/{name}").read_bytes()
            except OSError:
                continue  # it has just ended
            assert not any(secret in text for secret in secrets), (number, name)
            assert b'"secret"' not in text, (number, name)
    assert process.wait(60) == 0
