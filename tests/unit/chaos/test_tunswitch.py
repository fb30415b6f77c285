from __future__ import annotations

import random

import pytest

from chaos.lab.tunswitch import Rule, Way


def way(rule: Rule, seed: int = 1) -> Way:
    return Way(random.Random(seed), rule)


def test_a_packet_passes_at_once_without_a_rule() -> None:
    assert way(Rule()).pass_at(5.0, 100) == [5.0]


def test_a_packet_is_delayed_within_its_jitter() -> None:
    late = [way(Rule(delay_s=0.1, jitter_s=0.02), seed).pass_at(1.0, 100)[0] for seed in range(200)]
    assert 1.08 <= min(late) < 1.085
    assert 1.115 < max(late) <= 1.12


def test_a_cut_direction_drops_and_counts_every_packet() -> None:
    cut = way(Rule(cut=True))
    assert [cut.pass_at(0.0, 100) for _ in range(3)] == [[], [], []]
    assert cut.count.cut == 3


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_share_of_lost_packets_is_the_requested_one(share: float) -> None:
    lossy = way(Rule(loss=share))
    lost = sum(not lossy.pass_at(0.0, 100) for _ in range(10_000))
    assert lost == lossy.count.lost
    assert 0.8 * share < lost / 10_000 < 1.2 * share


def test_a_duplicated_packet_passes_twice() -> None:
    assert way(Rule(duplicate=1.0)).pass_at(0.0, 100) == [0.0, 0.0]


def test_a_slow_direction_passes_packets_in_order_at_its_rate() -> None:
    slow = way(Rule(rate_bps=8000.0))
    passed = [slow.pass_at(1.0, 100)[0] for _ in range(3)]
    assert passed == pytest.approx([1.1, 1.2, 1.3])


def test_a_slow_direction_drops_packets_that_would_wait_too_long() -> None:
    slow = way(Rule(rate_bps=8000.0))
    passed = sum(bool(slow.pass_at(0.0, 100)) for _ in range(20))
    assert passed == 6
    assert slow.count.overflow == 14


def test_a_reordered_packet_arrives_after_its_successor() -> None:
    mixed = way(Rule(reorder=0.5))
    arrivals = [mixed.pass_at(number / 1000, 100)[0] for number in range(20)]
    assert arrivals != sorted(arrivals)
    assert 0 < mixed.count.reordered < 20


def test_one_seed_gives_each_packet_the_same_delay_and_loss() -> None:
    rule = Rule(delay_s=0.1, jitter_s=0.1, loss=0.2, duplicate=0.1, reorder=0.1)
    one, same, other = way(rule, 7), way(rule, 7), way(rule, 8)
    fates = [[each.pass_at(0.0, 9) for _ in range(50)] for each in (one, same, other)]
    assert fates[0] == fates[1] != fates[2]
