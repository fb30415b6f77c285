"""The common setup of all tests: the tested code, the number of seeds, a separate state folder.

The checkout is last on the path. If the package is installed (tox installs the wheel), the
installed package is tested; otherwise the checkout is, also in the child processes of a test.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
sys.path.append(str(CHECKOUT))


def _is_checkout_tested() -> bool:
    spec = importlib.util.find_spec("resilient_scoop")
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).parent == CHECKOUT / "resilient_scoop"


if _is_checkout_tested():
    before = [path for path in [os.environ.get("PYTHONPATH")] if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *before])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, default=20, metavar="N", help="how many seeds a simulation tries"
    )
    parser.addoption(
        "--each-step",
        type=int,
        default=1,
        metavar="N",
        help="kill processes at each Nth step of the disk's changes only",
    )


@pytest.fixture
def each_step(request: pytest.FixtureRequest) -> int:
    """Return the distance of the steps at which a process is killed; 1: all."""
    return int(request.config.getoption("--each-step"))


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """Give the processes of tests the default actions, also where this one runs under nohup or behind `&`.

    A handler that does nothing keeps this process as it is, and is the default action in its children.
    """
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> int:
    """How many seeds to try, from `--seeds`."""
    count: int = request.config.getoption("--seeds")
    return count


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test, and every process it starts, a state folder of its own."""
    path = tmp_path / "state"
    monkeypatch.setenv("RSCOOP_STATE_DIR", str(path))
    return path
