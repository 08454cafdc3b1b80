"""Rejection sampling over a token tree: the output has exactly the distribution of plain sampling.

Papers: "Fast Inference from Transformers via Speculative Decoding" (2022, chains); "SpecInfer: Accelerating Large
Language Model Serving with Tree-based Speculative Inference and Verification" (2023, siblings drawn independently);
"Recursive Speculative Decoding" and "Sequoia" (2024, siblings drawn without replacement).

What it changes about plain decoding: at a node with drawn children, each sibling is tested in draw order against the
remaining target. The walk descends into the first accepted one; if none is accepted, the token comes from the residual
distribution. At every other node, the last one of a path included, the token is the one that plain sampling takes, with
the noise of its position. So a draft of chosen tokens (point masses) gives plain sampling's text, token for token,
however they were chosen: what a drafter has learned from other requests affects speed alone.

Guarantee: same distribution, provided that drafts report truthfully what they were drawn from, that no drawn sibling
was removed or moved afterwards, that the drafter's randomness is independent of ``rng`` and fresh in every round, and
that a tree with draws was made without the noise of positions.

Why mixing is exact: a token is decided either by its position's noise or by the round's ``rng``. Both are independent
of the draft and of all earlier tokens, and neither is used for two positions. The draft determines which of the two
decides, before either is used.

Left out: nothing; siblings of one node may mix point masses and draws from several distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Decision, Target
from unspool.engine.method import ACCEPTANCE, Method, NoOptions
from unspool.engine.tree import POINT_MASS, TokenTree
from unspool.methods.acceptance._exact_match import choose_child


class Chance(Protocol):
    """The rule's source of randomness: a generator, or a script that visits every outcome."""

    def accept(self, probability: float) -> bool:
        """True with this probability, in [0, 1]; never at 0, always at 1."""
        ...

    def draw(self, p: NDArray[np.float64]) -> int:
        """An index drawn from ``p`` [vocabulary]; never one of probability 0."""
        ...


class _Random:
    """Uniform numbers in [0, 1) from a generator that is made when it is needed."""

    def __init__(self, make: Callable[[], np.random.Generator]) -> None:
        self._rng = cache(make)

    def accept(self, probability: float) -> bool:
        return self._rng().random() < probability

    def draw(self, p: NDArray[np.float64]) -> int:
        # "right" skips the entries of probability 0; scaling by the sum that was reached keeps the index in range.
        cumulated = np.cumsum(p)
        return int(np.searchsorted(cumulated, self._rng().random() * cumulated[-1], side="right"))


class Lossless:
    """The lossless sampling rule for point masses, independent draws, draws without replacement and their mixtures."""

    uses_draft_probs = True

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        """Walk the tree; ``rng`` is called once, when drawn children are first tested.

        Raises:
            ValueError: if a drafted token has probability 0 in the distribution that it is reported to come from.
        """
        return self.walk(target, _Random(rng))

    def walk(self, target: Target, chance: Chance) -> Decision:
        """The rule itself, with its randomness as an argument, so that tests can sum over every outcome."""
        path = [0]
        while True:
            child, token = self.decide_node(target, path[-1], chance)
            if child is None:
                return Decision(tuple(path), token)
            path.append(child)

    def decide_node(self, target: Target, node: int, chance: Chance) -> tuple[int | None, int]:
        """The token after ``node`` and its child; None if no child was accepted."""
        tree = target.tree
        if all(tree.drafts[child] == POINT_MASS for child in tree.children[node]):
            return choose_child(target, node)
        child, residual = self.test_siblings(target.probabilities(node), tree, node, chance)
        return (None, chance.draw(residual)) if child is None else (child, tree.tokens[child])

    def test_siblings(
        self, p: NDArray[np.float64], tree: TokenTree, node: int, chance: Chance
    ) -> tuple[int | None, NDArray[np.float64]]:
        """Test the children of ``node`` in draw order.

        Args:
            p: [vocabulary], the target distribution after ``node``; not changed.

        Returns:
            The first accepted child, or None, and the residual target distribution [vocabulary] at that point. Without
            children the residual is ``p``.
        """
        r = p
        shrunk: dict[int, NDArray[np.float64] | None] = {}  # draft handle -> q without the siblings tested so far
        for child in tree.children[node]:
            token, draft = tree.tokens[child], tree.drafts[child]
            q = None if draft == POINT_MASS else shrunk.get(draft, tree.distributions[draft].q)
            if draft != POINT_MASS and q is None:
                continue  # every token of q was already tested: the rest is filler
            q_token = 1.0 if q is None else float(q[token])
            if not q_token > 0:
                source = tree.source_names[tree.sources[child]]
                raise ValueError(
                    f"drafter {source!r} drafted token {token}, which has probability 0 in the distribution it reports"
                )
            if chance.accept(min(1.0, float(r[token]) / q_token)):
                return child, r
            left = _without(r, token) if q is None else _normalised(np.maximum(r - q, 0.0))
            if left is None:
                return child, r  # nothing left: the probability was 1, the test can fail only by rounding
            r = left
            if q is not None and not tree.distributions[draft].replacement:
                shrunk[draft] = _without(q, token)
        return None, r


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
    total = float(weights.sum())
    return None if total == 0 else weights / total


def _without(p: NDArray[np.float64], token: int) -> NDArray[np.float64] | None:
    """``p`` given that it is not ``token``; None if nothing else has weight."""
    weights = p.copy()
    weights[token] = 0.0
    return _normalised(weights)


METHOD = Method(
    kind=ACCEPTANCE,
    guarantee="same distribution",
    summary=("Verifies sampled drafts by rejection sampling: the output keeps the model's distribution."),
    paper="Speculative Sampling (2023), SpecInfer (2024), Recursive Speculative Decoding (2024)",
    options=NoOptions,
    build=lambda *_: Lossless(),
)
