"""Bridges to libraries that take a map: the map of a session, of an executor, or Python's own."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

from resilient_scoop.contrib.leap import Evaluator
from resilient_scoop.contrib.mystic import Mapper
from resilient_scoop.contrib.pygmo import BatchEvaluator, Island


def test_a_mapper_of_mystic_uses_its_map_and_ignores_keywords_of_mystic() -> None:
    assert Mapper(map)(pow, [2, 3], [3, 2], ncpus=4) == [8, 9]


class Individual(SimpleNamespace):
    """An individual as in LEAP: it evaluates itself."""

    def evaluate(self) -> None:
        assert not hasattr(self, "uuid")
        self.fitness = sum(self.genome)


def test_an_evaluator_of_leap_uses_its_map_and_keeps_individuals_and_their_ids() -> None:
    crowd = [Individual(genome=[number, 1], uuid=number) for number in range(3)]

    assert Evaluator(map)(crowd) == crowd

    assert [(each.fitness, each.uuid) for each in crowd] == [(1, 0), (2, 1), (3, 2)]


def test_an_object_with_a_session_can_be_copied_and_is_pickled_without_it() -> None:
    def of_a_session(*args: Any) -> Any:
        return args

    for held in (BatchEvaluator(of_a_session), Island(of_a_session)):
        assert copy.deepcopy(held) is held
        saved = pickle.loads(pickle.dumps(held))
        assert type(saved) is type(held)
        assert of_a_session not in vars(saved).values()
