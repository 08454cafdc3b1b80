"""T4 and T5: sampled runs of several rounds through sessions, rules and drafters against the exact joint distribution.

Enumeration shows the same of each part and sees smaller biases (``test_acceptance_exact``, ``test_drafters_exact``);
this is all parts and real noise at once. Seeds are fixed, so a run either always passes or never does.
"""

from __future__ import annotations

import math
from functools import partial

import pytest

from tests.conformance.harness import (
    SampledDrafter,
    Sampler,
    SiblingSampler,
    chi_squared,
    draw_independent,
    draw_mixed,
    draw_no_replacement,
    sample_outputs,
    sample_tree,
    stochastic_beam,
    take_top,
)
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.drafter import resources, run
from unspool.engine.contracts import AcceptanceRule, Drafter
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless

pytestmark = pytest.mark.nightly

Pair = tuple[ToyModel, ToyModel]


def widths(siblings: SiblingSampler, *counts: int) -> Sampler:
    return partial(sample_tree, siblings=siblings, widths=counts)


def assert_fits(target: ToyModel, drafter: Drafter, rule: AcceptanceRule, n: int) -> None:
    """p < 1e-4 twice with fresh seeds fails; the distance must be near that of plain sampling."""
    expected = target.distribution(3, (0,))
    result = chi_squared(sample_outputs(target, drafter, rule, n), expected)
    floor = sum(math.sqrt(p * (1 - p) / (2 * math.pi * n)) for p in expected.values())
    assert result.total_variation < 1.5 * floor
    if result.p_value < 1e-4:
        result = chi_squared(sample_outputs(target, drafter, rule, n, first_seed=n), expected)
    assert result.p_value >= 1e-4, result


@pytest.mark.parametrize(
    ("sampler", "n"),
    [
        (widths(draw_no_replacement, 2), 60_000),
        (widths(draw_independent, 2), 20_000),
        (widths(draw_mixed, 2), 20_000),
        (stochastic_beam(2, 2), 20_000),
    ],
    ids=["no_replacement", "independent", "mixed", "stochastic_beam"],
)
def test_lossless(bigram_pair: Pair, sampler: Sampler, n: int) -> None:
    """Trees of depth 1 give 2 tokens a round at most, so the joint of 3 tokens always spans several rounds."""
    target, draft = bigram_pair
    assert_fits(target, SampledDrafter(draft, sampler), Lossless(), n)


@pytest.mark.parametrize(
    "sampler", [widths(draw_no_replacement, 3), widths(take_top, 2, 1)], ids=["no_replacement", "point_mass"]
)
def test_lossless_far_draft(sampler: Sampler) -> None:
    target = ToyModel.random(seed=5, vocab_size=3, order=2, floor=0.03)
    drafter = SampledDrafter(target.related(3.0, seed=6), sampler)
    assert_fits(target, drafter, Lossless(), 6_000)


@pytest.mark.parametrize("name", [row.name for row in methods.of_kind(DRAFTER)])
def test_every_drafter_keeps_the_distribution(name: str) -> None:
    """Trees of the usual size; ``unspool check`` sums small ones. One memory serves all samples, so that it learns."""
    toy, prompt, n = ToyModel.random(vocab_size=4, order=1, seed=3), [0, 1, 2, 3, 0, 1], 2000
    around, samples = resources(toy), []
    for seed in range(n):
        options = GenerationOptions(max_new_tokens=3, temperature=1.0, seed=seed)
        drafter = methods.build(name, DRAFTER, around)
        samples.append(tuple(run(toy, [prompt], [drafter], options, Lossless())[0][0]))
    assert chi_squared(samples, toy.distribution(3, prompt)).p_value >= 1e-4


def test_same_noise(bigram_pair: Pair) -> None:
    target, draft = bigram_pair
    assert_fits(target, SampledDrafter(draft, widths(take_top, 2, 1)), ExactMatch(), 10_000)
