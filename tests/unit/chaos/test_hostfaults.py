from __future__ import annotations

import random

from chaos.hostfaults import AT_DESK, LASTING, Fault, draw
from chaos.lab import DESK

HOSTS = ["alice", "bob", "carol"]


def test_the_same_seed_draws_the_same_round() -> None:
    rounds = [draw(random.Random(seed), HOSTS, list(Fault), 10.0) for seed in (1, 1, 2)]
    assert rounds[0] == rounds[1] != rounds[2]


def test_every_round_leaves_one_host_without_faults_and_every_kind_is_drawn() -> None:
    kinds = set()
    for seed in range(400):
        drawn = draw(random.Random(seed), HOSTS, list(Fault), 10.0)
        hosts = [each.host for each in drawn if each.host != DESK]
        assert len(hosts) == len(set(hosts)) < len(HOSTS)
        assert all((each.host == DESK) == (each.kind in AT_DESK) for each in drawn)
        kinds |= {each.kind for each in drawn}
    assert kinds == set(Fault)


def test_some_faults_end_before_and_some_after_their_host_counts_as_lost() -> None:
    rounds = [draw(random.Random(seed), HOSTS, sorted(LASTING), 10.0) for seed in range(200)]
    lasts_s = [each.lasts_s for drawn in rounds for each in drawn]
    assert min(lasts_s) < 3.0
    assert 15.0 < max(lasts_s) < 23.0
