"""T3: the lossless rule gives the target distribution exactly, by summing over every draft and every outcome.

No randomness, so it sees biases that no number of samples would.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import (
    DRAWS,
    SHAPES,
    Node,
    Shape,
    Siblings,
    Text,
    TextTarget,
    build,
    independent,
    joint,
    no_replacement,
    ordered_draws,
    outcomes,
    retrieval_then_drawn,
    top,
    total_variation,
    trees,
    without,
)
from unspool.conformance.pairs import KINDS, pair
from unspool.engine.contracts import Decision
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.methods.acceptance.lossless import Lossless

TOLERANCE = 1e-12
LEAF: Shape = ()
CHAIN = SHAPES["chain of 3"]


class NoNoise:
    """A ``Chance`` that takes the likeliest token."""

    def accept(self, probability: float) -> bool:
        raise AssertionError("nothing was drawn, so there is nothing to test")

    def draw(self, p: np.ndarray) -> int:
        return int(p.argmax())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", DRAWS)
def test_one_node(rule: str, kind: str) -> None:
    siblings: Siblings = DRAWS[rule]
    for vocab_size, most in ((3, 3), (4, 4), (5, 4)):
        target, draft = pair(kind, vocab_size)
        plain = target.distribution(1, (0,))
        for count in range(1, most + 1):
            drafts = trees(draft, (0,), (LEAF,) * count, siblings)
            assert total_variation(joint(Lossless(), target, (0,), drafts, 1), plain) < TOLERANCE


@pytest.mark.parametrize("rule", [no_replacement, independent, top, retrieval_then_drawn])
@pytest.mark.parametrize("kind", ["far", "close"])
def test_as_many_siblings_as_tokens(rule: Siblings, kind: str) -> None:
    target, draft = pair(kind, 5)
    drafts = trees(draft, (0,), (LEAF,) * 5, rule)
    assert total_variation(joint(Lossless(), target, (0,), drafts, 1), target.distribution(1, (0,))) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", DRAWS)
def test_joint_of_three_tokens(rule: str, kind: str) -> None:
    target, draft = pair(kind, 3, seed=1)
    plain = target.distribution(3, (1,))
    for name, shape in SHAPES.items():
        drafts = trees(draft, (1,), shape, DRAWS[rule])
        assert total_variation(joint(Lossless(), target, (1,), drafts, 3), plain) < TOLERANCE, name


def stochastic_beam(draft: ToyModel, prompt: Text, width: int) -> Iterator[tuple[TokenTree, float]]:
    """Every tree of depth 2 of stochastic beam search, siblings in perturbed order.

    The pairs of tokens, in perturbed order, are draws without replacement; the first tokens appear in the order of the
    best pair below them. So the beam of depth 2 holds the first ``width`` pairs, and the beam of depth 1 the first
    ``width`` first tokens of the full order, which may lie beyond those pairs.
    """
    q = draft.probabilities(prompt)
    size = len(q)
    below = [draft.probabilities((*prompt, token)) for token in range(size)]
    pairs = np.concatenate([q[token] * below[token] for token in range(size)])
    roots = DraftDistribution(q, replacement=False)
    leaves = [DraftDistribution(row, replacement=False) for row in below]
    for order, weight in ordered_draws(pairs, width):
        seen = list(dict.fromkeys(pair // size for pair in order))
        rest = without(q, seen)
        more = ordered_draws(rest, width - len(seen)) if rest is not None else iter([((), 1.0)])
        for others, other_weight in more:
            firsts = [*seen, *others]
            nodes: list[Node] = [(prompt[-1], -1, None), *((token, 0, roots) for token in firsts)]
            nodes += [(pair % size, 1 + firsts.index(pair // size), leaves[pair // size]) for pair in order]
            yield build(nodes), weight * other_weight


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_beam(kind: str) -> None:
    for vocab_size in (3, 4, 5):
        target, draft = pair(kind, vocab_size, seed=2)
        drafts = stochastic_beam(draft, (0,), width=2)
        assert total_variation(joint(Lossless(), target, (0,), drafts, 3), target.distribution(3, (0,))) < TOLERANCE


def test_draft_weights_sum_to_one() -> None:
    _, draft = pair("far", 3)
    for siblings in DRAWS.values():
        for shape in SHAPES.values():
            assert sum(weight for _, weight in trees(draft, (0,), shape, siblings)) == pytest.approx(1, abs=1e-12)
    assert sum(weight for _, weight in stochastic_beam(draft, (0,), 2)) == pytest.approx(1, abs=1e-12)


def test_acceptance_of_a_single_draft_is_one_minus_total_variation() -> None:
    target, draft = pair("far", 5)
    p, q = target.probabilities((0,)), draft.probabilities((0,))
    accepted = 0.0
    for tree, weight in trees(draft, (0,), (LEAF,), no_replacement):
        for decision, probability in outcomes(Lossless(), target, (0,), tree):
            accepted += weight * probability * (len(decision.path) > 1)
    assert accepted == pytest.approx(1 - 0.5 * np.abs(p - q).sum(), abs=1e-12)


def test_equal_distributions_accept_the_whole_chain() -> None:
    target, draft = pair("equal", 4)
    for tree, _ in trees(draft, (0,), CHAIN, no_replacement):
        assert all(len(decision.path) == 4 for decision, _ in outcomes(Lossless(), target, (0,), tree))


def test_drafted_token_of_probability_zero_is_an_error() -> None:
    target, _ = pair("far", 3)
    for replacement in (True, False):
        distribution = DraftDistribution(np.array([0.5, 0.5, 0.0]), replacement)
        tree = TokenTree((0, 2), (-1, 0), drafts=(-1, 0), distributions=(distribution,))
        with pytest.raises(ValueError, match="'draft' drafted token 2"):
            list(outcomes(Lossless(), target, (0,), tree))


def test_siblings_beyond_an_exhausted_draft_are_skipped() -> None:
    """One token is all that the draft has: what follows from it is filler, and the siblings of others still count."""
    target = ToyModel(np.tile([0.2, 0.1, 0.3, 0.4], (5, 1)))
    distribution = DraftDistribution(np.array([0.0, 0.0, 1.0, 0.0]), replacement=False)
    tree = TokenTree((0, 2, 3, 1), (-1, 0, 0, 0), drafts=(-1, 0, 0, -1), distributions=(distribution,))
    found = {(d.path, d.token): w for d, w in outcomes(Lossless(), target, (0,), tree) if d.path != (0, 1)}
    accepted = {((0, 3), token): 0.1 * p for token, p in enumerate((0.2, 0.1, 0.3, 0.4))}
    assert found == pytest.approx({((0,), 0): 0.2, ((0,), 3): 0.4} | accepted)


def test_tokens_of_probability_zero_are_never_taken() -> None:
    class Zero:
        def random(self) -> float:
            return 0.0

    target = ToyModel(np.tile([0.0, 0.0, 0.4, 0.6], (5, 1)))
    distribution = DraftDistribution(np.array([0.1, 0.9, 0.0, 0.0]), replacement=True)
    tree = TokenTree((0, 1), (-1, 0), drafts=(-1, 0), distributions=(distribution,))
    text_target = TextTarget(target, (0,), tree, NoNoise())
    assert Lossless().decide(text_target, Zero) == Decision((0,), 2)  # type: ignore[arg-type]


def test_numbers_of_a_generator_are_used_with_the_chances_that_enumeration_gives_them() -> None:
    """Each test takes a number of its own: a grid of pairs gives the target's shares, which are twelfths, exactly."""

    class Numbers:
        def __init__(self, *numbers: float) -> None:
            self.random = iter(numbers).__next__

    target = ToyModel(np.tile([1 / 2, 1 / 4, 1 / 4], (4, 1)))
    distribution = DraftDistribution(np.array([1 / 8, 1 / 8, 3 / 4]), replacement=False)
    grid = (np.arange(12) + 0.5) / 12
    shares = np.zeros((3, 3))
    for draft in range(3):
        tree = TokenTree((0, draft), (-1, 0), drafts=(-1, 0), distributions=(distribution,))
        for first in grid:
            for second in grid:
                decision = Lossless().decide(
                    TextTarget(target, (0,), tree, NoNoise()),
                    lambda numbers=(first, second): Numbers(*numbers),  # type: ignore[misc]
                )
                shares[draft, draft if len(decision.path) > 1 else decision.token] += 1 / 144
    assert distribution.q @ shares == pytest.approx([1 / 2, 1 / 4, 1 / 4], abs=1e-12)
    assert shares[2] == pytest.approx([1 / 2, 1 / 6, 1 / 3], abs=1e-12)


def test_rejection_that_only_rounding_allows_accepts_the_child() -> None:
    class AlwaysReject(NoNoise):
        def accept(self, probability: float) -> bool:
            return False

    target, draft = pair("equal", 3)
    for tree, _ in trees(draft, (0,), (LEAF,), no_replacement):
        assert Lossless().walk(TextTarget(target, (0,), tree, NoNoise()), AlwaysReject()).path == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_drafts_and_ends_of_paths_take_the_token_of_plain_sampling(kind: str) -> None:
    """No randomness of the rule's own, and the tokens that the noise of the positions gives, for every tree."""
    target, draft = pair(kind, 4, seed=3)

    class Refusing:
        def accept(self, probability: float) -> bool:
            raise AssertionError("the rule asked for randomness of its own")

        def draw(self, p: np.ndarray) -> int:
            raise AssertionError("the rule asked for randomness of its own")

    for shape in SHAPES.values():
        for tree, _ in trees(draft, (0,), shape, top):
            decision = Lossless().walk(TextTarget(target, (0,), tree, NoNoise()), Refusing())
            text = (*(tree.tokens[node] for node in decision.path[1:]), decision.token)
            likeliest: tuple[int, ...] = ()
            for _ in text:
                likeliest += (int(target.probabilities((0, *likeliest)).argmax()),)
            assert text == likeliest


def test_the_token_behind_accepted_draws_is_plain_samplings() -> None:
    """A whole chain of draws is accepted where target and draft are equal; behind it no draft decides."""
    target, draft = pair("equal", 4)

    class AcceptAll(NoNoise):
        def accept(self, probability: float) -> bool:
            return True

        def draw(self, p: np.ndarray) -> int:
            raise AssertionError("there is no residual")

    for tree, _ in trees(draft, (0,), CHAIN, no_replacement):
        decision = Lossless().walk(TextTarget(target, (0,), tree, NoNoise()), AcceptAll())
        assert decision == Decision((0, 1, 2, 3), int(target.probabilities(tree.tokens).argmax()))
