"""The EB sampler: which slots fit into the budget, counted by hand, and the ends of its range."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.methods.diffusion.mocks import copy, replace_random, shuffle
from unspool.conformance.canvas_model import Whatever
from unspool.engine.canvas import BlockState, CanvasScores, CanvasState, UnmaskPolicy
from unspool.engine.canvas_request import CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.errors import UnspoolError
from unspool.methods.diffusion.eb_sampler import EBSampler, EBSamplerOptions
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.top_k import TopK, TopKOptions

INFINITY = float("inf")


def view(probabilities: NDArray[np.float64], masked: list[bool] | None = None) -> BlockState:
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    n = len(logits)
    sight = CanvasState(np.zeros(n, np.int64), np.ones(n, np.bool_), 0, CanvasScores(0, logits, 1.0), 0)
    return BlockState(sight, 0, np.array([True] * n if masked is None else masked), logits, logits.argmax(axis=1), 0)


def coins(*chances: float) -> NDArray[np.float64]:
    return np.array([[c, 1 - c] for c in chances])


def entropy(chance: float) -> float:
    return float(-sum(p * np.log(p) for p in (chance, 1 - chance)))


@pytest.mark.parametrize(
    ("gamma", "chosen"),
    [
        (0.0, [False, False, True, False]),
        # The second best is free until the best one's entropy is out of the budget.
        (entropy(0.99) - 1e-9, [False, False, True, False]),
        (entropy(0.99) + 1e-9, [False, True, True, False]),
        (entropy(0.99) + entropy(0.95) - 1e-9, [False, True, True, False]),
        (entropy(0.99) + entropy(0.95) + 1e-9, [True, True, True, False]),
        (entropy(0.99) + entropy(0.95) + entropy(0.8) + 1e-9, [True, True, True, True]),
        (INFINITY, [True, True, True, True]),
    ],
)
def test_the_budget_by_hand(gamma: float, chosen: list[bool]) -> None:
    seen = view(coins(0.8, 0.95, 0.99, 0.5))
    assert EBSampler(EBSamplerOptions(gamma)).select(seen).tolist() == chosen


def test_slots_without_entropy_are_free_and_one_more_is_committed() -> None:
    seen = view(coins(1.0, 0.7, 1.0, 0.9, 1.0))
    assert EBSampler(EBSamplerOptions(0.0)).select(seen).tolist() == [True, False, True, True, True]


def test_committed_slots_use_up_no_budget() -> None:
    seen = view(coins(0.5, 0.99, 0.6), [False, True, True])
    assert EBSampler(EBSamplerOptions(entropy(0.99) + 1e-9)).select(seen).tolist() == [False, True, True]


def test_it_takes_the_most_slots_that_the_rule_allows() -> None:
    """Against all subsets: none that keeps the bound is larger."""
    rng = np.random.default_rng(0)
    for gamma in (0.0, 0.1, 0.5, 1.0):
        for _ in range(20):
            seen = view(rng.dirichlet([0.4] * 4, size=7))
            chosen = EBSampler(EBSamplerOptions(gamma)).select(seen)

            def within(slots: tuple[int, ...], seen: BlockState = seen, gamma: float = gamma) -> bool:
                h = seen.entropy[list(slots)]
                return float(h.sum() - h.max()) <= gamma + 1e-12

            assert within(tuple(np.flatnonzero(chosen)))
            most = max(k for k in range(1, 8) if any(within(s) for s in combinations(range(7), k)))
            assert chosen.sum() == most


def steps(
    policy: UnmaskPolicy, block_length: int | None = None, temperature: float = 0.0
) -> list[tuple[tuple[int, ...], tuple[int | None, ...]]]:
    events: list[Event] = []
    parts = Parts(policy, FixedBlocks(FixedBlocksOptions(block_length)))
    options = CanvasOptions(temperature=temperature, seed=2)
    denoise(Whatever(), [CanvasRequest([3, 1], [None] * 12, parts, options)], events.append)
    return [(event.committed, event.slots) for event in events if isinstance(event, CanvasEvent)]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("block_length", [None, 4])
def test_the_ends_of_its_range(block_length: int | None, temperature: float) -> None:
    none = steps(EBSampler(EBSamplerOptions(0.0)), block_length, temperature)
    assert none == steps(TopK(TopKOptions(1, "entropy")), block_length, temperature)
    at_once = steps(EBSampler(EBSamplerOptions(INFINITY)), block_length, temperature)
    assert at_once == steps(TopK(TopKOptions(12)), block_length, temperature)
    some = [len(committed) for committed, _ in steps(EBSampler(), block_length, temperature)]
    assert len(at_once) < len(some) < len(none)


def test_closed_forms_of_exact_marginals() -> None:
    def filled(model: object, gamma: float) -> list[int]:
        parts = Parts(EBSampler(EBSamplerOptions(gamma)), FixedBlocks())
        return denoise(model, [CanvasRequest([], [None] * 6, parts)])[0]  # type: ignore[arg-type]

    shuffled = shuffle(6)
    for gamma in (0.1, 0.69):
        # A coin has log 2 = 0.693 nats: two of them are never thrown together.
        assert all(sorted(filled(shuffled, gamma)) == list(range(6)) for _ in range(20))
    assert any(sorted(filled(shuffled, 0.7)) != list(range(6)) for _ in range(40))
    assert filled(copy(6), 0.0) == list(range(6))
    # Which of six slots is replaced has H(1/6) = 0.451 nats in each of them.
    assert sum(t != i for i, t in enumerate(filled(replace_random(6), 0.1))) == 1
    assert sum(t != i for i, t in enumerate(filled(replace_random(6), INFINITY))) == 0


@pytest.mark.parametrize(("gamma", "message"), [(-0.1, "at least 0"), (float("nan"), "a number")])
def test_a_budget_that_makes_no_sense(gamma: float, message: str) -> None:
    with pytest.raises(UnspoolError, match=f"gamma must be {message}"):
        EBSamplerOptions(gamma)
