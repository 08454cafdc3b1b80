"""Policies on exact marginals against the closed forms of ParallelBench (2025): no weights, only the rules."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, perm, prod

import pytest

from tests.methods.diffusion.mocks import Exact, copy, replace_random, shuffle
from tests.pairwise import pairwise
from unspool.engine.canvas import ScoreTransform, UnmaskPolicy
from unspool.engine.canvas_request import CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.methods.diffusion.credit import Credit
from unspool.methods.diffusion.entropy_threshold import EntropyThreshold, EntropyThresholdOptions
from unspool.methods.diffusion.factor import Factor, FactorOptions
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.localleap import LocalLeap
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import ORDERS, Order, TopK, TopKOptions

RUNS = 300

Make = Callable[[], UnmaskPolicy]


def accuracy(
    model: Exact,
    n: int,
    right: Callable[[list[int]], bool],
    policy: Make,
    *,
    block_length: int | None = None,
    temperature: float = 0.0,
    transforms: Callable[[], list[ScoreTransform]] = list,
    runs: int = RUNS,
) -> float:
    hits = 0
    for seed in range(runs):
        parts = Parts(policy(), FixedBlocks(FixedBlocksOptions(block_length)), transforms())
        options = CanvasOptions(temperature=temperature, seed=seed)
        (slots,) = denoise(model, [CanvasRequest([], [None] * n, parts, options)])
        hits += right(slots)
    return hits / runs


def near(found: float, expected: float, runs: int = RUNS) -> bool:
    """Within three standard deviations, of a proportion that is not quite 0 or 1."""
    return abs(found - expected) <= 3 * (max(expected * (1 - expected), 1e-12) / runs) ** 0.5


def top_k(k: int, order: Order = "confidence") -> Make:
    return lambda: TopK(TopKOptions(k, order))


def permutation(slots: list[int]) -> bool:
    return sorted(slots) == list(range(len(slots)))


def one_replaced(slots: list[int]) -> bool:
    return sum(token != slot for slot, token in enumerate(slots)) == 1


@pytest.mark.parametrize(("k", "temperature", "order"), pairwise([1, 2, 4], [0.0, 1.0], ORDERS))
def test_shuffle_by_a_fixed_number(k: int, temperature: float, order: Order) -> None:
    n = 4
    expected = prod(perm(m, k) / m**k for m in range(n, 0, -k))
    assert k < n or expected == factorial(n) / n**n
    found = accuracy(shuffle(n), n, permutation, top_k(k, order), temperature=temperature)
    assert near(found, expected), (found, expected)


@pytest.mark.parametrize(
    "policy",
    [
        lambda: Threshold(ThresholdOptions(0.6)),
        lambda: Threshold(ThresholdOptions(0.9)),
        lambda: Factor(FactorOptions(0.9)),
        lambda: EntropyThreshold(EntropyThresholdOptions(0.5)),
        LocalLeap,
    ],
)
@pytest.mark.parametrize("block_length", [None, 2, 3])
def test_shuffle_stays_right_where_a_rule_waits_for_certainty(policy: Make, block_length: int | None) -> None:
    assert accuracy(shuffle(6), 6, permutation, policy, block_length=block_length, runs=60) == 1


def test_shuffle_below_one_half_is_not_right() -> None:
    """At a threshold of 0.5 the last two slots, a coin each, are committed together."""
    found = accuracy(shuffle(6), 6, permutation, lambda: Threshold(ThresholdOptions(0.4999)))
    assert near(found, 0.5), found


def test_credit_cannot_make_a_coin_certain() -> None:
    """Its odds grow at most (1 + 5) ** 0.7 = 3.5 times: with a threshold of 0.9 nothing below 0.72 passes."""
    found = accuracy(shuffle(6), 6, permutation, Threshold, transforms=lambda: [Credit()], runs=100)
    assert found == 1


@pytest.mark.parametrize(("k", "expected"), [(1, 1.0), (2, 0.5), (3, 0.0), (6, 0.0)])
def test_replacing_an_unknown_slot_by_a_fixed_number(k: int, expected: float) -> None:
    found = accuracy(replace_random(6), 6, one_replaced, top_k(k))
    assert near(found, expected), found


def test_replacing_by_draws_in_one_step() -> None:
    n = 6
    found = accuracy(replace_random(n), n, one_replaced, top_k(n), temperature=1.0)
    assert near(found, ((n - 1) / n) ** (n - 1)), found


@pytest.mark.parametrize(("threshold", "expected"), [(0.8, 0.0), (0.87, 1.0), (0.95, 1.0)])
def test_replacing_at_a_threshold_on_either_side_of_the_probability_to_keep(threshold: float, expected: float) -> None:
    policy = lambda: Threshold(ThresholdOptions(threshold))  # noqa: E731
    assert accuracy(replace_random(6), 6, one_replaced, policy, runs=60) == expected


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("order", ORDERS)
def test_copying_is_right_at_any_speed(k: int, order: Order) -> None:
    assert accuracy(copy(6), 6, lambda slots: slots == list(range(6)), top_k(k, order), runs=5) == 1
