"""T7: every fault of the two tables of known mistakes is caught. A suite that misses one is not done.

What sampling must catch runs where sampling does, nightly; ``test_drafters_exact`` catches the same by enumeration.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.conformance.faults import (
    CACHE_FAULTS,
    RULE_FAULTS,
    TREE_FAULTS,
    FaultyModel,
    KindByNoise,
    NoisePerSequence,
    RuleFault,
    StaleAfterRewind,
    generator_per_sequence,
)
from tests.conformance.harness import (
    ChiSquared,
    RoundGenerator,
    SampledDrafter,
    Sampler,
    chi_squared,
    decode,
    draw_no_replacement,
    plain,
    sample_outputs,
    sample_tree,
    stochastic_beam,
)
from tests.conformance.pairs import divergence, five_tokens
from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import joint, outcomes, total_variation, trees
from unspool.conformance.stubs import RandomDrafter
from unspool.engine.contracts import Drafter
from unspool.engine.noise import rule_generator
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless

Pair = tuple[ToyModel, ToyModel]
CHAIN: Sampler = partial(sample_tree, siblings=draw_no_replacement, widths=(1,))


def distance(fault: RuleFault, target: ToyModel, draft: ToyModel) -> float:
    drafts = trees(draft, (0,), ((),) * fault.count, fault.siblings)
    return total_variation(joint(fault.rule, target, (0,), drafts, 1), target.distribution(1, (0,)))


def test_pairs_are_as_far_apart_as_the_card_says() -> None:
    assert divergence(*five_tokens("far"), 0) == pytest.approx(0.75, abs=0.02)
    assert divergence(*five_tokens("close"), 0) == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize("name", RULE_FAULTS)
@pytest.mark.parametrize("pair_name", ["far", "close"])
def test_wrong_rules_are_caught_by_enumeration(name: str, pair_name: str) -> None:
    fault = RULE_FAULTS[name]
    found = distance(fault, *five_tokens(pair_name))
    card = fault.card_far if pair_name == "far" else fault.card_close
    if card == 0:
        assert found < 1e-12  # the fault does not show in this pair, which is why far pairs belong to the suite
    else:
        assert found > 1e-4
        assert card / 10 < found < card * 10


def test_rule_refuses_a_repeated_draw_without_replacement() -> None:
    target, draft = five_tokens("far")
    distribution = DraftDistribution(draft.probabilities((0,)), replacement=False)
    doubled = int((target.probabilities((0,)) / distribution.q).argmin())
    tree = TokenTree((0, doubled, doubled), (-1, 0, 0), drafts=(-1, 0, 0), distributions=(distribution,))
    with pytest.raises(ValueError, match="probability 0"):
        list(outcomes(Lossless(), target, (0,), tree))


def fit(pair: Pair, drafter: Drafter, n: int, generator: RoundGenerator = rule_generator) -> ChiSquared:
    target, _ = pair
    samples = sample_outputs(target, drafter, Lossless(), n, round_generator=generator)
    return chi_squared(samples, target.distribution(3, (0,)))


@pytest.mark.nightly
@pytest.mark.parametrize("name", TREE_FAULTS)
def test_wrong_trees_are_caught_by_sampling(name: str, bigram_pair: Pair) -> None:
    assert fit(bigram_pair, SampledDrafter(bigram_pair[1], TREE_FAULTS[name]), 2_000).p_value < 1e-6


@pytest.mark.nightly
def test_the_right_tree_passes_where_the_wrong_ones_are_caught(bigram_pair: Pair) -> None:
    assert fit(bigram_pair, SampledDrafter(bigram_pair[1], stochastic_beam(3, 2)), 2_000).p_value > 1e-3


@pytest.mark.nightly
@pytest.mark.parametrize("sampler", [CHAIN, stochastic_beam(2, 2)], ids=["chain", "beam"])
@pytest.mark.parametrize("shared", ["draft", "rule"])
def test_noise_drawn_once_per_sequence_is_caught(shared: str, sampler: Sampler, bigram_pair: Pair) -> None:
    drafter = (SampledDrafter if shared == "rule" else NoisePerSequence)(bigram_pair[1], sampler)
    generator = generator_per_sequence if shared == "rule" else rule_generator
    assert fit(bigram_pair, drafter, 4_000, generator).p_value < 1e-6


@pytest.mark.nightly
def test_draws_made_where_the_noise_of_the_position_says_so_are_caught(bigram_pair: Pair) -> None:
    assert fit(bigram_pair, KindByNoise(bigram_pair[1], CHAIN), 4_000).p_value < 1e-6


@pytest.mark.parametrize("name", CACHE_FAULTS)
def test_wrong_caches_are_caught_by_identity(name: str) -> None:
    model = ToyModel.random(seed=3, vocab_size=5, order=3, floor=0.02)
    faulty = FaultyModel(model, CACHE_FAULTS[name])
    reference = plain(model, (1, 2), 48, seed=1)
    drafters = (RandomDrafter(5), SampledDrafter(model.related(0.3), stochastic_beam(3, 3)))
    for drafter in drafters:
        assert decode(model, drafter, ExactMatch(), (1, 2), 48, seed=1).tokens == reference
        assert decode(faulty, drafter, ExactMatch(), (1, 2), 48, seed=1).tokens != reference


def test_stale_cache_after_rewind_is_caught() -> None:
    model = ToyModel.random(seed=3, vocab_size=5, order=3, floor=0.02)
    rewound = []
    for session in (model.open(), FaultyModel(model, StaleAfterRewind).open()):
        session.score(TokenTree.chain((1, 2, 3, 4)))
        session.commit(range(4))
        session.rewind(2)
        rewound.append(session.score(TokenTree.chain((0,))).logits[0].copy())
    assert np.allclose(np.exp(rewound[0]), model.probabilities((1, 2, 0)))
    assert np.abs(rewound[0] - rewound[1]).max() > 0.1
