"""The random state of a program with a session does not change, whatever happens to the workers."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest

from resilient_scoop import Session

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


def draw_and_die_once(marker: str, x: int) -> float:
    """Draw from the worker's streams; end the worker at the first try."""
    found = random.random() + float(np.random.random())  # noqa: NPY002
    try:
        os.close(os.open(f"{marker}{x}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return found
    os.kill(os.getpid(), signal.SIGKILL)
    return found


def test_the_random_streams_of_the_program_do_not_change_while_workers_are_killed(
    tmp_path: Path,
) -> None:
    random.seed(11)
    np.random.seed(12)  # noqa: NPY002
    expected = [random.random() for _ in range(3)] + list(np.random.random(3))  # noqa: NPY002
    random.seed(11)
    np.random.seed(12)  # noqa: NPY002
    own = [random.random()]
    legacy = [float(np.random.random())]  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002

    with Session(workers=2, seed=5, state_dir=tmp_path / "state") as session:
        calls = [session.submit(draw_and_die_once, str(tmp_path / "x"), x) for x in range(4)]
        own.append(random.random())
        legacy.append(float(np.random.random()))  # noqa: NPY002
        middle = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
        first = [call.result(timeout=40) for call in calls]
        assert (random.getstate(), np.random.get_state()[1].tobytes()) == middle  # type: ignore[index]  # noqa: NPY002
    own.append(random.random())
    legacy.append(float(np.random.random()))  # noqa: NPY002

    assert len(list(tmp_path.glob("x*"))) == 4, "each call has killed a worker"
    assert before != middle
    assert own + legacy == expected
    assert len({*first}) == len(first)
