"""A lab of three workstations for all tests here, and their common parts.

If the machine cannot make a lab, these tests are skipped and the whole run ends with exit code 77,
so that a grid that was not tested does not look like one that passed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.lab import DESK, Lab, missing_needs
from tests.integration.runs import wait_until

_NOT_TESTED = 77
_MISSING = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[_MISSING]:
        terminalreporter.write_line("The grid was NOT tested. This machine lacks:", red=True)
        for text in config.stash[_MISSING]:
            terminalreporter.write_line(f"  {text}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash[_MISSING] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = _NOT_TESTED


def _lab(request: pytest.FixtureRequest, network: str) -> Iterator[Lab]:
    missing = missing_needs(network)
    if missing:
        request.config.stash[_MISSING][:] = missing
        pytest.skip("; ".join(missing))
    with Lab(3, "tun" if network == "tun" else "bridge") as lab:
        yield lab


@pytest.fixture(scope="session")
def _bridge_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from _lab(request, "bridge")


@pytest.fixture(scope="session")
def _tun_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from _lab(request, "tun")


def _calm(lab: Lab) -> Iterator[Lab]:
    """Lend a lab to a test: all hosts on, healed and empty, before and after it."""
    yield lab
    for name in lab.hosts:
        if not lab.is_on(name):
            lab.boot(name)
        lab.wake(name)
        lab.heal(name)
    for name in (DESK, *lab.hosts):
        left = lab.processes(name)
        try:
            wait_until(lambda: not lab.processes(name), 1.0, lambda: f"{name}: {left}")  # noqa: B023
        except AssertionError:
            if name != DESK:
                lab.reboot(name)
            raise


@pytest.fixture
def lab(_bridge_lab: Lab) -> Iterator[Lab]:
    """Three workstations on a bridge."""
    yield from _calm(_bridge_lab)


@pytest.fixture
def tun_lab(_tun_lab: Lab) -> Iterator[Lab]:
    """Three workstations at a switch that can delay packets, lose them and limit their rate."""
    yield from _calm(_tun_lab)
