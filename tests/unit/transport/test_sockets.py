"""Local sockets, also in folders whose path is longer than the path of a socket may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.transport.sockets import DealerSocket, RouterSocket, local_endpoint


def descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("name", ["short", "long" * 40, "br\udce9ve"])
def test_closed_sockets_keep_no_descriptor(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    before = descriptors()

    router = RouterSocket(local_endpoint(str(folder)))
    dealer = DealerSocket(local_endpoint(str(folder)), b"me")
    dealer.send([b"header", b"frame"])
    router.wait(5.0)
    ((who, frames),) = router.receive()
    assert (who, frames) == (b"me", [b"header", b"frame"])
    dealer.close()
    router.close()

    assert descriptors() == before
