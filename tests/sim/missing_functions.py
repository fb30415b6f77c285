"""Missing modules: in some lives of a run, workers lack a module that some functions need.

U1  Nothing that a worker lacks is an outcome (the answer is that of an undisturbed run).
U2  The run stops for it only where a parent has asked for that function in this life of the script.
R1  A process that is gone is not waited for to have space on the disk.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim import programs

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from resilient_scoop.core.worker.worker import Work
    from tests.sim.launcher import Launcher
    from tests.sim.world import World


_NAMES = sorted({fn.name for fn in programs.BY_ID.values()} - {programs.SCRIPT.name})


class MissingFunctions:
    """The missing modules of a world; drawn separately, so that other histories stay the same."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.missing: frozenset[str] = frozenset()  # functions that no worker can load in this life
        self._rng = random.Random(f"lacks of {world.seed}")
        self._stopped = False  # the run has stopped because of them, and the user corrects this

    def begin_life(self) -> None:
        """Draw what is missing until the next full stop."""
        world = self.world
        mended, self._stopped = self._stopped, False
        drawn = self._rng.random() < world.climate.missing_functions
        some = frozenset(self._rng.sample(_NAMES, k=self._rng.choice((1, 3, 9))))
        self.missing = (
            some if drawn and not mended and world.now < world.climate.until else frozenset()
        )

    def unfit(self, work: Work) -> str:
        """Return why a worker cannot run a slice; empty if it can."""
        task = work.task
        if programs.BY_ID[task.fn].name not in self.missing:
            return ""
        self.world.faults["unfit"] += 1
        return f"{task.parent} {task.call} {task.fn.hex()}"

    def turned(self, broker: Broker, launcher: Launcher) -> None:
        """Check the reaction of the broker; tell the launcher why it stops."""
        waiting = broker.membership.roomless.reported.keys()
        assert waiting <= broker.members.peers.keys(), (
            "R1: space that a process which is gone waits for"
        )
        path, _, rest = broker.keeper.halted.partition(" ")
        call, _, fn = rest.partition(" ")
        if self._stopped or not (call.isdigit() and fn):
            return
        self._stopped = launcher.interrupted = True
        batch = broker.scheduler.find(path, int(call))
        assert batch is not None, "U2: the run stops for a call that there is not"
        assert batch.asked == bytes.fromhex(fn), (
            "U2: the run stops for a function that was not asked for"
        )
